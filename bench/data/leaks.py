"""Leaks: images that are scored, and that are equal or near to images that a trunk is pretrained on (`bench/data/hashes.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.data import hashes
from bench.data.dataset import Dataset
from bench.data.hashes import Hashes, Shared
from bench.data.splits import Splits, open_splits
from bench.errors import DataError
from bench.job import HeldOut
from bench.text import Echo


def shared(pretrain_data: Dataset, training: Splits, data: Dataset, scored: Sequence[str], echo: Echo) -> Shared:
    """Compare the training images of a pretraining split with the images of `data` that `scored` names, in these orders."""
    trained = _rows(pretrain_data, training.ids("train"), hashes.open_hashes(pretrain_data, echo))
    return hashes.compare(trained, _rows(data, scored, hashes.open_hashes(data, echo)))


def _rows(dataset: Dataset, ids: Sequence[str], found: Hashes) -> Hashes:
    place = {image.id: row for row, image in enumerate(dataset.images)}
    return found[[place[identity] for identity in ids]]


def without(training: Splits, pretrain_data: Dataset, data: Dataset, held_out: HeldOut, echo: Echo) -> Splits:
    """Return a pretraining split without the training images that are equal or near to a test image; DataError if none is left.

    The test images are those of all tasks that `data` has labels or masks for: one trunk then serves them all.
    """
    alike = shared(pretrain_data, training, data, _test_ids(data, held_out.schemes), echo).trained
    kept = tuple(identity for identity, leaks in zip(training.ids("train"), alike, strict=True) if not leaks)
    if not kept:
        raise DataError(
            f"--leaks drop leaves nothing of {pretrain_data.name} to pretrain on: all of its {len(alike):,} training images are "
            f"equal or near to test images of {data.name}; pretrain on other images."
        )
    return training.model_copy(update={"members": {**training.members, "train": kept}})


def _test_ids(data: Dataset, schemes: Iterable[str]) -> list[str]:
    found: dict[str, None] = {}
    for scheme in schemes:
        for subset in ("labels", *data.masks):
            try:
                found |= dict.fromkeys(open_splits(data, scheme, subset).ids("test"))
            except DataError:  # the data has no such splits, so no task has
                continue
    return list(found)
