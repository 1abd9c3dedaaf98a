"""What a run said of every picture, from the file beside its record."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.errors import DataError
from results.cache import Cache
from results.record import Record, predictions_path, read_answers, read_predictions
from results.scores import Answers, Reader


def reader(out: Path) -> Reader:
    """Return a function that reads a record's predictions below `out`; DataError when they are not the recorded ones."""

    def read(record: Record) -> Answers:
        ids, predictions = read_answers(out, record)
        return Answers(ids, predictions)

    return read


def verify(out: Path, records: Sequence[Record], cache: Cache) -> None:
    """Raise DataError for a run whose predictions are not the recorded ones.

    A file that was right before, and has the same number, size and time of its last change, is not read again.
    """
    for record in records:
        path = predictions_path(out, record)
        try:
            found = path.stat()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}.") from error
        state = [found.st_ino, found.st_size, found.st_mtime_ns]
        cache.recall(["verified", record.id, record.predictions, *state], partial(_check, out, record))


def _check(out: Path, record: Record) -> list[Any]:
    read_predictions(out, record)
    return []
