"""A trunk and a head as one network, which is trained in phases."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.contract import Batch, Downstream, Trunk
from bench.models.modes import use_statistics


class Model(nn.Module):
    """A trunk and a head, as one network that is trained in phases."""

    def __init__(self, trunk: Trunk, head: nn.Module, downstream: Downstream) -> None:
        super().__init__()
        self.trunk, self.head, self.downstream = trunk, head, downstream
        self.frozen = False

    def forward(self, batch: Batch) -> Tensor:
        """Return the head's output for sRGB `images` uint8 (N, 3, H, W), or for their `features`."""
        if "features" in batch:
            features = batch["features"]
        elif self.frozen:
            features = self.frozen_features(batch["images"])
        else:
            features = self.features(batch["images"])
        output: Tensor = self.head(features)
        return output

    @torch.no_grad()
    def frozen_features(self, images: Tensor) -> Tensor:
        """Return what the head gets of images (N, 3, H, W) from a frozen trunk, without a graph.

        The batch is filled up with copies of its first image, so that an image's features are the same to the bit whatever images are
        beside it. With the batch's own statistics they are not, and nothing is filled up.
        """
        protocol, count = self.downstream.protocol, len(images)
        missing = -count % protocol.batch_size if protocol.statistics == "running" else 0
        filled = torch.cat([images, images[:1].expand(missing, -1, -1, -1)]) if missing else images
        return self.features(filled)[:count]

    def features(self, images: Tensor) -> Tensor:
        """Return what the head gets of sRGB images uint8 (N, 3, H, W)."""
        return self.downstream.features(self.trunk, self.trunk.preprocessing(images))

    def set_mode(self, train: Literal["head", "all", "nothing"]) -> None:
        """Choose what trains; what does not is in eval mode, so its running statistics stay as they are.

        A trunk is frozen from the mode `head` until it trains.
        """
        self.frozen = train == "head" or (self.frozen and train == "nothing")
        self.trunk.train(train == "all")
        self.head.train(train in ("head", "all"))
        use_statistics(self, self.downstream.protocol.statistics)
        self.trunk.requires_grad_(train == "all")
        self.head.requires_grad_(train in ("head", "all"))
