"""The file of an output folder's interim looks: read, and appended to under a lock, since others may report at the same time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from bench.storage import files, locks, seal
from bench.text import Echo
from results.looks import Looks

FILE = "looks.json"
WAY_OUT = "remove it, and earlier looks are forgotten"


def now() -> str:
    """Return the time now, in UTC, as a look keeps it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read(folder: Path) -> Looks:
    """Return the interim looks at an output folder; DataError when their file is damaged."""
    path = folder / FILE
    if not path.is_file():
        return Looks()
    return seal.read_model(Looks, path, "a list of looks", WAY_OUT)


def keep(folder: Path, before: Looks, after: Looks, lock: Path, echo: Echo) -> None:
    """Append to the interim looks at a folder those that `after` has and `before` has not."""
    added = after.looks[len(before.looks) :]
    if added:
        with locks.lock(lock, echo, needed=False):  # without locks, a look that is kept at the same moment may be lost
            looks = Looks(looks=(*read(folder).looks, *added))
            files.publish_json(folder / FILE, looks.model_dump(mode="json"))
