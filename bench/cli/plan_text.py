"""A plan on the screen: what was chosen and why, the work, and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from bench.text import duration, printable

if TYPE_CHECKING:
    from bench.cli.screen import Screen
    from bench.experiment.plan import Plan


def print_plan(planned: Plan, screen: Screen, of_study: bool = False) -> None:
    """Print a plan: what was chosen and why, the work in lines, and the estimate for all of it."""
    from bench.experiment.plan_words import offered, origins, total, warning
    from bench.experiment.session import chosen

    screen.table(_table(("Chosen", "", "Why"), [(one.name, one.text, one.why) for one in chosen(planned.session)]))
    screen.echo("")
    work = [(line.name, line.state, duration(line.seconds) if line.seconds else "-") for line in planned.lines]
    screen.table(_table(("What", "State", "Time"), work))
    screen.echo("")
    screen.echo(total(planned.seconds))
    for text in (*([] if of_study else [*origins(planned.times), *offered(planned)]), *warning(planned, of_study)):
        screen.echo(text)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column == "Time" else "left")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    return table
