"""What a run said of every picture, from the file beside its record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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

    A file is read when it is not the one, by number, size and time of its last change, that was found right before.
    """
    for record in records:
        state = _state(out, record)

        def check(record: Record = record, state: list[int] = state) -> list[int]:
            read_predictions(out, record)
            return state

        cache.recall(["verified", record.id, record.predictions], check, state.__eq__)


def _state(out: Path, record: Record) -> list[int]:
    """Return what tells a file from another one of its name; nothing where there is none."""
    try:
        found = predictions_path(out, record).stat()
    except OSError:
        return []
    return [found.st_ino, found.st_size, found.st_mtime_ns]
