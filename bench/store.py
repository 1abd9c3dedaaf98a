"""The disk: everything that is written is published whole or not at all, under a name that says what it is.

A file or a folder is written beside its place, flushed, and renamed into it; a process that dies leaves a temporary
name that the next one removes. Locks are the kernel's (`flock`), so a dead holder's lock is free at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from bench.errors import MachineError
from bench.seal import sealed

TEMPORARY = f".tmp-{hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]}-"
"""What a temporary name begins with; it tells machines that share a folder apart. The writer's process id follows."""
_ours: set[Path] = set()
"""What this process is writing: in a container the process before it may have had the same id."""


def home() -> Path:
    """Return the folder of prepared data, packs and splits: $PRETEXT_BENCH_HOME or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("PRETEXT_BENCH_HOME") or platformdirs.user_cache_dir("pretext-bench"))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(content: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def make_folder(path: Path) -> Path:
    """Create `path` with its parents, remove what dead writers left in it, and check that it can be written.

    MachineError says why not.
    """
    try:
        _folder(path)
        probe = temporary_name(path / "probe")
        try:
            probe.touch()
        finally:
            _remove(probe)
    except OSError as error:
        raise MachineError(f"cannot write in {path}: {error.strerror}; choose another folder.") from error
    return path


def _folder(path: Path) -> None:
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
    sweep(path)


def publish_file(path: Path, content: bytes | str) -> Path:
    """Write `content` to `path` at once: a reader sees the old file or the new one, whole."""
    data = content.encode() if isinstance(content, str) else content

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(data)
            _flush(file.fileno())

    return _publish(path, write, len(data))


def publish_written(path: Path, write: Callable[[Path], object], needs: int, name: Callable[[Path], str] | None = None) -> Path:
    """Publish the file of about `needs` bytes that `write` makes at the temporary path it is given.

    With `name` it gets the name, beside `path`, that is made from what was written.
    """

    def write_and_flush(temporary: Path) -> None:
        write(temporary)
        with temporary.open("rb+") as file:
            _flush(file.fileno())

    return _publish(path, write_and_flush, needs, name)


def publish_folder(path: Path, fill: Callable[[Path], object], whole: str = "", needs: int = 0) -> Path:
    """Publish the folder that `fill` makes; when `path` exists already, that one stays and ours is dropped.

    A folder without the file `whole` is what is left of one, and gives way. `needs` is about how many bytes it will have.
    """

    def write(temporary: Path) -> None:
        temporary.mkdir()
        fill(temporary)
        for place in [*temporary.rglob("*"), temporary]:
            _flush_path(place)

    if path.is_dir() and (not whole or (path / whole).is_file()):
        return path
    if path.is_dir():
        remove_folder(path)
    return _publish(path, write, needs)


def publish_json(path: Path, value: Mapping[str, Any]) -> Path:
    """Publish `value` as indented JSON with sorted keys, sealed (`bench.seal`)."""
    return publish_file(path, sealed(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"))


def _publish(path: Path, write: Callable[[Path], object], needs: int, name: Callable[[Path], str] | None = None) -> Path:
    temporary = temporary_name(path)
    try:
        _folder(path.parent)
        free = shutil.disk_usage(path.parent).free
        if needs > free:
            raise MachineError(f"no room to write {path}: it needs {needs:,} bytes and {free:,} are free; free some space.")
        write(temporary)
        if path.is_dir() and temporary.is_dir():
            return path
        place = path if name is None else path.with_name(name(temporary))
        temporary.replace(place)
        _flush_path(path.parent)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            size = f"it needs {needs:,} bytes" if needs else f"{error.strerror}"
            raise MachineError(f"no room to write {path}: {size}; free some space, then run again.") from error
        raise MachineError(f"cannot write {path}: {error.strerror or error}.") from error
    finally:
        _remove(temporary)
    return place


def sweep(folder: Path) -> None:
    """Remove temporary files and folders whose writer is dead."""
    for path in folder.glob(f"{TEMPORARY}*"):
        if is_left(path):
            _remove(path)


def is_left(path: Path) -> bool:
    """Tell whether a path's name is the temporary one of a writer on this machine that is dead."""
    writer = path.name.removeprefix(TEMPORARY).split("-", 1)[0]
    if not path.name.startswith(TEMPORARY) or not writer.isdigit() or path in _ours:
        return False
    return int(writer) == os.getpid() or not _alive(int(writer))


