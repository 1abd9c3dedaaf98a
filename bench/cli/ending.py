"""What `bench run` says at its end: the table of the runs that were asked for, and the command for the whole report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.common import warn
from bench.errors import BenchError, MachineError
from bench.text import shell

if TYPE_CHECKING:
    from bench.cli.screen import Screen
    from bench.record import Record

DEFAULT_OUT = Path("runs")


def show(records: Sequence[Record], out: Path, screen: Screen) -> None:
    """Print the table of some runs as `bench report` would, log the look at it, and name that command.

    The runs are finished whatever happens here, so that an error is a warning.
    """
    if not records:
        return
    from bench.cli.screen import drawn
    from bench.storage import files
    from results import look_log, tables
    from results.cache import Cache
    from results.report import Wanted, make

    again = shell(["bench", "report", *([] if out == DEFAULT_OUT else ["--out", str(out)]), "--html"])
    screen.doing("comparing the rows of the table")
    kept = out / "cache" / "report.cache"
    try:
        cache, before = Cache.read(kept), look_log.read(out)
        made = make(records, out, Wanted(), again, cache, before)
        if cache.changed:
            with suppress(MachineError):  # the cache only saves time
                files.publish_file(kept, cache.text())
        look_log.keep(out, before, before.with_boards(made.boards, look_log.now()), out / "locks" / "looks.lock", warn)
        for board in made.boards:
            screen.echo("")
            screen.table(drawn(tables.table4(board)))
    except BenchError as error:
        warn(f"the runs are finished, but there is no table of them: {error}")
    screen.echo(f"next: {again}")
