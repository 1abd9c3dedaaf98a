"""The tables of a report as data frames: the CSV files as pandas reads them, and the tables that no file holds."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from bench import record
from bench.errors import DataError, UsageError
from results import frames, look_log
from results.csv_files import SCHEMAS
from results.report import Wanted
from results.table_sheets import TABLES
from tests.results.made import make, publish, tuning


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for pretext, value in (("random_init", 0.2), ("cgan_color", 0.5)):
        for seed in range(3):
            publish(folder, make(pretext, seed, value + seed / 100, tuning=tuning() if pretext == "cgan_color" else None))
            publish(folder, make(pretext, seed, value, "voc_cls"))
    publish(folder, make("@l1", 0, None, protocol="=1+1"))
    return folder


def test_the_frames_are_what_pandas_reads_from_the_files(out: Path, bench: Callable[..., Any], tmp_path: Path) -> None:
    made = frames.tables(record.read(out), out)
    elsewhere = shutil.copytree(out, tmp_path / "other")
    assert bench("report", "--out", elsewhere).code == 0
    for file, schema in SCHEMAS.items():
        frame = made[file.removesuffix(".csv")]
        assert list(frame.columns) == list(schema)
        assert_frame_equal(frame, pd.read_csv(elsewhere / file), check_exact=True)
    assert_frame_equal(frames.leaderboard(out), pd.read_csv(elsewhere / "leaderboard.csv"), check_exact=True)


def test_values_are_numbers_and_missing_ones_are_nan(out: Path) -> None:
    made = frames.tables(record.read(out), out)
    for name in ("value", "low", "high", "delta", "p_holm", "n_seeds", "pretrain_seconds", "images", "size"):
        assert pd.api.types.is_numeric_dtype(made["leaderboard"][name]), name
        assert pd.api.types.is_numeric_dtype(made["table4"][name]), name
    assert all(pd.api.types.is_numeric_dtype(made[table]["value"]) for table in ("per_run", "per_class"))
    assert made["leaderboard"]["value"].isna().sum() == 1 and made["leaderboard"]["tuned"].dtype == bool


def test_table_4_is_a_frame_with_a_row_for_each_cell_and_trivial_predictor(out: Path) -> None:
    made = frames.tables(
        record.read(out), out, Wanted(metrics=("pixel_acc", "f1_macro"), compare_paper=True, with_published=True)
    )
    assert set(made) == {*(name.removesuffix(".csv") for name in SCHEMAS), *TABLES}
    assert all(list(made[name].columns) == list(schema) for name, schema in TABLES.items())
    shown = made["table4"]
    assert set(shown["metric"]) == {"pixel_acc@1", "f1_macro@1"} and "all background" in set(shown[shown["trivial"]]["row"])
    assert set(made["leaderboard"]["metric"]) == {"acc_keras@1", "miou_voc@1"}
    wide = shown[shown["board"] == 2].pivot(index="row", columns="column", values="value")
    assert {"cgan_color", "random_init (two-phase)", "all background"} < set(wide.index) and wide.shape[1] == 3


def test_a_table_is_a_look_and_the_same_table_no_further_one(out: Path) -> None:
    frames.tables(record.read(out), out, Wanted(runs=("random_init-voc_cls",)))
    assert not look_log.read(out).looks
    frames.leaderboard(out)
    kept = look_log.read(out)
    assert kept.looks and (out / "cache" / "report.cache").is_file()
    frames.leaderboard(out)
    assert look_log.read(out) == kept


def test_a_look_that_cannot_be_kept_is_a_warning(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / "locks").write_text("a file where a folder should be")
    with pytest.warns(UserWarning, match="cannot lock"):
        assert len(frames.leaderboard(out)) == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said: list[str] = []
        frames.tables(record.read(out), out, echo=said.append)
    assert len(said) == 1


def test_a_folder_without_runs_says_what_to_do(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="start with: bench run"):
        frames.leaderboard(tmp_path / "nothing")
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "leaderboard.csv").write_text("")
    with pytest.raises(DataError, match="but no records"):
        frames.leaderboard(tmp_path / "alone")
