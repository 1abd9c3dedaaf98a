"""Loggers that keep what happens during training, in addition to the screen: `--log`.

Every value goes into a journal in the working folder, and within seconds to the tools (`bench.training.trackers`). After
an interruption the journal is cut back to the checkpoint. A tool whose files are only here is then written anew from the journal,
so that no value is lost or doubled; a server keeps what it has, and is sent what it lacks.

A tool that does not work when a command begins ends the command. One that fails later costs no run: a line says so, and the run
goes on without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.errors import Diverged, MachineError
from bench.storage import files
from bench.training import trackers
from bench.training.loop import Logger
from bench.training.trackers import Entry, Subject, Tracker

JOURNAL = "log"
"""The folder of the journal, in a working folder."""
EVERY = 5.0
"""Seconds between the times at which values are handed to the tools."""


def flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested facts as one dictionary of numbers and texts; what is empty or None is left out.

    >>> flat({"seed": 0, "rates": [], "settings": {"size": None, "phases": [{"lr": 0.1}, {"lr": 0.2}], "metrics": ["map", "f1"]}})
    {'seed': 0, 'settings.phases.1.lr': 0.1, 'settings.phases.2.lr': 0.2, 'settings.metrics': 'map, f1'}
    """
    found: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
            found |= flat({f"{name}.{place}": one for place, one in enumerate(value, start=1)}, prefix)
        elif isinstance(value, list | tuple) and value:
            found[f"{prefix}{name}"] = ", ".join(map(str, value))
        elif value not in (None, "", [], ()):
            found[f"{prefix}{name}"] = value
    return found


@contextmanager
def opened(kinds: Sequence[str], then: Logger, subject: Subject, worked: set[str]) -> Iterator[Logger]:
    """Give the logger of a subject: `then` itself, or one that also writes with the tools that `kinds` names.

    `worked` has the tools that have worked since the command began; MachineError for one that has not and does not.
    """
    if not kinds:
        yield then
        return
    logger = JournalLogger(kinds, then, subject, worked)
    status = "interrupted"
    try:
        yield logger
        status = "success"
    except Diverged:
        status = "failed"
        raise
    finally:
        logger.close(status)


def keep(work: Path, folder: Path) -> None:
    """Copy the folders that the tools wrote in a working folder, when there are any, into `folder`."""
    for name in trackers.FOLDERS:
        if (work / name).is_dir():
            shutil.copytree(work / name, folder / name, symlinks=True)


class Journal:
    """What was logged of a subject so far, a line each: a file that is appended to, and that is cut back on a resume."""

    def __init__(self, folder: Path) -> None:
        self.path, self.state_path = folder / "values.jsonl", folder / "state.json"
        self.file: IO[str] | None = None
        self.state: dict[str, dict[str, Any]] = {}
        """What each tool must know to go on after an interruption."""
        with contextlib.suppress(OSError, ValueError):
            self.state = json.loads(self.state_path.read_text())

    def read(self) -> Iterator[Entry]:
        """Yield the entries."""
        if self.path.is_file():
            for line in self.path.read_text(errors="replace").splitlines():
                try:
                    yield Entry(**json.loads(line))
                except (ValueError, TypeError):
                    return  # the line that was being written when the process died

    def rewind(self, stage: str, done: int) -> bool:
        """Forget what followed step `done` of a stage; tell whether that was anything."""
        entries = list(self.read())
        kept = [entry for entry in entries if entry.stage != stage or entry.at <= done]
        self.close()
        files.publish_file(self.path, "".join(map(_line, kept)))
        return len(kept) < len(entries)

    def add(self, entry: Entry) -> None:
        """Append an entry; a kill does not lose it."""
        if self.file is None:
            self.file = self.path.open("a", buffering=1)
        self.file.write(_line(entry))

    def save_state(self) -> None:
        """Keep the state of the tools."""
        files.publish_file(self.state_path, json.dumps(self.state))

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()
            self.file = None


def _line(entry: Entry) -> str:
    return json.dumps({name: value for name, value in dataclasses.asdict(entry).items() if value}) + "\n"


