"""Optuna's journal: one JSON line per entry, each with a check sum over the line and the check sum of the line before.

The journal is locked with `flock`, so a dead process does not keep it locked. An incomplete last line is cut before the next
entry is written. Without the check sums a flipped bit in a score, or a missing line, would not be noticed.
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
from bench.storage.locks import take

SUM = "crc32"
"""The key of an entry's check sum: the CRC-32 of the line without this key, started from the check sum of the line before."""


class Lock:
    """A lock on a journal file, held through `flock` on a file beside it."""

    def __init__(self, path: Path, echo: Callable[[str], object]) -> None:
        self.path, self.echo = path, echo
        self.file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Wait for the lock; cut an incomplete last line, which a dying process left, and tell the user."""
        self.file = self.path.with_suffix(".lock").open("ab")
        take(self.file, fcntl.LOCK_EX)
        with self.path.open("ab+") as journal:
            length = journal.tell()
            journal.seek(max(0, length - 1))
            if length and journal.read(1) != b"\n":
                journal.seek(0)
                whole = journal.read().rfind(b"\n") + 1
                journal.truncate(whole)
                self.echo(
                    f"{self.path}: cut {length - whole} bytes of an entry that a dying process left; every whole entry is kept"
                )
        return True

    def release(self) -> None:
        """Release the lock."""
        assert self.file is not None
        self.file.close()
        self.file = None


class Journal(BaseJournalBackend):
    """Optuna's entries in a file. Raises DataError for a line that was changed, MachineError on a full disk."""

    def __init__(self, path: Path, lock: Lock) -> None:
        self.path, self.lock = path, lock
        self._ends = [(0, 0)]
        """For each entry that was read, and for the next: where it begins, and the check sum of the entry before."""

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the entries from number `log_number_from` on."""
        first = min(log_number_from, len(self._ends) - 1)
        place, total = self._ends[first]
        with self.path.open("rb") as file:
            file.seek(place)
            lines = file.read().split(b"\n")
        for number, line in enumerate(lines[:-1], start=first):  # the text after the last newline is still being written
            entry, total = self._entry(line, total)
            place += len(line) + 1
            if number + 1 == len(self._ends):
                self._ends.append((place, total))
            if number >= log_number_from:
                yield entry

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries, all or none of them."""
        self.lock.acquire()
        try:
            with self.path.open("rb+", buffering=0) as file:  # closing a buffered file would write it even after a failure
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
            raise DataError(f"{self.path} is damaged: an entry does not match its check sum; remove its folder to search again.")
        return entry, total


def _text(log: dict[str, Any]) -> str:
    return json.dumps(log, separators=(",", ":"))


def _sum(log: dict[str, Any], before: int) -> int:
    return zlib.crc32(_text(log).encode(), before)


def journal(path: Path, echo: Callable[[str], object]) -> JournalStorage:
    """Return Optuna's storage in a journal file, after cutting an incomplete last line; DataError when the rest is damaged."""
    lock = Lock(path, echo)
    lock.acquire()
    lock.release()
    try:
        return JournalStorage(Journal(path, lock))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged: it is not the journal of a study; remove its folder to search again.") from error
