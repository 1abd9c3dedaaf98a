"""Reads labels, splits and groups of images from a CSV file: one row an image, a column that names its file.

Labels stand in one column, several names separated by `;`, `|` or a comma, or in one column a class that has 1 and 0 (and -1 for
an image that shows difficult objects of it only). `classes.txt` beside the file fixes the names and their order.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from bench.data import class_lists
from bench.data.dataset import Dataset, ImageFile
from bench.data.file_names import Files
from bench.data.folder import SPLITS
from bench.data.tables import Row, Table
from bench.errors import DataError, UsageError, unknown
from bench.text import printable, quoted, some

NAME = "labels.csv"
"""The table that is read when none is named."""
FILES = ("file", "filename", "file_name", "image", "image_id", "path", "img", "id")
LABELS = ("label", "labels", "class", "classes", "category", "categories", "target", "tags", "diagnosis")
SPLIT_COLUMNS = ("split", "set", "subset", "partition")
ONE_HOT = {"": 0, "0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1, "-1": -1, "-1.0": -1}
"""What a cell of a class's column says, in lower case."""
GROUPS = ("patient", "subject", "person", "participant", "case", "video", "clip", "scene", "session", "site", "animal")
"""Names of columns that may say which images belong together."""
NUMBER = re.compile(r"([0-9]+)(?:\.0+)?")

Missing = Callable[[str, DataError], bool]
"""Tells whether a row whose file is not there is left out, and remembers it with the reason."""


def find(root: Path, named: str) -> str:
    """Return the table of a folder, relative to it: the one that is named, else labels.csv; "" without one.

    UsageError for a named file that is not there or does not lie below the folder.
    """
    if not named:
        return NAME if (root / NAME).is_file() else ""
    path = Path(os.path.normpath(root / Path(named).expanduser()))
    if not path.is_file():
        raise UsageError(f"--labels {named}: there is no such file; name a CSV file below {root}, relative to it.")
    for place in (path, path.parent.resolve() / path.name):
        if place.is_relative_to(root):
            return place.relative_to(root).as_posix()
    raise UsageError(f"--labels {named} does not lie below {root}; put it there, since it belongs to the data set.")


@dataclass(frozen=True)
class Rows:
    """The rows of a table by the image file that each names, and what was found, as counts by reason."""

    table: Table
    of: dict[str, Row]
    findings: dict[str, int]


def rows_of(
    table: Table,
    names: Sequence[str],
    spare: Sequence[str] = (),
    known: Iterable[str] = (),
    missing: Missing | None = None,
) -> Rows:
    """Return the rows of a table by image file, of `names` or else of `spare`. Rows that name a text in `known` are left out.

    DataError for a table without a column of files, for a file that is not there unless `missing` leaves it out, for a name that
    several files have, and for a file in two rows that say different things.
    """
    columns = table.among(FILES)
    if not columns:
        raise DataError(
            f"{table.path} has no column that names the files of images ({', '.join(FILES)}); its columns are "
            f"{', '.join(table.columns)}."
        )
    files, others, left_out = Files(names), Files(spare), set(known)
    of, counts = dict[str, Row](), Counter[str]()
    lost: list[tuple[Row, str]] = []
    for row in table.rows:
        text = row.cells[columns[0]]
        if not text:
            raise DataError(f"{table.at(row)} names no file in the column {columns[0]}.")
        found = files.find(text) or others.find(text)
        if len(found) > 1:
            raise DataError(f"{table.at(row)}: {quoted(text)} may be {some(found)}; write the folder and the suffix too.")
        if not found:
            error = DataError(f"{table.at(row)} names {quoted(text)}, which is not there")
            if text in left_out or (missing is not None and missing(text, error)):
                counts[f"rows of {table.path.name} whose file is not there"] += 1
            else:
                lost.append((row, text))
            continue
        before = of.setdefault(found[0], row)
        if before is not row:
            _check_twice(table, before, row, columns)
            counts[f"rows of {table.path.name} that repeat another"] += 1
    if lost:
        row, text = lost[0]
        more = f", and the images of other rows are not there either ({len(lost) - 1:,})" if len(lost) > 1 else ""
        raise DataError(
            f"{table.at(row)}: there is no image {quoted(text)} below the data set's folder{more}; mend the column "
            f"{columns[0]}, or leave out such rows with --skip-broken.{_spelled(names, text)}"
        )
    counts[f"images in no row of {table.path.name}, kept without labels"] = len(set(names) - of.keys())
    return Rows(table, of, {reason: number for reason, number in counts.items() if number})


def _spelled(names: Sequence[str], text: str) -> str:
    """Return a sentence that names a file of the same name in another case or of another suffix, "" without one."""
    stem = PurePosixPath(text.replace("\\", "/")).stem.casefold()
    near = next((name for name in names if PurePosixPath(name).stem.casefold() == stem), None)
    return "" if near is None else f" There is {quoted(near)}."