class JournalLogger:
    """Keeps values in a journal, hands them to the tools, and passes every call on to another logger.

    The x axis counts training steps for the losses of steps, and epochs for all else. Each step has its own losses; those of a
    step on a GPU are read from the device up to 50 steps later.
    """

    def __init__(self, kinds: Sequence[str], then: Logger, subject: Subject, worked: set[str]) -> None:
        self.then, self.subject, self.worked = then, subject, worked
        self.tools: dict[str, Tracker] = {kind: trackers.KINDS[kind](subject) for kind in kinds}
        self.begun = False
        self.name, self.steps, self.handed = "", 0, time.monotonic()
        self.waiting: list[Entry] = []
        self.folder = subject.work / JOURNAL
        self.journal = Journal(self.folder)

    def stage(self, name: str, epochs: int, steps: int, done: int) -> None:
        """Begin a stage at step `done`, which is not 0 when the stage is resumed."""
        self.hand_over()
        self.name, self.steps = name, steps
        fewer = self.journal.rewind(name, done)
        for kind, tool in list(self.tools.items()):
            if not self.begun or (fewer and tool.rebuilt):
                self._try(kind, partial(self._begin, kind, tool))
        self.begun = True
        self.then.stage(name, epochs, steps, done)

    def _begin(self, kind: str, tool: Tracker) -> None:
        self.subject.doing(f"starting --log {kind}")
        tool.begin(self.journal.state.setdefault(kind, {}))
        self.journal.save_state()
        tool.write(list(self.journal.read()), self.folder)
        self.worked.add(kind)

    def _try(self, kind: str, action: Callable[[], object]) -> None:
        """Do something with a tool; when that fails, go on without the tool, or end a command in which it never worked."""
        try:
            action()
        except Exception as error:  # whatever a tool, its server or the disk raises
            del self.tools[kind]
            why = textwrap.shorten(str(error).rstrip(". ") or type(error).__name__, 200, placeholder=" ...")
            if kind not in self.worked:
                raise MachineError(f"--log {kind} does not work ({why}); leave it out, or mend that.") from error
            name = self.subject.name
            self.subject.echo(f"  warning: --log {kind} fails ({why}); what it has of {name} may end here, and the run goes on")

    def _note(self, entry: Entry) -> None:
        self.journal.add(entry)
        self.waiting.append(entry)
        if time.monotonic() - self.handed >= EVERY:
            self.hand_over()

    def hand_over(self) -> None:
        """Hand the values that wait to the tools."""
        waiting, self.waiting, self.handed = self.waiting, [], time.monotonic()
        if waiting:
            for kind, tool in list(self.tools.items()):
                self._try(kind, partial(tool.write, waiting, self.folder))
            self.journal.save_state()

    def step(self, epoch: int, losses: dict[str, float] | None, images: int) -> None:
        """Pass a step on."""
        self.then.step(epoch, losses, images)

    def losses(self, step: int, losses: dict[str, float]) -> None:
        """Note the losses of a training step."""
        self._note(Entry(self.name, step, step, {f"{self.name}/loss/{name}": value for name, value in losses.items()}))
        self.then.losses(step, losses)

    def epoch(self, epoch: int, losses: dict[str, float], seconds: float, images: int) -> None:
        """Note a finished epoch's mean losses and images per second."""
        means = {f"epoch loss/{name}": value for name, value in losses.items()}
        self._note_epoch(epoch, {**means, "images per second": images / max(seconds, 1e-9)})
        self.then.epoch(epoch, losses, seconds, images)

    def values(self, epoch: int, values: dict[str, float]) -> None:
        """Note other values after an epoch."""
        self._note_epoch(epoch, values)
        self.then.values(epoch, values)

    def figure(self, epoch: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Note a figure after an epoch."""
        file = f"{name}-{epoch + 1}.png"
        Image.fromarray(pixels).save(self.folder / file)
        self._note(Entry(self.name, (epoch + 1) * self.steps, epoch + 1, figure=f"{self.name}/{name}", file=file))
        self.then.figure(epoch, name, pixels)

    def _note_epoch(self, epoch: int, values: dict[str, float]) -> None:
        tagged = {f"{self.name}/{name}": value for name, value in values.items()}
        self._note(Entry(self.name, (epoch + 1) * self.steps, epoch + 1, tagged))

    def close(self, status: str) -> None:
        """Hand over what waits, and end every tool: `status` is success, failed or interrupted."""
        self.hand_over()
        self.journal.close()
        for kind, tool in list(self.tools.items()):
            self.subject.doing(f"ending --log {kind}")
            self._try(kind, partial(tool.close, status))
