"""Reads what names the classes of a folder: `classes.txt`, one a line, or `classes.csv`, which also says what masks' pixels mean.

The columns of `classes.csv` are `id`, `name` and, where there are some, `colour` (`#rrggbb`, `r g b` or three columns r, g, b).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.data import lists, tables
from bench.errors import DataError
from bench.metrics import PADDING, VOID
from bench.text import printable, quoted

FILES = ("classes.txt", "classes.csv")
NUMBERED = re.compile(r"\d+(?:\s*[\s:,;=]\s*\S|[.)]\s*[^\d\s])")
"""A line of classes.txt that numbers its class."""
MARKED = re.compile(r"[-*]\s|([\"'`]).*\1$|[^,;\t]+(?:[,;\t]\s*-?[\d.]+)+$")
"""A line of classes.txt that has more than a name: a list's mark, quotes, or numbers behind a comma."""
NUMBER_LAST = re.compile(r"(.*\S)[\s:=_-]+(\d+)$")
"""A line of classes.txt that may number its class at its end."""
BACKGROUND, BLACK = ("background", "bg"), "#000000"
RESERVED = (*BACKGROUND, "ignore", "void", "unlabeled", "unlabelled", "none")
"""Names in classes.txt that are no class, whatever their case and the underscores around them."""
MOST_MASKED = PADDING - 1
"""The most classes that a mask has ids for; other ids are background, padding and void."""
IDS, NAMES, COLOURS = ("id", "value", "index"), ("name", "class", "label"), ("colour", "color", "rgb", "hex")
"""The columns of classes.csv, whatever their case."""
THREE = re.compile(r"[\s\[(]*\d+[\s,]+\d+[\s,]+\d+[\s\])]*", re.ASCII)
"""A colour as three numbers."""
CHANNELS = (("r", "g", "b"), ("red", "green", "blue"))


@dataclass(frozen=True)
class Classes:
    """The classes of masks: their file, their names in the order of the ids 1, 2, ..., and what pixels mean, as texts of `--map`.

    `others` are the names in the file that are no classes.
    """

    path: Path
    names: tuple[str, ...]
    values: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def find(folder: Path) -> Path | None:
    """Return the file in a folder that names its classes, None without one; DataError when there are both."""
    there = [folder / name for name in FILES if (folder / name).is_file()]
    if len(there) > 1:
        raise DataError(f"{folder} has both classes.txt and classes.csv; keep one of them.")
    return there[0] if there else None


def of_masks(path: Path) -> Classes:
    """Return the classes that a classes.txt or a classes.csv names for masks; DataError says what is wrong with it."""
    if path.suffix == ".txt":
        listed = names(path)
        found = Classes(path, without_reserved(path, listed), others=listed[: len(listed) - len(without_reserved(path, listed))])
    else:
        found = _of_table(tables.read(path))
    if len(found.names) > MOST_MASKED:
        raise DataError(f"{path} names {len(found.names)} classes; masks have ids for {MOST_MASKED} at most.")
    return found


@dataclass(frozen=True)
class _Value:
    """A row of classes.csv: its place, the value of the pixels, the name, the colour or "", and whether it is a class."""

    at: str
    value: int
    name: str
    colour: str

    @property
    def reserved(self) -> int | None:
        """The id of the background or of void where the row names one of them, else None; 0 that is black is the background."""
        plain = _plain(self.name)
        if plain in (*BACKGROUND, "none") or (self.value == 0 and self.colour == BLACK):
            return 0
        return VOID if plain in RESERVED else None