def _check_twice(table: Table, one: Row, other: Row, files: Sequence[str]) -> None:
    apart = [name for name in table.columns if name not in files and one.cells[name] != other.cells[name]]
    if apart:
        raise DataError(
            f"{table.at(other)} names the image of line {one.line}, and its {apart[0]} is {quoted(other.cells[apart[0]])}, there "
            f"{quoted(one.cells[apart[0]])}; write one row an image, and several labels in one cell, separated by ;."
        )


def arranged(dataset: Dataset, rows: Rows, group: str, as_parts: bool) -> Dataset:
    """Return a data set with the splits and the groups that a table gives its images.

    `as_parts` also tells pretraining which images are of which split. UsageError for a group column that the table has not;
    DataError for a cell of these columns that is empty or names no split.
    """
    columns = rows.table.among(SPLIT_COLUMNS)[:1]
    by = rows.table.among([group.casefold()]) if group else []
    if group and not by:
        raise UsageError(f"--group: {unknown('column', group, rows.table.columns, f' of {rows.table.path.name}')}")
    images, given = [], defaultdict[str, list[str]](list)
    for image in dataset.images:
        row = rows.of.get(image.file)
        if row is not None:
            split = _split(rows.table, row, columns[0]) if columns else ""
            given[split].append(image.id)
            part = split if as_parts else image.split
            image = replace(image, split=part, group=_group(rows.table, row, by[0]) if by else "")
        images.append(image)
    named = {split: tuple(given[split]) for split in ("train", "val", "test") if split in given}
    update = {"images": tuple(images), "grouped_by": by[0] if by else ""}
    return dataset.model_copy(update={**update, "given": named} if columns else update)


def _split(table: Table, row: Row, column: str) -> str:
    word = row.cells[column].casefold()
    if word not in SPLITS:
        raise DataError(f"{table.at(row)}: the {column} is {quoted(row.cells[column])}; it must be train, val or test.")
    return SPLITS[word]


def _group(table: Table, row: Row, column: str) -> str:
    if not row.cells[column]:
        raise DataError(f"{table.at(row)} has no {column}, which groups the images; fill it, so that no group is in two splits.")
    return row.cells[column]


def has_labels(table: Table) -> bool:
    """Tell whether a table has a column of labels, or columns of classes; the columns may still be wrong."""
    return bool(table.among(LABELS)) or bool(_others(table, "") and _not_one_hot(table, _others(table, "")) is None)


def _others(table: Table, group: str) -> list[str]:
    """Return the columns that may be classes: those with no other meaning."""
    taken = {*FILES, *SPLIT_COLUMNS, group.casefold()}
    return [name for name in table.columns if name.casefold() not in taken]


def _not_one_hot(table: Table, columns: Sequence[str]) -> tuple[str, Row] | None:
    """Return the first column, with its row, that has something else than 0, 1, -1 or nothing; None where there is none."""
    cells = ((name, row) for name in columns for row in table.rows if row.cells[name].casefold() not in ONE_HOT)
    return next(cells, None)


def read(plain: Dataset, rows: Rows, group: str) -> Dataset:
    """Return the images of a folder with the labels in a table; DataError says what is wrong with them, and where."""
    table = rows.table
    path = table.path.parent / "classes.txt"
    listed = class_lists.names(path)
    columns = table.among(LABELS)
    if len(columns) > 1:
        raise DataError(
            f"{table.path} has {len(columns)} columns that may have the labels, {' and '.join(columns)}; rename or remove all "
            "but one."
        )
    if columns:
        classes, shown, findings = _of_names(rows, columns[0], listed)
    else:
        classes, shown, findings = _of_columns(rows, group, listed)
    findings |= _unused(table, group, columns or classes)
    single = all(list(one.values()) == [1] for one in shown.values())
    images = tuple(
        _labelled(image, shown[image.file], len(classes), single) if image.file in shown else image for image in plain.images
    )
    root = plain.root
    named = [table.path, *([path] if listed else [])]
    return plain.model_copy(
        update={
            "kind": "csv",
            "classes": classes,
            "single": single,
            "images": images,
            "sources": tuple(one.relative_to(root).as_posix() for one in named),
            "findings": {**plain.findings, **rows.findings, **findings},
        }
    )


def _unused(table: Table, group: str, read: Sequence[str]) -> dict[str, int]:
    """Return the columns that are not used, as a count, with the option for one that may group images."""
    left = [name for name in _others(table, group) if name not in read]
    may = next((name for name in left if name.casefold().removesuffix("_id") in GROUPS), "")
    hint = f"; --group {may} keeps the images of one {may} in one split" if may and not group else ""
    return {f"columns of {table.path.name} that are not used ({some(left)}){hint}": len(left)} if left else {}


def _labelled(image: ImageFile, shown: Mapping[int, int], classes: int, single: bool) -> ImageFile:
    if single:
        return replace(image, label=next(iter(shown)))
    return replace(image, labels=tuple(shown.get(number, 0) for number in range(classes)))


