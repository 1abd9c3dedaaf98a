"""Example segmentations for the page: image, truth, prediction and errors, from the file of examples beside a run."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.metrics import PADDING, VOID, voc_palette
from bench.storage.arrays import unpack
from results.board import Board, Cell

Pixels = NDArray[np.uint8]
FIXED = "fixed"
MOST = 1 << 28
"""The most bytes that a run's examples may unpack to; seven examples of 2,500 pixels square are smaller."""
ERRORS = {
    0: ("right, background", (43, 47, 54)),
    1: ("right, object", (138, 145, 156)),
    2: ("missed object", (86, 180, 233)),
    3: ("object where there is none", (230, 159, 0)),
    4: ("wrong class", (204, 121, 167)),
}
"""The meaning and the colour of each value in an error map (Okabe and Ito's colours, safe for red-green blindness)."""


@dataclass(frozen=True)
class _Example:
    """A test image with its truth, prediction and errors as data URIs; `ids` are the classes in truth and prediction."""

    kind: str
    iou: float
    image: str
    truth: str
    found: str
    errors: str
    size: tuple[int, int]
    ids: frozenset[int]


def overlays(board: Board, tasks: Sequence[tuple[int, str]], out: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Return, for each task (a column's number and its name), the fixed images with every row's prediction, and each row's own.

    Missing files are left out; damaged ones are left out too, and named in `problems`.
    """
    found = []
    for place, task in tasks:
        fixed: dict[tuple[tuple[str, str], ...], list[tuple[str, list[_Example]]]] = {}
        own = []
        seen: set[int] = set()
        for row in board.rows:
            examples, seed = _lowest(row.cells[place], out, problems)
            label = f"{row.label}, seed {seed}"
            shared = [one for one in examples if one.kind.startswith(FIXED)]
            others = [one for one in examples if not one.kind.startswith(FIXED)]
            if shared:
                fixed.setdefault(tuple((one.image, one.truth) for one in shared), []).append((label, shared))
            if others:
                own.append((label, others))
            seen = seen.union(*(one.ids for one in examples))
        if seen:
            names = ("background", *next(r for row in board.rows for r in row.cells[place].records).data.classes)
            palette = _palette()
            classes = [(names[i] if i < len(names) else f"class {i}", _hex(palette[i])) for i in sorted(seen - {PADDING, VOID})]
            errors = [(name, _hex(colour)) for name, colour in ERRORS.values()]
            found.append({"task": task, "fixed": list(fixed.values()), "own": own, "classes": classes, "errors": errors})
    return found


def _lowest(cell: Cell, out: Path, problems: list[str]) -> tuple[list[_Example], int]:
    """Return the examples of the lowest seed that has readable ones, and that seed."""
    for record in sorted(cell.records, key=lambda record: record.job.seed):
        path = out / "runs" / record.id / "examples.npz"
        if not record.examples or not path.exists():  # a study keeps records without images
            continue
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != record.examples:
                raise ValueError("not the recorded images")
            arrays = _read_arrays(content)
        except (OSError, ValueError, KeyError):
            problems.append(f"The images in runs/{record.id}/examples.npz are damaged or of another run, and left out.")
            continue
        return [_example(str(kind), float(iou), *pixels) for kind, iou, *pixels in zip(*arrays, strict=True)], record.job.seed
    return [], 0


def _read_arrays(content: bytes) -> list[NDArray[Any]]:
    """Return kinds, IoU, images, truth and prediction, the first axis being the image; ValueError or KeyError for other bytes."""
    unpacked = unpack(content, MOST)
    kinds, iou, images, truth, found = arrays = [unpacked[name] for name in ("kinds", "iou", "images", "truth", "found")]
    size = truth.shape
    fits = images.shape == (*size, 3) and found.shape == size and len(size) == 3 and kinds.shape == iou.shape == size[:1]
    if not fits or not all(pixels.dtype == np.uint8 for pixels in (images, truth, found)) or iou.dtype.kind != "f":
        raise ValueError("not images with their masks")
    return arrays


def _example(kind: str, iou: float, image: Pixels, truth: Pixels, found: Pixels) -> _Example:
    shown = np.where(truth == PADDING, truth, found)
    palette = _palette()
    ids = frozenset(np.unique(truth).tolist()) | frozenset(np.unique(shown).tolist())
    buffer = io.BytesIO()
    Image.fromarray(image).quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    colours = palette.copy()
    for error, (_, colour) in ERRORS.items():
        colours[error] = colour
    return _Example(
        kind,
        iou,
        image=uri(buffer.getvalue()),
        truth=_png(truth, palette),
        found=_png(shown, palette),
        errors=_png(_errors(truth, found), colours),
        size=(truth.shape[1], truth.shape[0]),
        ids=ids,
    )


def _errors(truth: Pixels, found: Pixels) -> Pixels:
    """Return each pixel's key in `ERRORS`, uint8 of the same shape; void and padding stay what they are."""
    cases = [truth >= PADDING, (truth == found) & (truth == 0), truth == found, found == 0, truth == 0]
    return np.asarray(np.select(cases, [truth, *np.arange(4, dtype=np.uint8)], np.uint8(4)))


def _palette() -> Pixels:
    """Return PASCAL VOC's colours (256, 3), void in white."""
    colours = voc_palette()
    colours[VOID] = 255
    return colours


def _png(ids: Pixels, palette: Pixels) -> str:
    """Return class ids (H, W) as a PNG data URI with only the colours that occur; padding is transparent."""
    values, places = np.unique(ids, return_inverse=True)
    image = Image.fromarray(places.reshape(ids.shape).astype(np.uint8))
    image.putpalette(palette[values].tobytes())
    clear = {"transparency": int(np.searchsorted(values, PADDING))} if PADDING in values else {}
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True, **clear)
    return uri(buffer.getvalue())


def uri(png: bytes) -> str:
    """Return a PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _hex(colour: Sequence[int] | Pixels) -> str:
    return "#{:02x}{:02x}{:02x}".format(*map(int, colour))
