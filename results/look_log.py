"""The list of looks in an output folder (`results.looks`): read, and appended to under a lock, since others may report too."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from bench.storage import files, locks, seal
from bench.text import Echo
from results.looks import Looks

FILE = "looks.json"
WAY_OUT = "remove it, and earlier looks are forgotten"


def now() -> str:
    """Return the time of a look, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read(folder: Path) -> Looks:
    """Return the looks at an output folder; DataError when their file is damaged."""
    path = folder / FILE
    if not path.is_file():
        return Looks()
    return seal.read_model(Looks, path, "a list of looks", WAY_OUT)


def keep(folder: Path, before: Looks, after: Looks, lock: Path, echo: Echo) -> None:
    """Append what `after` has more than `before` to the looks at a folder."""
    added = after.looks[len(before.looks) :]
    if added:
        with locks.lock(lock, echo):
            looks = Looks(looks=(*read(folder).looks, *added))
            files.publish_json(folder / FILE, looks.model_dump(mode="json"))
