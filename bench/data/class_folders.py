"""Reads folders of classes: ROOT/CLASS/image.jpg, or ROOT/train/CLASS/image.jpg and so on, as torchvision's ImageFolder has them.

Source: https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from bench.data import lists
from bench.data.dataset import Dataset
from bench.data.folder import SPLITS, is_mask_word
from bench.text import some

FEWEST = 2
"""The fewest folders with images that are classes; one folder of images is a folder of images."""


def labelled(plain: Dataset) -> Dataset | None:
    """Return a plain folder of images with the classes that its folders name; None where they name none.

    Folders name classes when there are two at least and no image lies beside them. Folders named train, val and test, whatever
    their case, are splits when each has folders of its own; a lone train is divided as if it named none. Ids and fingerprint stay
    those of the plain folder, which is also pretrained on.
    """
    paths = [PurePosixPath(image.file).parts for image in plain.images]
    of_split = {SPLITS.get(path[0].casefold(), "") for path in paths}
    level = 1 if "" not in of_split and min(map(len, paths)) > 2 else 0
    if min(map(len, paths)) < 2 or (level == 0 and len(of_split - {""}) > 1):
        return None
    classes = sorted({path[level] for path in paths})
    if len(classes) < FEWEST:
        return None
    numbers = {name: number for number, name in enumerate(classes)}
    images = tuple(replace(image, label=numbers[path[level]]) for image, path in zip(plain.images, paths, strict=True))
    given: dict[str, list[str]] = {}
    seen: dict[str, set[str]] = {}
    for image, path in zip(plain.images, paths, strict=True) if level else ():
        split = SPLITS[path[0].casefold()]
        given.setdefault(split, []).append(image.id)
        seen.setdefault(split, set()).add(path[level])
    named = {split: tuple(given[split]) for split in ("train", "val", "test") if split in given}
    return plain.model_copy(
        update={
            "classes": tuple(classes),
            "single": True,
            "images": images,
            "given": named if len(named) > 1 else {},
            "findings": {**plain.findings, **_findings(plain, classes, {path[0] for path in paths}, seen)},
        }
    )


def problem(plain: Dataset) -> str:
    """Return why the folders of a plain folder of images name no classes, as a part of a sentence."""
    paths = [PurePosixPath(image.file).parts for image in plain.images]
    loose = sorted(path[0] for path in paths if len(path) == 1)
    folders = sorted({path[0] for path in paths if len(path) > 1})
    splits = [name for name in folders if name.casefold() in SPLITS]
    if loose:
        return f"{some(loose)} lies beside the folders" if folders else "it has no folder with images"
    if splits and len(splits) < len(folders):
        return f"{some(sorted({*folders} - {*splits}))} lies beside {', '.join(splits)}"
    inside = [path[-1] for path in paths if path[0] in splits and len(path) == 2]
    return f"{some(inside)} lies in no class folder" if inside else f"all images are in one folder, {folders[0]}"


def nearly(plain: Dataset) -> Dataset:
    """Return a plain folder of images; where it has several folders, with the reason why they name no classes."""
    folders = {PurePosixPath(image.file).parts[0] for image in plain.images if "/" in image.file}
    if len(folders) < FEWEST:
        return plain
    return plain.model_copy(
        update={"findings": {**plain.findings, f"folders that are no classes, since {problem(plain)}": len(folders)}}
    )


def _findings(plain: Dataset, classes: list[str], read: set[str], seen: dict[str, set[str]]) -> dict[str, int]:
    """Return what may be a mistake in the folders, as counts; `seen` are the classes of each split, `read` the first folders."""
    folders = [path.name for path in lists.entries(plain.root) if path.is_dir() and not path.is_symlink()]
    empty = [name for name in folders if name not in read and not is_mask_word(name)]
    alike = len(classes) - len({name.casefold() for name in classes})
    apart = sorted(set(classes) - seen["train"]) if "train" in seen else []
    found = {
        f"folders without images, which are no classes ({some(empty)})": len(empty),
        "classes whose names differ from another's in their case alone": alike,
        f"classes of which the folder train has no image ({some(apart)})": len(apart),
    }
    return {reason: number for reason, number in found.items() if number}