def temporary_name(path: Path) -> Path:
    """Return a name beside `path` to write under until all is written; `remove_folder` ends its use."""
    temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{time.monotonic_ns()}-{path.name}"
    _ours.add(temporary)
    return temporary


def _remove(path: Path) -> None:
    _ours.discard(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def remove_folder(path: Path) -> None:
    """Remove a working folder; nothing happens when there is none."""
    _remove(path)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(descriptor: int) -> None:
    os.fsync(descriptor)


def _flush_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Elsewhere(Exception):
    """What is asked for is being made by other processes, and nothing of it is left to do here."""


@contextlib.contextmanager
def lock(
    path: Path,
    say: Callable[[str], object],
    check: Callable[[], object] = lambda: None,
    timeout: float = 24 * 3600,
    wait: bool = True,
) -> Iterator[None]:
    """Hold `path` alone; wait for another holder, saying who it is, and raise MachineError after `timeout` seconds.

    `check` is called while waiting, and may raise to give up. Without `wait`, another holder is Elsewhere.
    """
    try:
        _folder(path.parent)
        opened = path.open("a+", errors="replace")
    except OSError as error:
        raise MachineError(f"cannot lock {path}: {error.strerror}.") from error
    with opened as file:
        deadline = time.monotonic() + timeout
        told, tried = False, False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not tried:  # it may be somebody who only asks whether it is held
                    tried = True
                    time.sleep(0.02)
                    continue
                if not wait:
                    raise Elsewhere from None
                file.seek(0)
                holder = file.read().strip() or "another process"
                if time.monotonic() > deadline:
                    raise MachineError(f"{path.stem} is being worked on by {holder}; try again later.") from None
                if not told:
                    say(f"waiting for {holder}, which works on {path.stem}")
                    told = True
                check()
                time.sleep(0.2)
        _tell(file, f"process {os.getpid()} on {socket.gethostname()}")
        try:
            yield
        finally:
            _tell(file, "")


def is_held(path: Path) -> bool:
    """Tell whether a process holds a lock now; no when there is no such file."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _tell(file: IO[str], holder: str) -> None:
    """Write who holds a lock, for those who wait; a full disk is no reason not to hold it."""
    with contextlib.suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), holder.encode())


@contextlib.contextmanager
def alive(folder: Path) -> Iterator[str]:
    """Be known as alive under a new name, given to the block, until it ends or the process dies; forget the dead."""
    name = uuid.uuid4().hex
    unlocked = temporary_name(make_folder(folder) / name)
    try:
        with unlocked.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            unlocked.rename(folder / name)  # not before it is locked, or others would take it for a dead one's
            for other in folder.iterdir():
                if not other.name.startswith(".") and other.name != name:
                    is_alive(folder, other.name)
            yield name
    finally:
        for path in (unlocked, folder / name):
            _remove(path)


def is_alive(folder: Path, name: str) -> bool:
    """Tell whether the process that took a name by `alive` still has it; the name of a dead one is removed."""
    try:
        with (folder / name).open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    (folder / name).unlink(missing_ok=True)
    return False


IN_USE = ".in-use"
"""The file through which a command that uses a folder keeps another from cleaning it."""


@contextlib.contextmanager
def using(folder: Path, say: Callable[[str], object]) -> Iterator[None]:
    """Keep `bench clean` out of a folder while the block uses it; any number of users may, and a dead one's claim is gone.

    While the folder is being cleaned, wait. Nothing is claimed where the folder is missing, cannot be written or knows no locks.
    """
    try:
        file = (folder / IN_USE).open("ab")
    except OSError:
        file = None
    with file or contextlib.nullcontext():
        told = False
        while file is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    say(f"waiting for bench clean, which works in {folder}")
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
        except FileNotFoundError:  # no folder, so nobody is there
            pass
        except BlockingIOError:
            raise MachineError(f"another command is using {folder}; nothing was removed, clean it when that is done.") from None
        except OSError as error:
            raise MachineError(f"cannot lock {folder / IN_USE}: {error.strerror}; nothing was removed.") from error
        yield
