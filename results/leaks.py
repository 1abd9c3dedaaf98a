"""What tables and files say of leaks: test images that a row's trunks were pretrained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bench.record import Record

MARK = "¶"
"""The mark of a cell whose trunks were pretrained on images that it is scored on."""
COLUMNS: dict[str, tuple[str, Callable[[Record], Any]]] = {
    "leaks_equal": (
        "test images that the trunk was pretrained on; empty where it was not pretrained, or nobody looked",
        lambda record: record.leaks and record.leaks.test.equal,
    ),
    "leaks_near": (
        "other test images that look like one that the trunk was pretrained on",
        lambda record: record.leaks and record.leaks.test.near,
    ),
    "leaks_dropped": (
        "images that were dropped from pretraining for being equal or near to test images",
        lambda record: record.leaks and record.leaks.dropped,
    ),
}
"""Columns of CSV files: what each means, and its value for a run."""


def seen(records: Iterable[Record]) -> bool:
    """Tell whether one of the runs is scored on an image that its trunk was pretrained on."""
    return any(record.leaks is not None and record.leaks.test.count for record in records)


def notes(cells: Sequence[tuple[str, str, Sequence[Record]]]) -> list[str]:
    """Return notes on the leaks of a table, from each cell's row, column and runs."""
    pretrained = [(row, column, record) for row, column, records in cells for record in records if record.pretrain.data]
    if not pretrained:
        return []
    found: dict[str, None] = {}
    dropped: dict[str, None] = {}
    for row, column, record in pretrained:
        leaks = record.leaks
        if leaks is not None and leaks.test.count:
            test = leaks.test
            found[f"{row} in {column} {test.count:,} of {test.images:,} ({test.equal:,} equal, {test.near:,} near)"] = None
        if leaks is not None and leaks.dropped:
            dropped[f"{row} {leaks.dropped:,}"] = None
    made = [f"{MARK}: pretrained on images that it is scored on: {', '.join(found)}."] if found else []
    if dropped:
        made.append(f"Images dropped from pretraining, since a test image is equal or near: {', '.join(dropped)}.")
    unknown = [record for *_, record in pretrained if record.leaks is None]
    if unknown:
        some = "these" if len(unknown) == len(pretrained) else "some of these"
        made.append(f"Not checked for test images among the pretraining images: an earlier version made {some} rows.")
    elif not found:
        made.append("No test image is equal or near to one that was pretrained on.")
    return made
