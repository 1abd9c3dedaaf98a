"""From a pack to batches on the device, in an order that is a pure function of the seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench import order
from bench.data import augment
from bench.data.packs import Pack
from bench.errors import MachineError

Plan = tuple[int, NDArray[np.int64]]  # epoch, positions in the part


@dataclass(frozen=True)
class Part(Dataset[dict[str, Tensor]]):
    """One part of a split, as batches: `part[epoch, positions]` reads those pictures.

    A batch has `images` uint8 (N, 3, H, W), channels last in memory; `target` with labels int8 (N, classes) or masks uint8
    (N, H, W); with the original resolution kept, also `truth` uint8 (N, P, P), `content` and `original` int64 (N, 2). Random
    changes are keyed by (seed, epoch, row), so nothing depends on who reads which batch.
    """

    pack: Pack
    rows: NDArray[np.int64]
    labels: NDArray[np.int8] | None = None
    masked: bool = False
    change: str = "none"
    size: int = 0
    seed: int = 0
    with_truth: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, plan: Plan) -> dict[str, Tensor]:
        epoch, positions = plan
        rows = self.rows[positions]
        images = self.pack.images.read(rows)
        masks = self.pack.masks.read(rows) if self.masked and self.pack.masks is not None else None
        if self.change != "none":
            images, masks = self._changed(images, masks, rows, epoch)
        batch = {"images": torch.from_numpy(images).permute(0, 3, 1, 2)}
        if self.labels is not None:
            batch["target"] = torch.from_numpy(self.labels[positions])
        if masks is not None:
            batch["target"] = torch.from_numpy(masks)
        if self.with_truth and self.pack.truth is not None:
            batch["truth"] = torch.from_numpy(self.pack.truth.read(rows))
            batch["content"] = torch.tensor([self.pack.manifest.content[row] for row in rows])
            batch["original"] = torch.tensor([self.pack.manifest.original[row] for row in rows])
        return batch

    def _changed(
        self, images: NDArray[np.uint8], masks: NDArray[np.uint8] | None, rows: NDArray[np.int64], epoch: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        transform = _transform(self.change, self.size)
        pairs = []
        for place, row in enumerate(rows.tolist()):
            height, width = self.pack.manifest.content[row]
            if self.pack.manifest.rule.resize == "letterbox":  # flips and scales move the padding too
                height, width = images.shape[1:3]
            mask = masks[place, :height, :width] if masks is not None else None
            pairs.append(transform(images[place, :height, :width], mask, order.key("augment", self.seed, epoch, row)))
        changed = np.stack([image for image, _ in pairs])
        return changed, None if masks is None else np.stack([cast(NDArray[np.uint8], mask) for _, mask in pairs])


_transforms: dict[tuple[str, int], augment.Transform] = {}


def _transform(kind: str, size: int) -> augment.Transform:
    if (kind, size) not in _transforms:
        _transforms[kind, size] = augment.make(cast(Any, kind), size)
    return _transforms[kind, size]


def training(
    part: Part, batch_size: int, seed: int, epochs: int, start: int, workers: int, device: torch.device
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield (epoch, batch on the device) for every step from `start` on; the workers change the speed only."""
    plan = list(order.batches(len(part), batch_size, seed, epochs, start)) if workers else None
    plans = plan if plan is not None else order.batches(len(part), batch_size, seed, epochs, start)
    if not workers:
        for epoch, positions in plans:
            yield epoch, to_device(part[epoch, positions], device)
        return
    assert plan is not None
    loader = DataLoader(
        part,
        sampler=cast(Any, plan),
        batch_size=None,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        timeout=120,
        prefetch_factor=4,
    )
    try:
        for (epoch, _), batch in zip(plan, loader, strict=True):
            yield epoch, to_device(batch, device)
    except RuntimeError as error:
        if "DataLoader" in str(error):
            raise MachineError(f"a data worker died ({str(error).splitlines()[0]}); run again, or with --workers 0.") from error
        raise


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Move a batch; the copy does not wait where it need not."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
