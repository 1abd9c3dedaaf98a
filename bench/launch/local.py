"""The local engine: a worker process for each device of this machine, under a supervisor where the launch is detached."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from bench.launch.engine import Engine, WorkerState
from bench.launch.launch import Launch
from bench.launch.supervisor import Kept, State, command, states_of
from bench.storage import files


class Local(Engine):
    """Worker processes on this machine, in sessions of their own: Ctrl-C reaches them through the launcher alone."""

    frees: ClassVar[bool] = False

    def __init__(self) -> None:
        self._workers: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, launch: Launch) -> dict[str, Any]:
        """Start the workers; the facts have each one's process id, and when it began by the system's clock."""
        self._launch = launch
        for number in range(launch.workers):
            self.restart(number)
        return self._facts()

    def poll(self) -> list[WorkerState]:
        """Return the state of each worker."""
        return [_state(number, _code(worker.poll()), self._launch) for number, worker in self._workers.items()]

    def restart(self, number: int) -> None:
        """Start a worker; its log goes on, and so does the record of the launch."""
        launch = self._launch
        words, own = launch.command(number), launch.environment(number, self.frees)
        if launch.detached:
            words, own = command(launch.folder, number), {}
        files.make_parents(launch.log(number))
        with launch.log(number).open("ab") as log:
            self._workers[number] = subprocess.Popen(
                words,
                cwd=launch.cwd,
                env={**os.environ, **own},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if len(self._workers) == launch.workers:
            self._launch = launch.model_copy(update={"facts": self._facts()}).keep()

    def stop(self) -> None:
        """Send SIGTERM to the workers."""
        for worker in self._workers.values():
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)

    @classmethod
    def states(cls, launch: Launch) -> list[WorkerState]:
        """Return the state of each worker by its process id; its exit code is known where a supervisor kept it."""
        processes = launch.facts.get("processes", {})

        def scheduled(number: int, one: Kept | None) -> State:
            return ("runs" if _lives(processes[str(number)]) else "ended"), None

        found = states_of(launch.folder, len(processes), scheduled)
        return [replace(one, where=_where(one.number, launch)) for one in found]

    def _facts(self) -> dict[str, Any]:
        pids = {str(number): worker.pid for number, worker in self._workers.items()}
        return {"processes": {number: {"pid": pid, "began": began(pid)} for number, pid in pids.items()}}


def _lives(facts: dict[str, int | None]) -> bool:
    """Tell whether the process of a worker is the one that began then; one that ended before it was noted has no beginning."""
    return facts["began"] is not None and began(facts["pid"] or 0) == facts["began"]


def began(process: int) -> int | None:
    """Return when a process of this machine began, in clock ticks since the system's start; None where there is none."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _state(number: int, code: int | None, launch: Launch) -> WorkerState:
    return WorkerState(number, "runs" if code is None else "ended", code, _where(number, launch))


def _code(code: int | None) -> int | None:
    """Return an exit code as a shell tells it: 128 + N where signal N ended the process."""
    return 128 - code if code is not None and code < 0 else code


def _where(number: int, launch: Launch) -> str:
    """Return the device of a worker."""
    own = launch.own[number] if launch.own else ()
    return next((device for option, device in pairwise(own) if option == "--device"), "")
