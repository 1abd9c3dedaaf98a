"""`bench run` begins with what it chose and how long it takes, and ends with the table of what was asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import record
from bench.experiment import grid, start
from bench.experiment.plan import DAY, Plan
from results import look_log

Bench = Callable[..., Any]
QUICK = ("--downstream", "voc_cls", "--schedule", "frozen", "--seeds", 2)


def table(text: str) -> list[str]:
    """Return the lines of a table of a report, from its title to the empty line after its notes."""
    lines = text[text.index("Table 4") :].splitlines()
    return lines[: lines.index(next(line for line in lines if line.startswith("Value [95 %")))]


def test_a_run_ends_with_the_table_of_a_report_and_the_command_for_the_page(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    done = tiny("--pretext", "random_init,l1_color", *QUICK)
    assert done.code == 0 and done.out.splitlines()[-1] == f"next: bench report --out {tmp_path / 'runs'} --html"
    kept = look_log.read(tmp_path / "runs")
    assert len(kept.looks) == 1
    reported = bench("report", "--out", tmp_path / "runs")
    assert table(done.out) == table(reported.out)
    assert look_log.read(tmp_path / "runs") == kept  # the same runs are no further look
    again = tiny("--pretext", "random_init,l1_color", *QUICK)
    assert table(again.out) == table(done.out) and "in all on this machine" not in again.out


def test_the_table_has_what_was_asked_for_alone(tiny: Bench, tmp_path: Path) -> None:
    assert tiny("--pretext", "random_init", *QUICK).code == 0
    other = "\n".join(table(tiny("--pretext", "l1_color", *QUICK).out))
    assert re.search(r"^ *l1_color ", other, re.MULTILINE) and not re.search(r"^ *random_init ", other, re.MULTILINE)


def test_the_table_is_shown_when_some_runs_failed(tiny: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run = grid.run

    def fail(job: Any, *rest: Any) -> Any:
        if job.pretrain.pretext == "l1_color":
            raise ValueError("no luck")
        return run(job, *rest)

    monkeypatch.setattr(grid, "run", fail)
    done = tiny("--pretext", "l1_color,random_init", *QUICK)
    assert done.code == 5 and "2 of 4 runs failed" in done.err
    assert "random_init" in "\n".join(table(done.out)) and "next: bench report" in done.out


def test_a_table_that_cannot_be_made_does_not_fail_the_runs(tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", *QUICK)
    assert tiny(*asked).code == 0
    (tmp_path / "runs" / "looks.json").write_text("{")
    done = tiny(*asked)
    assert done.code == 0 and "the runs are finished, but there is no table of them: " in done.err
    assert len(record.read(tmp_path / "runs")) == 2 and "next: bench report" in done.out


def test_a_run_begins_with_what_was_chosen_and_how_long_it_takes(tiny: Bench) -> None:
    done = tiny("--pretext", "random_init", *QUICK)
    said = "protocol demo (asked for), 32 px (asked for), trunk unet:depth=5,width=8 (asked for), threads 1 (asked for): about "
    (line,) = [line for line in done.out.splitlines() if line.startswith(said)]
    assert re.search(r"about \d+ s in all on this machine, without packing and files$", line)
    assert re.search(r"  about \d+ s left$", next(line for line in done.out.splitlines() if "epoch 1/" in line))


def test_a_run_of_days_is_warned_of_at_its_start(tiny: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "seconds", property(lambda _: 10 * DAY))
    monkeypatch.setattr(start, "others_of", lambda _: {"small": 3600.0})
    done = tiny("--pretext", "random_init", *QUICK)
    lines = done.out.splitlines()
    place = lines.index("warning: this takes about 10 days on this machine; with the protocol small it takes about 60 min:")
    assert lines[place + 1].startswith("  bench run ") and lines[place + 1].endswith(" --protocol small")
    assert place < lines.index(next(line for line in lines if line.startswith("[1/2]")))


@pytest.mark.parametrize("damaged", ["pretrained/l1_color-*/pretrain.json", "runs/l1_color-*/record.json"])
def test_a_damaged_record_does_not_silence_the_warning_of_days(
    tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    assert tiny("--pretext", "l1_color", *QUICK).code == 0
    next((tmp_path / "runs").glob(damaged)).write_text("{")
    monkeypatch.setattr(Plan, "seconds", property(lambda _: 10 * DAY))
    monkeypatch.setattr(start, "others_of", lambda _: {})
    done = tiny("--pretext", "l1_color", *QUICK, "--downstream", "voc_seg,voc_cls")
    assert done.code == 5 and "protocol demo (asked for)" in done.out
    assert "warning: this takes about 10 days on this machine" in done.out


def test_a_damaged_search_does_not_silence_the_announcement(tiny: Bench, tmp_path: Path) -> None:
    assert tiny("--pretext", "random_init", *QUICK, "--tune", 1).code == 0
    next((tmp_path / "runs" / "studies").glob("*/tuning-1.json")).write_text("{")
    done = tiny("--pretext", "random_init", *QUICK, "--tune", 1)
    assert done.code == 5 and "protocol demo (asked for)" in done.out and "tuning-1.json" in done.err


def test_a_search_is_announced_without_its_runs(bench: Bench, drawn: dict[str, Path], tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen", "--trials", 1, "--threads", 1)
    data = ("--data", drawn["demo"], "--protocol", "demo", "--out", tmp_path / "runs", "--device", "cpu")
    seen: list[dict[str, float]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "tune_grid", lambda session: seen.append(dict(session.remaining.pieces)))
        assert bench("tune", *asked, *data).code == 0
    (pieces,) = seen
    assert len(pieces) == 1 and "random_init-voc_cls-" in next(iter(pieces))
