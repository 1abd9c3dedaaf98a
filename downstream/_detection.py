"""Object detection: torchvision's Faster R-CNN on the trunk's feature pyramid, whose sources stand in `bench.models.detector`."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from bench.contract import Annotations, Batch, Downstream, Trunk
from bench.models.detector import Detector, maps_of, shapes_of
from bench.painting import CONFIDENT, painted


class DetectionTask(Downstream):
    """Object detection on a trunk's feature pyramid."""

    data: ClassVar[Annotations] = "boxes"
    reads_batch = True
    side: int
    """The side of the images in pixels, known once there is a head."""

    def features(self, trunk: Trunk, inputs: Tensor) -> Tensor:
        """Return the feature maps that the detector reads, each image's as one vector (N, M)."""
        return torch.cat([one.flatten(1) for one in maps_of(trunk, inputs, self.side)], dim=1)

    def head(self, trunk: Trunk, size: int) -> nn.Module:
        """Return the detector without its backbone."""
        self.side = size
        return Detector(shapes_of(trunk, size), size, self.classes, self.protocol)

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """Return the sum of the four losses of Faster R-CNN: of objects and boxes of the proposals, of classes and boxes."""
        return cast(Tensor, sum(output.values()))

    def predictions(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        """Return the detections and the truth of each image, boxes in pixels of the original image.

        `boxes` float32 (N, K, 4), `confidences` float32 (N, K), `found` int16 (N, K), -1 for none;
        `truth` float32 (N, M, 6), as the target; `sizes` int32 (N, 2), height and width.
        """
        heights, widths = (batch["original"].float() / batch["content"]).to(output["boxes"].device).unbind(dim=1)
        scale = torch.stack([widths, heights, widths, heights], dim=1)[:, None]
        boxes = output["boxes"] * scale
        edges = batch["original"].flip(1).repeat(1, 2)[:, None].to(boxes)  # beyond the image there is padding
        return {**output, "boxes": boxes.clamp(min=0).minimum(edges), "truth": batch["truth"], "sizes": batch["original"].int()}

    def visualize(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        """Return the detections that are confident enough, and the truth, painted as class ids: uint8 (N, H, W)."""
        size = batch["images"].shape[-2], batch["images"].shape[-1]
        chosen = output["found"].masked_fill(output["confidences"] < CONFIDENT, -1)
        target = batch["target"]
        return {
            "found": _painted(output["boxes"], chosen, chosen >= 0, size),
            "truth": _painted(target[..., 1:5], target[..., 0], target[..., 5] == 0, size),
        }


def _painted(boxes: Tensor, classes: Tensor, judged: Tensor, size: tuple[int, int]) -> Tensor:
    arrays = boxes.cpu().numpy(), classes.cpu().numpy(), judged.cpu().numpy()
    return torch.from_numpy(np.stack([painted(*rows, size) for rows in zip(*arrays, strict=True)]))
