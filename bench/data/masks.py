"""Masks: decoding one into class ids, whatever its pixels mean.

The pixels of a palette or grey image are class ids, those of an RGB image are colours of VOC's palette, with two exceptions.
Programs that make PNG files smaller renumber a palette: where the colours of a mask's indices are those of other classes, the
colours count. And the user can say what a value or a colour means (`--map`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data import coco_masks
from bench.data.dataset import Dataset, opened
from bench.errors import DataError, UsageError
from bench.metrics import VOID, voc_palette
from bench.text import quoted

COLOURED = ("RGB", "RGBA")
MODES = ("P", "L", "1", "LA", "I", "I;16", *COLOURED)
FEWER_BITS = {"L;2": 85, "L;4": 17}
"""By what Pillow multiplies the values of a grey PNG of 2 or 4 bits, by its raw mode."""
_CODES = np.array([65536, 256, 1], dtype=np.uint32)
COLOURS = {int(code): identity for identity, code in enumerate(voc_palette().astype(np.uint32) @ _CODES)}
"""The id of each of VOC's colours, written as 0xRRGGBB."""
BLACK = 0


@dataclass(frozen=True)
class MaskValues:
    """What pixels mean where they are no class ids (`--map`): ids by value, ids by colour (0xRRGGBB).

    An id by value also changes what a renumbered palette's colours gave.
    """

    ids: dict[int, int] = field(default_factory=dict)
    colours: dict[int, int] = field(default_factory=dict)
    by_index: bool = False
    """Whether the indices of a palette are class ids whatever their colours are."""
    only: bool = False
    """Whether no other value or colour may occur but 0, 255 and black; ids by value then change nothing that has a colour."""

    @classmethod
    def parse(cls, texts: Sequence[str], classes: int) -> MaskValues:
        """Return what the texts of `--map` say: VALUE=ID, #RRGGBB=ID, `index` or `only`.

        UsageError for any other text, for a value that two texts map, and for `index` beside colours.
        """
        found = cls(by_index="index" in texts, only="only" in texts)
        for text in dict.fromkeys(texts):
            value, _, identity = text.partition("=")
            target = int(identity) if re.fullmatch(r"[0-9]{1,3}", identity) else -1
            number = int(value[1:], 16) if re.fullmatch(r"#[0-9a-fA-F]{6}", value) else -1
            if text in ("index", "only"):
                continue
            in_range = 0 <= target <= classes or target == VOID
            if not in_range or (number < 0 and not (re.fullmatch(r"[0-9]{1,3}", value) and int(value) <= VOID)):
                raise UsageError(
                    f"--map takes VALUE=ID, '#RRGGBB=ID', index or only, with a VALUE from 0 to 255 and an ID from 0 to "
                    f"{classes} or 255 for void, for example 255=1, but got {quoted(text)}."
                )
            table, key = (found.colours, number) if number >= 0 else (found.ids, int(value))
            if key in table:
                raise UsageError(f"--map gives {value} two meanings, {table[key]} and {target}.")
            table[key] = target
        if found.by_index and found.colours:
            raise UsageError("--map index says that colours mean nothing, and '#RRGGBB=ID' says what a colour means; give one.")
        return found

    @property
    def said(self) -> set[str]:
        """What is mapped, as texts: VALUE=ID and #rrggbb=ID."""
        colours = {f"#{code:06x}={identity}" for code, identity in self.colours.items()}
        return {f"{value}={identity}" for value, identity in self.ids.items()} | colours


NO_VALUES = MaskValues()
_parsed = cache(MaskValues.parse)


class Mask(NamedTuple):
    """A mask's class ids, uint8 (H, W): 0 background, 1 to the number of classes, 255 void; and what its palette said.

    `palette` is `colour` where the palette was renumbered and its colours gave the ids, `own` where it has colours of no class,
    `none` where no palette gives the classes a colour, as in a grey mask, and else "". `colours` are those of the indices of an
    own palette, black and void aside. `mapped` are the keys of `MaskValues` that changed a pixel.
    """

    ids: NDArray[np.uint8]
    palette: Literal["", "colour", "own", "none"] = ""
    colours: dict[int, int] = {}
    mapped: frozenset[str] = frozenset()


