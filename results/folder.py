"""The report of an output folder, with what is kept there: what earlier reports computed, and the looks at the results."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench import record
from bench.errors import DataError, MachineError, UsageError
from bench.record import Record
from bench.storage import files
from bench.text import Echo
from results import look_log, report
from results.cache import Cache, path_in
from results.looks import Looks
from results.report import Report, Wanted


def records_in(out: Path) -> list[Record]:
    """Return the records below an output folder; UsageError where it holds none, DataError where it holds their tables alone."""
    found = record.read(out)
    if found:
        return found
    tables = [name for name in report.FILES if (out / name).is_file()]
    if not tables:
        raise UsageError(f"{out} holds no finished runs yet; start with: bench run --pretext cgan_color --downstream voc_seg")
    raise DataError(
        f"{out} holds {', '.join(tables)}, but no records to make them from: for each run runs/RUN/record.json, with "
        "predictions.npz beside it; ask for the folder runs, since tables are not made from CSV files."
    )


def report_of(records: Sequence[Record], out: Path, wanted: Wanted, command: str) -> tuple[Report, Looks]:
    """Return the report of some records and the looks before it, computed with the cache of an output folder, which is kept."""
    cache, before = Cache.read(path_in(out)), look_log.read(out)
    made = report.make(records, out, wanted, command, cache, before)
    if cache.changed:
        with suppress(MachineError):  # the cache only saves time
            files.publish_file(path_in(out), cache.text())
    return made, before


def keep_look(made: Report, out: Path, before: Looks, echo: Echo) -> None:
    """Add the look at a report's boards to the looks before it; MachineError when that cannot be written."""
    look_log.keep(out, before, before.with_boards(made.boards, look_log.now()), out / "locks" / "looks.lock", echo)
