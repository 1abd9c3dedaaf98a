"""Data sets of a user's own, opened and prepared, and their masks written otherwise, for the tests of masks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data import catalogue
from bench.data.dataset import Dataset
from bench.data.masks import read_mask
from tests.data.made import quiet

Change = Callable[[np.ndarray], Image.Image]


def rewrite(root: Path, change: Change) -> None:
    for path in sorted((root / "SegmentationClass").iterdir()):
        change(np.array(Image.open(path))).save(path)


def opened(root: Path) -> Dataset:
    return catalogue.open_dataset(str(root), quiet)


def prepared(root: Path, *values: str) -> Dataset:
    return catalogue.register(catalogue.read(root, "mine", catalogue.Choices(mask_values=values)))


def ids_of(dataset: Dataset, identity: str = "p00") -> set[int]:
    image = next(image for image in dataset.images if image.id == identity)
    mask = read_mask(dataset, "SegmentationClass", identity, (32, 24), dataset.path(image))
    return set(np.unique(mask.ids).tolist())


def save_as(ids: np.ndarray, palette: np.ndarray) -> Image.Image:
    image = Image.fromarray(ids, mode="P")
    image.putpalette(palette.astype(np.uint8).tobytes())
    return image
