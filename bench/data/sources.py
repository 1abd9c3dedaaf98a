"""What a data set that another library reads holds, before it is written as files: its classes, its images and their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from bench.errors import UsageError

SPLIT_NAMES = {
    "train": "train",
    "trainval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
"""The splits that are known, by the names that sources give them."""


class Item(NamedTuple):
    """An image: its pixels, uint8 (H, W) or (H, W, 3), or its encoded file; and its classes by number, None where unknown."""

    image: NDArray[np.uint8] | bytes
    classes: tuple[int, ...] | None


Splits = Mapping[str, Iterable[Item]]
"""The images of each split, train, val or test; "" where there is one split alone."""


@dataclass(frozen=True)
class Content:
    """The names of the classes, the images, and whether an image may have several classes or none."""

    classes: tuple[str, ...]
    splits: Splits
    several: bool = False


@dataclass(frozen=True)
class Source:
    """A data set that was found: what it is called, its files, and the function that reads it with the library it belongs to."""

    title: str
    files: list[Path] = field(repr=False)
    open: Callable[[], Content]


def library(name: str, title: str) -> ModuleType:
    """Return the library that reads a data set; UsageError with what to install where it is missing."""
    try:
        if name == "medmnist":
            import medmnist as found
        elif name == "datasets":
            import datasets as found
        else:
            import torchvision.datasets as found
    except ImportError as error:
        raise UsageError(
            f"{title} is read with the library {name}, which is not installed: pip install 'pretext-bench[datasets]'."
        ) from error
    return cast(ModuleType, found)


def arrays(images: NDArray[np.uint8], labels: Iterable[tuple[int, ...]]) -> Iterator[Item]:
    """Yield the images of an array (N, H, W) or (N, H, W, 3) with their classes."""
    for image, classes in zip(images, labels, strict=True):
        yield Item(image, classes)


def copies(paths: Iterable[Path], labels: Iterable[int]) -> Iterator[Item]:
    """Yield the images in files, as they are encoded, with their classes."""
    for path, label in zip(paths, labels, strict=True):
        yield Item(path.read_bytes(), (int(label),))
