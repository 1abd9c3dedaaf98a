"""What `bench run` says at its end: the table of the runs that were asked for, and the command for the whole report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.common import warn
from bench.errors import BenchError
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
    from results import folder, tables
    from results.report import Wanted

    again = shell(["bench", "report", *([] if out == DEFAULT_OUT else ["--out", str(out)]), "--html"])
    screen.doing("comparing the rows of the table")
    try:
        made, before = folder.report_of(records, out, Wanted(), again)
        folder.keep_look(made, out, before, warn)
        for board in made.boards:
            screen.echo("")
            screen.table(drawn(tables.table4(board)))
    except BenchError as error:
        warn(f"the runs are finished, but there is no table of them: {error}")
    screen.echo(f"next: {again}")
