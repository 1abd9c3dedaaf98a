"""Locks between processes, by `flock`: the kernel frees a dead process's lock, and a waiting user is told who holds one.

NFS and SMB turn `flock` into byte-range locks: there an exclusive lock needs a file that is open for writing and a shared one a
file that is open for reading, and on SMB others may not read a locked file. Files are opened accordingly.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from bench.errors import MachineError
from bench.storage import handed, launched
from bench.storage.files import make_folder, make_parents, remove, temporary_name

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_ours: set[str] = set()
"""The names that `alive` gave in this process and that are in use."""


class Busy(Exception):
    """Raised when other processes are making what is asked for, and nothing of it is left to do here."""


def take(file: IO[Any], operation: int) -> None:
    """Call `flock`; a worker whose runs were handed out goes on where the file system has no locks.

    BlockingIOError when another process holds the lock and `operation` has LOCK_NB.
    """
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        if error.errno not in _UNSUPPORTED or not handed.out():
            raise


def fault(folder: Path) -> str:
    """Return why locks do not work in an existing folder between the processes of this machine; "" where they do.

    One is taken twice and given free, on a file that is removed; OSError where no file can be written.
    """
    probe = temporary_name(folder / "lock")
    try:
        with probe.open("w+") as one, probe.open("r+") as other:
            try:
                fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return "two processes can hold one at once"
                fcntl.flock(one, fcntl.LOCK_UN)
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                return error.strerror or str(error)
    finally:
        remove(probe)
    return ""


@contextlib.contextmanager
def lock(
    path: Path,
    echo: Callable[[str], object],
    check: Callable[[], object] = lambda: None,
    timeout: float = 24 * 3600,
    wait: bool = True,
    needed: bool = True,
) -> Iterator[None]:
    """Hold the lock file `path` inside the block; while another process holds it, tell the user which one, and wait.

    MachineError after `timeout` seconds. `check` is called while waiting, and may raise to give up. Without `wait`, raise Busy
    instead of waiting. A lock that is not `needed` is left out where the file system has none.
    """
    try:
        make_parents(path)
        opened = path.open("a+", errors="replace")
    except OSError as error:
        raise MachineError(f"cannot lock {path}: {error.strerror}.") from error
    with opened as file:
        deadline = time.monotonic() + timeout
        told, tried = False, False
        while True:
            try:
                take(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not tried:  # the other process may only be testing the lock, as `is_held` does
                    tried = True
                    time.sleep(0.02)
                    continue
                if not wait:
                    raise Busy from None
                holder = _holder(file) or "another process"
                if time.monotonic() > deadline:
                    raise MachineError(f"{path.stem} is being worked on by {holder}; try again later.") from None
                if not told:
                    echo(f"waiting for {holder}, which works on {path.stem}")
                    told = True
                check()
                time.sleep(0.2)
            except OSError as error:
                if not needed and error.errno in _UNSUPPORTED:
                    break
                raise MachineError(
                    f"cannot lock {path}: {error.strerror}; bench doctor says what its file system does."
                ) from error
        _tell(file, launched.holder())
        try:
            yield
        finally:
            _tell(file, "")


def is_held(path: Path) -> bool:
    """Tell whether a process holds a lock now; False when there is no such file."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def held_by(path: Path) -> str:
    """Return who holds a lock now, as the lock file says; "" when nobody does."""
    if not is_held(path):
        return ""
    with contextlib.suppress(OSError), path.open(errors="replace") as file:
        return _holder(file) or "another process"
    return "another process"


def _holder(file: IO[str]) -> str:
    """Return who holds a lock, as the lock file says; "" when it does not say, or may not be read while it is locked."""
    with contextlib.suppress(OSError):
        file.seek(0)
        return file.read().strip()
    return ""


def _tell(file: IO[str], holder: str) -> None:
    """Write into a lock file who holds it, for those who wait; errors such as a full disk are ignored."""
    with contextlib.suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), holder.encode())


@contextlib.contextmanager
def alive(folder: Path) -> Iterator[str]:
    """Give the block a new worker name; `is_alive` is True for it until the block ends or the process dies.

    The names of dead workers in the folder are removed.
    """
    name = uuid.uuid4().hex
    unlocked = temporary_name(make_folder(folder) / name)
    try:
        with unlocked.open("w") as file:
            take(file, fcntl.LOCK_EX)
            _ours.add(name)
            _tell(file, launched.holder())
            unlocked.rename(folder / name)  # only once locked, or others would take the worker for dead
            for other in folder.iterdir():
                if not other.name.startswith(".") and other.name != name:
                    is_alive(folder, other.name)
            yield name
    finally:
        _ours.discard(name)
        for path in (unlocked, folder / name):
            remove(path)


def is_alive(folder: Path, name: str) -> bool:
    """Tell whether the process to which `alive` gave a name still uses it; the name of a dead process is removed."""
    if name in _ours:
        return True
    try:
        with (folder / name).open("r+") as file:
            take(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    (folder / name).unlink(missing_ok=True)
    return False


IN_USE = ".in-use"
"""The file that a command locks to keep `bench clean` out of a folder that it uses."""


@contextlib.contextmanager
def using(folder: Path, echo: Callable[[str], object]) -> Iterator[None]:
    """Keep `bench clean` out of a folder while the block uses it; several processes may use it at once.

    While the folder is being cleaned, wait. Without effect where the folder is missing, cannot be written or does not support
    locks.
    """
    try:
        file = (folder / IN_USE).open("a+b")
    except OSError:
        file = None
    with file or contextlib.nullcontext():
        told = False
        while file is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    echo(f"waiting for bench clean, which works in {folder}")
                    told = True
                time.sleep(0.2)
                continue
            except OSError:
                pass
            break
        yield


@contextlib.contextmanager
def unused(folder: Path) -> Iterator[None]:
    """Keep every command out of a folder while the block cleans it; MachineError when one is using it now."""
    with contextlib.ExitStack() as opened:
        try:
            file = opened.enter_context((folder / IN_USE).open("ab"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:  # no folder, so no command uses it
            pass
        except BlockingIOError:
            raise MachineError(
                f"another command is using {folder}; nothing was removed; clean it when that command has ended."
            ) from None
        except OSError as error:
            raise MachineError(f"cannot lock {folder / IN_USE}: {error.strerror}; nothing was removed.") from error
        yield
