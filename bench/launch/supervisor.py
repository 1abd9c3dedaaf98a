"""A supervisor runs one worker of a launch where a scheduler put it: it starts the worker again when that is killed.

SLURM's tasks, Ray's actors and the processes of a detached local launch are supervisors. Each keeps the state of its worker in
the launch's folder, so that the state is known without the scheduler's accounting.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from bench.errors import DataError
from bench.launch import launch as launches
from bench.launch.engine import WorkerState
from bench.schema import Schema
from bench.storage import files, seal
from bench.storage.parent import FOLLOWS

TRIES = 3
"""How often a worker that was killed is started again while nothing of the grid is finished in between."""
MARKER = "stop"
"""The file in a launch's folder which says that its workers are to end for good."""
PAUSE = 0.2
Phase = Literal["waits", "runs", "ended"]
State = tuple[Phase, int | None]
"""What a worker does, and its exit code once it has ended."""
KILLED, STOPPED = 128 + signal.SIGKILL, 128 + signal.SIGTERM
CHOSEN_ENDS = (0, 1, 2, 3, 4, 5, 128 + signal.SIGINT, STOPPED)
"""The exit codes with which a worker ends by itself (`bench.errors.EXIT_CODES`); any other means that it was killed."""


class Kept(Schema):
    """What a supervisor keeps of its worker: `where` names scheduler and host, `since` is in UTC."""

    state: Phase
    code: int | None = None
    where: str = ""
    since: str = ""
    process: int = 0
    starts: int = 0


def command(folder: Path, number: int) -> list[str]:
    """Return the command of a supervisor as a process of its own."""
    return [sys.executable, "-m", "bench.launch.supervisor", str(folder), str(number)]


def state_file(folder: Path, number: int) -> Path:
    """Return the file in which the state of a worker is kept."""
    return folder / f"worker-{number}.json"


def kept(folder: Path, number: int) -> Kept | None:
    """Return what is kept of a worker; None before its first start."""
    try:
        return seal.read_model(Kept, state_file(folder, number), "the state of a worker", "start the launch again")
    except DataError:
        return None


class Supervisor:
    """Runs a worker of the launch in `folder` until it ends by itself; `environment` is added to that of this process."""

    def __init__(self, folder: str, number: int, environment: dict[str, str] | None = None) -> None:
        self.folder, self.number, self.environment = folder, number, environment or {}
        self._begin()

    def _begin(self) -> None:
        self._worker: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._lock = threading.RLock()  # a signal may come while its own thread holds it

    def __getstate__(self) -> dict[str, Any]:
        """Return what another machine needs to go on."""
        return {"folder": self.folder, "number": self.number, "environment": self.environment}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __call__(self) -> int:
        """Run the worker until it ends by itself, or is killed too often; return its exit code, 128 + N for signal N.

        In the main thread SIGTERM is sent on to the worker, which makes a checkpoint and ends.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._asked)
        launch = launches.read(Path(self.folder))
        starts = tries = 0
        while True:
            before = _finished(Path(launch.out))
            self._keep("runs", None, starts + 1)
            code = self._run(launch)
            starts += 1
            tries = 1 if _finished(Path(launch.out)) != before else tries + 1
            if self._stopping.is_set() or code in CHOSEN_ENDS or tries > TRIES:
                break
            time.sleep(1)
        self._end(code, starts)
        return code

    def where(self) -> str:
        """Return the scheduler's job and the host on which this is."""
        return os.uname().nodename

    def stop(self) -> None:
        """Send SIGTERM to the worker, once: a second one would end it without a checkpoint."""
        with self._lock:
            first = not self._stopping.is_set()
            self._stopping.set()
            if first and self._worker is not None and self._worker.poll() is None:
                self._worker.send_signal(signal.SIGTERM)

    def ended(self, seconds: float) -> bool:
        """Wait at most `seconds` for the worker to end, and tell whether it has."""
        deadline = time.monotonic() + seconds
        while self._worker is not None and self._worker.poll() is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(PAUSE)
        return True

    def stopped_for_good(self) -> bool:
        """Tell whether the launch's workers are to end for good."""
        return (Path(self.folder) / MARKER).exists()

    def _end(self, code: int, starts: int) -> None:
        """Keep that the worker has ended, unless another supervisor has taken it over, since this node was given up."""
        now = kept(Path(self.folder), self.number)
        if now is None or (now.where, now.process) == (self.where(), os.getpid()):
            self._keep("ended", code, starts)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.stop()

    def _run(self, launch: launches.Launch) -> int:
        """Start the worker once and return its exit code."""
        # on the user's own machine an idle worker waits to take over, since its device serves nobody else
        own = {**launch.environment(self.number, leaves=launch.launcher != "local"), FOLLOWS: str(os.getpid())}
        log = launch.log(self.number)
        with log.open("ab") as printed, self._lock:
            if self._stopping.is_set() or self.stopped_for_good():
                return STOPPED
            # a scheduler sends the signal before its time limit to every process, and it would kill the worker
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
            try:
                self._worker = subprocess.Popen(
                    launch.command(self.number),
                    cwd=launch.cwd,
                    env={**os.environ, **self.environment, **own},
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=subprocess.STDOUT,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            if self._stopping.is_set():  # asked meanwhile
                self._worker.send_signal(signal.SIGTERM)
        while (code := self._worker.poll()) is None:
            time.sleep(PAUSE)
        return code if code >= 0 else 128 - code

    def _keep(self, state: Phase, code: int | None, starts: int) -> None:
        now = Kept(state=state, code=code, where=self.where(), since=launches.now(), process=os.getpid(), starts=starts)
        files.publish_json(state_file(Path(self.folder), self.number), now.model_dump(mode="json"))


def _finished(out: Path) -> int:
    """Return how many trunks, searches and runs of an output folder are finished."""
    return sum(1 for pattern in ("pretrained/[!.]*", "studies/*/tuning-*.json", "runs/[!.]*") for _ in out.glob(pattern))


def states_of(folder: Path, workers: int, scheduled: Callable[[int, Kept | None], State]) -> list[WorkerState]:
    """Return the states of workers: what is kept of those that ended, and of others what the scheduler says, `scheduled`."""
    found = []
    for number in range(workers):
        one = kept(folder, number)
        state, code = (one.state, one.code) if one is not None and one.state == "ended" else scheduled(number, one)
        found.append(WorkerState(number, state, code, one.where if one is not None else ""))
    return found


if __name__ == "__main__":
    sys.exit(Supervisor(sys.argv[1], int(sys.argv[2]))())
