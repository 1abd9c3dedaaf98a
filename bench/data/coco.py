"""Reads COCO (2014, 2017) and data in its form: the JSON lists the images, and says which classes, boxes and masks they show.

Source: Lin et al. 2014, https://cocodataset.org. Layout: annotations/instances_train2014.json beside train2014/ (or below
images/), likewise val and test; panoptic_train2017.json beside the PNGs in panoptic_train2017/. Where no file has such a name, a
file of one's own is read, annotations/instances*.json or *.json in the root, or one each for train, val and test. Where nothing
is annotated the images are unlabelled.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.data import coco_annotations
from bench.data.coco_annotations import Annotations, Listed
from bench.data.coco_masks import INSTANCES, MOST_CLASSES, PANOPTIC, segments_folder
from bench.data.dataset import CROWD, JUDGED, Box, Dataset, ImageFile, read_header
from bench.data.folder import image_files
from bench.errors import DataError
from bench.text import quoted

SPLITS = ("train", "val", "test")
Files = list[tuple[Annotations, dict[str, Listed]]]
"""What files say, and of each the listed images that are there by id."""


def looks_like(root: Path) -> bool:
    """Tell whether `root` has COCO's annotation files, or a file of one's own in COCO's form with annotations."""
    return bool(_official(root) or _own(root))


def _official(root: Path) -> list[Path]:
    """Return COCO's own annotation files, instances first."""
    names = [f"instances_{year}.json" for year in ("train20??", "val20??")]
    found = sorted(path for name in names for path in (root / "annotations").glob(name))
    panoptic = sorted(path for path in (root / "annotations").glob("panoptic_*20??.json") if segments_folder(path).is_dir())
    return [*found, *(path for path in panoptic if _split(path) in ("train", "val"))]


def _own(root: Path) -> list[Path]:
    """Return annotation files of other names: one alone, or one each for train, val and test; files in another form do not count.

    A file without annotations, whose images it would only pick from the folder's, does not count either.
    """
    found: list[Path] = []
    for kind in ("annotations/instances*.json", "annotations/panoptic*.json", "*.json"):
        paths = [path for path in sorted(root.glob(kind)) if _in_form(path)]
        splits = [_split(path) for path in paths]
        if kind != "*.json" or not found:
            found += paths if len(paths) == 1 or (all(splits) and len(set(splits)) == len(splits)) else []
    return found


