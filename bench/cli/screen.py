"""The screen: progress bars on a terminal, plain lines in a pipe, and tables. Text is never read as markup."""

from __future__ import annotations

import os
import sys
import time
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
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from bench.text import printable

if TYPE_CHECKING:
    from results import tables

PIPE_WIDTH = 200
"""The width of a table in characters where no terminal tells its width."""


class Screen:
    """Shows a command's progress: a bar for each stage on a terminal, a line for each epoch elsewhere."""

    def __init__(self) -> None:
        pipe = not sys.stdout.isatty()
        width = PIPE_WIDTH if pipe and "COLUMNS" not in os.environ else None
        self.console = Console(highlight=False, soft_wrap=pipe, width=width)
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        self.name = ""
        self.epochs = self.images = 0
        self.began = self.last = 0.0

    def __enter__(self) -> Screen:
        if self.console.is_terminal:
            self.progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def echo(self, text: str) -> None:
        """Print a line."""
        self.console.print(printable(text), markup=False)

    def table(self, table: Any) -> None:
        """Print a rich table."""
        self.console.print(table)

    def packing(self, done: int, total: int) -> None:
        """Show that `done` of `total` images are packed."""
        if self.progress is None:
            return
        if done == 1:
            self._bar("packing", total, 0)
        if self.task is not None and (done % 32 == 0 or done == total):
            self.progress.update(self.task, completed=done)

    def amount(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` bytes of the file `what` are downloaded."""
        if self.progress is None:
            return
        if what != self.name:
            self.name = what
            self._bar(what, total or done, done)
        if self.task is not None:
            self.progress.update(self.task, completed=done)

    def stage(self, name: str, epochs: int, steps: int, done: int) -> None:
        """Begin a stage of `epochs` x `steps` training steps, of which the first `done` were made before."""
        self.name, self.epochs, self.images, self.began = name, epochs, 0, time.monotonic()
        if done and done < epochs * steps:
            self.echo(f"{name}: goes on from step {done} of {epochs * steps}")
        if self.progress is not None:
            self._bar(name, epochs * steps, done)

    def step(self, epoch: int, losses: dict[str, float] | None, images: int) -> None:
        """Count a training step; show losses and speed at most every 0.2 seconds."""
        self.images += images
        if self.progress is None or self.task is None:
            return
        now = time.monotonic()
        if now - self.last > 0.2:
            self.last = now
            rate = self.images / max(now - self.began, 1e-9)
            note = f"epoch {epoch + 1}/{self.epochs}  {_losses(losses)}  {rate:,.0f} images/s"
            self.progress.update(self.task, note=escape(note))
        self.progress.advance(self.task)

    def losses(self, step: int, losses: dict[str, float]) -> None:
        """Show nothing: `step` has the latest losses."""

    def epoch(self, epoch: int, losses: dict[str, float], seconds: float, images: int) -> None:
        """Print a finished epoch's losses, speed and remaining time, unless there is a progress bar."""
        rate = images / max(seconds, 1e-9)
        left = (self.epochs - epoch - 1) * seconds
        if self.progress is None:
            self.echo(
                f"{self.name}: epoch {epoch + 1}/{self.epochs}  {_losses(losses)}  {rate:,.0f} images/s  {left:,.0f} s left"
            )

    def _bar(self, name: str, total: int, done: int) -> None:
        assert self.progress is not None
        if self.task is not None:
            self.progress.update(self.task, visible=False)
        self.task = self.progress.add_task(escape(name), total=total, completed=done, note="")


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
