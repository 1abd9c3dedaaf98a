"""The command that launches: it starts workers, watches over them until the grid is finished, and computes nothing itself.

A worker that is killed is started again. When all workers have ended and work is left that did not fail, they are started again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import SomeFailed
from bench.experiment.grid import some_failed
from bench.launch import handout, sharing
from bench.launch.engine import Engine, WorkerState
from bench.launch.launch import Launch
from bench.launch.planned import PlannedRun, Progress
from bench.launch.supervisor import CHOSEN_ENDS, TRIES, state_file
from bench.record import Record, read_one, record_path
from bench.text import printable
from bench.training.machine import Stop

LOOK = 0.5
"""Seconds between two looks at workers that have just begun; later looks come less often, as they take time on a large grid."""
LONGEST = 10.0
PATIENCE = 120.0
"""Seconds in which workers that are stopped are to make their checkpoints."""


@dataclass
class Head:
    """Watches over the workers of a launch; `parts` say how far the work is, and `tell` is told of each run that is finished."""

    engine: Engine
    launch: Launch
    parts: Sequence[Progress]
    echo: Callable[[str], object]
    tell: Callable[[Progress, PlannedRun], object]
    doing: Callable[[str], object]
    tries: Counter[int] = field(default_factory=Counter)
    """How often each worker was killed since anything was finished."""
    rounds: int = 0
    """How often all workers were started again since anything was finished."""
    ended: dict[int, int | None] = field(default_factory=dict)
    """The exit codes of the workers that have ended."""

    def start(self) -> None:
        """Look at what is finished, and start the workers; each gets runs of its own where locks do not serve."""
        for part in self.parts:
            part.look()
        self.launch = self.launch.keep()
        reason = "" if self.launch.handed(0).is_file() else handout.reason(self.launch)
        if reason:
            self._hand_out(reason)
        facts = self.engine.start(self.launch)
        self.launch = self.launch.model_copy(update={"facts": facts}).keep()
        for state in self.engine.poll():
            self._say(state)

    def watch(self, stop: Stop) -> None:
        """Return once all workers have ended and are not started again; Interrupted after a signal, once they have ended."""
        pause = LOOK
        try:
            while not self._look():
                until = time.monotonic() + pause
                stop.check()
                while time.monotonic() < until and not self._has_news():
                    time.sleep(0.1)
                    stop.check()
                pause = min(LONGEST, pause * 1.05)
        except BaseException:
            self._stop()
            raise

    @property
    def codes(self) -> dict[str, int | None]:
        """The exit codes of the workers, by number."""
        return {str(number): code for number, code in sorted(self.ended.items())}

    def records(self, part: Progress) -> list[Record]:
        """Return the records of a part's finished runs, in the order of its jobs."""
        return [read_one(record_path(part.out, part.made[run.id])) for run in part.planned.runs if run.id in part.made]

    def check(self, part: Progress) -> None:
        """Raise SomeFailed, which names the runs of a part that failed, and why others were not made."""
        what, runs = "searches" if part.planned.searches_only else "runs", part.planned.runs
        failed = [f"{run.title}: {part.failed[run.id].reason}" for run in runs if run.id in part.failed]
        if failed:
            raise some_failed(failed, len(runs), what)
        if part.left:
            raise SomeFailed(f"{len(part.left)} of {len(runs)} {what} were not made; {'; '.join(self._ends())}.")

    def _has_news(self) -> bool:
        """Tell whether a worker has ended since the last look, which does not wait for the next then."""
        return any(state.state == "ended" and state.number not in self.ended for state in self.engine.poll())

    def _look(self) -> bool:
        """Tell what is new and start workers again that were killed; return True once nothing is left to wait for."""
        for part in self.parts:
            for run in part.look():
                self.tell(part, run)
                self.tries.clear()
                self.rounds = 0
        if not self.launch.handed(0).is_file() and sharing.found(self.launch.folder):
            self._stop()
            self.start()
        states = self.engine.poll()
        left = sum(len(part.left) for part in self.parts)
        for state in states:
            if state.state == "ended" and state.number not in self.ended:
                self._ended(state, left)
        running = [state.number for state in states if state.state == "runs" and state.number not in self.ended]
        total = sum(len(part.planned.runs) for part in self.parts)
        self.doing(
            f"{total - left} of {total} are finished or failed, {len(running)} of {self.launch.workers} workers are at work"
        )
        if len(self.ended) < self.launch.workers:
            return False
        return not (left and self._start_again(left))

    def _ended(self, state: WorkerState, left: int) -> None:
        """Start a worker that was killed again, unless that happens too often or nothing is left; note the end of others."""
        killed = state.code not in CHOSEN_ENDS
        if killed and left and self.tries[state.number] < TRIES:
            self.tries[state.number] += 1
            self.echo(f"worker {state.number} {_end(state.code)} and is started again, log {self.launch.log(state.number)}")
            self.engine.restart(state.number)
            return
        self.ended[state.number] = state.code
        if state.code:
            self.echo(f"worker {state.number} {_end(state.code)}, log {self.launch.log(state.number)}")

    def _start_again(self, left: int) -> bool:
        """Start as many workers again as there is work left; False where they ended by an error, or had their chances."""
        well = [number for number, code in self.ended.items() if code in (0, 5)]
        if not well or self.rounds >= TRIES:
            return False
        self.rounds += 1
        for number in well[:left]:
            self.ended.pop(number)
            self.echo(f"worker {number} is started again, since {left} runs are left")
            self.engine.restart(number)
        return True

    def _hand_out(self, reason: str) -> None:
        """Divide the runs among the workers, of which none is at work."""
        counts = handout.hand_out(self.launch)
        self.echo(f"{reason}; the runs are divided among the workers: {', '.join(map(str, counts))}")
        self.ended.clear()
        for number in range(self.launch.workers):
            state_file(self.launch.folder, number).unlink(missing_ok=True)

    def _stop(self) -> None:
        self.echo("the workers are stopped; each makes a checkpoint first")
        self.engine.stop()
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and any(state.state == "runs" for state in self.engine.poll()):
            time.sleep(0.2)

    def _say(self, state: WorkerState) -> None:
        where = f" ({state.where})" if state.where else ""
        self.echo(f"worker {state.number} started{where}, log {self.launch.log(state.number)}")

    def _ends(self) -> list[str]:
        """Return how each worker ended, with what it printed last."""
        return [
            f"worker {number} {_end(code)}{_last_line(self.launch.log(number))}" for number, code in sorted(self.ended.items())
        ]


def _end(code: int | None) -> str:
    """Return how a worker ended, from its exit code, as text."""
    if code is None:
        return "ended"
    return f"was ended by signal {code - 128}" if code > 128 else f"ended with exit code {code}"


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return f" ({printable(lines[-1].strip().rstrip('.'))[:300]})" if lines else ""
