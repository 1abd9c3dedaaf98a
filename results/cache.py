"""A cache of what reports compute from predictions, so that the next report reads and resamples only what is new.

The cache is one file below the output folder. Removing it changes how long a report takes, never what it says. The key of an
entry is a digest of everything that the entry depends on, with predictions by their SHA-256. The first line is the SHA-256 of the
rest and of the code that computes the entries; a file with another first line is damaged or of another version, and not used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bench import detection, metrics, segmentation_metrics
from bench.schema import canonical

MOST = 20_000
"""The most entries that are kept, about 150 bytes each: enough for some thousand runs."""
CODE = ("cache", "lowshot", "resampling", "scores", "statistics", "tau", "trivial")


def path_in(out: Path) -> Path:
    """Return the file of an output folder's cache."""
    return out / "cache" / "report.cache"


class Cache:
    """Lists of JSON values by the JSON values that they depend on."""

    def __init__(self, known: Mapping[str, list[Any]] | None = None) -> None:
        self._known = known or {}
        self._used: dict[str, list[Any]] = {}

    @classmethod
    def read(cls, path: Path) -> Cache:
        """Return the cache in a file; an empty one when there is no file, or none that this version wrote."""
        try:
            seal, _, text = path.read_text(encoding="utf-8").partition("\n")
        except (OSError, UnicodeDecodeError):
            return cls()
        return cls(json.loads(text)) if seal == _seal(text) else cls()

    def recall(self, depends_on: list[Any], compute: Callable[[], list[Any]]) -> list[Any]:
        """Return what was computed for `depends_on` before; compute it when nothing was."""
        key = hashlib.sha256(canonical(depends_on).encode()).hexdigest()[:32]
        if key not in self._used:
            self._used[key] = self._known[key] if key in self._known else compute()
        return self._used[key]

    @property
    def changed(self) -> bool:
        """Whether entries were computed that the file does not hold."""
        return any(self._known.get(key) is not found for key, found in self._used.items())

    def text(self) -> str:
        """Return the file's new content: the entries that were used now, then those of before, `MOST` at most."""
        entries = {**self._used, **{key: found for key, found in self._known.items() if key not in self._used}}
        text = json.dumps(dict(list(entries.items())[:MOST]), separators=(",", ":"))
        return f"{_seal(text)}\n{text}"


def _seal(text: str) -> str:
    return hashlib.sha256(f"{_code()}\n{text}".encode()).hexdigest()


@cache
def _code() -> str:
    """Return a digest of the code that computes the entries, so that a change of the code empties the cache."""
    own = (Path(metrics.__file__), Path(detection.__file__), Path(segmentation_metrics.__file__))
    files = [*own, *(Path(__file__).with_name(f"{name}.py") for name in CODE)]
    digest = hashlib.sha256(np.__version__.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
