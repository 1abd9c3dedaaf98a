"""Masks: decoding one into class ids, whatever its pixels mean, and a survey of all masks of a data set.

The pixels of a palette or grey image are class ids, those of an RGB image are colours of VOC's palette, with two exceptions.
Programs that make PNG files smaller renumber a palette: where the colours of a mask's indices are those of other classes, the
colours count. And the user can say what a value or a colour means (`--map`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.dataset import VOC_CLASSES, Dataset, opened
from bench.errors import DataError, UsageError
from bench.metrics import VOID, voc_palette
from bench.text import quoted

MODES = ("P", "L", "1", "RGB")
_CODES = np.array([65536, 256, 1], dtype=np.uint32)
COLOURS = {int(code): identity for identity, code in enumerate(voc_palette().astype(np.uint32) @ _CODES)}
"""The id of each of VOC's colours, written as 0xRRGGBB."""
BLACK = 0
FEW = 5
"""The most names that a finding lists."""


@dataclass(frozen=True)
class MaskValues:
    """What pixels mean where they are no class ids (`--map`): ids by value, ids by colour (0xRRGGBB)."""

    ids: dict[int, int] = field(default_factory=dict)
    colours: dict[int, int] = field(default_factory=dict)
    by_index: bool = False
    """Whether the indices of a palette are class ids whatever their colours are."""

    @classmethod
    def parse(cls, texts: Sequence[str], classes: int) -> MaskValues:
        """Return what the texts of `--map` say: VALUE=ID, #RRGGBB=ID, or `index`; UsageError for any other text."""
        found = cls(by_index=bool(texts) and not any(text.startswith("#") for text in texts))
        for text in texts:
            value, _, identity = text.partition("=")
            target = int(identity) if re.fullmatch(r"[0-9]{1,3}", identity) else -1
            if text == "index":
                continue
            if not (0 <= target <= classes or target == VOID) or not re.fullmatch(r"#[0-9a-fA-F]{6}|[0-9]{1,3}", value):
                raise UsageError(
                    f"--map takes VALUE=ID, '#RRGGBB=ID' or index, with an ID from 0 to {classes} or 255 for void, for example "
                    f"255=1, but got {quoted(text)}."
                )
            if value.startswith("#"):
                found.colours[int(value[1:], 16)] = target
            else:
                found.ids[int(value)] = target
        return found


NO_VALUES = MaskValues()


class Mask(NamedTuple):
    """A mask's class ids, uint8 (H, W): 0 background, 1 to the number of classes, 255 void; and whether colours gave them."""

    ids: NDArray[np.uint8]
    by_colour: bool


def read_mask(dataset: Dataset, folder: str, identity: str, size: tuple[int, int], source: Path) -> Mask:
    """Return an image's mask, decoded as the data set says; the errors are those of `decode_mask`."""
    values = MaskValues.parse(dataset.mask_values, len(dataset.classes))
    return decode_mask(dataset.mask_path(folder, identity), len(dataset.classes), size, source, values)


def decode_mask(path: Path, classes: int, size: tuple[int, int], source: Path, values: MaskValues = NO_VALUES) -> Mask:
    """Return a mask as class ids.

    DataError for another size than the image's `size` (width, height), for a colour that is not in VOC's palette, for an id out
    of range, and for a palette in which some colours, but not all, are those of other classes.
    """
    with opened(path, "a mask") as image:
        if image.size != size:
            raise DataError(
                f"{path} is {image.width}x{image.height}, but its image {source} is {size[0]}x{size[1]}; "
                "a mask has its image's size."
            )
        if image.mode not in MODES:
            raise DataError(f"{path} is a mask in mode {image.mode}; masks are palette, grey or RGB images.")
        by_colour = False
        if image.mode == "RGB" or (image.mode == "P" and values.colours):
            ids = _of_colours(np.array(image.convert("RGB")), path, values)
        else:
            ids = np.array(image).astype(np.uint8)
            table = _table_of_palette(image, ids, classes, path) if image.mode == "P" and not values.by_index else None
            by_colour = table is not None
            ids = _of_values(values)[ids] if table is None else table[ids]
    wrong = (ids > classes) & (ids != VOID)
    if wrong.any():
        raise DataError(
            f"{path} has class id {int(ids[wrong][0])} in {int(wrong.sum())} pixels; ids are 0 to {classes}, and 255 for void. "
            f"{_say_how(f'{int(ids[wrong][0])}=ID')}"
        )
    return Mask(ids.astype(np.uint8), by_colour)


def _say_how(example: str) -> str:
    return f"`bench data prepare NAME --root DIR --map {example}` says what a value means."


def _of_values(values: MaskValues) -> NDArray[np.uint8]:
    table = np.arange(256, dtype=np.uint8)
    for value, identity in values.ids.items():
        table[value % 256] = identity
    return table


