"""The parts of a record about its data, its cost and its provenance."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import layouts, lists
from bench.data.dataset import Dataset
from bench.data.splits import Splits
from bench.experiment.session import Session, commit
from bench.preregistration import KEY
from bench.record import Cost, DataFacts
from bench.training.loop import History
from bench.training.machine import Machine

PACKAGES = (
    "pretext-bench", "torch", "torchvision", "timm", "lightning", "albumentations", "kornia", "numpy", "optuna", "pillow",
    "imagehash",
)  # fmt: skip


def data_facts(dataset: Dataset, splits: Splits, fit: Sequence[str], scored: dict[str, int], void: int = 0) -> DataFacts:
    """Return what a record says about the images of a run.

    `fit` holds the ids of the training images; `void` of these images have masks that are void throughout. `scored` maps each
    scored split to its number of images.
    """
    known = dataset.labelled()
    said = dataset.kind in ("csv", "masks") or dataset.single  # other layouts are found out by what lies there
    labels = dataset.labels(fit) if fit and all(identity in known for identity in fit) else np.zeros((0, 0))
    return DataFacts(
        name=dataset.name,
        synthetic=dataset.synthetic,
        left_out=dataset.left_out(lists.task_of(splits.subset)) if splits.subset != "images" else len(dataset.broken),
        exclude=dataset.exclude,
        layout=layouts.of(dataset) if said else "",
        labels=layouts.table_of(dataset) if said else "",
        group=dataset.grouped_by,
        mask_values=() if layouts.says_values(dataset) else dataset.mask_values,
        unused=_unused(dataset, splits),
        scored_list=splits.scored_list,
        fingerprint=dataset.fingerprint,
        splits_fingerprint=splits.fingerprint,
        counts={"train": len(fit), **scored},
        classes=dataset.classes,
        scored=dataset.scored,
        fitted=hashlib.sha256("\n".join(fit).encode()).hexdigest(),
        void=void,
        prior=tuple(np.round((labels != 0).mean(axis=0), 9).tolist()) if len(labels) else (),
    )


def _unused(dataset: Dataset, splits: Splits) -> dict[str, int]:
    """Return how many images of a data set a run cannot use, by reason, and what was found when its folder was read."""
    total, split = len(dataset.images), sum(len(ids) for ids in splits.members.values())
    held = total if splits.subset == "images" else len(lists.usable(dataset, splits.subset))
    masked = splits.subset not in ("labels", "boxes", "images")
    without = f"images without a mask in {splits.subset}" if masked else "images without an annotation"
    counts = {without: total - held, "images in no split": held - split}
    if splits.scheme == "official":
        counts |= lists.passed_over(dataset, splits.subset)
    if masked:
        others = (folder for folder in dataset.masks if folder != splits.subset)
        counts |= {f"masks in {folder}, which the protocol does not read": len(dataset.masks[folder]) for folder in others}
        counts |= dataset.mask_findings
    return {reason: number for reason, number in {**counts, **dataset.findings}.items() if number}


def cost(history: History, machine: Machine, peak_memory: int) -> Cost:
    """Return the cost of training for a record; `peak_memory` in bytes."""
    return Cost(
        seconds=round(history.seconds, 3),
        images=history.images,
        peak_memory=peak_memory,
        device=machine.device.type,
        joules=None if history.joules is None else round(history.joules, 1),
    )


def provenance(session: Session, data: str) -> dict[str, Any]:
    """Return where a record comes from: command, time, versions, machine, data, commit, whether files differ from the commit.

    `data` is the labelled data as the user named it.
    """
    return {
        "command": _without_storage(session.command),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: _installed(name) for name in PACKAGES},
        "machine": session.machine.describe(),
        "data": _findable(data),
        "pretrain_data": _findable(session.grid.pretrain_name),
        **({KEY: session.preregistration} if session.preregistration else {}),
        **commit(),
    }


def _without_storage(words: Sequence[str]) -> list[str]:
    """Return a command's words without the database's URL, which may hold a password."""
    kept = []
    for before, word in zip(["", *words], words, strict=False):
        hidden = before == "--storage" or word.startswith("--storage=")
        kept.append("--storage=..." if word.startswith("--storage=") else "..." if hidden else word)
    return kept


def _findable(data: str | None) -> str | None:
    """Return a prepared data set's name as it is, and a folder as an absolute path."""
    return str(Path(data).resolve()) if data and ("/" in data or data.startswith(".")) else data


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
