"""Reads a plain folder of images, at any depth, as unlabelled data; masks that lie beside the images are told apart."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from PIL import Image

from bench.data.dataset import Dataset, ImageFile
from bench.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
OTHER_SUFFIXES = frozenset(".gif .heic .heif .avif .jp2 .jxl .jfif .tga .ppm .pgm .psd .cr2 .nef .dng".split())
"""Suffixes of images that are not read."""
MASK_NAMES = frozenset(
    {"mask", "masks", "label", "labels", "seg", "segmentation", "annotation", "annotations", "gt", "groundtruth"}
)
"""Names of folders in which masks lie, without underscores and digits at their ends; also last parts of file names."""


def read(root: Path, name: str) -> Dataset:
    """Return the data set of every photograph below `root`, in the order of names; DataError when there is none.

    Links to folders are followed, each folder once. What else lies there is counted: masks of the images, links that lead
    nowhere, and images in formats that are not read.
    """
    unused: Counter[str] = Counter()
    names = sorted(_names(root, unused), key=lambda name: name.split("/"))
    masks = set(_masks(root, names))
    photographs = [name for name in names if name not in masks]
    if masks:
        unused["masks beside the images, which are no photographs"] = len(masks)
    if not photographs:
        raise DataError(f"{root} holds no images ({', '.join(sorted(SUFFIXES))}).")
    return Dataset(
        name=name,
        kind="folder",
        root=root,
        synthetic=(root / "SYNTHETIC.txt").is_file(),
        images=tuple(ImageFile(id=name, file=name) for name in photographs),
        findings={reason: number for reason, number in unused.items() if number},
    )


def _names(root: Path, unused: Counter[str]) -> Iterator[str]:
    """Yield the image files below `root`, relative to `root`, in no fixed order; what is not read is counted."""
    seen: set[tuple[int, int]] = set()
    waiting = [(False, "")]
    while waiting:  # folders before links to folders, so that a folder of the tree has its own name
        is_link, below = waiting.pop(0)
        place = root / below
        try:
            status = place.stat()
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"cannot read {place}: {error.strerror}.") from error
        if (status.st_dev, status.st_ino) in seen:
            unused["links to folders that are read already"] += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            path = PurePosixPath(below) / entry.name
            if _is_folder(entry):
                waiting.append((is_link or entry.is_symlink(), path.as_posix()))
            elif entry.name.startswith("._"):  # macOS keeps a file's properties in one
                unused["files of macOS (._*)"] += 1
            elif path.suffix.lower() in SUFFIXES:
                if entry.is_file():
                    yield path.as_posix()
                else:
                    unused["links to images that are not there"] += 1
            elif path.suffix.lower() in OTHER_SUFFIXES:
                unused["images in formats that are not read"] += 1
        waiting.sort(key=lambda one: one[0])


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _masks(root: Path, names: Iterable[str]) -> Iterator[str]:
    """Yield the images that are masks of others.

    A mask lies in a folder of its own, beside a folder with images of the same names, or in one folder with the image, whose
    name it has with `_mask` or the like. A folder is one of masks when its name says so, or when all its files are PNG with one
    channel.
    """
    by_folder: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        path = PurePosixPath(name)
        by_folder[path.parent.as_posix()][path.stem] = name
    for folder, files in by_folder.items():
        yield from (name for stem, name in files.items() if _is_named_mask(stem, files))
        if _holds_masks(root, folder, files.values()) and any(
            _beside(folder, other) and _of_one(files, theirs) and not _holds_masks(root, other, theirs.values())
            for other, theirs in by_folder.items()
        ):
            yield from (name for stem, name in files.items() if not _is_named_mask(stem, files))


def _is_named_mask(stem: str, files: dict[str, str]) -> bool:
    image, _, last = stem.replace("-", "_").rpartition("_")
    return last.lower() in MASK_NAMES and stem[: len(image)] in files


def _beside(one: str, other: str) -> bool:
    """Tell whether two folders differ in one part of their paths, such as images/train and masks/train."""
    parts, others = one.split("/"), other.split("/")
    return len(parts) == len(others) and sum(a != b for a, b in zip(parts, others, strict=True)) == 1


def _of_one(files: dict[str, str], others: dict[str, str]) -> bool:
    """Tell whether most files are named like others, of which they may be masks."""
    shared = sum(stem in others or stem.replace("-", "_").rpartition("_")[0] in others for stem in files)
    return 2 * shared > len(files)


def _holds_masks(root: Path, folder: str, files: Iterable[str]) -> bool:
    named = any(part.lower().strip("_0123456789") in MASK_NAMES for part in folder.split("/"))
    return named or all(_has_one_channel(root / file) for file in files)


def _has_one_channel(path: Path) -> bool:
    if path.suffix.lower() != ".png":
        return False
    try:
        with Image.open(path) as image:
            return image.mode in ("1", "L", "P")
    except Exception:  # a file that does not decode is told later, by its name
        return False
