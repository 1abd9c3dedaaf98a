"""What a run said of every picture, from the file beside its record."""

from __future__ import annotations

from pathlib import Path

from results.board import Answers, Reader
from results.record import Record, read_answers


def reader(out: Path) -> Reader:
    """Return a function that reads a record's predictions below `out`; DataError when they are not the recorded ones."""

    def read(record: Record) -> Answers:
        ids, predictions = read_answers(out, record)
        return Answers(ids, predictions)

    return read
