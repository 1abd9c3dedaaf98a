"""The record of a launch, kept in the output folder: which workers share a grid, how they were started, where their logs are."""

from __future__ import annotations

import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bench.schema import Schema
from bench.storage import files, seal
from bench.storage.handed import HANDED_OUT
from bench.storage.launched import LAUNCH, LEAVES, WORKER

Launcher = Literal["local", "slurm", "ray"]


class Launch(Schema):
    """A launch: `workers` processes that share one grid. Paths are absolute; `words` is the workers' command after `bench`."""

    id: str
    launcher: Launcher
    out: str
    cwd: str
    words: tuple[str, ...]
    own: tuple[tuple[str, ...], ...] = ()
    """For each worker the options that it alone has, such as its device; empty where there are none."""
    workers: int
    created: str
    """When the launch began, in UTC (ISO 8601)."""
    options: dict[str, str] = {}
    """What --slurm says (partition, time, ...), or for Ray its `address`."""
    devices: str = ""
    """What --devices says."""
    detached: bool = False
    """Whether the command that launches ends at once, and so watches over nothing."""
    facts: dict[str, Any] = {}
    """What the engine keeps to find its workers again, such as a scheduler's job ids."""
    measured: dict[str, Any] = {}
    """What the launch cost and the workers' exit codes, once it has ended."""

    @property
    def folder(self) -> Path:
        """The folder with the record and the logs."""
        return Path(self.out) / "launches" / self.id

    def log(self, number: int) -> Path:
        """Return the file with what a worker prints."""
        return self.folder / f"worker-{number}.log"

    def handed(self, number: int) -> Path:
        """Return the file that lists a worker's jobs where they are handed out (`bench.launch.handout`)."""
        return self.folder / f"handed-{number}.json"

    def command(self, number: int) -> list[str]:
        """Return a worker's whole command."""
        return [sys.executable, "-m", "bench", *self.words, *(self.own[number] if self.own else ())]

    def environment(self, number: int, leaves: bool) -> dict[str, str]:
        """Return the variables that a worker has in addition to those around it."""
        own = {LAUNCH: str(self.folder), WORKER: str(number), "PYTHONUNBUFFERED": "1"}
        if self.handed(number).is_file():
            own[HANDED_OUT] = str(self.handed(number))
        return {**own, LEAVES: "1"} if leaves else own

    def keep(self) -> Launch:
        """Write the record, and return it."""
        files.publish_json(self.folder / "launch.json", self.model_dump(mode="json"))
        return self


def new_id() -> str:
    """Return an id for a launch: the time in UTC and four hexadecimal digits."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read(folder: Path) -> Launch:
    """Return the launch in a folder; DataError where its record cannot be read."""
    return seal.read_model(Launch, folder / "launch.json", "the record of a launch", "remove the folder to forget the launch")


def all_in(out: Path) -> list[Launch]:
    """Return the launches of an output folder, the oldest first."""
    found = sorted((out / "launches").glob("[!.]*/launch.json"))
    return sorted((read(path.parent) for path in found), key=lambda launch: (launch.created, launch.id))
