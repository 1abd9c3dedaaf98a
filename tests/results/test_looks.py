"""Seeds that were added after a look are said in the table, unless the look was declared."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from results import board
from results.looks import Looks
from tests.results.made import make, publish, reader

Bench = Callable[..., Any]


def boards(count: int, pretext: str = "cgan_color", **changes: Any) -> list[board.Board]:
    return board.boards([make(pretext, seed, 0.5, **changes) for seed in range(count)], reader, resamples=50)


def test_a_look_is_kept_once_and_seeds_added_after_it_are_said() -> None:
    first = Looks().with_boards(boards(3), "2026-11-01T10:00+00:00")
    assert first.with_boards(boards(3), "2026-11-02T10:00+00:00") is first
    (row,) = first.looks[0].rows.values()
    assert (row.row, row.seeds) == ("cgan_color", (0, 1, 2))
    (more,) = boards(5)
    noted = first.note(more)
    assert noted.notes[:-1] == more.notes
    assert "cgan_color, Segmentation (3 seeds on 2026-11-01, now 5)" in noted.notes[-1]
    assert first.note(more, declared=(3, 5)) is more
    assert first.note(boards(3)[0]).notes == boards(3)[0].notes
    second = first.with_boards([more], "2026-11-03T10:00+00:00")
    assert "3 seeds on 2026-11-01" in second.note(boards(6)[0]).notes[-1]


def test_one_seed_is_no_look_and_other_rows_were_not_looked_at() -> None:
    one = Looks().with_boards(boards(1), "2026-11-01T10:00+00:00")
    assert one.note(boards(3)[0]).notes == boards(3)[0].notes
    three = Looks().with_boards(boards(3), "2026-11-01T10:00+00:00")
    for other in (boards(5, "l1_color"), boards(5, lr=0.7), boards(5, schedule="frozen"), boards(5, transfer="encoder")):
        assert three.note(other[0]) is other[0]


def test_a_row_is_known_again_whatever_stands_beside_it() -> None:
    three = Looks().with_boards(boards(3), "2026-11-01T10:00+00:00")
    records = [make("cgan_color", seed, 0.5) for seed in range(4)] + [make("cgan_color", seed, 0.5, lr=0.9) for seed in range(2)]
    (both,) = board.boards(records, reader, resamples=50)
    assert [row.label for row in both.rows] == ["cgan_color (lr=0.1)", "cgan_color (lr=0.9)"]
    assert "cgan_color (lr=0.1), Segmentation (3 seeds" in three.note(both).notes[-1]


def test_reports_append_to_a_file_that_later_ones_read(bench: Bench, tmp_path: Path) -> None:
    for seed in range(3):
        publish(tmp_path, make("cgan_color", seed, 0.5))
    assert bench("report", "--out", tmp_path).code == 0
    content = (tmp_path / "looks.json").read_bytes()
    again = bench("report", "--out", tmp_path)
    assert (tmp_path / "looks.json").read_bytes() == content and "Seeds were added" not in again.out
    publish(tmp_path, make("cgan_color", 3, 0.5))
    later = bench("report", "--out", tmp_path)
    assert "Seeds were added after a look: cgan_color, Segmentation (3 seeds on" in later.out
    assert "Seeds were added after a look" in (tmp_path / "table4.md").read_text()
    damaged = (tmp_path / "looks.json").read_bytes().replace(b"cgan_color", b"cgan_colon")
    (tmp_path / "looks.json").write_bytes(damaged)
    refused = bench("report", "--out", tmp_path)
    assert refused.code == 3 and "looks.json is damaged" in refused.err and "remove it" in refused.err
