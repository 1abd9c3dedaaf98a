"""The small files that say what images show (classes.txt, a table of labels, COCO's JSON): have they changed since `prepare`?"""

from __future__ import annotations

from bench.data.dataset import Dataset
from bench.errors import DataError
from bench.storage import files

SUFFIXES = (".csv", ".tsv", ".txt", ".json")
"""PNGs of segments are sources too, and too many to be looked at each time."""
Seen = dict[str, tuple[int, int, str]]
"""Size, time of change in nanoseconds, and SHA-256 of each file, by its name relative to the root."""


def seen(dataset: Dataset) -> Seen:
    """Return what the files that say what a data set shows are like now."""
    names = dict.fromkeys([*dataset.sources, "classes.txt", "classes.csv"])
    paths = {name: dataset.root / name for name in names if name.endswith(SUFFIXES)}
    return {name: (*_stamp(dataset, name), files.sha256(path)) for name, path in paths.items() if path.is_file()}


def check(dataset: Dataset) -> None:
    """Raise DataError when such a file has changed since the data set was prepared; a folder that is gone is not looked at."""
    if not dataset.root.is_dir():
        return
    for name, (size, changed, digest) in dataset.seen.items():
        path = dataset.root / name
        if not path.is_file() or (_stamp(dataset, name) != (size, changed) and files.sha256(path) != digest):
            raise DataError(
                f"{path} has changed since {dataset.name} was prepared, so its labels would be the earlier ones; prepare it "
                f"again: {dataset.prepare_with()}."
            )


def _stamp(dataset: Dataset, name: str) -> tuple[int, int]:
    status = (dataset.root / name).stat()
    return status.st_size, status.st_mtime_ns