def read_mask(dataset: Dataset, folder: str, identity: str, size: tuple[int, int], source: Path) -> Mask:
    """Return an image's mask, decoded as the data set says, or drawn of COCO's annotations.

    The errors are those of `decode_mask` and of `coco_masks.draw`; UsageError for values that are mapped where none are read.
    """
    if dataset.kind == "coco":
        if dataset.mask_values:
            raise UsageError("--map says what the pixels of masks mean, and COCO's masks are drawn of annotations; leave it out.")
        return Mask(coco_masks.draw(dataset, folder, identity, size, source))
    values = _parsed(dataset.mask_values, len(dataset.classes))
    named = f", the classes of {Path(dataset.sources[0]).name}" if dataset.kind == "masks" else ""
    return decode_mask(dataset.mask_path(folder, identity), len(dataset.classes), size, source, values, named)


def decode_mask(
    path: Path, classes: int, size: tuple[int, int], source: Path, values: MaskValues = NO_VALUES, named: str = ""
) -> Mask:
    """Return a mask as class ids; `named` tells an error where the classes come from.

    DataError for another size than the image's `size` (width, height), for a colour that is not in VOC's palette, for an id out
    of range, and for a palette in which some colours, but not all, are those of other classes.
    """
    with opened(path, "a mask") as image:
        if image.size != size:
            raise DataError(
                f"{path} is {image.width}x{image.height}, but its image {source} is {size[0]}x{size[1]} as it is stored; "
                f"a mask has its image's size. Mend it, or leave the image out: {exclude(source)}."
            )
        if image.mode not in MODES:
            raise DataError(f"{path} is a mask in mode {image.mode}; masks are palette, grey or RGB images.")
        raw_mode = next((str(tile[3]) for tile in getattr(image, "tile", ())), "")
        found, mapped = Mask(np.zeros(0, dtype=np.uint8)), set[str]()
        coloured = image.mode in COLOURED or (image.mode == "P" and bool(values.colours))
        if coloured:
            ids = _of_colours(np.array(image.convert("RGB")), path, values, mapped)
        else:
            ids = np.array(image.convert("L") if image.mode == "LA" else image)
            if image.mode == "P" and not values.by_index:
                found = _by_palette(image, ids, classes, path)
                ids = found.ids
            else:
                ids = ids // FEWER_BITS.get(raw_mode, 1)
                found = found._replace(palette="" if image.mode == "P" else "none")
        if values.only and not coloured:
            _check_values(ids, path, values)
        if not (values.only and coloured):
            ids = _mapped(ids, values, mapped)
    wrong = (ids > classes) & (ids != VOID)
    if wrong.any():
        one = int(ids[wrong][0])
        raise DataError(
            f"{path} has class id {one} in {int(wrong.sum())} pixels; ids are 0 to {classes}{named}, and 255 for void. "
            + (say_how(f"{one}=ID") if one < VOID else "Save it with 8 bits.")
            + f" {exclude(source)} leaves the image out."
        )
    return found._replace(ids=ids.astype(np.uint8), mapped=frozenset(mapped))


def say_how(*texts: str) -> str:
    """Return the sentence that names `--map`, with examples."""
    return f"`bench data prepare NAME --root DIR {' '.join(f'--map {text}' for text in texts)}` says what a value means."


def exclude(source: Path) -> str:
    """Return the option that leaves an image out."""
    return f"--exclude {quoted(source.name)}"


def _check_values(ids: NDArray[Any], path: Path, values: MaskValues) -> None:
    """Raise DataError for a value that is not named, where only those may occur."""
    strange = sorted(set(np.unique(ids).astype(int).tolist()) - values.ids.keys() - {0, VOID})
    if strange:
        raise DataError(
            f"{path} has the value {strange[0]} in {int((ids == strange[0]).sum())} pixels, which is named neither in "
            "classes.csv nor by --map; name it there, as void where it is no class."
        )


