"""Trunks, searches and runs that failed: a file for each, with the reason, until the work is done or begun again.

In a launch, what failed for one worker is not tried again by the others: one broken run costs one try, however many workers
there are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench.errors import BenchError, DataError, Diverged, Interrupted, LostProcess, OutOfMemory, StorageError, explained
from bench.schema import Schema
from bench.storage import files, launched, seal
from bench.storage.locks import Busy


class Failure(Schema):
    """What failed, why, when (UTC), and where: the launch, the worker's number and its log, all empty outside of a launch."""

    id: str
    reason: str
    time: str
    launch: str = ""
    worker: int | None = None
    log: str = ""
    diverged: bool = False
    images: int = 0
    """Of a loss that was not a number: the images that were trained on until then."""


class FailedBefore(BenchError):
    """Raised in place of trying again what failed for a worker of the same launch; its sentence is that failure's reason."""


class DivergedBefore(FailedBefore, Diverged):
    """The same for a loss that was not a number, which a search counts as a trial."""


def path_of(identity: str, out: Path) -> Path:
    """Return the file of a failed trunk, search or run."""
    return out / "failures" / f"{identity}.json"


def find(identity: str, out: Path) -> Failure | None:
    """Return how a trunk, search or run failed; None where it did not, or where the file cannot be read."""
    path = path_of(identity, out)
    if not path.is_file():
        return None
    with contextlib.suppress(DataError):
        return seal.read_model(Failure, path, "a failure", "remove the file to forget it")
    return None


def first_of(identities: Iterable[str], out: Path, launch: str) -> Failure | None:
    """Return the first failure in a launch among those of a run's trunk, search and the run itself; None where none failed."""
    found = (find(identity, out) for identity in identities)
    return next((one for one in found if one is not None and one.launch == launch), None)


def check(identity: str, out: Path) -> None:
    """Raise FailedBefore, or DivergedBefore, in a worker for what failed in its launch."""
    worker = launched.here()
    failed = first_of([identity], out, worker.launch) if worker is not None else None
    if failed is None:
        return
    if not failed.diverged:
        raise FailedBefore(failed.reason)
    error = DivergedBefore(failed.reason)
    error.images = failed.images
    raise error


def note(identity: str, out: Path, error: Exception) -> None:
    """Keep that something failed; a disk that is full or not writable is no second error."""
    worker = launched.here()
    told = explained(error)
    failure = Failure(
        id=identity,
        reason=str(told),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        launch=worker.launch if worker is not None else "",
        worker=worker.number if worker is not None else None,
        log=str(worker.log) if worker is not None else "",
        diverged=isinstance(told, Diverged),
        images=told.images if isinstance(told, Diverged) else 0,
    )
    with contextlib.suppress(BenchError):
        files.publish_json(path_of(identity, out), failure.model_dump(mode="json"))


@contextlib.contextmanager
def noted(identity: str, out: Path) -> Iterator[None]:
    """Forget an earlier failure, and note the one that ends the block; FailedBefore or DivergedBefore as of `check`.

    The block's lock must be held around it, so that no other worker begins before the failure is noted. Memory that ran out is
    left to the caller, who may try again.
    """
    check(identity, out)
    files.remove(path_of(identity, out))
    try:
        yield
    except (Busy, FailedBefore, Interrupted, LostProcess, OutOfMemory, StorageError):
        raise
    except Exception as error:
        if not isinstance(explained(error), OutOfMemory):
            note(identity, out, error)
        raise
