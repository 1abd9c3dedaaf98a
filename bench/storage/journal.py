"""Optuna's journal: one JSON line an entry, each with a check sum that continues the one before it.

The kernel's lock guards it, so no dead process can keep it, and a torn last line is cut before anyone writes on. A flipped bit
in a score would be a score, and a line that is missing would be missed by nobody: the sums tell.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from bench.errors import DataError, MachineError

SUM = "crc32"
"""The key of an entry's check sum: the CRC-32 of its line without it, begun with the sum of the line before."""


class Lock:
    """A lock on a journal file, held through `flock` on a file beside it."""

    def __init__(self, path: Path, echo: Callable[[str], object]) -> None:
        self.path, self.echo = path, echo
        self.file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Wait for the lock; cut what a process that died while writing left behind the last newline, with a word about it."""
        self.file = self.path.with_suffix(".lock").open("ab")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        with self.path.open("ab+") as journal:
            length = journal.tell()
            journal.seek(max(0, length - 1))
            if length and journal.read(1) != b"\n":
                journal.seek(0)
                whole = journal.read().rfind(b"\n") + 1
                journal.truncate(whole)
                self.echo(f"{self.path}: cut {length - whole} bytes that a dying process left; every whole entry is kept")
        return True

    def release(self) -> None:
        """Give the lock back."""
        assert self.file is not None
        self.file.close()
        self.file = None


class Journal(BaseJournalBackend):
    """Optuna's entries in a file. Raises DataError for a line that is not as it was written, MachineError on a full disk."""

    def __init__(self, path: Path, lock: Lock) -> None:
        self.path, self.lock = path, lock
        self._ends = [(0, 0)]
        """Where each entry begins, and the sum of the one before it."""

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the entries from a number on."""
        first = min(log_number_from, len(self._ends) - 1)
        place, total = self._ends[first]
        with self.path.open("rb") as file:
            file.seek(place)
            lines = file.read().split(b"\n")
        for number, line in enumerate(lines[:-1], start=first):  # what follows the last newline is being written
            entry, total = self._entry(line, total)
            place += len(line) + 1
            if number + 1 == len(self._ends):
                self._ends.append((place, total))
            if number >= log_number_from:
                yield entry

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write entries at the end, all or none of them."""
        self.lock.acquire()
        try:
            with self.path.open("rb+", buffering=0) as file:  # a buffer would be written when the file is closed after a failure
                total = self._last_sum(file)
                end = file.seek(0, os.SEEK_END)
                lines = []
                for log in logs:
                    total = _sum(log, total)
                    lines.append(_text({**log, SUM: total}))
                rest = memoryview("".join(f"{line}\n" for line in lines).encode())
                try:
                    while rest:
                        rest = rest[file.write(rest) :]
                    os.fsync(file.fileno())
                except OSError as error:
                    with contextlib.suppress(OSError):
                        os.ftruncate(file.fileno(), end)
                    raise MachineError(f"cannot write {self.path}: {error.strerror}; free some space, then run again.") from error
        finally:
            self.lock.release()

    def _last_sum(self, file: IO[bytes]) -> int:
        """Return the check sum of the last entry."""
        list(self.read_logs(len(self._ends)))
        assert self._ends[-1][0] == file.seek(0, os.SEEK_END), "under the lock there is nothing after the last newline"
        return self._ends[-1][1]

    def _entry(self, line: bytes, before: int) -> tuple[dict[str, Any], int]:
        try:
            entry = json.loads(line)
            total = entry.pop(SUM)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            entry, total = {}, None
        if total is None or total != _sum(entry, before):
            raise DataError(f"{self.path} is damaged: an entry is not as it was written; remove its folder to search again.")
        return entry, total


def _text(log: dict[str, Any]) -> str:
    return json.dumps(log, separators=(",", ":"))


def _sum(log: dict[str, Any], before: int) -> int:
    return zlib.crc32(_text(log).encode(), before)


def journal(path: Path, echo: Callable[[str], object]) -> JournalStorage:
    """Return Optuna's storage in a journal file, mended when its end was torn; DataError when the rest cannot be read."""
    lock = Lock(path, echo)
    lock.acquire()
    lock.release()
    try:
        return JournalStorage(Journal(path, lock))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged: it is no journal of a study; remove its folder to search again.") from error
