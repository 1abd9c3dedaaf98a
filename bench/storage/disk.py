"""The size of files and folders on the disk, and byte counts as text."""

from __future__ import annotations

import os
import time
from math import inf
from pathlib import Path

KILO = 1000


def size(path: Path, until: float = inf) -> int:
    """Return the bytes on the disk of a file, or of a folder with all its content; links are counted but not followed.

    Files that vanish meanwhile are not counted. At the monotonic time `until` the sum so far is returned.
    """
    try:
        total = _taken(os.lstat(path))
    except OSError:
        return 0
    folders = [] if path.is_symlink() else [str(path)]
    while folders and time.monotonic() < until:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    total += _taken(entry.stat(follow_symlinks=False))
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:  # `path` is a file, or another process removed the folder
            continue
    return total


def _taken(status: os.stat_result) -> int:
    return getattr(status, "st_blocks", -(-status.st_size // 512)) * 512


def amount(count: float) -> str:
    """Return a number of bytes as text with a decimal unit.

    >>> amount(0), amount(999), amount(1_234), amount(56_789_000), amount(7_900_000_000_000)
    ('0 B', '999 B', '1.2 kB', '56.8 MB', '7.9 TB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < KILO:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= KILO
    return f"{count:,.1f} TB"
