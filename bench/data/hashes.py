"""Hashes of images, by which a photograph is found in two data sets: of its pixels, and of what it looks like.

Two images are equal when their upright RGB pixels are. They are near when two perceptual hashes of 64 bits, pHash and dHash, both
differ in at most `MOST_BITS` bits, as they are or with one of the images mirrored. pHash's bits are signs of low frequencies,
dHash's of differences between neighbours (https://github.com/JohannesBuchner/imagehash). `python -m tests.benchmarks.leaks DIR`
measures on photographs how many changed copies this finds, and how many pairs of other images it takes for copies.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bench.data.dataset import Dataset, decode
from bench.data.threads import in_order
from bench.errors import DataError
from bench.schema import Schema
from bench.storage import files, locks, seal
from bench.text import Echo

MOST_BITS = 10
"""The most bits of 64 in which each of the two hashes may differ between images that are near."""
PLAIN = 2.0
"""An image whose grey values, reduced to 32x32, have a lower standard deviation (of 255) is plain: its hashes are noise."""
VERSION = 1
"""It is in the names of files of hashes; to be raised when the same image gets other hashes."""
_BLOCK = 1 << 20
"""How many pairs of hashes are compared at once: 8 MiB."""
_EVERY = 8.0
"""Seconds between two lines that say how many images are hashed."""

Hash = np.dtype([("pixels", "<u8"), ("phash", "<u8", (2,)), ("dhash", "<u8", (2,)), ("plain", "?")])
"""An image's hashes: 8 bytes of the SHA-256 of size and pixels; pHash and dHash, as it is and mirrored; whether it is plain."""
Hashes = NDArray[Any]
"""The hashes of some images, `Hash` (N,)."""


class HashFile(Schema):
    """The hashes of all images of a data set, in its order: base64 of an array of `Hash`."""

    version: Literal[1] = 1
    fingerprint: str
    hashes: str


def hash_of(image: Image.Image) -> bytes:
    """Return the hashes of an RGB image as the bytes of one `Hash`."""
    import imagehash

    small = image.resize((32, 32), Image.Resampling.LANCZOS, reducing_gap=3.0).convert("L")
    pixels = hashlib.sha256(f"{image.width}x{image.height} ".encode())
    pixels.update(image.tobytes())
    found = np.zeros(1, dtype=Hash)
    found["pixels"] = np.frombuffer(pixels.digest()[:8], dtype="<u8")
    for side, seen in enumerate((small, ImageOps.mirror(small))):
        found["phash"][0, side] = _number(imagehash.phash(seen))
        found["dhash"][0, side] = _number(imagehash.dhash(seen))
    found["plain"] = np.asarray(small).std() < PLAIN
    return found.tobytes()


def _number(found: Any) -> Any:
    return np.packbits(found.hash).view("<u8")[0]


def hash_file(path: Path) -> bytes:
    """Return the hashes of an image file, turned upright as its EXIF orientation says; DataError when it does not decode."""
    try:
        image = decode(path, upright=True)
    except DataError:  # it may be the orientation alone that cannot be read
        image = decode(path)
    return hash_of(image)


def path_of(dataset: Dataset) -> Path:
    """Return the file of a data set's hashes."""
    return files.home() / "hashes" / f"{dataset.name}-{dataset.fingerprint[:16]}-{VERSION}.json"


def keep(dataset: Dataset, hashes: Iterable[bytes]) -> None:
    """Write the file of a data set's hashes; `hashes` yields the hashes of each image in the data set's order."""
    text = base64.b64encode(b"".join(hashes)).decode()
    files.publish_json(path_of(dataset), HashFile(fingerprint=dataset.fingerprint, hashes=text).model_dump(mode="json"))


def open_hashes(dataset: Dataset, echo: Echo) -> Hashes:
    """Return the hashes of all images of a data set, in its order, from their file, which is made when missing.

    An image that does not decode has the hashes of a plain one: it is refused where it is used.
    """
    path = path_of(dataset)
    if not path.is_file():
        with locks.lock(path.with_suffix(".lock"), echo):
            if not path.is_file():
                keep(dataset, _hashed(dataset, echo))
    way_out = "remove it to have it made again"
    kept = seal.read_model(HashFile, path, "a file of hashes", way_out)
    try:
        rows = base64.b64decode(kept.hashes, validate=True)
    except ValueError:
        rows = b""
    if kept.fingerprint != dataset.fingerprint or len(rows) != len(dataset.images) * Hash.itemsize:
        raise DataError(f"{path} is not the file of hashes of {dataset.name}; {way_out}.")
    return np.frombuffer(rows, dtype=Hash)


def _hashed(dataset: Dataset, echo: Echo) -> Iterable[bytes]:
    total = len(dataset.images)
    echo(f"hashing {total:,} images of {dataset.title}, to find those that other data sets have too (once)")
    told = time.monotonic()
    for done, one in enumerate(in_order(_hash_or_plain, (dataset.path(image) for image in dataset.images)), start=1):
        yield one
        if time.monotonic() - told > _EVERY:
            told = time.monotonic()
            echo(f"  {done:,} of {total:,} images hashed")


def _hash_or_plain(path: Path) -> bytes:
    try:
        return hash_file(path)
    except DataError:
        nothing = np.zeros(1, dtype=Hash)
        nothing["plain"] = True
        return nothing.tobytes()


@dataclass(frozen=True)
class Shared:
    """Which of N images that are trained on and M images that are scored show the same.

    `equal`, `near` and `plain`, bool (M,), are of the scored images; one that is equal to an image is never near as well.
    `trained`, bool (N,), are the images that are equal or near to a scored one.
    """

    equal: NDArray[np.bool_]
    near: NDArray[np.bool_]
    plain: NDArray[np.bool_]
    trained: NDArray[np.bool_]


def compare(trained: Hashes, scored: Hashes) -> Shared:
    """Compare N images with M others, each with each; plain ones are left out, since an empty image gives nothing away."""
    equal, near, alike = (np.zeros(len(some), dtype=np.bool_) for some in (scored, scored, trained))
    found = Shared(equal, near, scored["plain"], alike)
    rows, columns = np.flatnonzero(~trained["plain"]), np.flatnonzero(~scored["plain"])
    ours, theirs = trained[rows], scored[columns]
    found.equal[columns] = np.isin(theirs["pixels"], ours["pixels"])
    phash, dhash = np.ascontiguousarray(ours["phash"][:, 0]), np.ascontiguousarray(ours["dhash"][:, 0])
    step = max(1, _BLOCK // max(1, len(ours)))
    for first in range(0, len(theirs), step):
        some = theirs[first : first + step]
        for side in (0, 1):
            one, other = np.nonzero(np.bitwise_count(some["phash"][:, side, None] ^ phash) <= MOST_BITS)
            both = np.bitwise_count(some["dhash"][one, side] ^ dhash[other]) <= MOST_BITS
            found.near[columns[first + one[both]]] = True
            found.trained[rows[other[both]]] = True
    found.near[found.equal] = False  # equal images are near as well
    return found
