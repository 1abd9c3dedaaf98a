"""Checks of what is exported of other libraries' data sets, item by item."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from bench.data import catalogue, exports
from bench.data.dataset import Dataset, decode
from tests.data.made import quiet

Theirs = dict[str, list[tuple[Image.Image, list[str]]]]
"""What a library's own reader gives: the images of each split and the names of their classes."""
NAMES = ("plane", "tabby cat", "deer", "ship, of a line")
CLASS = datasets.ClassLabel(names=list(NAMES))


def agree(root: Path, theirs: Theirs, classes: tuple[str, ...]) -> Dataset:
    """Check what is exported of `root` against what a library reads, item by item, and return it as the bench reads it."""
    assert exports.looks_like(root)
    folder = exports.export(root, "mine", quiet)
    assert folder is not None
    dataset = catalogue.read(folder, "mine")
    assert dataset.kind == "csv" and dataset.classes == classes and dataset.findings == {}
    assert dataset.given.keys() == (theirs.keys() if len(theirs) > 1 else set())
    by_id, labels = {image.id: image for image in dataset.images}, dataset.labels([image.id for image in dataset.images])
    shown = dict(zip(by_id, labels, strict=True))
    ids = sorted(by_id, key=lambda one: Path(one).name)
    for split, items in theirs.items():
        of_split = [one for one in ids if one in dataset.given[split]] if len(theirs) > 1 else ids
        for identity, (image, names) in zip(of_split, items, strict=True):
            assert np.array_equal(np.asarray(decode(dataset.path(by_id[identity]))), np.asarray(image.convert("RGB")))
            assert {classes[place] for place in np.flatnonzero(shown[identity] == 1)} == set(names)
    assert len(by_id) == sum(map(len, theirs.values()))
    return dataset


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def hugging_face(rng: np.random.Generator, count: int, label: Any, feature: Any, column: str = "label") -> datasets.Dataset:
    images = [Image.fromarray(noise(rng, 9, 7 + place, 3)) for place in range(count)]
    features = datasets.Features({"image": datasets.Image(), column: feature, "note": datasets.Value("string")})
    rows = {"image": images, column: [label(place) for place in range(count)], "note": ["x"] * count}
    return datasets.Dataset.from_dict(rows, features=features)
