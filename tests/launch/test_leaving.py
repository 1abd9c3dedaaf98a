"""When a worker of a launch ends, waits, or looks again, while others are at work on what is left of the grid."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.config import RunConfig
from bench.errors import Interrupted
from bench.experiment import grid
from bench.experiment.session import Session, open_session
from bench.storage import launched, locks
from tests.benchmarks.step import Silent

HOLD = """
import sys, time
from contextlib import ExitStack
from pathlib import Path
from bench.storage import locks

with ExitStack() as held:
    for path in sys.argv[1:]:
        held.enter_context(locks.lock(Path(path), print))
    print("held", flush=True)
    time.sleep(120)
"""
Others = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def session(drawn: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A worker's session of two runs on one trunk, and of two on another."""
    monkeypatch.setenv(launched.LAUNCH, str(tmp_path / "launches" / "one"))
    monkeypatch.setenv(launched.WORKER, "1")
    options = {"pretext": "random_init", "downstream": "voc_cls,voc_seg", "schedule": "one-phase", "seeds": 2, "device": "cpu"}
    data = {"data": str(drawn["demo"]), "protocol": "demo", "trunk": "unet:depth=5,width=8", "size": 32, "threads": 1}
    return open_session(RunConfig.model_validate({**options, **data}), tmp_path, Silent(), planning=True)  # type: ignore[arg-type]


@pytest.fixture
def others() -> Iterator[Others]:
    """Give a function that starts another process, which holds some locks."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*paths: Path) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", HOLD, *map(str, paths)], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def lock_of(session: Session, number: int) -> Path:
    return grid.lock_of(session.grid.jobs[number], session.out)


def trunk_lock_of(session: Session, number: int) -> Path:
    return grid.lock_of(session.grid.jobs[number].pretrain, session.out)


def worked(session: Session, finished: set[int]) -> list[int]:
    """Go over the grid with work that only notes the number of its job; those `finished` are not asked for."""
    made: list[int] = []
    jobs = [job for number, job in enumerate(session.grid.jobs) if number not in finished]

    def work(job: object, place: str, wait: bool) -> None:
        assert not wait, "a worker never waits for one job alone"
        if grid.is_busy(job, session.out):  # type: ignore[arg-type]
            raise locks.Busy
        made.append(session.grid.jobs.index(job))  # type: ignore[arg-type]

    grid._each(session, jobs, "runs", work)
    return made


@pytest.mark.integration
def test_a_worker_leaves_once_others_suffice(session: Session, others: Others, monkeypatch: pytest.MonkeyPatch) -> None:
    """Job 0 is another worker's; the rest is made, and then nothing can become free but by its death."""
    monkeypatch.setenv(launched.LEAVES, "1")
    others(lock_of(session, 0))
    assert worked(session, set()) == [1, 2, 3]


@pytest.mark.integration
def test_a_worker_waits_for_a_trunk_that_sets_more_runs_free_than_others_can_take(
    session: Session, others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process trains the trunk of two runs: this worker can make one of them later. It is also the trunk's only holder."""
    monkeypatch.setenv(launched.LEAVES, "1")
    process = others(trunk_lock_of(session, 0))
    monkeypatch.setattr(grid, "_pause", lambda taken, session: (process.kill(), process.wait()))
    assert worked(session, {2, 3}) == [0, 1]


@pytest.mark.integration
def test_one_process_with_two_locks_is_one_worker(session: Session, others: Others) -> None:
    others(lock_of(session, 0), lock_of(session, 1))
    assert not grid._others_suffice(session.grid.jobs[:2], session)
    others(trunk_lock_of(session, 0))
    assert grid._others_suffice(session.grid.jobs[:2], session)


@pytest.mark.integration
def test_a_local_worker_takes_over_what_a_dead_one_held_and_stops_when_asked(
    session: Session, others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = others(lock_of(session, 0))
    pauses = []
    before = grid._pause

    def pause(taken: float, session: Session) -> None:
        pauses.append(taken)
        if len(pauses) == 2:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        before(taken, session)

    monkeypatch.setattr(grid, "_pause", pause)
    began = time.monotonic()
    assert worked(session, set()) == [1, 2, 3, 0] and time.monotonic() - began < 10
    assert len(pauses) >= 2
    session.machine.stop.signal_number = signal.SIGTERM
    others(lock_of(session, 0))
    with pytest.raises(Interrupted):
        worked(session, set())
