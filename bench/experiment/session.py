"""What every job of a command shares, and what a record says about data, cost and origin."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import splits
from bench.data.dataset import Dataset, Echo
from bench.experiment.resolve import Grid
from bench.record import Cost, DataFacts
from bench.training.feature_cache import Cache
from bench.training.loop import History, Watcher
from bench.training.machine import Machine


@dataclass(frozen=True)
class Session:
    """What every job of a command shares: where results go, the machine, the data, and who is told."""

    out: Path
    machine: Machine
    grid: Grid
    echo: Echo
    watcher: Watcher
    packing: Callable[[int, int], object]
    cache: Cache
    log: tuple[str, ...] = ()
    command: tuple[str, ...] = field(default_factory=lambda: tuple(sys.argv[1:]))


def facts(dataset: Dataset, split: splits.Split, fit: Sequence[str], scored: dict[str, int], void: int = 0) -> DataFacts:
    """Return what a record says about the images a run saw.

    Those it was fitted to, how many of them are `void` throughout, and how many of a part were `scored`.
    """
    known = dataset.known_labels()
    labels = [known.get(identity) for identity in fit]
    present = np.array([one for one in labels if one is not None])
    return DataFacts(
        name=dataset.name,
        synthetic=dataset.synthetic,
        left_out=len(dataset.broken),
        fingerprint=dataset.fingerprint,
        split=split.fingerprint,
        counts={"train": len(fit), **scored},
        classes=dataset.classes,
        scored=dataset.scored,
        fitted=hashlib.sha256("\n".join(fit).encode()).hexdigest(),
        void=void,
        prior=tuple(np.round((present != 0).mean(axis=0), 9).tolist()) if None not in labels and len(labels) else (),
    )


def cost(history: History, machine: Machine) -> Cost:
    """Return what training cost."""
    return Cost(
        seconds=round(history.seconds, 3),
        images=history.images,
        peak_memory=machine.peak_memory(),
        device=machine.device.type,
        joules=None if history.joules is None else round(history.joules, 1),
    )


def provenance(session: Session) -> dict[str, Any]:
    """Return where a record comes from: command, time, versions, machine, commit and whether files were changed since."""
    names = (
        "pretext-bench",
        "torch",
        "torchvision",
        "timm",
        "lightning",
        "albumentations",
        "kornia",
        "numpy",
        "optuna",
        "pillow",
    )
    return {
        "command": _without_storage(session.command),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: _installed(name) for name in names},
        "machine": session.machine.describe(),
        "data": _place(session.grid.data_name),
        "pretrain_data": _place(session.grid.pretrain_name),
        **commit(),
    }


def _without_storage(words: Sequence[str]) -> list[str]:
    """Return a command without the database's URL, which may hold a password."""
    kept = []
    for before, word in zip(["", *words], words, strict=False):
        hidden = before == "--storage" or word.startswith("--storage=")
        kept.append("--storage=..." if word.startswith("--storage=") else "..." if hidden else word)
    return kept


def _place(data: str | None) -> str | None:
    """Return a prepared set's name as it is, and a folder so that it is found from anywhere."""
    return str(Path(data).resolve()) if data and ("/" in data or data.startswith(".")) else data


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def commit() -> dict[str, Any]:
    """Return the program's commit, and whether its files were changed; what a study left beside them is no change of it.

    As they are when a process first asks, which it does before it works (`grid.make_session`): its code is of that time.
    """
    place = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", place, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # or git tells of a stranger's project
        changed = git("status", "--porcelain", "--", ":/", ":(top,exclude)results/studies")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
