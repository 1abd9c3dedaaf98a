"""A plan on the screen: what was chosen and why, the work, how long it takes, and the protocols that take less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from bench.text import duration, printable, shell

if TYPE_CHECKING:
    from bench.cli.screen import Screen
    from bench.experiment.plan import Plan
    from bench.experiment.step_times import StepTimes


def print_plan(planned: Plan, screen: Screen, of_study: bool = False) -> None:
    """Print a plan: what was chosen and why, the work in lines, and the estimate for all of it."""
    from bench.experiment.session import chosen

    screen.table(_table(("Chosen", "", "Why"), chosen(planned.session)))
    screen.echo("")
    work = [(line.name, line.state, duration(line.seconds) if line.seconds else "-") for line in planned.lines]
    screen.table(_table(("What", "State", "Time"), work))
    screen.echo("")
    screen.echo(f"{total(planned.seconds)}, without packing and files")
    for text in (*([] if of_study else [*origins(planned.times), *offered(planned)]), *warning(planned, of_study)):
        screen.echo(text)


def total(seconds: float) -> str:
    """Return an estimate as a sentence."""
    return f"about {duration(seconds)} in all on this machine" if seconds else "nothing is left to do"


def offered(planned: Plan) -> list[str]:
    """Return a line with how long the same command takes with other protocols, if there are any."""
    if not planned.others or not planned.seconds:
        return []
    each = ", ".join(f"{name} about {duration(seconds)}" for name, seconds in planned.others.items() if seconds)
    return [f"with another protocol: {each} (--protocol NAME)"] if each else []


def warning(planned: Plan, of_study: bool = False) -> list[str]:
    """Return what to say of a plan that takes more than a day: the protocol that takes less, and how to ask for it."""
    from bench.experiment.plan import DAY

    if planned.seconds <= DAY:
        return []
    said = f"warning: this takes about {duration(planned.seconds)} on this machine"
    less = {name: seconds for name, seconds in planned.others.items() if seconds < planned.seconds / 2}
    shorter = min(less, key=lambda name: less[name]) if less else None
    if shorter is None:
        return [f"{said}; fewer seeds, tasks or trials take less, and so does a GPU"]
    more = "" if less[shorter] <= DAY else ", and fewer seeds, tasks or trials less than that"
    said += f"; with the protocol {shorter} it takes about {duration(less[shorter])}{more}"
    if of_study:
        return [f'{said} (protocol = "{shorter}" in the study\'s file)']
    return [f"{said}:", f"  {shell(with_protocol(['bench', *planned.session.command], shorter))}"]


def with_protocol(words: Sequence[str], protocol: str) -> list[str]:
    """Return the words of a command with another protocol, and without --plan.

    >>> with_protocol(["bench", "run", "--protocol", "paper", "--plan"], "small")
    ['bench', 'run', '--protocol', 'small']
    """
    kept: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        if not (word in ("--plan", "--protocol") or before == "--protocol" or word.startswith("--protocol=")):
            kept.append(word)
    return [*kept, "--protocol", protocol]


def origins(times: StepTimes) -> list[str]:
    """Return where the times of steps come from, one line for each origin, and what could not be timed."""
    found: dict[str, list[str]] = {}
    for name, origin in times.origins.items():
        found.setdefault(origin, []).append(name)
    lines = [f"steps {origin}: {'; '.join(names)}" for origin, names in found.items()]
    return [*lines, *(f"warning: a step could not be timed: {problem}" for problem in times.problems)]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column == "Time" else "left")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    return table