def _mapped(ids: NDArray[Any], values: MaskValues, mapped: set[str]) -> NDArray[Any]:
    """Return ids with those changed that `--map` names by value; what changed a pixel is added to `mapped`."""
    found = ids.astype(np.int64)
    for value, identity in values.ids.items():
        there = ids == value
        found[there] = identity
        if there.any():
            mapped.add(f"{value}={identity}")
    return found


def _of_colours(colours: NDArray[np.uint8], path: Path, values: MaskValues, mapped: set[str]) -> NDArray[Any]:
    """Return the ids of colours; the colours that `--map` names are added to `mapped`. DataError for a colour of no id."""
    found, inverse = np.unique(colours.astype(np.uint32) @ _CODES, return_inverse=True)
    table = {BLACK: 0, **values.colours} if values.only else {**COLOURS, **values.colours}
    strange = [code for code in found.tolist() if code not in table]
    if strange and values.only:
        none = "" if values.colours else "; it gives no colours, and this mask has colours and no ids"
        raise DataError(
            f"{path} has the colour #{strange[0]:06x} in {int((found[inverse] == strange[0]).sum())} pixels, which is "
            f"named neither in classes.csv nor by --map{none}. Name it there, as void where it is no class."
        )
    if strange:
        colour = f"#{strange[0]:06x}"
        raise DataError(f"{path} has the colour {colour}, which is not in the VOC palette. {say_how(repr(f'{colour}=ID'))}")
    mapped |= {f"#{code:06x}={values.colours[code]}" for code in found.tolist() if code in values.colours}
    return np.array([table[code] for code in found.tolist()])[inverse].reshape(colours.shape[:2])


def _by_palette(image: Image.Image, indices: NDArray[Any], classes: int, path: Path) -> Mask:
    """Return the ids that a palette's colours give where it is renumbered, else the indices.

    A palette is renumbered when an index that is used has the colour of another class (or of void), black aside: black also
    fills what a palette leaves open. The colour of the index 255 alone does not make it one: a renumbered palette has the lowest
    indices. Equal colours of two used indices say nothing, so that the indices count.
    """
    palette = np.array(image.getpalette("RGB") or [], dtype=np.uint32).reshape(-1, 3) @ _CODES
    used = {int(index): int(palette[index]) if index < len(palette) else None for index in np.unique(indices)}
    known = {colour: identity for colour, identity in COLOURS.items() if identity <= classes or identity == VOID}
    moved = [i for i, colour in used.items() if colour in known and known[colour] != i and colour != BLACK and i != VOID]
    if not moved or len(set(used.values())) < len(used):
        own = {i: colour for i, colour in used.items() if colour is not None and colour != BLACK and i not in (0, VOID)}
        strange = any(known.get(colour) != index for index, colour in own.items())
        return Mask(indices, "own", own) if strange else Mask(indices, "" if used.keys() <= {0, VOID, *own} else "none")
    strange_ones = {i: colour for i, colour in used.items() if colour not in known or (i == VOID and known[colour] != VOID)}
    if strange_ones:
        index, colour = next(iter(strange_ones.items()))
        of = "of no class" if colour not in known else f"of the id {known[colour or BLACK]}"
        raise DataError(
            f"{path} has a palette whose index {moved[0]} has VOC's colour of the id {known[used[moved[0]] or 0]}, and whose "
            f"index {index} has a colour {of}, {f'#{colour or 0:06x}'}; so neither tells the classes. "
            f"{say_how(repr(f'#{colour or 0:06x}=ID'))} Where the indices are the class ids, --map index says so."
        )
    table = np.zeros(256, dtype=np.uint8)
    for index, colour in used.items():
        table[index] = known[colour or BLACK]
    return Mask(table[indices], "colour")
