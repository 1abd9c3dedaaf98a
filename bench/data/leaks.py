"""Leaks: images that are scored, and that are equal or near to images that a trunk is pretrained on (`bench/data/hashes.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.data import hashes, lists
from bench.data.dataset import Dataset
from bench.data.hashes import Hashes, Shared
from bench.data.splits import FEWEST, FILE_VERSION, Splits, open_splits
from bench.errors import DataError
from bench.job import HeldOut
from bench.schema import digest_of
from bench.storage import files, seal
from bench.text import Echo


def shared(pretrain_data: Dataset, training: Splits, data: Dataset, scored: Sequence[str], echo: Echo) -> Shared:
    """Compare the training images of a pretraining split with the images of `data` that `scored` names, in these orders."""
    trained = _rows(pretrain_data, training.ids("train"), hashes.open_hashes(pretrain_data, echo))
    return hashes.compare(trained, _rows(data, scored, hashes.open_hashes(data, echo)))


def _rows(dataset: Dataset, ids: Sequence[str], found: Hashes) -> Hashes:
    place = {image.id: row for row, image in enumerate(dataset.images)}
    return found[[place[identity] for identity in ids]]


def without(training: Splits, pretrain_data: Dataset, data: Dataset, held_out: HeldOut, echo: Echo) -> Splits:
    """Return a pretraining split without the training images that are equal or near to a test image, from its file, which is made
    when missing; DataError if none is left.

    The test images are those of all tasks that `data` has labels or masks for: one trunk then serves them all.
    """
    made_of = {
        "images": [training.data_fingerprint, training.fingerprint],
        "without": [data.fingerprint, *held_out.schemes],
        "versions": [FILE_VERSION, hashes.VERSION],
    }
    path = files.home() / "splits" / f"{pretrain_data.name}-less-{digest_of(made_of)[:16]}.json"
    if not path.is_file():
        files.publish_json(path, _without(training, pretrain_data, data, held_out, echo).model_dump(mode="json"))
    return seal.read_model(Splits, path, "a file of splits", "remove it to have it made again")


def _without(training: Splits, pretrain_data: Dataset, data: Dataset, held_out: HeldOut, echo: Echo) -> Splits:
    alike = shared(pretrain_data, training, data, _test_ids(data, held_out.schemes), echo).trained
    kept = tuple(identity for identity, leaks in zip(training.ids("train"), alike, strict=True) if not leaks)
    if not kept:
        raise DataError(
            f"--leaks drop leaves nothing of {pretrain_data.name} to pretrain on: all of its {len(alike):,} training images are "
            f"equal or near to test images of {data.name}; pretrain on other images."
        )
    return training.model_copy(update={"members": {**training.members, "train": kept}})


def _test_ids(data: Dataset, schemes: Iterable[str]) -> list[str]:
    """Return the test images of every subset that has splits under these schemes.

    Official lists need no splits for that: a list that is scored is known also where another list lacks something.
    """
    there = {image.id for image in data.images}
    found: dict[str, None] = {}
    for scheme in schemes:
        for subset in ("labels", *(["boxes"] if data.kind == "coco" else []), *data.masks):
            if scheme == "official":
                chosen = lists.choose(data, subset)
                scored = data.lists[lists.task_of(subset)][chosen.test] if chosen else ()
                found |= dict.fromkeys(identity for identity in scored if identity in there)
            elif scheme == "pretraining" or len(lists.usable(data, subset)) >= FEWEST:
                found |= dict.fromkeys(open_splits(data, scheme, subset).ids("test"))
    return list(found)
