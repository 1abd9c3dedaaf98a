"""`Model`: a trunk and a head as one network, which fine-tuning trains in phases."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from bench.contract import Batch, Downstream, Trunk
from bench.job import Frozen
from bench.models import shards
from bench.models.modes import use_statistics


class _Encoded:
    """A trunk whose encoder has run: `encode` returns what it is given. A task's `features` then runs the rest."""

    def __init__(self, trunk: Trunk) -> None:
        self.trunk = trunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trunk, name)

    def encode(self, features: list[Tensor]) -> list[Tensor]:
        """Return the encoder's features as they are."""
        return features

    def __call__(self, features: list[Tensor]) -> Tensor:
        """Return the last decoder activation for the encoder's features."""
        return self.trunk.decode(features)


class Model(nn.Module):
    """A trunk and a head as one network; `set_mode` chooses what a phase trains.

    With `inherited` "encoder" the decoder is new: a phase that trains the head trains it too, and the encoder alone is frozen.
    """

    def __init__(self, trunk: Trunk, head: nn.Module, downstream: Downstream, inherited: Frozen = "trunk") -> None:
        super().__init__()
        self.trunk, self.head, self.downstream, self.inherited = trunk, head, downstream, inherited
        self.frozen = False
        self.shapes: list[torch.Size] = []
        """The shape of each encoder feature of one image, where features are the encoder's."""

    def forward(self, batch: Batch) -> Any:
        """Return the head's output for sRGB `images` uint8 (N, 3, H, W), or for their `features`: a tensor, or a detector's."""
        if "features" in batch:
            features = batch["features"]
            if self.inherited == "encoder":
                features = self._decoded(features)
        elif self.frozen and self.inherited == "encoder":
            features = self._decoded(self.frozen_features(batch["images"]))
        elif self.frozen:
            features = self.frozen_features(batch["images"])
        else:
            features = self.features(batch["images"])
        return self.head(features, batch) if self.downstream.reads_batch else self.head(features)

    @torch.no_grad()
    def frozen_features(self, images: Tensor) -> Tensor:
        """Return what the frozen part computes of images uint8 (N, 3, H, W), without gradients.

        That is the head's input; with a new decoder it is all features of the encoder, each image's as one vector (N, M). Copies
        of the first image fill the batch up to the protocol's batch size: an image's features are then the same to the bit in
        every batch. With the batch's own statistics features depend on the batch, and nothing is filled up.
        """
        protocol, count = self.downstream.protocol, len(images)
        missing = -count % protocol.batch_size if protocol.statistics == "running" and not shards.working() else 0
        filled = torch.cat([images, images[:1].expand(missing, -1, -1, -1)]) if missing else images
        if self.inherited == "trunk":
            return self.features(filled)[:count]
        levels = self.trunk.encode(self.trunk.preprocessing(filled))
        self.shapes = [level.shape[1:] for level in levels]
        return torch.cat([level[:count].flatten(1) for level in levels], dim=1)

    def _decoded(self, flat: Tensor) -> Tensor:
        """Return the head's input for the encoder's features, each image's as one vector."""
        parts = torch.split(flat, [shape.numel() for shape in self.shapes], dim=1)
        levels = [part.reshape(len(part), *shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return self.downstream.features(cast(Trunk, _Encoded(self.trunk)), cast(Tensor, levels))

    def features(self, images: Tensor) -> Tensor:
        """Return the head's input for sRGB images uint8 (N, 3, H, W)."""
        return self.downstream.features(self.trunk, self.trunk.preprocessing(images))

    def set_mode(self, train: Literal["head", "all", "nothing"]) -> None:
        """Choose what trains. Everything else is in eval mode, so that its running statistics do not change.

        After mode `head` the trunk stays frozen until a mode trains it.
        """
        self.frozen = train == "head" or (self.frozen and train == "nothing")
        self.eval().requires_grad_(False)
        self.trained(train).train().requires_grad_(True)
        use_statistics(self, self.downstream.protocol.statistics)

    def trained(self, train: Literal["head", "all", "nothing"]) -> nn.Module:
        """Return what a mode trains, as one module; its parameters and state are in the network's order."""
        if train == "all":
            return self
        if train == "nothing":
            return nn.ModuleList()
        return self.head if self.inherited == "trunk" else nn.ModuleDict({"up": self.trunk.up, "head": self.head})
