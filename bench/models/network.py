"""`Model`: a trunk and a head as one network, which fine-tuning trains in phases."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.contract import Batch, Downstream, Trunk
from bench.models.modes import use_statistics


class Model(nn.Module):
    """A trunk and a head as one network; `set_mode` chooses what a phase trains."""

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
        """Return the head's input for images uint8 (N, 3, H, W) from a frozen trunk, without gradients.

        Copies of the first image fill the batch up to the protocol's batch size: an image's features are then the same to the bit
        in every batch. With the batch's own statistics features depend on the batch, and nothing is filled up.
        """
        protocol, count = self.downstream.protocol, len(images)
        missing = -count % protocol.batch_size if protocol.statistics == "running" else 0
        filled = torch.cat([images, images[:1].expand(missing, -1, -1, -1)]) if missing else images
        return self.features(filled)[:count]

    def features(self, images: Tensor) -> Tensor:
        """Return the head's input for sRGB images uint8 (N, 3, H, W)."""
        return self.downstream.features(self.trunk, self.trunk.preprocessing(images))

    def set_mode(self, train: Literal["head", "all", "nothing"]) -> None:
        """Choose what trains. Everything else is in eval mode, so that its running statistics do not change.

        After mode `head` the trunk stays frozen until a mode trains it.
        """
        self.frozen = train == "head" or (self.frozen and train == "nothing")
        self.trunk.train(train == "all")
        self.head.train(train in ("head", "all"))
        use_statistics(self, self.downstream.protocol.statistics)
        self.trunk.requires_grad_(train == "all")
        self.head.requires_grad_(train in ("head", "all"))
