"""Whether the locks of a file system hold between the workers of a launch, tried before they train.

The command that launches and each worker hold a lock file in the launch's folder and write a sign of life beside it every `BEAT`
seconds. A worker that can take the lock of one who goes on giving signs of life has locks that do not keep others out: those of
its machine alone, or none.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from bench.errors import MachineError
from bench.storage import files, handed, launched, locks, shared

BEAT = 3.0
"""Seconds between two signs of life."""
PATIENCE = 4 * BEAT
"""Seconds in which the holder of a lock that could be taken must give signs of life, to count as alive."""
ATTEMPTS = 20
"""How many times a lock is tried that others may be trying."""
HEAD = "head"
LIFE = ".alive"
"""The ending of the files with signs of life: on SMB nobody else could write into a locked file."""
FOUND = "locks-not-shared.txt"
"""The file in a launch's folder in which a worker says what it found."""


@contextmanager
def holding(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock file NAME.lock of a launch's folder in the block, with signs of life; without it where it cannot be had."""
    path, life, ends = folder / f"{name}.lock", folder / f"{name}{LIFE}", threading.Event()
    files.make_parents(path)
    with path.open("a+") as file:
        for _ in range(ATTEMPTS):
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.02)
        else:
            yield
            return

        def live() -> None:
            own, beats = f"{os.uname().nodename} {uuid.uuid4().hex}", 0
            while not ends.wait(BEAT if beats else 0):
                beats += 1
                _write(life, f"{own} {beats}")

        thread = threading.Thread(target=live, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()
            _write(life, "")


@contextmanager
def member() -> Iterator[None]:
    """Be a member of the launch in the block; nothing outside of one, or where the jobs were handed out.

    MachineError before the block where locks do not work, or another member's lock does not keep this process out.
    """
    worker = launched.here()
    if worker is None or handed.out():
        yield
        return
    for folder in (worker.folder, files.home()):
        fault = locks.fault(folder)
        if fault:
            _give_up(worker.folder, f"locks do not work in {folder} on {shared.of(folder)} ({fault})")
    own = f"worker-{worker.number}"
    with holding(worker.folder, own):
        others = [path for path in worker.folder.glob("*.lock") if path.stem != own]
        host, here = not_kept_out(others), os.uname().nodename
        if host:
            between = "the processes of one machine" if host == here else f"{host} and {here}"
            _give_up(worker.folder, f"locks of {shared.of(worker.folder)} are not shared between {between}")
        yield


def _give_up(folder: Path, reason: str) -> NoReturn:
    """Leave the reason for the command that launches, and raise it."""
    _write(folder / FOUND, reason)
    raise MachineError(f"{reason}; a launch without --detach then divides the runs among its workers.")


def not_kept_out(paths: Iterable[Path]) -> str:
    """Return the host of a process that holds one of these locks although this process could lock it as well; "" for none.

    A lock that could be taken is that of somebody dead, unless the same process gives signs of life afterwards, twice.
    """
    seen: dict[Path, list[str]] = {}
    for path in paths:
        # held, as it should be; or gone; or there are no locks, which is said elsewhere
        with suppress(OSError), path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            text = path.with_suffix(LIFE).read_text(errors="replace")
            if text:
                seen[path] = [text]
    until = time.monotonic() + PATIENCE
    while seen and time.monotonic() < until:
        time.sleep(BEAT / 4)
        for path, texts in seen.items():
            with suppress(OSError):
                now = path.with_suffix(LIFE).read_text(errors="replace")
                same = now.split(" ")[:2] == texts[0].split(" ")[:2]
                if same and now.count(" ") == 2 and now != texts[-1]:
                    texts.append(now)
                    if len(texts) > 2:
                        return now.split(" ")[0]
    return ""


def found(folder: Path) -> str:
    """Return what a worker of a launch found of its locks: the reason why the runs must be divided, or ""."""
    with suppress(OSError):
        return (folder / FOUND).read_text(errors="replace").strip()
    return ""


def _write(path: Path, text: str) -> None:
    """Write a short text; errors such as a full disk are ignored."""
    with suppress(OSError):
        path.write_text(text)
