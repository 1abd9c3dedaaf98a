"""The image of a pretext task's progress (Figure 7) taken apart into its rows, so that a page names them in its own colours."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

from PIL import Image

from results.overlays import uri

MOST = 1000
"""The most rows of an image that are taken apart."""


@dataclass(frozen=True)
class Strip:
    """A row of images with its name, as a data URI; "" is the name of an image that is not taken apart."""

    name: str
    uri: str
    size: tuple[int, int]


def strips(content: bytes) -> list[Strip]:
    """Return the rows of an image by what its text `rows` says, or the whole image where it has none (from earlier versions).

    What a damaged file raises comes from Pillow, which has no common base for it.
    """
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        image.load()
        named = _rows(image.info.get("rows"), image.size)
        return [_strip(image, name, box) for name, box in named] or [Strip("", uri(content), image.size)]


def _rows(text: Any, size: tuple[int, int]) -> list[tuple[str, tuple[int, int, int, int]]]:
    """Return the name and the place of each row; nothing where the text does not fit the image."""
    try:
        rows = json.loads(text)
        names, left, height, step = list(map(str, rows["names"])), int(rows["left"]), int(rows["height"]), int(rows["step"])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return []
    if not (0 <= left < size[0] and 0 < height <= step and 0 < len(names) <= MOST and len(names) * step <= size[1]):
        return []
    return [(name, (left, place * step, size[0], place * step + height)) for place, name in enumerate(names)]


def _strip(image: Image.Image, name: str, box: tuple[int, int, int, int]) -> Strip:
    buffer, row = io.BytesIO(), image.crop(box)
    row.save(buffer, "png", optimize=True)
    return Strip(name, uri(buffer.getvalue()), row.size)
