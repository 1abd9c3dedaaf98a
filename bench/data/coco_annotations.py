"""Annotations in COCO's form, instances and panoptic: their JSON is read and checked; errors name the file and the annotation.

Source: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

from bench.errors import DataError
from bench.text import quoted

Kind = Literal["", "instances", "panoptic"]


class Region(NamedTuple):
    """One object, or one panoptic segment: its id, its category's id, x, y, width and height, whether it is a crowd, its outline.

    `outline` is the segmentation as the JSON has it, None without one; a segment has none, nor a box.
    """

    id: Any
    category: int
    box: tuple[float, float, float, float] | None
    crowd: bool
    outline: Any


@dataclass
class Listed:
    """An image that a file lists: its file name, width and height if they are given, its regions and the file of its segments.

    `searched` says whether objects were looked for, which panoptic files do where they have an annotation.
    """

    file: str
    size: tuple[int, int] | None = None
    regions: list[Region] = field(default_factory=list)
    segments: str = ""
    searched: bool = True


@dataclass(frozen=True)
class Annotations:
    """What a file says: names of categories by their ids, the images that it lists, the number of annotations.

    `kind` is "" for a file without categories or annotations, whose images are only listed.
    """

    path: Path
    kind: Kind
    categories: dict[int, str]
    images: tuple[Listed, ...]
    count: int


def content_of(path: Path) -> dict[str, Any]:
    """Return the JSON of a file that lists images; DataError when it is none."""
    try:
        content = json.loads(path.read_bytes())
    except RecursionError as error:
        raise DataError(f"{path} is not a COCO annotation file: it is nested too deeply.") from error
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is not a COCO annotation file: {error}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a COCO annotation file: it is no table of images, annotations and categories.")
    return content


def parse(path: Path, content: dict[str, Any]) -> Annotations:
    """Return what the JSON of a file says, checked; DataError names the file, the annotation, and what is wrong."""
    listed = _images(path, content)
    annotations, categories = content.get("annotations"), content.get("categories")
    count = len(annotations) if isinstance(annotations, list) else 0
    named = _categories(path, categories) if isinstance(annotations, list) and categories else {}
    if not named or not isinstance(annotations, list):
        return Annotations(path, "", {}, tuple(image for _, image in listed), count)
    images = dict(listed)
    if len(images) < len(listed):
        twice = next(identity for identity, number in Counter(identity for identity, _ in listed).items() if number > 1)
        raise DataError(f"{path} lists two images with the id {quoted(twice)}; give each image an id of its own.")
    segmented = any(isinstance(one, dict) and "segments_info" in one for one in annotations)
    for image in images.values():
        image.searched = not segmented
    for one in annotations:
        _add(path, one, images, named, segmented)
    kind: Kind = "panoptic" if segmented else "instances"
    return Annotations(path, kind, named, tuple(images.values()), count)


def _images(path: Path, content: dict[str, Any]) -> list[tuple[Any, Listed]]:
    try:
        listed = [(image["id"], Listed(image["file_name"], _size(image))) for image in content["images"]]
    except KeyError as error:
        raise DataError(f"{path} is not a COCO annotation file: it has no {error}.") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is not a COCO annotation file: {error}.") from error
    for _, image in listed:
        _check_name(path, image.file)
    if not listed:
        raise DataError(f"{path} lists no images.")
    return listed


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0 else None


def _check_name(path: Path, file: object) -> None:
    if not isinstance(file, str) or not file or PurePath(file).is_absolute() or ".." in PurePath(file).parts:
        raise DataError(f"{path} lists {quoted(file)}, which is no file name below a folder.")


def _categories(path: Path, categories: Any) -> dict[int, str]:
    """Return the names of categories by their ids; DataError where ids or names are not unique."""
    found: dict[int, str] = {}
    for one in categories if isinstance(categories, list) else [None]:
        identity, name = (one.get("id"), one.get("name")) if isinstance(one, dict) else (None, None)
        if not isinstance(identity, int) or isinstance(identity, bool) or not isinstance(name, str) or not name.strip():
            raise DataError(f"{path} has the category {quoted(one)}; a category has a whole number as id and a name.")
        if identity in found or name.strip() in found.values():
            what = f"id {identity}" if identity in found else f"name {quoted(name)}"
            raise DataError(f"{path} has two categories with the {what}; give each one of its own.")
        found[identity] = name.strip()
    return found


def _add(path: Path, one: Any, images: dict[Any, Listed], named: dict[int, str], segmented: bool) -> None:
    """Add an annotation's regions to its image."""
    if not isinstance(one, dict):
        raise DataError(f"{path} has the annotation {quoted(one)}, which is no table; mend or remove it.")
    identity, of = one.get("id"), one.get("image_id")
    where = f"{path}, annotation {quoted(identity) if 'id' in one else f'of image {quoted(of)}'},"
    if not isinstance(of, int | str) or of not in images:
        raise DataError(f"{where} has image_id {quoted(of)}, which is not among the images of the file; mend or remove it.")
    image = images[of]
    if not segmented:
        _check_category(where, one, named)
        image.regions.append(Region(identity, one["category_id"], _box(where, one), _crowd(where, one), one.get("segmentation")))
        return
    _check_name(path, one.get("file_name"))
    if image.segments:
        raise DataError(f"{where} is the second of image {quoted(of)}; a panoptic file has one for each image.")
    image.segments, image.searched = one["file_name"], True
    segments = one.get("segments_info")
    for segment in segments if isinstance(segments, list) else [None]:
        if not isinstance(segment, dict) or not _is_whole(segment.get("id")):
            raise DataError(f"{where} has the segment {quoted(segment)}; a segment has a whole number as id and a category_id.")
        _check_category(f"{where} segment {segment['id']}", segment, named)
        image.regions.append(Region(segment["id"], segment["category_id"], None, _crowd(where, segment), None))


def _check_category(where: str, one: dict[str, Any], named: dict[int, str]) -> None:
    category = one.get("category_id")
    if not _is_whole(category) or category not in named:
        known = f"{min(named)} to {max(named)}" if len(named) > 1 else f"{next(iter(named))}"
        raise DataError(
            f"{where} has category_id {quoted(category)}, which is not among the {len(named)} categories of the file (ids "
            f"{known}); mend it, or add the category."
        )


def _box(where: str, one: dict[str, Any]) -> tuple[float, float, float, float]:
    box = one.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)) or box[2] < 0 or box[3] < 0:
        raise DataError(
            f"{where} has bbox {quoted(box)}; a box is [x, y, width, height] in pixels, and its width and height are not "
            "negative. Mend or remove it."
        )
    x, y, width, height = (float(number) for number in box)
    return x, y, width, height


def _crowd(where: str, one: dict[str, Any]) -> bool:
    crowd = one.get("iscrowd", 0)
    if not isinstance(crowd, int) or crowd not in (0, 1):
        raise DataError(f"{where} has iscrowd {quoted(crowd)}; it is 0 or 1. Mend it.")
    return bool(crowd)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12 and math.isfinite(value)
