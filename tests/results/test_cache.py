"""What a report keeps changes how long the next one takes, and never a byte of what it says."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import record
from results import cache, predictions, report, resampling
from results.cache import Cache
from results.report import Report, Wanted
from tests.results.made import make, publish

Bench = Callable[..., "object"]
KEPT = Path("cache") / "report.cache"
WANTED = (
    Wanted(),
    Wanted(compare_paper=True, html=True),
    Wanted(metrics=("pixel_acc", "map_voc"), baseline="cgan_color"),
    Wanted(runs=("cgan_color-voc_seg",)),
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for pretext, value in (("random_init", 0.2), ("cgan_color", 0.5)):
        for seed in range(2):
            publish(tmp_path, make(pretext, seed, value + seed / 100))
            publish(tmp_path, make(pretext, seed, value, "voc_cls"))
    publish(tmp_path, make("l1_color", 0, None))
    return tmp_path


def made(out: Path, known: Cache | None = None, wanted: Wanted = WANTED[0]) -> Report:
    return report.make(record.read(out), out, wanted, "bench report", known)


def kept(out: Path) -> Cache:
    """Make a report and return what it keeps, as the next one reads it."""
    known = Cache()
    made(out, known)
    (out / KEPT).parent.mkdir(exist_ok=True)
    (out / KEPT).write_text(known.text())
    return Cache.read(out / KEPT)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the ids of the runs whose predictions are read."""
    ids: list[str] = []

    def noting(out: Path, one: record.Record, original: Callable[..., bytes] = predictions.read_predictions) -> bytes:
        ids.append(one.id)
        return original(out, one)

    monkeypatch.setattr(predictions, "read_predictions", noting)
    return ids


@pytest.mark.parametrize("wanted", WANTED)
def test_a_report_is_the_same_bytes_with_and_without_what_is_kept(out: Path, wanted: Wanted) -> None:
    plain = made(out, wanted=wanted)
    known = kept(out)
    assert made(out, known, wanted) == plain
    again = Cache()
    again._known = known._used
    assert made(out, again, wanted) == plain and not again.changed


def test_a_report_again_reads_no_predictions_and_resamples_nothing(
    out: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = kept(out)
    read.clear()
    monkeypatch.setattr(resampling, "replicates", None)
    made(out, known)
    assert not read and not known.changed


def test_a_new_run_is_read_with_those_that_it_is_compared_with(out: Path, read: list[str]) -> None:
    known = kept(out)
    read.clear()
    new = publish(out, make("inpainting", 0, 0.3))
    assert made(out, known) == made(out)
    assert new.id in read and not any("voc_cls" in identity for identity in read[: read.index(new.id)])
    assert known.changed


def test_only_a_file_that_was_changed_is_read_again(out: Path, read: list[str]) -> None:
    known = kept(out)
    read.clear()
    folder = next((out / "runs").glob("cgan_color-voc_seg*"))
    os.utime(folder / "predictions.npz", (1, 1))
    made(out, known)
    assert read == [folder.name]


@pytest.mark.parametrize("content", [b"x", None])
def test_damaged_and_missing_predictions_are_refused_whatever_is_kept(content: bytes | None, out: Path, bench: Bench) -> None:
    assert bench("report", "--out", out).code == 0
    file = next((out / "runs").glob("cgan_color-voc_seg*")) / "predictions.npz"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    refused = bench("report", "--out", out)
    assert refused.code == 3 and f"{file}" in refused.err and ("is damaged" if content else "is missing") in refused.err


def spoiled(content: bytes, how: str) -> bytes:
    return {
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "one digit changed": content.replace(b"0.5", b"0.6", 1),
        "no text": bytes(range(256)),
        "foreign": b'{"entries": []}',
        "no JSON": content[:64] + b"\n{",
    }[how]


@pytest.mark.parametrize("how", ["empty", "truncated", "one digit changed", "no text", "foreign", "no JSON"])
def test_a_damaged_file_is_ignored_and_made_again(how: str, out: Path, bench: Bench) -> None:
    assert bench("report", "--out", out).code == 0
    good, board = (out / KEPT).read_bytes(), (out / "leaderboard.csv").read_bytes()
    assert spoiled(good, how) != good
    (out / KEPT).write_bytes(spoiled(good, how))
    assert not Cache.read(out / KEPT)._known
    done = bench("report", "--out", out)
    assert done.code == 0 and (out / KEPT).read_bytes() == good and (out / "leaderboard.csv").read_bytes() == board


def test_what_other_code_computed_is_not_used(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(out)
    assert Cache.read(out / KEPT)._known
    monkeypatch.setattr(cache, "_code", lambda: "another version")
    assert not Cache.read(out / KEPT)._known


def test_where_nothing_can_be_kept_the_report_is_the_same(out: Path, bench: Bench) -> None:
    shown = bench("report", "--out", out).out
    shutil.rmtree(out / "cache")
    (out / "cache").write_text("not a folder")
    assert bench("report", "--out", out).out == shown
    assert (out / "cache").read_text() == "not a folder"


def test_where_a_file_cannot_be_written_the_tables_are_shown_and_the_failure_is_said(out: Path, bench: Bench) -> None:
    (out / "leaderboard.csv").mkdir()
    done = bench("report", "--out", out)
    assert (
        done.code == 4
        and "cannot write" in done.err
        and "leaderboard.csv" in done.err
        and "Table 4" in done.out
        and "Paired differences" in done.out
    )


def test_files_are_written_though_nobody_reads_the_tables(out: Path) -> None:
    started = subprocess.Popen([sys.executable, "-m", "bench", "report", "--out", str(out)], stdout=subprocess.PIPE)
    assert started.stdout is not None
    started.stdout.close()
    started.wait()
    assert (out / "leaderboard.csv").is_file() and (out / KEPT).is_file()


def test_reports_at_the_same_time_do_not_disturb_each_other(out: Path) -> None:
    command = [sys.executable, "-m", "bench", "report", "--out", str(out)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    shown = [one.communicate() for one in started]
    assert [one.returncode for one in started] == [0, 0, 0] and len(set(shown)) == 1
    assert Cache.read(out / KEPT)._known and {path.name for path in (out / "cache").iterdir()} == {KEPT.name}


def test_what_is_kept_is_bounded_and_what_was_used_last_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST", 5)
    for number in range(9):
        known = Cache.read(tmp_path / "kept")
        assert known.recall([number], lambda number=number: [number, float("nan")])[0] == number
        (tmp_path / "kept").write_text(known.text())
    assert sorted(value for value, _ in Cache.read(tmp_path / "kept")._known.values()) == [4, 5, 6, 7, 8]


def test_the_file_of_many_runs_is_small(out: Path) -> None:
    kept(out)
    assert (out / KEPT).stat().st_size < 500 * len(record.read(out))
