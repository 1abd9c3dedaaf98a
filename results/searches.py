"""What a table says of the searches for learning rates: trials, ranges, and whose seeds their luck is in."""

from __future__ import annotations

from collections.abc import Sequence

from bench.record import Record
from results import rows
from results.grouping import Column


def notes(heads: Sequence[Column], records: Sequence[Record]) -> list[str]:
    """Return a note for each kind of search in a board's columns."""
    found = []
    searched = rows.groups((column for column in heads if column.trials), lambda column: column.searched)
    for text, tuned in searched.items():
        names = ", ".join(dict.fromkeys(" ".join(part for part in (column.title, column.tag) if part) for column in tuned))
        where = f", {names}" if len(searched) > 1 else ""
        found.append(f"Tuned{where}: {text}, chosen by the main metric on val{_of_seeds(records)}.")
    return found


def _of_seeds(records: Sequence[Record]) -> str:
    """Return what a search means for the seeds of its row; "" where there is one seed, and where rows differ in it."""
    searched = [(record.job.seed, record.tuning.seeds) for record in records if record.tuning is not None]
    if len({seed for seed, _ in searched}) < 2:
        return ""
    ways = {way for _, way in searched}
    if ways == {"each"}:
        return ", in a search on every seed"
    return ", in one search for all seeds: its luck is in no interval" if ways == {"first"} else ""
