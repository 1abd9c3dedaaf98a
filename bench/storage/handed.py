"""The jobs that were handed out to this worker by its launch, so that no other worker makes them and it needs no locks."""

from __future__ import annotations

import os
from pathlib import Path

from bench.storage import seal

HANDED_OUT = "PRETEXT_BENCH_HANDED_OUT"
"""The environment variable of such a worker: the file that lists the ids of its jobs, each before any search."""


def out() -> bool:
    """Tell whether this process is such a worker."""
    return bool(os.environ.get(HANDED_OUT))


def jobs() -> frozenset[str] | None:
    """Return the ids of the jobs that were handed out to this worker; None outside of one. DataError for a damaged list."""
    if not out():
        return None
    found = seal.load(Path(os.environ[HANDED_OUT]), "the list of a worker's jobs", "start the launch again")
    return frozenset(found["jobs"])