Shown = dict[str, dict[int, int]]
"""For each image file the numbers of the classes that it shows, each with 1 or, for difficult objects only, -1."""


def _of_names(rows: Rows, column: str, listed: tuple[str, ...]) -> tuple[tuple[str, ...], Shown, dict[str, int]]:
    """Return the classes, what each image shows, and findings, from a column of names or numbers."""
    table = rows.table
    words = {file: _words(row.cells[column], listed) for file, row in rows.of.items()}
    every = {word: rows.of[file] for file, found in words.items() for word in found}
    findings = {f"rows of {table.path.name} without a label": sum(not found for found in words.values())}
    numeric = bool(every) and all(NUMBER.fullmatch(word) for word in every) and not every.keys() <= set(listed)
    if numeric:
        words = {file: [str(int(float(word))) for word in found] for file, found in words.items()}
        every = {str(int(float(word))): row for word, row in every.items()}
    if not every:
        raise DataError(f"{table.path} has no label in its column {column}.")
    if numeric and listed:
        if "0" not in every and max(map(int, every)) < len(listed):
            row = next(iter(every.values()))
            raise DataError(
                f"{table.path} has the labels {some(sorted(every, key=int))}, and classes.txt names {len(listed)} classes; so "
                f"nothing tells whether its first line is number 0 or 1, as in line {row.line}. Write the names of the classes "
                f"into the column {column}."
            )
        first = 0 if "0" in every else 1
        reason = f"labels that are numbers, read as lines of classes.txt, of which the first is {first}"
        findings[reason] = sum(map(len, words.values()))
        numbers = {str(number): number - first for number in range(first, first + len(listed))}
        for word, row in every.items():
            if word not in numbers:
                raise DataError(
                    f"{table.at(row)} has the label {word}, and classes.txt names {len(listed)} classes, which are numbered "
                    f"{first} to {first + len(listed) - 1}, since {'there is a label 0' if first == 0 else 'no label is 0'}."
                )
        classes = listed
    else:
        classes = listed or tuple(sorted(every, key=(lambda word: int(word)) if numeric else None))
        _check_names(table, every, classes, bool(listed))
        numbers = {name: number for number, name in enumerate(classes)}
    shown = {file: {numbers[word]: 1 for word in found} for file, found in words.items()}
    return classes, shown, {reason: number for reason, number in findings.items() if number}


def _words(cell: str, listed: tuple[str, ...]) -> list[str]:
    whole = [cell] if cell in listed else re.split(r"[;|,]", cell)
    return list(dict.fromkeys(word.strip() for word in whole if word.strip()))


def _check_names(table: Table, every: Mapping[str, Row], classes: Sequence[str], listed: bool) -> None:
    """Raise DataError for a label that classes.txt has not, that cannot be printed, or that differs in its case alone."""
    by_case: dict[str, str] = {}
    for word, row in every.items():
        if listed and word not in classes:
            raise DataError(f"{table.at(row)}: {unknown('class', word, classes, ' (classes.txt)')}")
        if printable(word) != word:
            raise DataError(f"{table.at(row)} has the label {quoted(word)}, which cannot be printed.")
        before = by_case.setdefault(word.casefold(), word)
        if before != word and not listed:
            raise DataError(
                f"{table.at(row)} has the label {quoted(word)}, and line {every[before].line} {quoted(before)}; write them "
                "alike, or name both in classes.txt."
            )


def _of_columns(rows: Rows, group: str, listed: tuple[str, ...]) -> tuple[tuple[str, ...], Shown, dict[str, int]]:
    """Return the classes, what each image shows, and findings, from one column a class.

    Where classes.txt names columns, the others have other meanings.
    """
    table = rows.table
    others = _others(table, group)
    columns = list(listed) if listed and set(listed) <= set(others) else others
    wrong = _not_one_hot(table, columns)
    if not columns or wrong is not None:
        what = "" if wrong is None else f" (line {wrong[1].line} has {quoted(wrong[1].cells[wrong[0]])} in {wrong[0]})"
        raise DataError(
            f"{table.path} has no column of labels ({', '.join(LABELS)}), and its other columns, {some(columns) or 'none'}, are "
            f"not one a class with 0 and 1{what}. Rename a column, remove those that are no classes, or name the columns of "
            "classes in classes.txt beside it."
        )
    if listed and columns is others:
        name = next(name for name in (*others, *listed) if (name in others) != (name in listed))
        raise DataError(f"{table.path} and classes.txt beside it name different classes, such as {quoted(name)}.")
    shown = {
        file: {number: value for number, name in enumerate(columns) if (value := ONE_HOT[row.cells[name].casefold()])}
        for file, row in rows.of.items()
    }
    empty = sum(not found for found in shown.values())
    return tuple(columns), shown, {f"rows of {table.path.name} without a class": empty} if empty else {}
