"""Interim looks: which runs tables showed, and when.

Runs that are added or left out because of what a table shows make its p values too small. An output folder therefore keeps
a list of interim looks: a report that shows a set of runs for the first time appends one, unless --runs chose them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bench.schema import Schema
from results import rows
from results.board import Board

LEAST = 2
"""The least number of seeds that makes a look: one seed calls nothing better, and a choice by it hardly moves p values."""


class Row(Schema):
    """A row in a column as a table showed it: its label, its task's title, and the ids of its runs."""

    row: str
    task: str
    runs: tuple[str, ...]


class Look(Schema):
    """The rows that one command showed at a time (UTC), and the numbers of seeds that were declared for them then.

    Rows are known by a digest of what they are, whatever rows stand beside them.
    """

    time: str
    declared: tuple[int, ...] = ()
    rows: dict[str, tuple[Row, ...]]


class Looks(Schema):
    """All interim looks at an output folder, the earliest first."""

    looks: tuple[Look, ...] = ()

    def with_boards(self, boards: Iterable[Board], time: str, declared: Sequence[int] = ()) -> Looks:
        """Return the looks with a new one for the rows of some boards whose sets of runs are new; itself where none is."""
        known = {(key, frozenset(row.runs)) for look in self.looks for key, shown in look.rows.items() for row in shown}
        new: dict[str, tuple[Row, ...]] = {}
        for board in boards:
            for key, row in _rows(board).items():
                if (key, frozenset(row.runs)) not in known:
                    known.add((key, frozenset(row.runs)))
                    new[key] = (*new.get(key, ()), row)
        return Looks(looks=(*self.looks, Look(time=time, declared=tuple(declared), rows=new))) if new else self

    def note(self, board: Board, declared: Sequence[int] = ()) -> Board:
        """Return a board with a note on the runs that were added or left out after an interim look that was not declared."""
        said, ignored = [], set()
        for key, now in _rows(board).items():
            found = [(look, set(row.runs)) for look in self.looks for row in look.rows.get(key, ())]
            said += _changes(now, found)
            ignored |= {look.declared for look, _ in found if look.declared and not declared}
        notes = [f"Chosen after an interim look: {one}." for one in said]
        if said:
            notes.append("The p values here take no account of that look; a study can declare its looks beforehand.")
        for looks in sorted(ignored):
            notes.append(
                f"Looks at {', '.join(map(str, looks))} seeds were declared for these runs; the p values here take no account of "
                "them, those of bench study do."
            )
        return replace(board, notes=(*board.notes, *notes)) if notes else board


def _changes(now: Row, found: Sequence[tuple[Look, set[str]]]) -> list[str]:
    """Return phrases on the runs of a row that were added, and those that were left out, after earlier looks at it."""
    said, shown = [], set(now.runs)
    whole = min((look.time for look, runs in found if runs >= shown), default=None)
    before = [(look, runs) for look, runs in found if _is_before(look, whole) and runs & shown and len(runs) >= LEAST]
    undeclared = [(look, runs) for look, runs in before if len(runs) not in look.declared]
    if undeclared:
        look, runs = undeclared[0]
        earlier = f"a table of {look.time[:10]} showed {len(runs)} runs without the others"
        said.append(f"{now.row} in {now.task} has {len(shown)} runs; {earlier}")
    exactly = min((look.time for look, runs in found if runs == shown), default=None)
    dropped = {run for look, runs in found if _is_before(look, exactly) for run in runs - shown}
    if dropped:
        count = f"{len(dropped)} run{'s' if len(dropped) > 1 else ''}"
        said.append(f"{now.row} in {now.task} leaves out {count} that an earlier table showed")
    return said


def _is_before(look: Look, time: str | None) -> bool:
    """Whether a look was before a time; None stands for now."""
    return time is None or look.time < time


def _rows(board: Board) -> dict[str, Row]:
    """Return each row of a board in each column where it has runs, by a digest of what they share."""
    found = {}
    for row in board.rows:
        for place, column in enumerate(board.columns):
            records = row.cells[place].records
            if records:
                first = records[0]
                what = [rows.board_facts(first), rows.row_key(first), row.trunk_seed, column.downstream, column.variant]
                runs = tuple(sorted(record.id for record in records))
                found[rows.digest(what)] = Row(row=row.label, task=column.title, runs=runs)
    return found
