"""Reads a table as a spreadsheet program writes it: a CSV file, its columns by name, each row with its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.errors import DataError
from bench.text import printable, quoted

DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Row:
    """A row: its line in the file, the first is 1, and its cells by column, without spaces around them."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table: its file, its columns in order, and its rows."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def among(self, names: Iterable[str]) -> list[str]:
        """Return the columns that have one of some names, whatever their case, in the order of the names."""
        known = {column.casefold(): column for column in self.columns}
        return [known[name] for name in names if name in known]

    def at(self, row: Row) -> str:
        """Return where a row is, as an error begins: the file and the line."""
        return f"{self.path}, line {row.line}"


def read(path: Path) -> Table:
    """Return the table in a CSV file, in UTF-8, with commas, semicolons or tabs between its cells.

    Blank lines and columns without a name are left out. DataError for a file that is no such table, for two columns of one name,
    and for a row that has not as many cells as the header.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not written in UTF-8; save it as CSV in UTF-8.") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from error
    first = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(first), skipinitialspace=True, strict=True)
    header: list[str] | None = None
    rows, line = [], 1
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells) and header is None:
                header = cells
                _check(path, header)
            elif any(cells) and header is not None:
                rows.append(_row(path, line, header, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: this is no row of a CSV file: {error}.") from error
    if header is None or not rows:
        raise DataError(f"{path} has {'no row below its header' if header else 'no row'}.")
    return Table(path, tuple(name for name in header if name), tuple(rows))


def _delimiter(header: str) -> str:
    """Return what stands between the cells of the header, quoted cells aside; a comma where nothing does."""
    bare = "".join(header.split('"')[::2])
    return max(DELIMITERS, key=bare.count)


def _check(path: Path, header: list[str]) -> None:
    seen: set[str] = set()
    for name in filter(None, header):
        if name.casefold() in seen:
            raise DataError(f"{path} has two columns named {quoted(name)}; rename or remove one.")
        if printable(name) != name:
            raise DataError(f"{path} has a column named {quoted(name)}, which cannot be printed; rename it.")
        seen.add(name.casefold())


def _row(path: Path, line: int, header: list[str], cells: list[str]) -> Row:
    if len(cells) < len(header) or any(cells[len(header) :]):
        raise DataError(
            f"{path}, line {line} has {len(cells)} cells, and its header {len(header)}; put a cell that has a comma into quotes, "
            "and leave a cell empty rather than out."
        )
    return Row(line, {name: cell for name, cell in zip(header, cells, strict=False) if name})
