"""Reads images beside masks, as most segmentation data of a user's own lies: `images` and `masks`, or `x.jpg` and `x_mask.png`.

`classes.txt` or `classes.csv` in the same folder names the classes (`bench.data.class_lists`). Folders train, val and test, below
`images` or above it, are splits.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from bench.data import class_lists, folder
from bench.data.dataset import Dataset, ImageFile, opened
from bench.data.folder import SPLITS, is_mask_word
from bench.errors import DataError
from bench.text import shell, some

MASKS = "masks"
"""The name of the masks in `Dataset.masks`, whatever their folder is called."""
IMAGE_WORDS = frozenset("image images img imgs jpegimages photo photos picture pictures".split())
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
SAMPLED = 50
"""How many masks are looked at to say what a folder without classes may need."""


class Place(NamedTuple):
    """Where a file lies: its folders without the words that tell images from masks, its stem, and whether it lies among masks."""

    file: str
    folders: tuple[str, ...]
    stem: str
    masked: bool

    @property
    def key(self) -> str:
        """What an image and its mask share."""
        return "/".join((*self.folders, self.stem))


def place(file: str) -> Place:
    """Return where a file lies; the innermost folder that is named like images or masks tells.

    >>> place("train_masks/a.png")
    Place(file='train_masks/a.png', folders=('train',), stem='a', masked=True)
    """
    path = PurePosixPath(file)
    parts = list(path.parts[:-1])
    for number in range(len(parts) - 1, -1, -1):
        words = re.split(r"[_-]", parts[number])
        joined = is_mask_word("".join(words))
        masked = joined or any(map(is_mask_word, words))
        if masked or any(word.lower().strip("0123456789") in IMAGE_WORDS for word in words):
            left = (
                [] if joined else [w for w in words if not is_mask_word(w) and w.lower().strip("0123456789") not in IMAGE_WORDS]
            )
            parts[number : number + 1] = ["_".join(left)] if left else []
            return Place(file, tuple(parts), path.stem, masked)
    return Place(file, tuple(parts), path.stem, False)


def _bases(stem: str) -> list[str]:
    """Return the names of the images of which a file may be the mask: its stem, and without `_mask`, `mask_` or the like."""
    before, _, last = stem.replace("-", "_").rpartition("_")
    first, _, after = stem.replace("-", "_").partition("_")
    found = [stem[: len(before)]] if before and is_mask_word(last) else []
    return [stem, *found, *([stem[len(first) + 1 :]] if after and is_mask_word(first) else [])]


class Pairs(NamedTuple):
    """The images of a folder by id, the mask file of each that has one, and counts of what is left, by reason."""

    images: dict[str, Place]
    masks: dict[str, str]
    findings: dict[str, int]


def _sorted_out(names: Iterable[str]) -> tuple[list[Place], list[Place], int]:
    """Return the images, the masks, and how many files among masks have a format that changes values."""
    places = [place(name) for name in names]
    stems = {(one.folders, one.stem) for one in places if not one.masked}
    images, masks, lossy = [], [], 0
    for one in places:
        fits = PurePosixPath(one.file).suffix.lower() in MASK_SUFFIXES
        beside = any((one.folders, base) in stems for base in _bases(one.stem)[1:])
        if one.masked:
            masks += [one] if fits else []
            lossy += not fits
        elif beside and fits:
            masks.append(one)
        else:
            images.append(one)
    return images, masks, lossy


def pairs(root: Path, names: Sequence[str]) -> Pairs:
    """Return which images have which masks.

    An image and its mask share their folders and their names. Where no two do, those pair whose names alone agree, if no name
    occurs twice. DataError when no mask fits an image, when an image has two masks, and when an id is that of two images.
    """
    images, masks, lossy = _sorted_out(names)
    by_id: dict[str, Place] = {}
    for one in images:
        before = by_id.setdefault(str(PurePosixPath(one.file).with_suffix("")), one)
        if before is not one:
            raise DataError(f"{root} has both {before.file} and {one.file}; images of one folder differ in more than the suffix.")
    found = _matched(root, by_id, masks, whole=True) or _matched(root, by_id, masks, whole=False)
    if not found:
        raise DataError(f"{_apart(root, images, masks, lossy)} --layout images takes the images alone.")
    findings = {
        "images without a mask, kept without labels": len(by_id) - len(found),
        "masks without an image": len(masks) - len(found),
        "files among the masks that are no PNG, TIFF or BMP, which are not read": lossy,
    }
    return Pairs(by_id, found, {reason: number for reason, number in findings.items() if number})


def _matched(root: Path, images: dict[str, Place], masks: Sequence[Place], whole: bool) -> dict[str, str]:
    """Return the mask of each image's id by their keys, or by their names alone where each occurs once."""
    ids: dict[str, list[str]] = defaultdict(list)
    for identity, one in images.items():
        ids[one.key if whole else one.stem].append(identity)
    if not whole and max(Counter(one.stem for one in masks).values(), default=0) > 1:
        return {}
    found: dict[str, str] = {}
    for mask in masks:
        keys = ["/".join((*mask.folders, base)) if whole else base for base in _bases(mask.stem)]
        fitting = next((ids[key] for key in keys if key in ids), [])
        if len(fitting) > 1:
            if not whole:
                return {}
            raise DataError(f"{root}: {mask.file} may be the mask of {some(images[one].file for one in fitting)}; rename one.")
        for identity in fitting:
            if identity in found:
                raise DataError(
                    f"{root} has two masks of {images[identity].file}: {found[identity]} and {mask.file}; take one of them away."
                )
            found[identity] = mask.file
    return found


