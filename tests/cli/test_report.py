"""The report from the command line: files rebuilt from records alone, added tables, refusals."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bench import record
from tests.conftest import QUICK, TINY

Bench = Callable[..., "object"]
FILES = ("leaderboard.csv", "per_run.csv", "per_class.csv", "table4.md", "table4.tex")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, drawn: dict[str, Path]) -> Path:
    """Run a small grid once: two tasks, two pretexts, two seeds."""
    import subprocess
    import sys

    out = tmp_path_factory.mktemp("finished")
    data = ("--data", str(drawn["demo"]), "--pretrain-data", str(drawn["demo_unlabelled"]), "--out", str(out / "runs"))
    asked = ("--pretext", "random_init,l1_color", "--downstream", "voc_cls,voc_seg", "--seeds", "2", "--schedule", "two-phase")
    words = [sys.executable, "-m", "bench", "run", *TINY, *QUICK, *data, *asked]
    subprocess.run(words, check=True, capture_output=True, env={"PATH": "", "PRETEXT_BENCH_HOME": str(out / "home")})
    return out / "runs"


def test_tables_are_the_same_bytes_from_the_records_alone_on_another_machine(
    finished: Path, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "here"
    shutil.copytree(finished, first)
    assert bench("report", "--out", first, "--with-published", "--compare-paper").code == 0
    elsewhere = tmp_path / "there"
    shutil.copytree(finished / "runs", elsewhere / "runs")
    monkeypatch.setenv("PRETEXT_BENCH_HOME", "/nowhere/at/all")
    for file in sorted((elsewhere / "runs").rglob("*"), reverse=True):
        file.touch()
    assert bench("report", "--out", elsewhere, "--with-published", "--compare-paper").code == 0
    for name in FILES:
        assert (first / name).read_bytes() == (elsewhere / name).read_bytes(), name
    assert not (elsewhere / "pretrained").exists()


def test_every_file_of_a_report_reads_back(finished: Path, bench: Bench, tmp_path: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "runs")
    shown = bench("report", "--out", out)
    assert shown.code == 0 and "Trivial predictors" in shown.out and "Paired differences" in shown.out and "Cost:" in shown.out
    board = pd.read_csv(out / "leaderboard.csv")
    assert len(board) == 4 and board["n_seeds"].tolist() == [2] * 4
    assert board.set_index(["pretext", "downstream"])["delta"].notna().tolist() == [False, True, False, True]
    runs, classes = pd.read_csv(out / "per_run.csv"), pd.read_csv(out / "per_class.csv")
    assert len(runs) == 4 * (5 + 3) and set(classes["metric"]) == {
        "map_voc@1",
        "map_voc07@1",
        "f1_macro@1",
        "miou_voc@1",
        "miou_paper@1",
    }
    listed = bench("list", "columns").out
    for name, frame in (("leaderboard.csv", board), ("per_run.csv", runs), ("per_class.csv", classes)):
        assert all(f"{name}\t{column}\t" in listed for column in frame.columns)


def test_chosen_metrics_change_the_table_and_not_the_leaderboard(finished: Path, bench: Bench, tmp_path: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "runs")
    assert bench("report", "--out", out).code == 0
    before = (out / "leaderboard.csv").read_bytes()
    other = bench("report", "--out", out, "--metric", "map_voc07@1,pixel_acc", "--baseline", "l1_color")
    assert "map_voc07@1" in other.out and "pixel_acc@1" in other.out and "acc_keras@1" not in other.out
    assert "random_init" in (out / "table4.md").read_text()
    assert set(pd.read_csv(out / "leaderboard.csv")["metric"]) == {"acc_keras@1", "miou_voc@1"}
    assert bench("report", "--out", out).code == 0 and (out / "leaderboard.csv").read_bytes() == before
    wrong = bench("report", "--out", out, "--metric", "miou")
    assert wrong.code == 2 and "did you mean" in wrong.err
    there = (out / "table4.md").read_bytes()
    alone = bench("report", "--out", out, "--runs", "random_init-voc_seg", "--metric", "map_voc")
    assert alone.code == 2 and "no run here is of a task that map_voc can judge" in alone.err
    assert (out / "table4.md").read_bytes() == there


def test_published_numbers_and_the_papers_are_printed_on_request(finished: Path, bench: Bench, tmp_path: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "runs")
    plain = bench("report", "--out", out).out
    assert "Published:" not in plain and "beside the paper" not in plain
    asked = bench("report", "--out", out, "--with-published", "--compare-paper").out
    assert "Published:" in asked and "MoCo v2" in asked and "Ours beside the paper's Table 4" in asked
    assert "miou_paper@1" in asked and "47.07 %" in asked and "Every row of ours deviates where" in asked


def test_runs_that_cannot_share_a_table_are_refused_with_the_field(
    finished: Path, bench: Bench, tiny: Bench, tmp_path: Path
) -> None:
    out = shutil.copytree(finished, tmp_path / "runs")
    assert (
        tiny("--pretext", "random_init", "--downstream", "voc_seg", "--schedule", "frozen", "--set", "protocol.batch_size=8").code
        == 0
    )
    records = [one for one in record.read(out) if one.downstream == "voc_seg"]
    other = next(one for one in records if one.job.schedule == "frozen")
    first = next(one for one in records if one.job.schedule == "two-phase")
    refused = bench("report", "--out", out, "--runs", f"{first.id},{other.id}")
    assert refused.code == 3 and "cannot share a table: protocol differs" in refused.err
    together = bench("report", "--out", out, "--runs", ",".join(one.id for one in records if one.job.schedule == "two-phase"))
    assert together.code == 0 and "Classification" not in together.out
    assert "protocol differs" in bench("report", "--out", out).out.replace("\n", " ")


def test_metrics_are_explained_with_formula_and_example(bench: Bench) -> None:
    every = bench("metrics").out
    for text in ("miou_voc@1", "acc_keras@1", "Source:", '>>> compute("miou_paper", ', "IoU_c = TP / (TP + FP + FN)"):
        assert text in every
    assert bench("metrics", "map_voc").out.startswith("map_voc@1") and bench("metrics", "mapp").code == 2


def test_the_page_is_written_on_request(finished: Path, bench: Bench, tmp_path: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "runs")
    assert bench("report", "--out", out).code == 0 and not (out / "report.html").exists()
    done = bench("report", "--out", out, "--html", "--with-published")
    assert done.code == 0 and "report.html" in done.out
    page = (out / "report.html").read_text()
    assert "data:image/png;base64," in page and "MoCo v2" in page and "l1_color" in page
