"""Batches on the device, read from a pack in an order that is a pure function of the seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench import seeding
from bench.data import augmentation
from bench.data.packs import Pack, Rows
from bench.errors import MachineError, let_workers_end

READ_TOGETHER = 256
"""The number of images read at a time when a split is copied into the device's memory."""

Plan = tuple[int, NDArray[np.int64]]  # epoch, positions in the split


class RowReader(Protocol):
    """Reads rows of a split, by their position in the split, from elsewhere than its pack."""

    def read(self, positions: NDArray[np.int64]) -> Tensor:
        """Return the rows at `positions`, (n, ...)."""


@dataclass(frozen=True)
class InMemory:
    """Rows in the memory of the device."""

    rows: Tensor

    def read(self, positions: NDArray[np.int64]) -> Tensor:
        """Return a copy of the rows at `positions`, on the same device."""
        return self.rows[torch.from_numpy(positions).to(self.rows.device, non_blocking=True)]


@dataclass(frozen=True)
class SplitData(Dataset[dict[str, Tensor]]):
    """The images of one split as batches: `split[epoch, positions]` is the batch of the images at these positions.

    A batch has `images` uint8 (N, 3, H, W), channels last in memory, and `target`: labels int8 (N, classes) or masks uint8
    (N, H, W). A split that is scored adds the height and width of each image's `content`, int64 (N, 2). If its pack keeps the
    original resolution, it also adds `truth` uint8 (N, P, P) and `original` int64 (N, 2), height and width. Augmentation is
    seeded by (seed, epoch, row), so it does not depend on which worker reads a batch. Readers in `cached` replace images and
    target: the same `images` (N, H, W, 3) in the device's memory, or `features` in place of images.

    With `boxes` (N, M, 6), each image's in pixels of the original (`bench.data.dataset.Box`), the target is float32 (N, M, 6) in
    pixels of the input, and a split that is scored also adds `truth`, the boxes as they are, and `original`.
    """

    pack: Pack
    rows: NDArray[np.int64]
    labels: NDArray[np.int8] | None = None
    masked: bool = False
    augmentation: str = "none"
    size: int = 0
    seed: int = 0
    with_truth: bool = False
    boxes: NDArray[np.float32] | None = None
    cached: Mapping[str, RowReader] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, plan: Plan) -> dict[str, Tensor]:
        epoch, positions = plan
        rows = self.rows[positions]
        batch = {name: reader.read(positions) for name, reader in self.cached.items()} or self._read(rows, positions, epoch)
        if "images" in batch:
            batch["images"] = batch["images"].permute(0, 3, 1, 2)
        if self.with_truth:
            batch["content"] = torch.tensor([self.pack.manifest.content[row] for row in rows])
        if self.with_truth and self.pack.truth is not None:
            batch["truth"] = torch.from_numpy(self.pack.truth.read(rows))
            batch["original"] = torch.tensor([self.pack.manifest.original[row] for row in rows])
        elif self.with_truth and self.boxes is not None:
            batch["truth"] = torch.from_numpy(self.boxes[positions])
            batch["original"] = torch.tensor([self.pack.manifest.original[row] for row in rows])
        return batch

    def _read(self, rows: NDArray[np.int64], positions: NDArray[np.int64], epoch: int) -> dict[str, Tensor]:
        images = self.pack.images.read(rows)
        masks = self.pack.masks.read(rows) if self.masked and self.pack.masks is not None else None
        if self.boxes is not None:
            return self._with_boxes(images, self.boxes[positions], rows, epoch)
        if self.augmentation != "none":
            images, masks = self._augmented(images, masks, rows, epoch)
        batch = {"images": torch.from_numpy(images)}
        if self.labels is not None:
            batch["target"] = torch.from_numpy(self.labels[positions])
        if masks is not None:
            batch["target"] = torch.from_numpy(masks)
        return batch

    def _with_boxes(
        self, images: NDArray[np.uint8], boxes: NDArray[np.float32], rows: NDArray[np.int64], epoch: int
    ) -> dict[str, Tensor]:
        """Return images with their boxes in pixels of the input; with augmentation half of them are mirrored, boxes too."""
        manifest = self.pack.manifest
        scale: NDArray[np.float32] = np.array([manifest.content[row] for row in rows], dtype=np.float32)
        scale /= np.array([manifest.original[row] for row in rows], dtype=np.float32)
        target = boxes.copy()
        target[..., 1:5] *= scale[:, None, [1, 0, 1, 0]]
        for place, row in enumerate(rows.tolist() if self.augmentation != "none" else []):
            if seeding.key("augment", self.seed, epoch, row) & 1:
                width = images.shape[2]  # padding is mirrored too
                images[place] = images[place, :, ::-1]
                target[place, :, [1, 3]] = width - target[place, :, [3, 1]]
        return {"images": torch.from_numpy(images), "target": torch.from_numpy(target)}

    def _augmented(
        self, images: NDArray[np.uint8], masks: NDArray[np.uint8] | None, rows: NDArray[np.int64], epoch: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        transform = _transform(self.augmentation, self.size)
        pairs = []
        for place, row in enumerate(rows.tolist()):
            height, width = self.pack.manifest.content[row]
            if self.pack.manifest.rule.resize == "letterbox":  # flips and scales move the padding too
                height, width = images.shape[1:3]
            mask = masks[place, :height, :width] if masks is not None else None
            pairs.append(transform(images[place, :height, :width], mask, seeding.key("augment", self.seed, epoch, row)))
        changed = np.stack([image for image, _ in pairs])
        return changed, None if masks is None else np.stack([cast(NDArray[np.uint8], mask) for _, mask in pairs])


_transforms: dict[tuple[str, int], augmentation.Transform] = {}


def _transform(kind: str, size: int) -> augmentation.Transform:
    if (kind, size) not in _transforms:
        _transforms[kind, size] = augmentation.make(cast(Any, kind), size)
    return _transforms[kind, size]


class Sharing(Protocol):
    """Several processes that share the images of a batch (`bench.models.shards`)."""

    count: int

    def span_of(self, total: int) -> Any:
        """Return this process's rows of `total`."""

    def gathered(self, local: Tensor, total: int) -> Tensor:
        """Return the rows of all processes."""


def training(
    split: SplitData,
    batch_size: int,
    seed: int,
    epochs: int,
    start: int,
    workers: int,
    device: torch.device,
    shards: Sharing | None = None,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield (epoch, batch on the device) for every training step from step `start` on; `workers` changes the speed only.

    With `shards` each process still gets the whole batch. Images that are augmented are read by one process each, and gathered.
    """
    if shards is not None and split.augmentation != "none" and not split.cached and batch_size >= shards.count:
        yield from _shared(split, (batch_size, seed, epochs, start), workers, device, shards)
        return
    if not workers or split.cached:
        for epoch, positions in seeding.batches(len(split), batch_size, seed, epochs, start):
            yield epoch, to_device(split[epoch, positions], device)
        return
    plan = list(seeding.batches(len(split), batch_size, seed, epochs, start))
    yield from _loaded(split, plan, workers, device)


def _shared(
    split: SplitData, steps: tuple[int, int, int, int], workers: int, device: torch.device, shards: Sharing
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    plan, totals = [], []
    for epoch, positions in seeding.batches(len(split), *steps):
        span = shards.span_of(len(positions))
        plan.append((epoch, positions[span.first : span.last] if span.total >= shards.count else positions))
        totals.append(span.total)
    own = _loaded(split, plan, workers, device) if workers else ((one[0], to_device(split[one], device)) for one in plan)
    for (epoch, batch), total in zip(own, totals, strict=True):
        share = total >= shards.count
        yield epoch, {name: shards.gathered(rows, total) if share else rows for name, rows in batch.items()}


def _loaded(split: SplitData, plan: list[Plan], workers: int, device: torch.device) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield (epoch, batch on the device) for every entry of a plan, read by data workers."""
    loader = DataLoader(
        split,
        sampler=cast(Any, plan),
        batch_size=None,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=4,
    )
    try:
        for (epoch, _), batch in zip(plan, loader, strict=True):
            yield epoch, to_device(batch, device)
    except (ConnectionError, EOFError) as error:  # the worker died while it handed over a batch
        let_workers_end()
        raise MachineError(f"a data worker died ({type(error).__name__}); run again, or with --workers 0.") from error


def resident_bytes(split: SplitData) -> int:
    """Return the bytes that a split's images and targets take in the device's memory; 0 with augmentation, which keeps none."""
    if split.augmentation != "none" or split.cached:
        return 0
    if split.boxes is not None:  # read by the host, which scales them
        return 0
    labels = 0 if split.labels is None else split.labels.nbytes
    return labels + sum(len(split) * math.prod(array.shape[1:]) for array in _arrays(split).values())


def resident(split: SplitData, device: torch.device) -> SplitData:
    """Return a split with its images and targets in the device's memory."""
    cached: dict[str, RowReader] = {name: InMemory(_on_device(rows, split.rows, device)) for name, rows in _arrays(split).items()}
    if split.labels is not None:
        cached["target"] = InMemory(torch.from_numpy(split.labels).to(device))
    return replace(split, cached=cached)


def _arrays(split: SplitData) -> dict[str, Rows]:
    return {"images": split.pack.images} | ({"target": split.pack.masks} if split.masked and split.pack.masks else {})


def _on_device(array: Rows, rows: NDArray[np.int64], device: torch.device) -> Tensor:
    whole = torch.empty((len(rows), *array.shape[1:]), dtype=torch.uint8, device=device)
    for first in range(0, len(rows), READ_TOGETHER):
        some = array.read(rows[first : first + READ_TOGETHER])
        whole[first : first + len(some)] = torch.from_numpy(some).to(device)
    return whole


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Copy a batch to the device without waiting; `content` and `original` stay, since only the host reads them."""
    return {
        name: tensor if name in ("content", "original") else tensor.to(device, non_blocking=True)
        for name, tensor in batch.items()
    }
