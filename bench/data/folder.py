"""A plain folder of pictures, at any depth, as unlabelled data."""

from __future__ import annotations

from pathlib import Path

from bench.data.dataset import Dataset, Picture
from bench.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


def read(root: Path, name: str) -> Dataset:
    """List every picture below `root`, by name; DataError when there is none."""
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise DataError(f"{root} holds no pictures ({', '.join(sorted(SUFFIXES))}).")
    names = [path.relative_to(root).as_posix() for path in files]
    return Dataset(
        name=name,
        kind="folder",
        root=root,
        synthetic=(root / "SYNTHETIC.txt").is_file(),
        pictures=tuple(Picture(id=file, file=file) for file in names),
    )
