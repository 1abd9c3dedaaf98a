"""Runs that were added or left out after a look are said in the table, unless the look was declared."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from results import board
from results.looks import Looks
from tests.results.made import make, publish, reader

Bench = Callable[..., Any]
FIRST, SECOND, THIRD = (f"2026-11-0{day}T10:00:00+00:00" for day in (1, 2, 3))


def table(seeds: Iterable[int], pretext: str = "cgan_color", **changes: Any) -> board.Board:
    (made,) = board.boards([make(pretext, seed, 0.5, **changes) for seed in seeds], reader, resamples=50)
    return made


def said(looks: Looks, seeds: Iterable[int], declared: tuple[int, ...] = ()) -> str:
    plain = table(seeds)
    return " ".join(looks.note(plain, declared).notes[len(plain.notes) :])


def test_a_look_is_kept_once_and_runs_added_after_it_are_said_from_then_on() -> None:
    first = Looks().with_boards([table(range(3))], FIRST)
    assert first.with_boards([table(range(3))], SECOND) is first and said(first, range(3)) == ""
    assert "cgan_color in Segmentation has 5 runs; a table of 2026-11-01 showed 3 runs without the others" in said(
        first, range(5)
    )
    second = first.with_boards([table(range(5))], SECOND)
    assert "5 runs; a table of 2026-11-01 showed 3 runs without the others" in said(second, range(5))
    assert len(second.looks) == 2 and second.with_boards([table(range(3)), table(range(5))], THIRD) is second


def test_a_run_that_is_left_out_after_a_look_is_said_and_one_that_comes_back_is_none() -> None:
    looks = Looks().with_boards([table(range(3))], FIRST)
    assert "leaves out 1 run that an earlier table showed" in said(looks, (0, 1))
    looks = looks.with_boards([table((0, 1))], SECOND)
    assert said(looks, range(3)) == ""
    exchanged = said(looks, (0, 1, 3, 4))
    assert (
        "has 4 runs; a table of 2026-11-01 showed 3 runs" in exchanged
        and "leaves out 1 run that an earlier table showed" in exchanged
    )


def test_tables_of_one_command_are_one_look() -> None:
    """A study may show the same row with three seeds in one table and with five in another."""
    both = Looks().with_boards([table(range(3)), table(range(5))], FIRST)
    assert len(both.looks) == 1 and said(both, range(3)) == said(both, range(5)) == ""


def test_a_declared_look_is_none_and_one_cannot_be_declared_afterwards() -> None:
    declared = Looks().with_boards([table(range(3))], FIRST, (3, 5))
    assert said(declared, range(5), (3, 5)) == ""
    assert "Looks at 3, 5 seeds were declared for these runs; the p values here take no account of them" in said(
        declared, range(5)
    )
    undeclared = Looks().with_boards([table(range(3))], FIRST)
    assert "showed 3 runs without the others" in said(undeclared, range(5), (3, 5))


def test_one_seed_is_no_look_and_other_rows_were_not_looked_at() -> None:
    assert said(Looks().with_boards([table(range(1))], FIRST), range(3)) == ""
    three = Looks().with_boards([table(range(3))], FIRST)
    for changes in ({"lr": 0.7}, {"schedule": "frozen"}, {"transfer": "encoder"}):
        other = table(range(5), **changes)
        assert three.note(other) is other
    other = table(range(5), "l1_color")
    assert three.note(other) is other


def test_a_row_is_known_again_whatever_stands_beside_it() -> None:
    three = Looks().with_boards([table(range(3))], FIRST)
    records = [make("cgan_color", seed, 0.5) for seed in range(4)] + [make("cgan_color", seed, 0.5, lr=0.9) for seed in range(2)]
    (both,) = board.boards(records, reader, resamples=50)
    assert [row.label for row in both.rows] == ["cgan_color (lr=0.1)", "cgan_color (lr=0.9)"]
    assert "cgan_color (lr=0.1) in Segmentation has 4 runs" in three.note(both).notes[-2]


def test_reports_append_to_a_file_that_later_ones_read(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((FIRST, SECOND, THIRD, FIRST))
    monkeypatch.setattr("results.look_log.now", lambda: next(times))
    runs = [publish(tmp_path, make("cgan_color", seed, 0.5)).id for seed in range(3)]
    assert bench("report", "--out", tmp_path).code == 0
    content = (tmp_path / "looks.json").read_bytes()
    chosen = bench("report", "--out", tmp_path, "--runs", ",".join(runs[:2]))
    assert "leaves out 1 run that an earlier table showed" in chosen.out
    again = bench("report", "--out", tmp_path)
    assert (tmp_path / "looks.json").read_bytes() == content and "Chosen after an interim look" not in again.out
    publish(tmp_path, make("cgan_color", 3, 0.5))
    for _ in range(2):
        later = bench("report", "--out", tmp_path)
        assert (
            "Chosen after an interim look: cgan_color in Segmentation has 4 runs; a table of 2026-11-01 showed 3 runs"
            in later.out
        )
    assert "Chosen after an interim look" in (tmp_path / "table4.md").read_text()
    damaged = (tmp_path / "looks.json").read_bytes().replace(b"cgan_color", b"cgan_colon")
    (tmp_path / "looks.json").write_bytes(damaged)
    refused = bench("report", "--out", tmp_path)
    assert refused.code == 3 and "looks.json is damaged" in refused.err and "remove it" in refused.err


@pytest.mark.parametrize("seeds", [(0, 1, 2), (4, 5)])
def test_no_looks_say_nothing(seeds: tuple[int, ...]) -> None:
    assert said(Looks(), seeds) == ""