def _in_form(path: Path) -> bool:
    try:
        status = path.stat()
        return _has_form(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return False


@lru_cache(maxsize=64)
def _has_form(path: Path, size: int, changed: int) -> bool:
    try:
        content = coco_annotations.content_of(path)
    except DataError:
        return False
    parts = [content.get(name) for name in ("images", "annotations", "categories")]
    first = [part[0] if isinstance(part, list) and part and isinstance(part[0], dict) else {} for part in parts]
    segmented = "segments_info" in first[1] and segments_folder(path).is_dir()
    return "file_name" in first[0] and "id" in first[2] and ("category_id" in first[1] or segmented)


def _subset(path: Path) -> str:
    names = ("instances_", "panoptic_", "image_info_")
    return next((path.stem.removeprefix(name) for name in names if path.stem.startswith(name)), path.stem)


def _split(path: Path) -> str:
    return next((split for split in SPLITS if _subset(path).startswith(split)), "")


def read(root: Path, name: str) -> Dataset:
    """Return the data set of the images that annotation files (and test sets' image_info) list, as far as they are there.

    Listed images that are missing are counted, and so are images that no file lists. Where there are annotations, the classes are
    the categories in the order of their ids; an image's labels, boxes and masks (`instances`, `panoptic`) are those of its file,
    and an image without an annotation shows none of the classes. DataError when no image is there, and for an annotation that is
    wrong.
    """
    reading = _Reading(root)
    official = _official(root)
    if not official and not _own(root):
        raise DataError(f"{root} has no annotation file of COCO's form: a JSON file with images, annotations and categories.")
    info = "image_info_test20??.json" if official else "image_info*.json"
    for path in [*(official or _own(root)), *sorted((root / "annotations").glob(info))]:
        reading.take(path)
    images, unused = reading.images, reading.unused
    if not images:
        raise DataError(
            f"{root} is not a COCO data set: its annotation files list no image that is there, in a folder named like the "
            f"annotations ({root / 'train2017'} for instances_train2017.json), below images or in images."
        )
    used = {image.file for image in images.values()}
    others = [file for file in image_files(root) if file not in used and not reading.is_segments(file)]
    if others:  # a link gives an image a second name
        real = {os.path.realpath(root / file) for file in used}
        unused["images that no annotation file lists"] = sum(os.path.realpath(root / file) not in real for file in others)
    shown = reading.shown()
    return Dataset(
        name=name,
        kind="coco",
        root=root,
        synthetic=(root / "SYNTHETIC.txt").is_file(),
        images=tuple(sorted(images.values(), key=lambda image: image.id)),
        findings={reason: number for reason, number in unused.items() if number},
        **shown,
    )


MOST_CUT = 20
"""From how many such boxes on most of all are a mistake rather than an odd set."""
CUT = "boxes that reach more than a pixel beyond their image, cut at its border"


class _Reading:
    """What the files say until all are read: images by id, and of each file the images that are there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images: dict[str, ImageFile] = {}
        self.unused: Counter[str] = Counter()
        self.files: Files = []

    def take(self, path: Path) -> None:
        """Read a file; DataError for an image that another file of its kind lists too."""
        found = _annotations(path)
        if not found.kind:
            self.unused["objects in annotations, whose labels are not used"] += found.count
        names = (_subset(path), f"images/{_subset(path)}", "images", "", path.stem, f"images/{path.stem}")
        folders = [folder for folder in (self.root / name for name in names) if folder.is_dir()]
        before = {identity for other, there in self.files if other.kind == found.kind for identity in there}
        there: dict[str, Listed] = {}
        for listed in found.images:
            place = next((folder / listed.file for folder in folders if _is_file(folder / listed.file)), None)
            if place is None:
                self.unused[f"images that {path.name} lists and that are not there"] += 1
                continue
            file, identity = place.relative_to(self.root).as_posix(), place.stem
            known = self.images.setdefault(identity, ImageFile(id=identity, file=file, split=_split(path) or "train"))
            if identity in before or identity in there or known.file != file:
                raise DataError(
                    f"{path} lists {quoted(listed.file)}, and {identity} is listed already; names must differ without folder and "
                    "suffix."
                )
            there[identity] = listed
        self.files.append((found, there))

    def is_segments(self, file: str) -> bool:
        """Tell whether an image file is one of the PNGs of a panoptic file."""
        folders = [segments_folder(found.path) for found, _ in self.files if found.kind == PANOPTIC]
        return any((self.root / file).is_relative_to(folder) for folder in folders)

    def shown(self) -> dict[str, Any]:
        """Return the fields of the data set that say what images show, {} where nothing is annotated; images get their labels.

        What is left out is counted.
        """
        files = [(found, there) for found, there in self.files if found.kind]
        if not any(found.count for found, _ in files):
            return {}
        files = self._without_partial(files)
        classes = _classes([found for found, _ in files])
        present: dict[str, dict[str, bool]] = {}
        boxes: dict[str, tuple[Box, ...]] = {}
        masks: dict[str, list[str]] = {}
        for found, there in files:
            for identity, listed in there.items():
                if listed.searched:
                    self._add(found, identity, listed, present.setdefault(identity, {}))
                    if found.kind == INSTANCES:
                        boxes[identity] = self._boxes(found, identity, listed, classes)
            masks.setdefault(found.kind, []).extend(self._masked(found, there))
        count = sum(map(len, boxes.values()))
        if self.unused[CUT] > MOST_CUT and 2 * self.unused[CUT] > count:
            raise DataError(
                f"{files[0][0].path}: {self.unused[CUT]:,} of {count:,} boxes reach beyond their images. COCO's bbox is x, y, "
                "width, height; are these corners, or boxes of images of another size?"
            )
        for identity, shows in present.items():
            labels = tuple({True: 1, False: -1, None: 0}[shows.get(name)] for name in classes)
            self.images[identity] = replace(self.images[identity], labels=labels)
        if len(classes) > MOST_CLASSES and any(masks.values()):
            self.unused[f"masks of more than {MOST_CLASSES} classes, for which masks have no ids"] += sum(
                map(len, masks.values())
            )
            masks = {}
        return {
            "classes": tuple(classes),
            "scored": tuple(classes),
            "masks": {kind: tuple(sorted(ids)) for kind, ids in masks.items() if ids},
            "boxes": boxes,
            "boxed": any(found.kind == INSTANCES for found, _ in files),
            "given": _given(files, present),
            "sources": tuple(self._sources(files)),
        }

    def _without_partial(self, files: Files) -> Files:
        """Return the files without panoptic ones where images with instances have none: their classes would be half known."""
        searched = {
            kind: {i for found, there in files if found.kind == kind for i, listed in there.items() if listed.searched}
            for kind in (INSTANCES, PANOPTIC)
        }
        lacking = len(searched[INSTANCES] - searched[PANOPTIC])
        if not searched[INSTANCES] or not searched[PANOPTIC] or not lacking:
            return files
        self.unused["images with instances and no panoptic annotation, so panoptic annotations are not used"] = lacking
        return [(found, there) for found, there in files if found.kind == INSTANCES]

    def _add(self, found: Annotations, identity: str, listed: Listed, shows: dict[str, bool]) -> None:
        """Add the classes that an image shows, with whether it shows them other than in crowd regions."""
        for region in listed.regions:
            name = found.categories[region.category]
            shows[name] = shows.get(name, False) or not region.crowd

    def _boxes(self, found: Annotations, identity: str, listed: Listed, classes: dict[str, int]) -> tuple[Box, ...]:
        """Return an image's boxes, clipped to the image; those of no area are left out and counted."""
        if not listed.regions:
            return ()
        width, height = listed.size or read_header(self.root / self.images[identity].file).size
        boxes: list[Box] = []
        for region in listed.regions:
            x, y, w, h = region.box or (0.0, 0.0, 0.0, 0.0)
            left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
            if right <= left or bottom <= top:
                self.unused["boxes that have no area inside their image"] += 1
                continue
            self.unused[CUT] += max(-x, -y, x + w - width, y + h - height) > 1
            place = classes[found.categories[region.category]]
            boxes.append((place, left, top, right, bottom, CROWD if region.crowd else JUDGED))
        return tuple(boxes)

    def _masked(self, found: Annotations, there: dict[str, Listed]) -> Iterator[str]:
        """Yield the ids of the images whose masks can be drawn; those of which a part is missing are counted."""
        if found.kind == PANOPTIC:
            folder = segments_folder(found.path)
            for identity, listed in there.items():
                if listed.searched and _is_file(folder / listed.segments):
                    yield identity
                else:
                    self.unused[f"images without a file of segments in {folder.name}, which have no panoptic mask"] += 1
            return
        if not any(region.outline for listed in found.images for region in listed.regions):
            return
        for identity, listed in there.items():
            if all(region.outline for region in listed.regions):
                yield identity
            else:
                self.unused["images with an object that has no segmentation, which have no mask"] += 1

    def _sources(self, files: Files) -> Iterator[str]:
        """Yield the annotation files, and behind them the PNGs of segments."""
        yield from (found.path.relative_to(self.root).as_posix() for found, _ in files)
        for found, there in files:
            if found.kind == PANOPTIC:
                folder = segments_folder(found.path)
                names = sorted(listed.segments for listed in there.values() if listed.segments)
                yield from ((folder / one).relative_to(self.root).as_posix() for one in names if _is_file(folder / one))


def _classes(files: list[Annotations]) -> dict[str, int]:
    """Return the number of each class by name, in the order of the categories' ids; DataError where files disagree."""
    names: dict[int, str] = {}
    for found in files:
        for identity, name in found.categories.items():
            if names.setdefault(identity, name) != name:
                raise DataError(
                    f"{found.path} calls the category {identity} {quoted(name)}, and another file beside it calls it "
                    f"{quoted(names[identity])}; files of one data set have the same categories."
                )
    ordered = [name for _, name in sorted(names.items())]
    twice = next((name for name, number in Counter(ordered).items() if number > 1), None)
    if twice is not None:
        raise DataError(
            f"the annotation files in {files[0].path.parent} give {quoted(twice)} two ids; files of one data set have the same "
            "categories."
        )
    return {name: place for place, name in enumerate(ordered)}


def _given(files: Files, labelled: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the ids of each split where files are of several splits, {} where all are of one."""
    found: dict[str, set[str]] = {}
    for one, there in files:
        found.setdefault(_split(one.path) or "train", set()).update(i for i in there if i in labelled)
    return {split: tuple(sorted(found[split])) for split in SPLITS if split in found} if len(found) > 1 else {}


def _annotations(path: Path) -> Annotations:
    """Return what a file says, once pycocotools has taken its list of images."""
    from pycocotools.coco import COCO

    content = coco_annotations.content_of(path)
    index = COCO()
    try:
        index.dataset = {"images": content["images"]}
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            index.createIndex()
    except RecursionError as error:
        raise DataError(f"{path} is not a COCO annotation file: it is nested too deeply.") from error
    except KeyError as error:
        raise DataError(f"{path} is not a COCO annotation file: it has no {error}.") from error
    except (ValueError, TypeError, OSError) as error:
        raise DataError(f"{path} is not a COCO annotation file: {error}.") from error
    return coco_annotations.parse(path, content)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False
