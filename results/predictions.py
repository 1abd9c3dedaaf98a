"""The predictions of a run for every image, read from the file beside its record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bench.detection import MOST
from bench.errors import DataError
from bench.metrics import METRICS
from bench.probe import LowShot
from bench.record import Record
from bench.storage.arrays import unpack
from results.cache import Cache
from results.scores import Answers, Reader

PREDICTIONS, ON_TEST = "predictions.npz", "chosen_on_test.npz"
"""The files beside a record: the run's predictions, and those of a probe with the settings that the test split would choose."""


def reader(out: Path, file: str = PREDICTIONS) -> Reader:
    """Return a function that reads a record's predictions below `out`; it raises DataError for any but the recorded ones."""

    def read(record: Record) -> Answers:
        ids, predictions = read_answers(out, record, file)
        return Answers(ids, predictions)

    return read


def verify(out: Path, records: Sequence[Record], cache: Cache, file: str = PREDICTIONS) -> None:
    """Raise DataError for a run whose predictions are not the recorded ones.

    A file that was right before is not read again while its inode, size and time of change are the same.
    """
    for record in records:
        path = predictions_path(out, record, file)
        try:
            found = path.stat()
        except FileNotFoundError as error:
            missing = sum(not predictions_path(out, one, file).exists() for one in records)
            raise DataError(
                f"{path} is missing (of {missing} of {len(records)} runs the predictions are): tables are made from predictions, "
                "so a run's whole folder is needed."
            ) from error
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}.") from error
        state = [found.st_ino, found.st_size, found.st_mtime_ns]
        cache.recall(["verified", record.id, _recorded(record, file), *state], partial(_check, out, record, file))


def _check(out: Path, record: Record, file: str) -> list[Any]:
    read_file(out, record, file)
    return []


ABOUT_AN_IMAGE = 4096
"""The most bytes that an image's id, scores and labels may take, beside its confusion matrix, surfaces and boxes."""
A_FOUND_BOX, A_TRUE_BOX = 4 * 4 + 4 + 2, 6 * 4
"""The bytes of a detection (edges, confidence, class), and of a true box (class, edges, flag)."""


def read_answers(out: Path, record: Record, file: str = PREDICTIONS) -> tuple[tuple[str, ...], dict[str, NDArray[Any]]]:
    """Return the ids of a run's images and its predictions by name; DataError when the file is not the recorded one."""
    images, classes, probe = record.data.counts.get(record.job.split, 0), len(record.data.classes), record.job.probe
    scores = 4 * len(probe.shots) * probe.draws * classes if isinstance(probe, LowShot) else 0
    boxes = MOST * (A_FOUND_BOX + A_TRUE_BOX) if _has_boxes(record) else 0
    most = images * (8 * (classes + 2) * (classes + 1) + 4 * classes + scores + boxes + ABOUT_AN_IMAGE) + (1 << 20)
    try:
        predictions = unpack(read_file(out, record, file), most)
        ids = predictions.pop("ids").tolist()
        if not isinstance(ids, list) or any(array.shape[:1] != (len(ids),) for array in predictions.values()):
            raise ValueError("not one value for each image")
    except (ValueError, KeyError) as error:
        path = predictions_path(out, record, file)
        raise DataError(f"{path} is not of this version: {error}; remove its folder to run it again.") from error
    return tuple(ids), predictions


def _has_boxes(record: Record) -> bool:
    known = (METRICS.get(identity.partition("@")[0]) for identity in record.metric_ids)
    return any(metric is not None and metric.needs == "boxes" for metric in known)


def read_predictions(out: Path, record: Record) -> bytes:
    """Return the bytes of a run's predictions; DataError when they cannot be read or are not the recorded ones."""
    return _read_recorded(out, record, PREDICTIONS)


def read_file(out: Path, record: Record, file: str) -> bytes:
    """Return the bytes of one of `files_of` a record; DataError when they cannot be read or are not the recorded ones."""
    return read_predictions(out, record) if file == PREDICTIONS else _read_recorded(out, record, file)


def _read_recorded(out: Path, record: Record, file: str) -> bytes:
    path = predictions_path(out, record, file)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from error
    if hashlib.sha256(content).hexdigest() != _recorded(record, file):
        raise DataError(f"{path} is damaged: its SHA-256 is not the recorded one.")
    return content


def predictions_path(out: Path, record: Record, file: str = PREDICTIONS) -> Path:
    """Return the path of a run's predictions below an output folder."""
    return out / "runs" / record.id / file


def files_of(record: Record) -> tuple[str, ...]:
    """Return the names of the files with predictions beside a record."""
    return (PREDICTIONS, ON_TEST) if _recorded(record, ON_TEST) else (PREDICTIONS,)


def _recorded(record: Record, file: str) -> str:
    """Return the SHA-256 that a record has of one of its files; "" where there is no such file."""
    if file == PREDICTIONS:
        return record.predictions
    return record.selection.predictions if record.selection is not None else ""
