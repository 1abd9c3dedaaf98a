"""Reads a plain folder of images, at any depth, as unlabelled data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bench.data.dataset import Dataset, ImageFile
from bench.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


def read(root: Path, name: str) -> Dataset:
    """Return the data set of every image below `root`, in the order of names; DataError when there is none."""
    names = sorted(_names(root), key=lambda name: name.split("/"))
    if not names:
        raise DataError(f"{root} holds no images ({', '.join(sorted(SUFFIXES))}).")
    return Dataset(
        name=name,
        kind="folder",
        root=root,
        synthetic=(root / "SYNTHETIC.txt").is_file(),
        images=tuple(ImageFile(id=name, file=name) for name in names),
    )


def _names(root: Path) -> Iterator[str]:
    """Yield the image files below `root`, relative to `root`, in no fixed order."""
    for folder, _, files in os.walk(root):
        below = Path(folder).relative_to(root)
        for file in files:
            path = below / file
            if path.suffix.lower() in SUFFIXES and (root / path).is_file():
                yield path.as_posix()
