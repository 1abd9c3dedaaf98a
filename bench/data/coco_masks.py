"""Masks of a COCO data set, drawn of its annotations when they are asked for; no mask is a file.

Instances are drawn by pycocotools, from polygons, run lengths or compressed run lengths. A pixel of two objects of different
classes is void, as torchvision's reference scripts discard overlapping instances (references/segmentation/coco_utils.py; they
also discard overlaps within a class). Crowd regions count as their class. Panoptic masks come from their PNGs, whose colours are
the ids of segments, R + 256 G + 65536 B; a pixel of no segment is void (Kirillov et al. 2019, https://arxiv.org/abs/1801.00868).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from itertools import takewhile
from pathlib import Path, PurePath
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data import coco_annotations
from bench.data.coco_annotations import Annotations, Listed, Region
from bench.data.dataset import Dataset, opened
from bench.errors import DataError
from bench.metrics import PADDING, VOID
from bench.text import quoted

INSTANCES, PANOPTIC = "instances", "panoptic"
"""The names of the mask folders of a COCO data set; no such folders are there."""
MOST_CLASSES = PADDING - 1
"""The most classes that a mask has ids for; other ids are background, padding and void."""
FARTHEST = 1e6
"""The largest coordinate of a polygon in pixels: pycocotools needs memory for each pixel of an outline."""
Bytes = NDArray[np.uint8]


def draw(dataset: Dataset, folder: str, identity: str, size: tuple[int, int], source: Path) -> Bytes:
    """Return the mask of an image, uint8 (H, W): 0 background, 1 to the number of classes, 255 void.

    `folder` is `instances` or `panoptic`, `size` the width and height of the image `source` as it is stored. DataError names the
    file and the annotation that cannot be drawn, or another size.
    """
    if len(dataset.classes) > MOST_CLASSES:
        raise DataError(f"{dataset.name} has {len(dataset.classes):,} classes; masks have ids for {MOST_CLASSES} at most.")
    there = next(_of(dataset, identity, source, (folder,)), None)
    if there is None:
        raise DataError(f"the annotations in {dataset.root} have changed: none is of {source} any more; prepare the data again.")
    check_size(dataset, identity, size, source)
    return (_instances if folder == INSTANCES else _panoptic)(dataset, *there, size)


def check_size(dataset: Dataset, identity: str, size: tuple[int, int], source: Path) -> None:
    """Raise DataError where the annotations give the image `source` another width and height than its `size`, as it is stored."""
    for found, listed in _of(dataset, identity, source, (INSTANCES, PANOPTIC)):
        if listed.size is not None and listed.size != size:
            raise DataError(
                f"{found.path} says that {listed.file} is {listed.size[0]}x{listed.size[1]}, and {source} is {size[0]}x{size[1]} "
                "as it is stored, EXIF's orientation aside, so its boxes and masks would lie elsewhere; take the image that was "
                f"annotated, or leave it out: --exclude {quoted(source.name)}."
            )


_reading = Lock()


@lru_cache(maxsize=8)
def _kept(path: Path, size: int, changed: int) -> tuple[Annotations, dict[str, list[Listed]]]:
    found = coco_annotations.parse(path, coco_annotations.content_of(path))
    by_stem: dict[str, list[Listed]] = defaultdict(list)
    for listed in found.images:
        by_stem[PurePath(listed.file).stem].append(listed)
    return found, dict(by_stem)


def _of(dataset: Dataset, identity: str, source: Path, kinds: tuple[str, ...]) -> Iterator[tuple[Annotations, Listed]]:
    """Yield the files that say something of an image, with that; a file is read once a process, until it changes."""
    for name in takewhile(lambda source: source.endswith(".json"), dataset.sources):  # PNGs of segments follow
        path = dataset.root / name
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}.") from error
        with _reading:
            found, by_stem = _kept(path, status.st_size, status.st_mtime_ns)
        if found.kind in kinds:
            same = (
                one
                for one in by_stem.get(identity, ())
                if source.parts[-len(PurePath(one.file).parts) :] == PurePath(one.file).parts
            )
            yield from ((found, one) for one in same)


def _instances(dataset: Dataset, found: Annotations, listed: Listed, size: tuple[int, int]) -> Bytes:
    width, height = size
    ids = np.zeros((height, width), dtype=np.uint8, order="F")  # as pycocotools decodes
    for region in listed.regions:
        inside = _inside(f"{found.path}, annotation {quoted(region.id)},", region, size)
        place = _id_of(dataset, found, region)
        taken = inside & (ids != 0) & (ids != place)
        ids[inside] = place
        ids[taken] = VOID
    return np.ascontiguousarray(ids)


def _id_of(dataset: Dataset, found: Annotations, region: Region) -> int:
    return dataset.classes.index(found.categories[region.category]) + 1


def _inside(where: str, region: Region, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixels an outline encloses, (H, W); DataError for an outline that is none."""
    from pycocotools import mask

    width, height = size
    outline = region.outline
    if isinstance(outline, list):
        polygons = [polygon for polygon in outline if not _is_flat(where, polygon)]
        if not polygons:
            return np.zeros((height, width), dtype=np.bool_, order="F")
        drawn = mask.decode(mask.merge(mask.frPyObjects(polygons, height, width)))
    else:
        runs = _runs(where, outline, size)
        drawn = mask.decode(mask.frPyObjects({"size": [height, width], "counts": runs}, height, width))
    return np.asarray(drawn).view(np.bool_)  # 0 and 1


