"""Reads a plain folder of images, at any depth, as unlabelled data; masks that lie beside the images are told apart."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from bench.data.dataset import Dataset, ImageFile, opened
from bench.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of folders, and words in tables, that name a split, in lower case."""
OTHER_SUFFIXES = frozenset(".gif .heic .heif .avif .jp2 .jxl .jfif .tga .ppm .pgm .psd .cr2 .nef .dng".split())
"""Suffixes of images that are not read."""
MASK_NAMES = frozenset(
    "mask masks label labels seg segmentation annotation annotations gt gtfine gtcoarse groundtruth trimap trimaps".split()
)
"""Names of folders in which masks lie, without underscores and digits at their ends; also first and last parts of file names."""
BESIDE = "masks beside the images, which are no photographs"
MOST_COLOURS = 32
"""The most colours that a mask has; a photograph has more."""
LEADS_NOWHERE, OTHERS = "links that lead nowhere", "files of other kinds"
TABLES = "files of annotations (.json, .xml, .csv), whose labels are not used"
SAMPLED = 5
"""How many files of a folder are looked at for that."""


def read(root: Path, name: str) -> Dataset:
    """Return the data set of every photograph below `root`, in the order of names; DataError when there is none.

    Links to folders are followed, each folder once. What else lies there is counted: masks of the images, links that lead
    nowhere, and images in formats that are not read.
    """
    names, unused = listed(root)
    masks = set(_masks(root, names))
    photographs = [name for name in names if name not in masks]
    if masks:
        unused[BESIDE] = len(masks)
    if not photographs:
        raise DataError(f"{root} holds no images ({', '.join(sorted(SUFFIXES))}).")
    return made(root, name, photographs, unused)


def listed(root: Path) -> tuple[list[str], Counter[str]]:
    """Return every image file below `root`, relative to it, in the order of names, and counts of what is not read."""
    unused: Counter[str] = Counter()
    return sorted(_names(root, unused), key=lambda name: name.split("/")), unused


def made(root: Path, name: str, photographs: Iterable[str], unused: Mapping[str, int]) -> Dataset:
    """Return the data set of some image files, unlabelled."""
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
            if _is_folder(entry) and entry.name.startswith((".", "@")):
                unused["hidden folders"] += 1
            elif _is_folder(entry):
                waiting.append((is_link or entry.is_symlink(), path.as_posix()))
            elif entry.name.startswith("._"):  # macOS keeps a file's properties in one
                unused["files of macOS (._*)"] += 1
            elif path.suffix.lower() in SUFFIXES:
                if entry.is_file():
                    yield path.as_posix()
                else:
                    unused[LEADS_NOWHERE if entry.is_symlink() else OTHERS] += 1
            elif path.suffix.lower() in OTHER_SUFFIXES:
                unused["images in formats that are not read"] += 1
            elif path.suffix.lower() in (".json", ".xml", ".csv"):
                unused[TABLES] += 1
            elif not entry.name.startswith("."):
                unused[LEADS_NOWHERE if entry.is_symlink() and not (root / path).exists() else OTHERS] += 1
        waiting.sort(key=lambda one: one[0])


def image_files(root: Path) -> Iterator[str]:
    """Yield every image file below `root`, relative to `root`, as a plain folder of images has them."""
    return _names(root, Counter())


