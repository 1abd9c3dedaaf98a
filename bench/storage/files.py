"""Atomic writing: a file or a folder is published whole or not at all.

It is written under a temporary name beside its place, flushed, and renamed. A process that dies leaves a file or folder under a
temporary name, which the next process removes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.errors import MachineError
from bench.storage.seal import sealed
from bench.text import is_text

TEMPORARY = f".tmp-{hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]}-"
"""The beginning of a temporary name, different for each machine that shares a folder; the writer's process id follows."""
_ours: set[Path] = set()
"""The temporary names of this process: in a container, an earlier process may have had the same process id."""


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
    """Create `path` with its parents, remove temporary files of dead processes in it, and return it once a test file is written.

    MachineError says why nothing can be written there, or that records could not name it.
    """
    if not is_text(str(path)):
        raise MachineError(f"{str(path)!r} is not written in UTF-8, so no record could name it; choose another folder.")
    try:
        _folder(path)
        probe = temporary_name(path / "probe")
        try:
            probe.touch()
        finally:
            remove(probe)
    except OSError as error:
        raise MachineError(f"cannot write in {path}: {error.strerror}; choose another folder.") from error
    return path


def make_parents(path: Path) -> None:
    """Create the parent folders of `path`, and remove temporary files of dead processes there; OSError when that fails."""
    _folder(path.parent)


def _folder(path: Path) -> None:
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
    sweep(path)


def publish_file(path: Path, content: bytes | str) -> Path:
    """Replace the file at `path` by `content` atomically, and return `path`: a reader sees the old file or the new one, whole."""
    data = content.encode() if isinstance(content, str) else content

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(data)
            os.fsync(file.fileno())

    return _publish(path, write, len(data))


def publish_written(path: Path, write: Callable[[Path], object], needs: int, name: Callable[[Path], str] | None = None) -> Path:
    """Publish the file that `write(temporary path)` makes, of about `needs` bytes, and return its path.

    The path is `path`, or with `name` the name `name(temporary path)` in the same folder, for names that depend on the content.
    """

    def write_and_flush(temporary: Path) -> None:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())

    return _publish(path, write_and_flush, needs, name)


def publish_folder(path: Path, fill: Callable[[Path], object], whole: str = "", needs: int = 0) -> Path:
    """Publish the folder that `fill(temporary folder)` fills, of about `needs` bytes; return `path`.

    A folder that exists at `path` is kept, and the new one dropped. An existing folder without the file `whole` counts as
    incomplete and is replaced.
    """

    def write(temporary: Path) -> None:
        temporary.mkdir()
        fill(temporary)
        for place in [*temporary.rglob("*"), temporary]:
            _flush_path(place)

    if path.is_dir() and (not whole or (path / whole).is_file()):
        return path
    if path.is_dir():
        remove(path)
    return _publish(path, write, needs)


def publish_json(path: Path, value: Mapping[str, Any]) -> Path:
    """Publish `value` as indented JSON with sorted keys, sealed (`bench.storage.seal`)."""
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
        remove(temporary)
    return place


def sweep(folder: Path) -> None:
    """Remove temporary files and folders whose writing process is dead."""
    for path in folder.glob(f"{TEMPORARY}*"):
        if is_left(path):
            remove(path)


def is_left(path: Path) -> bool:
    """Tell whether a path has a temporary name of a dead process on this machine."""
    writer = path.name.removeprefix(TEMPORARY).split("-", 1)[0]
    if not path.name.startswith(TEMPORARY) or not writer.isdigit() or path in _ours:
        return False
    return int(writer) == os.getpid() or not _alive(int(writer))


def temporary_name(path: Path) -> Path:
    """Return a new temporary name beside `path`; the caller renames it or removes it with `remove`."""
    temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{time.monotonic_ns()}-{path.name}"
    _ours.add(temporary)
    return temporary


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its content; nothing happens when it is missing."""
    _ours.discard(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
