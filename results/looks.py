"""Who looked at which runs, and when: runs that are added or left out because of what a table shows make its p values too small.

An output folder keeps a list of looks, appended to by every report that shows a set of runs that none before it showed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bench.schema import Schema
from results import rows
from results.board import Board

LEAST = 2
"""Seeds of a row that make a look: one calls nothing better, and a choice by it hardly moves the p values of more."""


class Row(Schema):
    """A row in a column, as it was looked at: how it was named, its task, and its runs."""

    row: str
    task: str
    runs: tuple[str, ...]


class Look(Schema):
    """The tables that a command showed at a time (UTC), and the numbers of seeds that were declared for them then.

    Rows are known by a digest of what they are, whatever rows stand beside them.
    """

    time: str
    declared: tuple[int, ...] = ()
    rows: dict[str, tuple[Row, ...]]


class Looks(Schema):
    """All looks at an output folder, from the first."""

    looks: tuple[Look, ...] = ()

    def with_boards(self, boards: Iterable[Board], time: str, declared: Sequence[int] = ()) -> Looks:
        """Return the looks with the one at some boards, as far as they show sets of runs that were not looked at before."""
        known = {(key, frozenset(row.runs)) for look in self.looks for key, shown in look.rows.items() for row in shown}
        new: dict[str, tuple[Row, ...]] = {}
        for board in boards:
            for key, row in _rows(board).items():
                if (key, frozenset(row.runs)) not in known:
                    known.add((key, frozenset(row.runs)))
                    new[key] = (*new.get(key, ()), row)
        return Looks(looks=(*self.looks, Look(time=time, declared=tuple(declared), rows=new))) if new else self

    def note(self, board: Board, declared: Sequence[int] = ()) -> Board:
        """Return a board that says which of its runs were added or left out after a look that was not declared."""
        said, ignored = [], set()
        for key, now in _rows(board).items():
            found = [(look, set(row.runs)) for look in self.looks for row in look.rows.get(key, ())]
            said += _changes(now, found)
            ignored |= {look.declared for look, _ in found if look.declared and not declared}
        notes = []
        if said:
            notes.append(
                f"Chosen after a look: {'; '.join(said)}. The p values do not count that; a study may declare looks beforehand."
            )
        for looks in sorted(ignored):
            numbers = ", ".join(map(str, looks))
            notes.append(
                f"Looks at {numbers} seeds were declared for these runs, and are not counted here; bench study counts them."
            )
        return replace(board, notes=(*board.notes, *notes)) if notes else board


def _changes(now: Row, found: Sequence[tuple[Look, set[str]]]) -> list[str]:
    """Say what was added after a look, and what was left out after one; looks of one command are one."""
    said, shown = [], set(now.runs)
    whole = min((look.time for look, runs in found if runs >= shown), default=None)
    before = [(look, runs) for look, runs in found if _is_before(look, whole) and runs & shown and len(runs) >= LEAST]
    undeclared = [(look, runs) for look, runs in before if len(runs) not in look.declared]
    if undeclared:
        look, runs = undeclared[0]
        said.append(f"{now.row} in {now.task} has {len(shown)} runs, {len(runs)} of them looked at on {look.time[:10]} alone")
    exactly = min((look.time for look, runs in found if runs == shown), default=None)
    dropped = {run for look, runs in found if _is_before(look, exactly) for run in runs - shown}
    if dropped:
        count = f"{len(dropped)} run{'s' if len(dropped) > 1 else ''}"
        said.append(f"{now.row} in {now.task} is without {count} looked at before")
    return said


def _is_before(look: Look, time: str | None) -> bool:
    """Whether a look was before a time; None is now."""
    return time is None or look.time < time


def _rows(board: Board) -> dict[str, Row]:
    """Return the rows of a board with the runs of each column, by a digest of what they are."""
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
