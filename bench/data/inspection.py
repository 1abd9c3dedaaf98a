"""A whole look at a data set: every image and mask is decoded, lists are held against what is there, the fingerprint is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.data import coco_masks, lists
from bench.data.dataset import Dataset, decode, read_header
from bench.data.fingerprint import fingerprinted
from bench.data.masks import read_mask
from bench.data.survey import Survey
from bench.data.threads import in_order
from bench.errors import DataError
from bench.schema import digest_of
from bench.text import Echo

Look = Callable[[Path], object]
"""Decodes an image file; DataError when it does not decode."""


def inspect(dataset: Dataset, images: bool = True, look: Look = decode) -> Dataset:
    """Return a data set with its fingerprint and with what was found (`Dataset.findings`).

    With `images`, every image is decoded too, by `look`, and the lists are checked whatever task may use them. DataError names
    the first file that does not decode, and the first image of an official list that lacks its annotation or mask; DataError also
    for masks that cannot be scored (`Survey`).
    """
    for subset in lists.subsets(dataset):
        lists.check(dataset, subset, images_only=not images)
    survey = Survey(dataset)
    check = _check_of(dataset, survey, look if images else None)

    def check_or_say_how(path: Path) -> None:
        try:
            check(path)
        except DataError as error:
            if _problem(path) is None:
                raise
            raise DataError(
                f"{str(error).removesuffix('.')}; mend or remove it, or leave out all such images with --skip-broken."
            ) from error

    return _surveyed(fingerprinted(dataset, check_or_say_how), survey)


def sound(dataset: Dataset, echo: Echo) -> Dataset:
    """Return a data set without what is broken, each told to `echo`.

    Without the images that do not decode, or whose mask does not, and with official lists that name no image which lacks its
    annotation or mask.
    """
    broken: set[str] = set()
    of_mask = {dataset.mask_file(folder, identity): identity for folder, ids in dataset.masks.items() for identity in ids}
    file_of = {image.id: image.file for image in dataset.images} if of_mask else {}
    for file, problem in in_order(lambda file: (file, _problem(dataset.root / file)), dataset.files()):
        if problem is not None:
            echo(f"left out: {problem}")
            broken.add(file_of[of_mask[file]] if file in of_mask else file)
    if broken:
        ids = {image.id for image in dataset.images if image.file in broken}
        dataset = dataset.without(ids, broken=tuple(sorted({*dataset.broken, *broken})))
    unlisted = lists.lacking(dataset)
    for one in unlisted:
        task, _, identity = one.partition("/")
        echo(f"left out of the lists in ImageSets/{task}: {identity}, which is not there or has no annotation or mask")
    return lists.without(dataset, unlisted) if unlisted else dataset


def look_at_masks(dataset: Dataset) -> Dataset:
    """Return a data set that has its fingerprint with what its masks hold; the errors are those of `inspect` for masks."""
    survey = Survey(dataset)
    check = _check_of(dataset, survey, None)
    for _ in in_order(check, (dataset.mask_path(folder, one) for folder, ids in dataset.masks.items() for one in ids)):
        pass
    return _surveyed(dataset, survey)


def _problem(path: Path) -> str | None:
    """Return why a file does not decode, None when it decodes."""
    try:
        decode(path)
    except DataError as error:
        return str(error)
    return None


def _check_of(dataset: Dataset, survey: Survey, look: Look | None) -> Callable[[Path], None]:
    """Return a function that decodes one file, an image or a mask, whole, and compares a mask's size with its image's.

    Of COCO's images the size is compared with that in the annotations.

    Masks are told to `survey`. Images are decoded by `look`, if it is given.
    """
    of_files = dataset.masks if dataset.kind != "coco" else {}  # COCO's masks are drawn from its annotations
    by_id = {image.id: image for image in dataset.images} if of_files else {}
    masks = {dataset.mask_path(folder, name): (folder, by_id[name]) for folder, ids in of_files.items() for name in ids}
    shown = {*dataset.boxes, *(name for ids in dataset.masks.values() for name in ids)} if dataset.kind == "coco" else set()
    annotated = {dataset.path(image): image.id for image in dataset.images if image.id in shown}

    def check(path: Path) -> None:
        if path in masks:
            folder, image = masks[path]
            source = dataset.path(image)
            size, orientation = read_header(source)
            survey.add(folder, image.id, read_mask(dataset, folder, image.id, size, source), orientation)
        elif look is not None:
            look(path)
            if path in annotated:
                coco_masks.check_size(dataset, annotated[path], read_header(path).size, path)

    return check


def _surveyed(dataset: Dataset, survey: Survey) -> Dataset:
    """Return a data set with what its masks hold; masks that were read by their colours change its fingerprint.

    Where images lie beside masks, the labels of an image are the classes in its mask.
    """
    survey.check()
    found: dict[str, Any] = {"surveyed": True, "by_colour": survey.by_colour}
    found["mask_findings"] = survey.findings()
    if dataset.kind == "masks":
        found["images"] = tuple(replace(image, labels=survey.labels_of(image.id)) for image in dataset.images)
    if survey.by_colour:
        found["fingerprint"] = digest_of({"files": dataset.fingerprint, "by_colour": survey.by_colour})
    return dataset.model_copy(update=found)
