"""Finding the same photograph in two data sets: how long it takes, and with folders as arguments, how often it is right.

`python -m tests.benchmarks.leaks DIR...` changes copies of every photograph below the folders, and prints how many of them are
found, how many are plain, and which pairs of files are taken for one photograph. The pairs are for a person to look at.
"""

from __future__ import annotations

import io
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from bench.data import hashes
from bench.data.dataset import decode
from bench.data.folder import SUFFIXES
from bench.data.threads import in_order
from tests.benchmarks.common import Figure, photographs, seconds, workplace

COCO, VOC = 123_287, 5_823
"""The images of COCO 2014's train and val, and of VOC 2012's val."""
MOST = 4000
"""The most photographs of which copies are changed."""


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def _scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def _cut(image: Image.Image, share: float) -> Image.Image:
    return ImageOps.crop(image, (round(image.width * share), round(image.height * share)) * 2)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 90": lambda image: _jpeg(image, 90),
    "JPEG quality 60": lambda image: _jpeg(image, 60),
    "JPEG quality 30": lambda image: _jpeg(image, 30),
    "half the size": lambda image: _scaled(image, 0.5),
    "64x64 pixels": lambda image: image.resize((64, 64)),
    "twice the size, JPEG quality 75": lambda image: _jpeg(_scaled(image, 2), 75),
    "mirrored": ImageOps.mirror,
    "mirrored, half the size, JPEG quality 75": lambda image: _jpeg(_scaled(ImageOps.mirror(image), 0.5), 75),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "15 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "1 % cut off each side": lambda image: _cut(image, 0.01),
    "2.5 % cut off each side": lambda image: _cut(image, 0.025),
    "5 % cut off each side": lambda image: _cut(image, 0.05),
}


def _rows(found: list[bytes]) -> hashes.Hashes:
    return np.frombuffer(b"".join(found), dtype=hashes.Hash)


def accuracy(folders: list[Path]) -> None:
    """Print how many changed copies of the photographs below some folders are found, and which pairs are taken for one."""
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    everything = _rows(list(in_order(hashes.hash_file, paths)))
    spread = [path for path, one in zip(paths, everything, strict=True) if one["plain"]]
    print(f"{len(paths):,} images, {len(spread)} plain")
    step = -(-len(paths) // MOST)
    for name, change in CHANGES.items():
        copies = _rows(list(in_order(lambda path, change=change: hashes.hash_of(change(decode(path))), paths[::step])))  # type: ignore[misc]
        found = [hashes.compare(one[None], copy[None]) for one, copy in zip(everything[::step], copies, strict=True)]
        share = np.mean([bool(one.equal[0] or one.near[0]) for one in found])
        print(f"  {name}: {100 * share:.2f} % of {len(copies):,} found")
    pairs = []
    for place in range(1, len(paths)):
        alike = hashes.compare(everything[:place], everything[place : place + 1])
        pairs += [(paths[other], paths[place]) for other in np.flatnonzero(alike.trained)]
    print(f"{len(paths) * (len(paths) - 1) // 2:,} pairs of files, compared as they are and mirrored; taken for one photograph:")
    for one, other in pairs:
        print(f"  {one.name} and {other.name}")


def measure() -> list[Figure]:
    """Return what hashing takes beside decoding for images as large as COCO's, and what comparing COCO with VOC takes."""
    with workplace() as place:
        paths = photographs(place / "photographs", 100)
        images = [decode(path) for path in paths]
        hashes.hash_of(images[0])  # imports what it needs
        decoding = seconds(lambda: [decode(path) for path in paths])
        hashing = seconds(lambda: [hashes.hash_of(image) for image in images])
    random = np.random.default_rng(0)
    trained, scored = (np.frombuffer(random.bytes(count * hashes.Hash.itemsize), hashes.Hash).copy() for count in (COCO, VOC))
    trained["plain"] = scored["plain"] = False
    comparing = seconds(lambda: hashes.compare(trained, scored))
    tracemalloc.start()
    hashes.compare(trained, scored)
    _, peak = tracemalloc.get_traced_memory()
    return [
        Figure("decoding an image of 640x480 on one thread", 1000 * decoding / len(paths), "ms"),
        Figure("hashing it", 1000 * hashing / len(paths), "ms", "less than decoding"),
        Figure(f"comparing {COCO:,} images with {VOC:,}", comparing, "s", "less than 10"),
        Figure("memory for it", peak / 1e6, "MB", "less than 100"),
    ]


if __name__ == "__main__":
    accuracy([Path(name) for name in sys.argv[1:]])
