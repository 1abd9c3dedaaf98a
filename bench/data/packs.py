"""Packs: each image is decoded and resized once, into one array on the disk that every run reads.

A pack is a folder: `manifest.json`, `images.npy` uint8 (N, S, S, 3), and with masks `masks.npy` uint8 (N, S, S). A pack that
keeps the masks' original resolution for evaluation also has `truth.npy` uint8 (N, P, P), padded. Files are written and read one
image at a time, so memory does not grow with the number of images.
"""

from __future__ import annotations

import math
import os
import zlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator

from bench.data.dataset import Dataset, decode, opened
from bench.data.masks import read_mask
from bench.data.threads import in_order
from bench.errors import DataError
from bench.metrics import PADDING, VOID
from bench.schema import Schema, digest_of
from bench.storage import files, locks, seal
from bench.text import Echo

Bytes = NDArray[np.uint8]

PACK_VERSION = 3
"""Raised when equal images would become other packs: it is in the names of their folders, so earlier packs are not read."""


class PackRule(Schema):
    """How an image becomes a square of `size` pixels.

    `squash` changes the proportions (the paper's code). `letterbox` shrinks an image whose longer side exceeds `size`, and pads.
    `crop` keeps every pixel and pads all images to the side of the largest, to be cropped to `size` later (the paper's text).
    Padding is black in the image and 254 in the mask, which losses and scores ignore.
    """

    size: int
    resize: Literal["squash", "letterbox", "crop"] = "squash"
    interpolation: Literal["bilinear", "nearest"] = "bilinear"


Size = tuple[int, int]
"""Height and width."""


def _shared(sizes: Iterable[Size]) -> tuple[Size, ...]:
    """Return the sizes with equal ones as one object, which saves memory, since most images have one of a few sizes."""
    known: dict[Size, Size] = {}
    return tuple(known.setdefault(size, size) for size in sizes)


Sizes = Annotated[tuple[Size, ...], AfterValidator(_shared)]


class Manifest(Schema):
    """A pack's manifest: its images, the data set and rule it was made from, and the digests of its arrays."""

    version: Literal[2] = 2
    dataset: str
    fingerprint: str
    subset: str
    rule: PackRule
    side: int
    ids: tuple[str, ...]
    content: Sizes  # of each image inside its square, without padding
    original: Sizes  # of each image before resizing
    void: tuple[int, ...] = ()
    """The rows whose masks are void throughout."""
    sums: dict[str, str]
    """The SHA-256 of the check sums of each array, by the array's name."""


@dataclass(frozen=True)
class Rows:
    """One array of a pack; rows are read from the file when they are asked for.

    Each row has a CRC-32 in a file beside the array, which is checked the first time that this process reads the row.
    """

    path: Path
    shape: tuple[int, ...]
    offset: int
    sums: NDArray[np.uint32]
    checked: NDArray[np.bool_]

    @classmethod
    def open(cls, path: Path, count: int, side: int, digest: str) -> Rows:
        """Open an .npy file of `count` uint8 squares of `side` pixels, any side for 0; `digest` is that of its check sums.

        DataError when the file is no such array, is too short, or has other check sums.
        """
        try:
            with path.open("rb") as file:
                version = np.lib.format.read_magic(file)
                header = np.lib.format.read_array_header_1_0(file) if version == (1, 0) else ((), True, None)
                offset, length = file.tell(), os.fstat(file.fileno()).st_size
            sums = _sums_path(path).read_bytes()
        except Exception as error:  # numpy's header errors have no common base
            raise DataError(f"{path} is not a pack's array: {' '.join(str(error).split())[:200]}; {REMADE}.") from error
        shape, in_columns, kind = header
        squares = len(shape) in (3, 4) and shape[0] == count and shape[1] == shape[2] and side in (0, shape[1])
        if in_columns or kind != np.uint8 or not squares or shape[3:] not in ((), (3,)) or length != offset + math.prod(shape):
            raise DataError(f"{path} is damaged: it is not the uint8 array that the manifest names; {REMADE}.")
        if files.sha256_bytes(sums) != digest or len(sums) != 4 * count:
            raise DataError(f"{_sums_path(path)} is damaged: its SHA-256 is not the one in the manifest; {REMADE}.")
        return cls(path, shape, offset, np.frombuffer(sums, dtype="<u4"), np.zeros(count, dtype=np.bool_))

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> Bytes:
        """Return the rows at `indices`, copied: uint8 (n, ...); DataError for a row that has changed since it was written."""
        rows = np.empty((len(indices), *self.shape[1:]), dtype=np.uint8)
        length = rows[0].nbytes if len(indices) else 0
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            for row, index in zip(rows, indices, strict=True):
                if os.preadv(descriptor, [memoryview(row).cast("B")], self.offset + int(index) * length) != length:
                    raise DataError(f"{self.path} ends before row {int(index)}; {REMADE}.")
                if not self.checked[index]:
                    if zlib.crc32(row) != self.sums[index]:
                        raise DataError(f"{self.path} is damaged: row {int(index)} has another CRC-32; {REMADE}.")
                    self.checked[index] = True
        finally:
            os.close(descriptor)
        return rows