def _apart(root: Path, images: Sequence[Place], masks: Sequence[Place], lossy: int) -> str:
    if lossy and not masks:
        return f"{root} has {lossy:,} masks that are no PNG, TIFF or BMP; JPEG changes the values of pixels, so save PNG files."
    if not masks or not images:
        what = "images" if masks else "masks"
        return (
            f"{root} has no {what}; it needs a folder of images beside a folder of masks (`images` and `masks`), or masks named "
            "like x_mask.png beside x.jpg."
        )
    return (
        f"{root}: none of {len(masks):,} masks is named like one of {len(images):,} images, such as the mask {masks[0].file} and "
        f"the image {images[0].file}; give a mask its image's name, with or without _mask."
    )


def looks_like(root: Path) -> bool:
    """Tell whether a folder has a file of classes, and files that lie or are named like masks of images."""
    if not any((root / name).is_file() for name in class_lists.FILES):
        return False
    images, masks, lossy = _sorted_out(folder.listed(root)[0])
    return bool(images and (masks or lossy))


def unnamed(root: Path) -> str:
    """Return what a folder of images beside masks needs to be used for segmentation, "" where it is no such folder."""
    if any((root / name).is_file() for name in class_lists.FILES):
        return ""
    try:
        found = pairs(root, folder.listed(root)[0])
    except DataError:
        return ""
    return f"{root} has {len(found.masks):,} masks, and nothing names their classes. {_advice(root, found)}"


def _advice(root: Path, found: Pairs) -> str:
    """Return what to write where nothing names the classes, by what some masks hold."""
    files = list(found.masks.values())
    values: set[str] = set()
    for file in files[:: max(1, len(files) // SAMPLED)]:
        with opened(root / file, "a mask") as mask:
            if mask.mode in ("RGB", "RGBA"):
                codes = np.unique(np.array(mask.convert("RGB")).reshape(-1, 3), axis=0).tolist()
                values |= {f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in codes}
            else:
                values |= {str(int(value)) for value in np.unique(np.array(mask))}
    other = sorted(values - {"0", "#000000"})
    if len(other) == 1:
        word = shell(("--map", f"{other[0]}=1"))
        way = "" if other[0] == "1" else f", and add {word}"
        return f"They are 0 (background) and {other[0]}: write the name of the one class into {root / 'classes.txt'}{way}."
    return (
        f"Write {root / 'classes.txt'}, one name a line in the order of the ids 1, 2, ..., or classes.csv with the columns id, "
        "name and colour."
    )


def read(root: Path, name: str) -> Dataset:
    """Return the data set of images beside masks at `root`; DataError says what does not fit."""
    path = class_lists.find(root)
    names, unused = folder.listed(root)
    found = pairs(root, names)
    if path is None:
        raise DataError(f"{root} has {len(found.masks):,} masks, and nothing names their classes. {_advice(root, found)}")
    classes = class_lists.of_masks(path)
    images, given = [], defaultdict[str, list[str]](list)
    for identity, one in sorted(found.images.items(), key=lambda item: item[1].file.split("/")):
        split = next((SPLITS[part.casefold()] for part in one.folders if part.casefold() in SPLITS), "")
        images.append(ImageFile(id=identity, file=one.file, split=split))
        given[split].append(identity)
    named = {split: tuple(given[split]) for split in ("train", "val", "test") if split in given}
    others = f"names in {path.name} that are no classes ({some(classes.others)})"
    read_here = folder.OTHERS if path.suffix == ".txt" else folder.TABLES
    unused[read_here] -= 1
    plain = folder.made(root, name, (), {**unused, **found.findings, others: len(classes.others)})
    return plain.model_copy(
        update={
            "kind": "masks",
            "classes": classes.names,
            "images": tuple(images),
            "masks": {MASKS: tuple(image.id for image in images if image.id in found.masks)},
            "mask_files": dict(sorted(found.masks.items())),
            "mask_values": classes.values,
            "sources": (path.relative_to(root).as_posix(),),
            "given": named if len(named) > 1 else {},
        }
    )
