"""What speaks against a table is said from the records that the table is made of, and only what they tell."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.record import Record
from results import board, report, statistics
from results.against import against
from results.scores import Answers
from tests.results.made import CLASSES, make

IMAGES = 80


def classified(pretext: str, seed: int, **changes: Any) -> Record:
    metrics = {"map_voc@1": 0.5, "f1_macro@1": 0.5}
    record = make(pretext, seed, 0.5, "voc_cls", metrics=metrics, predictions=f"{pretext}-{seed}", **changes)
    return record.model_copy(update={"pretrain": record.pretrain.model_copy(update={"baselines": {}})})


def answers(strength: dict[str, float], shift: dict[str, float]) -> Any:
    """Return predictions that rank as well as `strength` says, and lie above the threshold where `shift` says so."""

    def read(record: Record) -> Answers:
        rng = np.random.default_rng(0)
        labels = (rng.uniform(size=(IMAGES, len(CLASSES))) < 0.4).astype(np.int8)
        shared = np.random.default_rng(7).normal(size=labels.shape)
        own = np.random.default_rng(record.job.seed).normal(size=labels.shape)
        scores = 1 / (1 + np.exp(-(strength[record.pretext] * (labels - 0.5) + shared + 0.1 * own + shift[record.pretext])))
        return Answers(tuple(map(str, range(IMAGES))), {"scores": scores.astype(np.float32), "labels": labels})

    return read


def said(strength: dict[str, float], shift: dict[str, float], **changes: Any) -> list[str]:
    records = [classified(pretext, seed, **changes) for pretext in strength for seed in range(3)]
    read = answers(strength, shift)
    (shown,) = board.boards(records, read, resamples=200)
    by_metric = [board.boards(records, read, (name,), resamples=200)[0] for name in ("map_voc", "f1_macro")]
    return against(shown, by_metric)


STRENGTH = {"random_init": 0.5, "cgan_color": 3.0}


def test_a_metric_that_orders_rows_otherwise_is_named() -> None:
    found = said(STRENGTH, {"random_init": 0.0, "cgan_color": -5.0})  # it ranks well, and nothing is above the threshold
    assert found == [
        "What speaks against: in Classification by map_voc, told from a baseline, but not by f1_macro: cgan_color.",
        "What speaks against: in Classification by map_voc, pairs of rows in another order: 1 of 1 by f1_macro.",
        "What speaks against: no better than a trivial predictor in Classification: 1 of 2 rows (class prior) by f1_macro.",
    ]


def test_rows_with_the_same_metrics_against_them_share_a_line() -> None:
    found = said({**STRENGTH, "l1_color": 3.0}, {"random_init": 0.0, "cgan_color": -5.0, "l1_color": -5.0})
    told = "What speaks against: in Classification by map_voc, told from a baseline, but not by f1_macro: cgan_color, l1_color."
    assert told in found


def test_a_table_that_tells_nothing_says_so() -> None:
    found = said({"random_init": 2.0, "cgan_color": 2.0}, dict.fromkeys(STRENGTH, 0.0))
    assert "no difference from a baseline is told from zero" in found[0]


def test_where_nothing_speaks_against_nothing_is_made_up() -> None:
    found = said(STRENGTH, dict.fromkeys(STRENGTH, 0.0))
    assert found == ["What speaks against: nothing that these records tell."]


def test_a_pretext_task_below_a_trivial_answer_is_named() -> None:
    record = classified("cgan_color", 0)
    pretrain = record.pretrain.model_copy(
        update={"baselines": {"grey image": {"psnr": {"average": 22.5, "min": 0.0, "max": 30.0}}}}
    )
    records = [record.model_copy(update={"pretrain": pretrain})]
    read = answers(STRENGTH, dict.fromkeys(STRENGTH, 0.0))
    (shown,) = board.boards(records, read, resamples=50)
    said = "What speaks against: at its own task cgan_color is no better than a baseline: psnr 20.000 (grey image 22.500)."
    assert said in against(shown, [shown])


def test_a_report_says_it_under_the_table_with_each_metrics_own_correction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the sentence says of a metric must not depend on how many others are looked at."""
    records = [classified(pretext, seed) for pretext in STRENGTH for seed in range(3)]
    read = answers(STRENGTH, dict.fromkeys(STRENGTH, 0.0))
    monkeypatch.setattr(report, "reader", lambda out: read)
    monkeypatch.setattr(report, "verify", lambda *_: None)
    holm = statistics.holm
    tested: list[int] = []
    monkeypatch.setattr(statistics, "holm", lambda values: tested.append(len(values)) or holm(values))
    made = report.make(records, tmp_path, report.Wanted(), "bench report")
    assert any(note.startswith("What speaks against:") for note in made.tables[0].notes)
    assert "What speaks against:" in made.files["table4.md"] and "What speaks against:" in made.files["table4.tex"]
    assert set(tested) == {1}, "one row against its baseline, by one metric at a time"