def _masks(root: Path, names: Iterable[str]) -> Iterator[str]:
    """Yield the images that are masks of others.

    A mask lies in a folder of its own whose files have few colours, and another folder has images of the same names. The name of
    such a folder says that it holds masks, or its files are PNG and it lies beside that folder. Or a mask lies beside its image,
    whose name it has, as a PNG with few colours, or with `_mask`, `mask_` or the like, and then it is grey or has few colours.
    """
    by_folder: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        path = PurePosixPath(name)
        by_folder[path.parent.as_posix()][path.stem].append(name)
    every = {folder: [name for some in files.values() for name in some] for folder, files in by_folder.items()}
    marked = {folder: _is_mask_name(folder) for folder in by_folder}
    bases = {folder: _bases(files, 1) for folder, files in by_folder.items()}
    for folder, files in by_folder.items():
        if _look_like_masks(root, every[folder], marked[folder]) and any(
            _of_one(files, theirs) and not _look_like_masks(root, every[other], False)
            for other, theirs in bases.items()
            if other != folder and not marked[other] and (marked[folder] or _beside(folder, other))
        ):
            yield from every[folder]
            continue
        for stem, same in files.items():
            if _is_named_mask(stem, files):
                yield from (name for name in same if not _is_photograph(root / name))
            elif len(same) > 1:  # 1.png beside 1.jpg
                yield from (name for name in same if _look_like_masks(root, [name], False))


def _is_mask_name(folder: str) -> bool:
    return any(is_mask_word(part) for part in re.split(r"[/_-]", folder))


def is_mask_word(word: str) -> bool:
    """Tell whether a word of a name says that there are masks, such as `Masks` or `gt2`."""
    return word.lower().strip("0123456789") in MASK_NAMES


def _is_named_mask(stem: str, files: Mapping[str, object]) -> bool:
    """Tell whether `stem` is the name of one of the files with `_mask`, `mask_` or the like."""
    plain = stem.replace("-", "_")
    (before, _, last), (first, _, after) = plain.rpartition("_"), plain.partition("_")
    suffixed = before and last.lower() in MASK_NAMES and stem[: len(before)] in files
    return bool(suffixed or (after and first.lower() in MASK_NAMES and stem[len(first) + 1 :] in files))


def _beside(one: str, other: str) -> bool:
    """Tell whether two folders differ in one part of their paths, such as images/train and masks/train."""
    parts, others = one.split("/"), other.split("/")
    return len(parts) == len(others) and sum(a != b for a, b in zip(parts, others, strict=True)) == 1


def _bases(stems: Iterable[str], parts: int) -> set[str]:
    """Return file names with up to so many of their last parts taken off: `a_b` and `a` of a_b for 1."""
    return {base for stem in stems for base in [stem, *(stem.rsplit("_", n)[0] for n in range(1, parts + 1))]}


def _of_one(files: Iterable[str], images: set[str]) -> bool:
    """Tell whether most files are named like images, of which they may be masks; `images` are their names and bases."""
    stems = list(files)
    alike = sum(not images.isdisjoint({*_bases([stem], 2), stem.partition("_")[2]}) for stem in stems)
    return 2 * alike > len(stems)


def _look_like_masks(root: Path, files: Sequence[str], marked: bool) -> bool:
    """Tell whether some of the files that are looked at have few colours; all must be PNG unless the folder's name says masks."""
    if not marked and any(PurePosixPath(file).suffix.lower() != ".png" for file in files):
        return False
    return all(_has_few_colours(root / file) for file in files[:: max(1, len(files) // SAMPLED)])


def _is_photograph(path: Path) -> bool:
    """Tell whether an image has many colours; many shades of grey may be a mask with soft edges."""
    try:
        with opened(path) as image:
            found = np.asarray(image.convert("RGB"))
    except DataError:  # as below
        return True
    return not _has_few_colours(path) and bool((found[..., 0] != found[..., 2]).any())


def _has_few_colours(path: Path) -> bool:
    """Tell whether an image has few colours, or, for a JPEG, whose edges have more, whether few cover nearly all of it."""
    try:
        with opened(path) as image:
            found = np.asarray(image if image.mode in ("1", "L", "P", "I;16") else image.convert("RGB"))
    except DataError:  # a file that does not decode is told later, by its name
        return False
    pixels = found.reshape(-1, 3 if found.ndim == 3 else 1)
    if path.suffix.lower() == ".png":
        return len(np.unique(pixels, axis=0)) <= MOST_COLOURS
    counts = np.sort(np.unique(pixels >> 5, axis=0, return_counts=True)[1])
    return bool(counts[-8:].sum() > 0.9 * len(pixels))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