def _is_flat(where: str, polygon: Any) -> bool:
    """Tell whether a polygon has fewer than three corners, and so no area; pycocotools would take two corners for a box."""
    numbers = isinstance(polygon, list) and all(isinstance(n, int | float) and math.isfinite(n) for n in polygon)
    if not numbers or len(polygon) % 2 or any(abs(number) > FARTHEST for number in polygon):
        raise DataError(
            f"{where} has the polygon {quoted(polygon)}; a polygon is a list of x, y, x, y, ... in pixels. Mend or remove it."
        )
    return len(polygon) < 6


def _runs(where: str, outline: Any, size: tuple[int, int]) -> list[int]:
    """Return the run lengths of a segmentation, which pycocotools would read beyond their end where they are too short."""
    width, height = size
    counts = outline.get("counts") if isinstance(outline, dict) else None
    if not isinstance(counts, list | str) or outline.get("size") != [height, width]:
        raise DataError(
            f"{where} has the segmentation {quoted(outline)}; it is a list of polygons, or run lengths with counts and the size "
            f"[{height}, {width}], its image's height and width. Mend or remove it."
        )
    runs = _unpacked(counts) if isinstance(counts, str) else counts
    if not all(isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != height * width:
        raise DataError(
            f"{where} has run lengths {quoted(counts)} that do not add up to the {height * width:,} pixels of its image; mend or "
            "remove it."
        )
    return runs


def _unpacked(text: str) -> list[int]:
    """Return the run lengths in COCO's compressed text: five bits a letter from "0" on, lowest first, the sixth for more to come.

    From the fourth on, a number is the difference to the run before the last (rleFrString in cocoapi's common/maskApi.c).
    Letters out of range give a number that is no run length.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 60:
            return [-1]
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return [-1] if shift else runs


def _panoptic(dataset: Dataset, found: Annotations, listed: Listed, size: tuple[int, int]) -> Bytes:
    path = segments_folder(found.path) / listed.segments
    with opened(path, "a panoptic mask") as image:
        if image.size != size:
            raise DataError(
                f"{path} is {image.width}x{image.height}, but its image is {size[0]}x{size[1]} as it is stored; a mask has its "
                "image's size. Mend it, or leave the image out with --exclude."
            )
        colours = np.asarray(image.convert("RGB")).astype(np.int64)
    codes, inverse = np.unique(colours @ np.array([1, 256, 65536]), return_inverse=True)
    table = {0: VOID, **{region.id: _id_of(dataset, found, region) for region in listed.regions}}
    strange = [code for code in codes.tolist() if code not in table]
    if strange:
        raise DataError(
            f"{path} has the segment {strange[0]}, which {found.path.name} does not list for it; take both files of one release."
        )
    return np.array([table[code] for code in codes.tolist()], dtype=np.uint8)[inverse].reshape(size[1], size[0])


def segments_folder(path: Path) -> Path:
    """Return the folder of the PNGs of a panoptic file: it lies beside the file, or beside the file's folder, with its name."""
    beside, above = path.with_suffix(""), path.parent.parent / path.stem
    return beside if beside.is_dir() else above
