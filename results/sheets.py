"""Tables of plain values: what a CSV file, a JSON document and a data frame are all made from.

A value is a text, a number, True or False, a list, a dictionary, or missing: None, NaN and the empty text mean the same.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from bench.schema import canonical
from bench.text import printable

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("NULL", "null", "NA", "NaN", "nan", "None", "N/A", "n/a", "<NA>", "#N/A", "#NA", "-NaN", "-nan")
"""Texts that pandas takes for an empty cell."""
FORMULAS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What begins a formula, in both widths; readers look past white space."""
DIGITS = 9
"""Decimals that are written: fewer than differ between machines."""
UNITS = {
    **dict.fromkeys(
        (
            "value",
            "low",
            "high",
            "std",
            "values",
            "sensitivity",
            "delta",
            "delta_low",
            "delta_high",
            "labels",
            "best",
            "first",
            "rms",
        ),
        "a share of 1, not per cent",
    ),
    "points_per_hour": "per cent",
}
"""What the values of a column are, where one could take them for something else."""

T = TypeVar("T")
Fields = dict[str, tuple[str, Callable[[T], Any]]]
"""The columns of a sheet in order: what each means, and its value in a line about a T."""


@dataclass(frozen=True)
class Sheet:
    """The lines of a table, each with a value for every column of its schema, which says what the columns mean."""

    schema: Mapping[str, str]
    lines: Sequence[Mapping[str, Any]]

    def frame(self) -> pd.DataFrame:
        """Return what `pandas.read_csv` reads from the sheet's CSV file; pandas is imported here alone, since that takes long."""
        import pandas

        return pandas.read_csv(io.StringIO(csv_text(self)))

    def plain(self) -> list[dict[str, Any]]:
        """Return the lines as JSON values: numbers as in the CSV file, lists and dictionaries as such, None where missing."""
        return [{name: None if line[name] == "" else rounded(line[name]) for name in self.schema} for line in self.lines]


def sheet(fields: Fields[T], items: Iterable[T]) -> Sheet:
    """Return a sheet with a line about each item."""
    return Sheet(texts(fields), [{name: value(item) for name, (_, value) in fields.items()} for item in items])


def texts(fields: Fields[T]) -> dict[str, str]:
    """Return what each column means, with its unit."""
    return {name: f"{text} ({UNITS[name]})" if name in UNITS else text for name, (text, _) in fields.items()}


def csv_text(sheet: Sheet) -> str:
    """Return a sheet as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(sheet.schema)
    for line in sheet.lines:
        writer.writerow([_cell(line[name]) for name in sheet.schema])
    return text.getvalue()


def rounded(value: Any) -> Any:
    """Return a number with `DIGITS` decimals, None for one that is missing; any other value as it is.

    >>> rounded(1 / 3), rounded(float("nan")), rounded("a")
    (0.333333333, None, 'a')
    """
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, DIGITS)
    return value


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        value = json.dumps(value)
    elif isinstance(value, dict):
        value = canonical(value)
    return _safe(value) if isinstance(value, str) else rounded(value)


@lru_cache(maxsize=1 << 14)
def _safe(value: str) -> str:
    text = printable(value)
    return f"'{text}" if text.lstrip()[:1] in FORMULAS or text in MISSING else text
