"""Records and what lies beside them, read back."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench import record
from bench.errors import DataError
from bench.storage.files import publish_json
from results import predictions
from tests.results.made import make, publish, tuning


def packed(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: b"no archive", "File is not a zip file"),
        (lambda: packed(ids=np.array(["a"]), scores=np.zeros((1, 3)))[:-30], "not a zip file"),
        (lambda: packed(scores=np.zeros((1, 3))), "ids"),
        (lambda: packed(ids=np.array(["a"]), scores=np.zeros((2, 3))), "not one value for each image"),
        (lambda: packed(ids=np.array("a"), scores=np.zeros((1, 3))), "not one value for each image"),
        (lambda: packed(ids=np.array([None]), scores=np.zeros((1, 3))), "allow_pickle"),
        (lambda: packed(ids=np.array(["a"]), scores=np.zeros((1, 50_000_000))), "it unpacks to 400,000,.* are allowed"),
    ],
)
def test_predictions_that_fit_their_record_and_are_none_are_refused_by_their_name(
    tmp_path: Path, content: Callable[[], bytes], reason: str
) -> None:
    one = publish(tmp_path, make("random_init", 0, 0.2), content())
    with pytest.raises(DataError, match=rf"predictions\.npz is not of this version: .*{reason}"):
        predictions.read_answers(tmp_path, one)


JOB = make("random_init").job.model_dump(mode="json")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"job": {}}, "job.pretrain is missing"),
        ({"job": {**JOB, "settings": "x"}}, "job.settings takes a table of settings"),
        ({"job": {**JOB, "schedule": "other"}}, "job.schedule takes 'one-phase', 'two-phase' or 'frozen'"),
        ({"job": {**JOB, "settings": {**JOB["settings"], "schedules": {}}}}, "its protocol has no two-phase schedule"),
        ({"job": {**JOB, "seed": 1}}, "its id is not that of its job, random_init-voc_seg-"),
        ({"pretrain": make("random_init", 9).pretrain.model_dump(mode="json")}, "its trunk is not the one that its job names"),
        ({"metrics": {"map_voc@1": 0.5}}, "its metrics are not those of its job"),
        ({"tuning": tuning(space={"phase-1": (1e-4, 1e-2)}).model_dump(mode="json")}, "its search lacks phases of its job"),
    ],
)
def test_a_record_whose_job_is_none_is_refused_by_its_name(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    one = publish(tmp_path, make("random_init", 0, 0.2))
    publish_json(tmp_path / "runs" / one.id / "record.json", {**one.model_dump(mode="json"), **changes})
    with pytest.raises(DataError, match=rf"{one.id}/record\.json is not a record of this version: .*{reason}"):
        record.read(tmp_path)


def test_a_record_in_a_folder_of_another_name_is_refused(tmp_path: Path) -> None:
    one = publish(tmp_path, make("random_init", 0, 0.2))
    (tmp_path / "runs" / one.id).rename(tmp_path / "runs" / "other")
    with pytest.raises(DataError, match=rf"other/record\.json is the record of another run, {one.id}"):
        record.read(tmp_path)
