"""The screen: progress bars on a terminal, plain lines in a pipe, and tables. Text is never read as markup.

It is never silent for long: what is being done is said again, from a thread of its own, when nothing else was for some seconds.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from bench.text import duration, printable
from bench.training.leading import leads

if TYPE_CHECKING:
    from results import tables

PIPE_WIDTH = 200
"""The width of a table in characters where no terminal tells its width."""
QUIET = 8.0
"""Seconds without a word after which the screen says what is being done."""

REDRAWN = 0.5
"""Seconds between two drawings of the bars in a notebook, each of which is a message to the browser."""


class Screen:
    """Shows a command's progress: a bar for each stage on a terminal, a line for each epoch elsewhere."""

    def __init__(self) -> None:
        pipe = not (sys.stdout.isatty() or Console().is_jupyter)
        width = PIPE_WIDTH if pipe and "COLUMNS" not in os.environ else None
        self.console = Console(highlight=False, soft_wrap=pipe, width=width, quiet=not leads())
        self.progress: Progress | None = None
        self.shown: Any = None
        """The bars' place in a notebook, where they are drawn again."""
        self.task: TaskID | None = None
        self.name = ""
        self.epochs = self.steps = self.first = self.done = self.images = 0
        self.began = self.last = self.drawn = 0.0
        self.left: Callable[[float], float] = lambda stage: stage
        """The seconds that the whole command still takes, given those of the present stage."""
        self.spoke, self.at = time.monotonic(), 0
        self.now: str | Callable[[], str] = "starting"
        self.stopped = threading.Event()

    def __enter__(self) -> Screen:
        self.spoke = time.monotonic()
        self.talking = threading.Thread(target=self._keep_talking, name="screen", daemon=True)
        self.talking.start()
        if self.console.is_terminal or self.console.is_jupyter:
            self.progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                console=self.console,
            )
            if self.console.is_jupyter:  # rich's own way needs ipywidgets, and warns at every step where it is missing
                self.shown = _display(self.progress)
            else:
                self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.talking.join()  # nothing is said after this, in the middle of what is printed next
        if self.progress is not None:
            self._draw(often=0.0)
            self.progress.stop()
            self.progress = self.shown = None

    def echo(self, text: str) -> None:
        """Print a line."""
        self.now = text.strip()
        self._say(text)

    def _say(self, text: str) -> None:
        self.spoke = time.monotonic()
        self.console.print(printable(text), markup=False)

    def doing(self, what: str) -> None:
        """Note what is being done now; it is said when nothing else is for some seconds."""
        self.now = what

    def table(self, table: Any) -> None:
        """Print a rich table."""
        self.spoke = time.monotonic()
        self.console.print(table)

    def packing(self, done: int, total: int) -> None:
        """Show that `done` of `total` images are packed."""
        self.now = f"packing: {done:,} of {total:,} images"
        if self.progress is None:
            return
        if done == 1:
            self._bar("packing", total, 0)
        if self.task is not None and (done % 32 == 0 or done == total):
            self.progress.update(self.task, completed=done)
            self._draw()

    def amount(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` bytes of the file `what` are downloaded."""
        self.now = f"{what}: {done / 1e6:,.0f} of {max(done, total) / 1e6:,.0f} MB"
        if self.progress is None:
            return
        if what != self.name:
            self.name = what
            self._bar(what, total or done, done)
        if self.task is not None:
            self.progress.update(self.task, completed=done)
            self._draw()

    def stage(self, name: str, epochs: int, steps: int, done: int) -> None:
        """Begin a stage of `epochs` x `steps` training steps, of which the first `done` were made before."""
        self.name, self.epochs, self.images, self.began = name, epochs, 0, time.monotonic()
        self.steps, self.done, self.first = epochs * steps, done, done
        self.now = self._in_stage
        if done and done < epochs * steps:
            self.echo(f"{name}: goes on from step {done} of {epochs * steps}")
        if self.progress is not None:
            self._bar(name, epochs * steps, done)

    def step(self, epoch: int, losses: dict[str, float] | None, images: int) -> None:
        """Count a training step; show losses and speed at most every 0.2 seconds."""
        self.images += images
        self.done, self.at, self.now = self.done + 1, epoch, self._in_stage
        if self.progress is None or self.task is None:
            return
        now = time.monotonic()
        if now - self.last > 0.2:
            self.last = now
            rate = self.images / max(now - self.began, 1e-9)
            note = f"epoch {epoch + 1}/{self.epochs}  {_losses(losses)}  {rate:,.0f} images/s"
            self.progress.update(self.task, note=escape(note), left=self._left())
        self.progress.advance(self.task)
        self._draw()

    def losses(self, step: int, losses: dict[str, float]) -> None:
        """Show nothing: `step` has the latest losses."""

    def epoch(self, epoch: int, losses: dict[str, float], seconds: float, images: int) -> None:
        """Print a finished epoch's losses and speed, and the time left, unless there is a progress bar."""
        if self.progress is None:
            rate = images / max(seconds, 1e-9)
            self.echo(f"{self.name}: epoch {epoch + 1}/{self.epochs}  {_losses(losses)}  {rate:,.0f} images/s  {self._left()}")

    def values(self, epoch: int, values: dict[str, float]) -> None:
        """Show nothing: learning rates are known, and scores are said by who asks for them."""

    def figure(self, epoch: int, name: str, pixels: object) -> None:
        """Show nothing."""

    def _left(self) -> str:
        """Return the time that the command still takes, as text."""
        each = (time.monotonic() - self.began) / max(1, self.done - self.first)
        return f"about {duration(self.left((self.steps - self.done) * each))} left"

    def _in_stage(self) -> str:
        return f"{self.name}: epoch {self.at + 1}/{self.epochs}, step {self.done:,} of {self.steps:,}, {self._left()}"

    def _keep_talking(self) -> None:
        """Say what is being done whenever nothing was said for `QUIET` seconds; a bar that moves says it by itself."""
        while not self.stopped.wait(min(1.0, QUIET / 4)):
            moves = self.progress is not None and any(task.visible and not task.finished for task in self.progress.tasks)
            if moves or time.monotonic() - self.spoke < QUIET:
                continue
            now = self.now
            self._say(f"  still at work: {now if isinstance(now, str) else now()}")

    def _bar(self, name: str, total: int, done: int) -> None:
        assert self.progress is not None
        if self.task is not None:
            self.progress.update(self.task, visible=False)
        self.task = self.progress.add_task(escape(name), total=total, completed=done, note="", left="")

    def _draw(self, often: float = REDRAWN) -> None:
        """Draw the bars of a notebook again, unless that was done less than `often` seconds ago; a terminal's draw themselves."""
        now = time.monotonic()
        if self.shown is not None and now - self.drawn >= often:
            self.drawn = now
            self.shown.update(self.progress)


def _display(progress: Progress) -> Any:
    """Show bars in a notebook and return their place there."""
    from IPython import display

    notebook: Any = display
    return notebook.display(progress, display_id=True)


def print_rows(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print rows of text: as a table on a terminal, as tab-separated lines elsewhere."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            print("\t".join(printable(cell) for cell in row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    Console(highlight=False).print(table)


def drawn(table: tables.Table) -> Table:
    """Return a table of results as a rich table."""
    rich = Table(
        title=escape(printable(table.title)),
        caption=escape("\n".join(map(printable, table.notes))),
        box=SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
    )
    for place, column in enumerate(table.columns):
        rich.add_column(escape(printable(column)), justify="left" if place == 0 else "right", overflow="fold")
    for row in table.rows:
        if row.heading:
            rich.add_section()
        cells = (Text(printable(cell), "bold" if place in row.bold else "") for place, cell in enumerate(row.cells))
        rich.add_row(*cells, style="italic" if row.heading else None)
    return rich


def _losses(losses: dict[str, float] | None) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in (losses or {}).items())