def _of_table(table: tables.Table) -> Classes:
    ids, called = table.among(IDS), table.among(NAMES)
    if not ids or not called:
        raise DataError(
            f"{table.path} needs the columns id and name, and may have colour; its columns are {', '.join(table.columns)}."
        )
    rows = [
        _Value(table.at(row), _value(table, row, row.cells[ids[0]]), row.cells[called[0]], _colour(table, row))
        for row in table.rows
    ]
    for what, of in (("the id", "value"), ("the name", "name"), ("the colour", "colour")):
        seen = Counter(getattr(row, of) for row in rows)
        twice = next((row for row in rows if seen[getattr(row, of)] > 1 and getattr(row, of) != ""), None)
        if twice is not None:
            raise DataError(f"{table.path} has {what} {quoted(getattr(twice, of))} twice; each may stand in one row only.")
    strange = next((row for row in rows if not row.name or printable(row.name) != row.name), None)
    if strange is not None:
        raise DataError(f"{strange.at} names no class that can be printed.")
    listed = sorted((row for row in rows if row.reserved is None), key=lambda row: row.value)
    if not listed:
        raise DataError(f"{table.path} names no class but the background or void.")
    bare = next((row for row in listed if not row.colour), None)
    if bare is not None and any(row.colour for row in listed):
        raise DataError(f"{bare.at} gives {quoted(bare.name)} no colour, and other rows have one; give all classes one, or none.")
    targets = {row: place for place, row in enumerate(listed, 1)}
    targets |= {row: row.reserved for row in rows if row.reserved is not None}
    texts = [f"{row.value}={target}" for row, target in targets.items()]
    texts += [f"{row.colour}={target}" for row, target in targets.items() if row.colour]
    order = ["only"] if bare is None else ["only", "index"]
    others = tuple(row.name for row in rows if row.reserved is not None)
    return Classes(table.path, tuple(row.name for row in listed), tuple(sorted([*texts, *order])), others)


def _value(table: tables.Table, row: tables.Row, cell: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", cell) or int(cell) > VOID:
        raise DataError(f"{table.at(row)} has the id {quoted(cell)}; an id is a whole number from 0 to 255.")
    return int(cell)


def _colour(table: tables.Table, row: tables.Row) -> str:
    """Return a row's colour as #rrggbb, "" where it has none."""
    columns = table.among(COLOURS)
    of_channels = next((found for names in CHANNELS if len(found := table.among(names)) == 3), [])
    text = row.cells[columns[0]] if columns else " ".join(row.cells[column] for column in of_channels)
    if not text.strip():
        return ""
    parts = [int(part) for part in re.findall(r"[0-9]+", text)] if THREE.fullmatch(text) else []
    if len(parts) == 3 and max(parts) <= 255:
        return f"#{parts[0]:02x}{parts[1]:02x}{parts[2]:02x}"
    if re.fullmatch(r"#?[0-9a-fA-F]{6}", text):
        return f"#{text[-6:].lower()}"
    raise DataError(f"{table.at(row)} has the colour {quoted(text)}; write it as '#ff8000' or as '255 128 0'.")


def names(path: Path) -> tuple[str, ...]:
    """Return the classes in a file, one per line; () without the file, DataError when it names none, or one twice."""
    found = tuple(line for line in lists.lines(path) if not line.startswith("#"))
    more = next((name for name in found if NUMBERED.match(name) or MARKED.match(name)), _numbered_last(found))
    if more is not None:
        raise DataError(
            f"{path} has more in a line than the name of a class, {quoted(more)}; write the names alone, that of the id 1 first."
        )
    if path.is_file() and not found:
        raise DataError(f"{path} names no class; write one per line, or remove the file.")
    twice = next((name for name, number in Counter(found).items() if number > 1), None)
    if twice is not None:
        raise DataError(f"{path} names the class {quoted(twice)} twice; remove one of the two lines.")
    return found


def _numbered_last(names: Sequence[str]) -> str | None:
    """Return the first line when all lines end with a number that counts them, as `cat 1`, `dog 2`; else None.

    Classes that differ in their numbers alone, such as `grade 1` and `grade 2`, have these in their names.
    """
    found = [NUMBER_LAST.match(name) for name in names]
    numbers = sorted(int(match[2]) for match in found if match)
    counted = numbers in (list(range(len(names))), list(range(1, len(names) + 1)))
    distinct = len({match[1] for match in found if match}) == len(names) > 1
    return names[0] if counted and distinct else None


def without_reserved(path: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes without the background, which may come first: it has the id 0 in every mask."""
    listed = names
    if len(names) > 1 and _plain(names[0]) == "ignore" and _plain(names[1]) in BACKGROUND:  # as labelme begins its labels
        names = names[1:]
    if names and _plain(names[0]) in BACKGROUND:
        names = names[1:]
    reserved = next((name for name in names if _plain(name) in RESERVED or BACKGROUND[0] in re.split(r"\W+", name.lower())), None)
    if reserved is not None:
        raise DataError(
            f"{path} names {quoted(reserved)} in the wrong place: background has the id 0 and may stand in the first line only, "
            "and void has the id 255 and stands in none. Remove the line and give other values of the masks their ids with --map "
            "of `bench data prepare`."
        )
    if listed and not names:
        raise DataError(f"{path} names no class but the background.")
    return names


def _plain(name: str) -> str:
    return name.strip("_ <>").lower()
