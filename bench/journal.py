"""Optuna's journal under the kernel's lock: no dead process can keep it, and a torn last line is cut before anyone writes on."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from bench.errors import DataError


class Lock:
    """Optuna's lock on a journal file (`acquire` and `release`), held through `flock` on a file beside it."""

    def __init__(self, path: Path, say: Callable[[str], object]) -> None:
        self.path, self.say = path, say
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
                self.say(f"{self.path}: cut {length - whole} bytes that a dying process left; every whole entry is kept")
        return True

    def release(self) -> None:
        """Give the lock back."""
        assert self.file is not None
        self.file.close()
        self.file = None


def journal(path: Path, say: Callable[[str], object]) -> Any:
    """Return Optuna's storage in a journal file, mended when its end was torn; DataError when the rest cannot be read."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    lock = Lock(path, say)
    lock.acquire()
    lock.release()
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: it is no journal of a study; remove its folder to search again.") from error
