"""Semantic segmentation: the whole U-Net with a new output layer, cross-entropy over background and classes.

Treneska et al. 2022, https://doi.org/10.3390/s22041599, sections 3.4.3 and 4.3.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from bench import metrics
from bench.contract import PADDING, VOID, Annotations, Batch, Downstream, Trunk
from bench.surface import surface_distances


class SegmentationTask(Downstream):
    """Semantic segmentation on the last decoder activation."""

    data: ClassVar[Annotations] = "masks"

    def features(self, trunk: Trunk, inputs: Tensor) -> Tensor:
        """Return the last decoder activation."""
        activation: Tensor = trunk(inputs)
        return activation

    def head(self, trunk: Trunk, size: int) -> nn.Module:
        """Return a new output layer: background and one channel for each class."""
        return trunk.output(self.classes + 1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy over pixels; void counts as background or is left out, padding is always left out.

        The loss of a batch without any counted pixel is 0.
        """
        left_out = target == PADDING
        if self.protocol.void == "ignore":
            left_out |= target == VOID
        truth = target.masked_fill(target == VOID, 0).long().masked_fill(left_out, PADDING)
        errors = cross_entropy(output, truth, ignore_index=PADDING, reduction="sum")
        return errors / (~left_out).sum().clamp(min=1)

    def predictions(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return `confusion` int32 (N, C + 2, C + 1): row truth, column prediction; the last row is void.

        When the batch has masks at the original resolution, logits are resized to that resolution (bilinear) and scored there.
        Where the protocol has a metric of surfaces, also `surface` float32 (N, C) (`bench.surface`).
        """
        if "truth" not in batch:
            return self.scored(output.argmax(dim=1), batch["target"])
        found = torch.zeros_like(batch["truth"])
        for image, logits in enumerate(output):
            (height, width), (rows, columns) = batch["original"][image].tolist(), batch["content"][image].tolist()
            logits = logits[None, :, :rows, :columns]
            if (rows, columns) != (height, width):
                logits = interpolate(logits.float(), size=(height, width), mode="bilinear", align_corners=False)
            found[image, :height, :width] = logits[0].max(dim=0).indices  # as argmax, three times as fast on a CPU
        return self.scored(found, batch["truth"])

    def scored(self, found: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Return what the protocol's metrics need of predicted and true classes (N, H, W)."""
        predictions = {"confusion": self.confusion(found, truth)}
        if any(metrics.get(metric).needs == "surface" for metric in self.protocol.metrics):
            ours, real = (mask.byte().cpu().numpy() for mask in (found, truth))
            predictions["surface"] = torch.from_numpy(surface_distances(ours, real, self.classes))
        return predictions

    def visualize(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the predicted and the true classes, uint8 (N, H, W), at the size of the network's input."""
        return {"found": output.argmax(dim=1).byte(), "truth": batch["target"]}

    def confusion(self, found: Tensor, truth: Tensor) -> Tensor:
        """Return each image's counts of (truth, prediction) pairs, int32 (N, C + 2, C + 1); padding is not counted."""
        columns = self.classes + 1
        rows = truth.int().masked_fill(truth == VOID, columns).masked_fill(truth == PADDING, columns + 1)
        images = torch.arange(len(truth), device=truth.device, dtype=torch.int32).view(-1, 1, 1) * (columns + 2)
        codes = (images + rows) * columns + found
        counts = torch.bincount(codes.flatten(), minlength=len(truth) * (columns + 2) * columns)
        return counts.view(len(truth), columns + 2, columns)[:, :-1].int()  # the last row is padding