def _sums_path(array: Path) -> Path:
    return array.with_suffix(".crc32")


REMADE = "remove its folder, and the pack is made again"
"""The advice in the error for a damaged pack."""


@dataclass(frozen=True)
class Pack:
    """A pack on the disk."""

    folder: Path
    manifest: Manifest
    images: Rows
    masks: Rows | None
    truth: Rows | None

    def places(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of images by id, int64 (n,); DataError for an id that is not in the pack."""
        place = {identity: row for row, identity in enumerate(self.manifest.ids)}
        missing = [identity for identity in ids if identity not in place]
        if missing:
            raise DataError(
                f"{self.manifest.dataset}: the split names {missing[0]} and {len(missing) - 1} more images that are not in the "
                f"data ({self.manifest.subset})."
            )
        return np.array([place[identity] for identity in ids], dtype=np.int64)


def fit(image: Image.Image, rule: PackRule, side: int) -> tuple[Bytes, tuple[int, int]]:
    """Return an image resized into its padded square, uint8 (side, side, 3), and the height and width of its content."""
    resized = image.resize(_target(image.size, rule), _FILTERS[rule.interpolation])
    square = np.zeros((side, side, 3), dtype=np.uint8)
    square[: resized.height, : resized.width] = np.asarray(resized)
    return square, (resized.height, resized.width)


def _fit_mask(mask: Bytes, rule: PackRule, side: int) -> Bytes:
    target = _target((mask.shape[1], mask.shape[0]), rule)
    resized = np.asarray(Image.fromarray(mask).resize(target, Image.Resampling.NEAREST))
    square = np.full((side, side), PADDING, dtype=np.uint8)
    square[: resized.shape[0], : resized.shape[1]] = resized
    return square


def _target(size: tuple[int, int], rule: PackRule) -> tuple[int, int]:
    width, height = size
    if rule.resize == "squash":
        return rule.size, rule.size
    scale = min(1.0, rule.size / max(width, height)) if rule.resize == "letterbox" else 1.0
    return max(1, round(width * scale)), max(1, round(height * scale))


_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}


@dataclass(frozen=True)
class Order:
    """What to pack: with `subset` images all images, else those with a mask in that folder; of these `only` some ids, or all."""

    dataset: Dataset
    subset: str
    rule: PackRule
    only: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The pack's folder."""
        depends_on: dict[str, Any] = {
            "version": PACK_VERSION,
            "fingerprint": self.dataset.fingerprint,
            "subset": self.subset,
            "rule": self.rule.model_dump(),
            "only": self.only,
        }
        if self.dataset.kind == "coco" and (self.dataset.boxes or self.dataset.masks):  # earlier, all images were turned upright
            depends_on["as_stored"] = True
            if self.subset != "images":
                depends_on["annotations"] = self.dataset.annotations
        key = digest_of(depends_on)[:16]
        return files.home() / "packs" / f"{self.dataset.name}-{self.subset}-{self.rule.resize}{self.rule.size}-{key}"

    def places(self) -> list[int]:
        """Return the positions in the data set of the images to pack; DataError when a mask folder is missing or empty."""
        wanted = set(self.only) or None
        if self.subset != "images":
            masked = set(self.dataset.masks.get(self.subset, ()))
            if not masked:
                raise DataError(
                    f"{self.dataset.name} has no masks in {self.subset}; segmentation needs a VOC data set with masks."
                )
            wanted = masked if wanted is None else masked & wanted
        return [place for place, image in enumerate(self.dataset.images) if wanted is None or image.id in wanted]


def open_pack(order: Order, echo: Echo, progress: Callable[[int, int], object]) -> Pack:
    """Return a pack, made when it is missing, or awaited while another process makes it.

    `progress` is called with the number of images done and of all images.
    """
    folder = order.folder
    if not folder.is_dir():
        with locks.lock(folder.parent / f"{folder.name}.lock", echo):
            if not folder.is_dir():
                echo(f"packing {len(order.places()):,} images of {order.dataset.title} at {order.rule.size} px (once)")
                files.publish_folder(folder, lambda place: _write(place, order, progress), needs=_bytes(order))
    path = folder / "manifest.json"
    manifest = seal.read_model(Manifest, path, "a pack's manifest", REMADE)
    arrays = {
        name: Rows.open(folder / f"{name}.npy", len(manifest.ids), 0 if name == "truth" else manifest.side, digest)
        for name, digest in manifest.sums.items()
    }
    return Pack(folder, manifest, arrays["images"], arrays.get("masks"), arrays.get("truth"))


def _bytes(order: Order) -> int:
    """Return about how many bytes a pack needs for its images and masks."""
    return len(order.places()) * order.rule.size**2 * (3 if order.subset == "images" else 4)


def _write(folder: Path, order: Order, progress: Callable[[int, int], object]) -> None:
    dataset, subset, rule, places = order.dataset, order.subset, order.rule, order.places()
    masked = subset != "images"
    padded = 0 if rule.resize == "squash" else _longest(dataset, places)
    side = max(padded, rule.size) if rule.resize == "crop" else rule.size

    def prepare(place: int) -> tuple[Bytes, Size, Size, Bytes | None]:
        entry = dataset.images[place]
        path = dataset.path(entry)
        image = decode(path, upright=dataset.upright)
        square, content = fit(image, rule, side)
        mask = None
        if masked:
            mask = read_mask(dataset, subset, entry.id, image.size, path).ids
        return square, content, (image.height, image.width), mask

    contents, original, void = [], [], []
    with Writer(folder / "images.npy", (len(places), side, side, 3)) as images:
        masks = Writer(folder / "masks.npy", (len(places), side, side)) if masked else None
        truth = None
        if masked and rule.resize == "letterbox":
            truth = Writer(folder / "truth.npy", (len(places), padded, padded))
        for done, (square, content, size, mask) in enumerate(in_order(prepare, places), start=1):
            contents.append(content)
            original.append(size)
            images.append(square)
            if mask is not None and (mask == VOID).all():
                void.append(done - 1)
            if masks is not None and mask is not None:
                masks.append(_fit_mask(mask, rule, side))
            if truth is not None and mask is not None:
                truth.append(np.pad(mask, [(0, padded - n) for n in mask.shape], constant_values=PADDING))
            progress(done, len(places))
        writers = {"images": images, "masks": masks, "truth": truth}
        sums = {name: writer.finish() for name, writer in writers.items() if writer is not None}
    manifest = Manifest(
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        subset=subset,
        rule=rule,
        side=side,
        ids=tuple(dataset.images[place].id for place in places),
        content=tuple(contents),
        original=tuple(original),
        void=tuple(void),
        sums=sums,
    )
    (folder / "manifest.json").write_text(seal.sealed(manifest.model_dump_json() + "\n"))


def _longest(dataset: Dataset, places: Sequence[int]) -> int:
    """Return the longest side of any image in pixels, rounded up to a multiple of 64 (VOC: 512)."""
    longest = 1
    for place in places:
        with opened(dataset.path(dataset.images[place])) as image:
            longest = max(longest, *image.size)
    return -(-longest // 64) * 64


class Writer:
    """Writes an .npy file of uint8 one row at a time; `finish` checks that all rows are there."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.shape, self.sums = shape, array("I")
        self.file = path.open("wb")
        np.lib.format.write_array_header_1_0(self.file, {"descr": "|u1", "fortran_order": False, "shape": shape})

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, row: Bytes) -> None:
        """Write the next row."""
        assert row.shape == self.shape[1:], f"{row.shape} is not a row of {self.shape}"
        content = np.ascontiguousarray(row).data
        self.file.write(content)
        self.sums.append(zlib.crc32(content))

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def finish(self) -> str:
        """Close the file, check that no row is missing, write the check sums beside it and return the check sums' SHA-256."""
        self.close()
        if len(self.sums) != self.shape[0]:
            raise DataError(f"{self.file.name} has only {len(self.sums)} of its {self.shape[0]} rows.")
        sums = np.array(self.sums, dtype="<u4").tobytes()
        _sums_path(Path(self.file.name)).write_bytes(sums)
        return files.sha256_bytes(sums)
