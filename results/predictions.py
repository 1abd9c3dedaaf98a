"""The predictions of a run for every image, read from the file beside its record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bench.errors import DataError
from bench.record import Record
from bench.storage.arrays import unpack
from results.cache import Cache
from results.scores import Answers, Reader


def reader(out: Path) -> Reader:
    """Return a function that reads a record's predictions below `out`; it raises DataError for any but the recorded ones."""

    def read(record: Record) -> Answers:
        ids, predictions = read_answers(out, record)
        return Answers(ids, predictions)

    return read


def verify(out: Path, records: Sequence[Record], cache: Cache) -> None:
    """Raise DataError for a run whose predictions are not the recorded ones.

    A file that was right before is not read again while its inode, size and time of change are the same.
    """
    for record in records:
        path = predictions_path(out, record)
        try:
            found = path.stat()
        except FileNotFoundError as error:
            missing = sum(not predictions_path(out, one).exists() for one in records)
            raise DataError(
                f"{path} is missing (of {missing} of {len(records)} runs the predictions are): tables are made from predictions, "
                "so a run's whole folder is needed."
            ) from error
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}.") from error
        state = [found.st_ino, found.st_size, found.st_mtime_ns]
        cache.recall(["verified", record.id, record.predictions, *state], partial(_check, out, record))


def _check(out: Path, record: Record) -> list[Any]:
    read_predictions(out, record)
    return []


ABOUT_AN_IMAGE = 4096
"""The most bytes that an image's id, scores and labels may take, beside its confusion matrix."""


def read_answers(out: Path, record: Record) -> tuple[tuple[str, ...], dict[str, NDArray[Any]]]:
    """Return the ids of a run's images and its predictions by name; DataError when the file is not the recorded one."""
    images, classes = record.data.counts.get(record.job.split, 0), len(record.data.classes)
    most = images * (8 * (classes + 2) * (classes + 1) + ABOUT_AN_IMAGE) + (1 << 20)
    try:
        predictions = unpack(read_predictions(out, record), most)
        ids = predictions.pop("ids").tolist()
        if not isinstance(ids, list) or any(array.shape[:1] != (len(ids),) for array in predictions.values()):
            raise ValueError("not one value for each image")
    except (ValueError, KeyError) as error:
        path = predictions_path(out, record)
        raise DataError(f"{path} is not of this version: {error}; remove its folder to run it again.") from error
    return tuple(ids), predictions


def read_predictions(out: Path, record: Record) -> bytes:
    """Return the bytes of a run's predictions; DataError when they cannot be read or are not the recorded ones."""
    path = predictions_path(out, record)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from error
    if hashlib.sha256(content).hexdigest() != record.predictions:
        raise DataError(f"{path} is damaged: its SHA-256 is not the recorded one.")
    return content


def predictions_path(out: Path, record: Record) -> Path:
    """Return the path of a run's predictions below an output folder."""
    return out / "runs" / record.id / "predictions.npz"
