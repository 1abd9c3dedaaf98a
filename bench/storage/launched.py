"""Whether this process is a worker of a launch, by the variables that its engine gave it, and how others see it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

LAUNCH, WORKER, LEAVES = "PRETEXT_BENCH_LAUNCH", "PRETEXT_BENCH_WORKER", "PRETEXT_BENCH_LEAVES"
"""Variables of a worker: the folder of its launch, its number, and "1" where it ends once others suffice for what is left."""


@dataclass(frozen=True)
class Worker:
    """A worker of a launch: the launch's folder, the worker's number, and whether it ends once others suffice."""

    folder: Path
    number: int
    leaves: bool

    @property
    def launch(self) -> str:
        """The launch's id."""
        return self.folder.name

    @property
    def log(self) -> Path:
        """The file with what the worker prints."""
        return self.folder / f"worker-{self.number}.log"


def here() -> Worker | None:
    """Return the worker that this process is; None outside of a launch."""
    folder, number = os.environ.get(LAUNCH), os.environ.get(WORKER, "")
    if not folder or not (number.isascii() and number.isdigit()):
        return None
    return Worker(Path(folder), int(number), os.environ.get(LEAVES) == "1")


def holder() -> str:
    """Return this process as a lock file names it: its id, its host, and its launch where it is a worker."""
    worker = here()
    of = f", worker {worker.number} of {worker.launch}" if worker is not None else ""
    return f"process {os.getpid()} on {socket.gethostname()}{of}"
