"""Which row each row is measured from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from results import rows
from results.grouping import FINETUNE, Column

if TYPE_CHECKING:
    from results.board import Row


SHUFFLED = "shuffled"
"""Ends the name of a task's control, as `bench.registry` has it."""


def baselines(row: Row, made: Sequence[Row], columns: Sequence[Column], baseline: str) -> tuple[Row | None, ...]:
    """Return the row that another is measured from in each column: `baseline_of`, or for a probe one that has runs there.

    A probe stands in one row of its trunk, whatever the schedule. Where the row to compare with has no run in a probe's column,
    another row of the same pretext task has it, and no difference is lost.
    """
    base = baseline_of(row, made, baseline)
    pretext = base.pretext if base is not None else _named(baseline, made)[0]
    found = []
    for place, column in enumerate(columns):
        lacks = base is None or not base.cells[place].records
        beside = column.evaluation != FINETUNE and lacks
        found.append(_with_runs(row, made, place, pretext) if beside else base)
    return tuple(found)


def alone(row: Row, made: Sequence[Row], bases: Sequence[Row | None], baseline: str) -> bool:
    """Whether there is no row to compare with, given those of each column: neither by name nor beside each of its probes."""
    found = [base for cell, base in zip(row.cells, bases, strict=True) if cell.records]
    return baseline_of(row, made, baseline) is None and (not found or None in found)


def baseline_of(row: Row, made: Sequence[Row], baseline: str) -> Row | None:
    """Return the row that another is measured from: the named one, or random initialisation on the same schedule.

    Where several rows have that name, each of them is its own baseline; but one that inherits the encoder alone is measured from
    the row of the same pretrained trunks that inherits all. Rows that were alive, of the newest version, are preferred.
    """
    pretext, schedule = _named(baseline, made)
    fitting = [r for r in made if r.trunk_seed == row.trunk_seed]
    # a pretext task's name alone may be a label too, and then means every schedule
    named = [r for r in fitting if r.label == baseline != r.pretext]
    if named:
        return named[0]
    fitting = [r for r in fitting if r.pretext == pretext and r.schedule == (schedule or row.schedule)]
    fitting = sorted(fitting, key=_preference)
    if all(r is not row for r in fitting):
        return min(fitting, key=lambda r: r.transfer != "all", default=None)
    whole = (r for r in fitting if r.transfer == "all" and _trunks(r) == _trunks(row))
    return row if row.transfer == "all" else next(whole, row)


def _named(baseline: str, made: Sequence[Row]) -> tuple[str, str]:
    """Return the pretext task and the schedule that a baseline's name says; "" for the row's own schedule.

    `l1_color:shuffled` is a task's own name and not `l1_color` on a schedule, even where it has no row.
    """
    name = baseline or "random_init"
    pretext, colon, schedule = name.rpartition(":")
    if not colon or schedule.partition(" ")[0] == SHUFFLED or any(row.pretext == name for row in made):
        return name, ""
    return pretext, schedule


def _with_runs(row: Row, made: Sequence[Row], place: int, pretext: str) -> Row | None:
    """Return the row of a pretext task that has runs in a column, itself where it is one; None where there is none."""
    fitting = [r for r in made if r.pretext == pretext and r.cells[place].records]
    if any(r is row for r in fitting):
        return row
    return min(fitting, key=lambda r: (r.trunk_seed != row.trunk_seed, *_preference(r), r.transfer != "all"), default=None)


def _preference(row: Row) -> tuple[bool, int]:
    """Return a sort key: rows whose networks were alive come first, then the newest version of the pretext task."""
    versions = [record.pretrain.job.version for record in row.records]
    return any(cell.dead for cell in row.cells), -max(versions, default=0)


def _trunks(row: Row) -> set[tuple[str, ...]]:
    """Return what tells the pretrained trunks of a row from others, seeds aside."""
    return {rows.pretext_key(record) for record in row.records}