def _of_colours(colours: NDArray[np.uint8], path: Path, values: MaskValues) -> NDArray[np.uint8]:
    found, inverse = np.unique(colours.astype(np.uint32) @ _CODES, return_inverse=True)
    table = {**COLOURS, **values.colours}
    strange = [code for code in found.tolist() if code not in table]
    if strange:
        colour = f"#{strange[0]:06x}"
        raise DataError(f"{path} has the colour {colour}, which is not in the VOC palette. {_say_how(repr(f'{colour}=ID'))}")
    return np.array([table[code] for code in found.tolist()], dtype=np.uint8)[inverse].reshape(colours.shape[:2])


def _table_of_palette(image: Image.Image, indices: NDArray[np.uint8], classes: int, path: Path) -> NDArray[np.uint8] | None:
    """Return the id of each index of a renumbered palette, uint8 (256,); None where the indices are the ids.

    A palette is renumbered when an index that is used has the colour of another class (or of void), black aside: black also
    fills what a palette leaves open. Equal colours of two used indices say nothing, so that the indices count.
    """
    palette = np.array(image.getpalette("RGB") or [], dtype=np.uint32).reshape(-1, 3) @ _CODES
    used = {int(index): int(palette[index]) if index < len(palette) else None for index in np.unique(indices)}
    known = {colour: identity for colour, identity in COLOURS.items() if identity <= classes or identity == VOID}
    moved = [index for index, colour in used.items() if colour in known and known[colour] != index and colour != BLACK]
    if not moved or len(set(used.values())) < len(used):
        return None
    strange = [index for index, colour in used.items() if colour not in known]
    if strange:
        raise DataError(
            f"{path} has a palette whose index {moved[0]} has VOC's colour of the id {known[used[moved[0]] or 0]}, and whose "
            f"index {strange[0]} has a colour of no class, so neither tells the classes. {_say_how('index')} Here index "
            "means that the indices are the class ids."
        )
    table = np.zeros(256, dtype=np.uint8)
    for index, colour in used.items():
        table[index] = known[colour or BLACK]
    return table


class Survey:
    """What all masks of a data set hold, gathered while they are decoded; `add` may be called from several threads."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.labels = dataset.known_labels()
        self.present: dict[str, Counter[int]] = {folder: Counter() for folder in dataset.masks}
        self.by_colour = 0
        self.compared = 0
        self.apart: list[tuple[str, str, int]] = []

    def add(self, folder: str, identity: str, mask: Mask) -> None:
        """Take one mask in."""
        found = np.unique(mask.ids).tolist()
        self.present[folder].update(found)
        self.by_colour += mask.by_colour
        labels, shown = self.labels.get(identity), [one for one in found if one not in (0, VOID)]
        if labels is not None and shown:
            self.compared += 1
            self.apart += [(folder, identity, one) for one in shown if not labels[one - 1]][:1]

    def check(self) -> None:
        """Raise DataError when no mask of a folder has a class, or when most masks contradict the annotations."""
        for folder, present in self.present.items():
            if not present.keys() - {0, VOID}:
                names = {0: "0 (background)", VOID: "255 (void)"}
                raise DataError(
                    f"{self.dataset.root / folder} has no mask with a class: class 1 ({self.dataset.classes[0]}) and all others "
                    f"occur in none of the {len(self.dataset.masks[folder]):,} masks, whose pixels are "
                    f"{' and '.join(names[one] for one in sorted(present))}. If 255 means a class, say so: "
                    f"{self.dataset.prepare_with('--map', '255=1')}."
                )
        if 2 * len(self.apart) > self.compared:
            folder, identity, one = min(self.apart)
            order = "VOC's classes" if self.dataset.classes == VOC_CLASSES else "classes.txt"
            raise DataError(
                f"{self.dataset.root}: {len(self.apart):,} of {self.compared:,} masks have a class that the image's annotation "
                f"lacks, such as {folder}/{identity}.png with {self.dataset.classes[one - 1]} (id {one}); the ids 1, 2, ... "
                f"follow the order of {order}. Mend that file, or write one, or give the values their ids with --map of "
                "`bench data prepare`."
            )

    def findings(self) -> dict[str, int]:
        """Return what a reader of a score should know, as counts."""
        absent = [
            name for number, name in enumerate(self.dataset.classes, 1) if not any(p[number] for p in self.present.values())
        ]
        found = {
            "masks read by the colours of their palettes": self.by_colour,
            "masks with a class that the annotation has not": len(self.apart),
            "classes in no mask" + (f" ({', '.join(absent)})" if len(absent) <= FEW else ""): len(absent),
        }
        return {reason: number for reason, number in found.items() if number}
