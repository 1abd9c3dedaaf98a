"""The fingerprint of a data set: a SHA-256 over the content of its files and what they are said to show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.data.dataset import APART, Dataset, ImageFile
from bench.data.threads import in_order
from bench.errors import DataError
from bench.schema import digest_of
from bench.storage import files


def fingerprinted(dataset: Dataset, check: Callable[[Path], object] | None = None) -> Dataset:
    """Return the data set with its fingerprint; `check` is called with the path of every file, in threads."""

    def read(file: str) -> tuple[str, str]:
        path = dataset.root / file
        if check is not None:
            check(path)
        try:
            return file, files.sha256(path)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}.") from error

    # The keys keep their first names, "pictures" and "part": others would change every fingerprint.
    plain = dataset.model_copy(update=_NOTHING_SHOWN) if dataset.kind in APART else dataset
    content = plain.model_dump(mode="json", exclude={"root", "fingerprint", "name", "images", *plain.unsaid})
    content["files"] = in_order(read, dataset.files())
    if dataset.sources and dataset.kind not in APART:
        content["sources"] = [files.sha256(dataset.root / source) for source in dataset.sources]
    content["pictures"] = (
        {"id": image.id, "file": image.file, "part": image.split, **_shown(image, dataset.kind in APART)}
        for image in dataset.images
    )
    return dataset.model_copy(update={"fingerprint": digest_of(content)})


_NOTHING_SHOWN: dict[str, Any] = {"classes": (), "scored": (), "masks": {}, "single": False, "given": {}, "grouped_by": ""}


def _shown(image: ImageFile, apart: bool) -> dict[str, Any]:
    """Return what a fingerprint has of what an image shows; nothing where the fingerprint is of the images alone."""
    if apart:
        return {"labels": None}
    more = {"label": image.label, "group": image.group or None}
    return {"labels": image.labels, **{name: value for name, value in more.items() if value is not None}}


def annotated(dataset: Dataset, *more: str) -> Dataset:
    """Return a data set with the digest of what its images show (`Dataset.annotations`), which `more` is part of.

    The digest is empty where nothing is shown that the fingerprint has not.
    """
    apart = dataset.kind in APART
    boxes = sorted(dataset.boxes.items())
    if not boxes and not (apart and dataset.classes):
        return dataset.model_copy(update={"annotations": ""})
    content: dict[str, Any] = {"classes": dataset.classes, "scored": dataset.scored, "boxes": iter(boxes), "more": more}
    if apart:
        content |= {"given": dataset.given, "grouped_by": dataset.grouped_by}
        content["labels"] = ([image.id, image.labels, image.label, image.group] for image in dataset.images)
    return dataset.model_copy(update={"annotations": digest_of(content)})
