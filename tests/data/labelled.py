"""Labelled folders of a user's own, drawn small, for the tests of their readers."""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data import catalogue
from bench.data.dataset import Dataset

SIZE = (12, 16)
"""Height and width of what is drawn here."""


def draw(root: Path, names: Iterable[str]) -> Path:
    """Draw an image of noise for each name; equal names have equal images."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(list(name.encode())).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return root


def write_bmp(path: Path, blue: int) -> None:
    """Write an image of 4x4 pixels of one colour, byte for byte, whatever Pillow is installed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = bytes((blue, 10, 200)) * 16
    header = struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, 24, 0, len(rows), 2835, 2835, 0, 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + header + rows)


def masks(count: int) -> list[NDArray[np.uint8]]:
    """Return masks of the classes 1 to 3: mask i shows the class i % 3 + 1, every fourth one another class too."""
    made = []
    for number in range(count):
        mask = np.zeros(SIZE, dtype=np.uint8)
        mask[2:8, 3:10] = number % 3 + 1
        if number % 4 == 0:
            mask[9:, 12:] = (number + 1) % 3 + 1
        made.append(mask)
    return made


def write_masks(root: Path, image: str, mask: str, values: Mapping[int, int] | None = None, count: int = 12) -> Path:
    """Write images and grey masks by patterns of file names; `values` says which value an id has in the files."""
    draw(root, (image.format(number) for number in range(count)))
    for number, ids in enumerate(masks(count)):
        path = root / mask.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        table = np.arange(256, dtype=np.uint8)
        for identity, value in (values or {}).items():
            table[identity] = value
        Image.fromarray(table[ids]).save(path)
    return root


def read(root: Path, **choices: object) -> Dataset:
    return catalogue.read(root, "mine", catalogue.Choices(**choices))  # type: ignore[arg-type]


def register(root: Path, **choices: object) -> Dataset:
    return catalogue.register(read(root, **choices), skip_broken=bool(choices.get("skip_broken")))


def said_again(dataset: Dataset) -> Dataset:
    """Return the data set that the command in its errors prepares, read but not registered."""
    import shlex

    words = shlex.split(dataset.prepare_with().split("`")[1])
    assert words[:5] == ["bench", "data", "prepare", dataset.name, "--root"]
    options = dict(zip(words[4::2], words[5::2], strict=False))
    return read(
        Path(options["--root"]),
        layout=options["--layout"],
        labels=options.get("--labels", ""),
        group=options.get("--group", ""),
    )
