"""Multilabel classification: the encoder to the bottleneck, a VGG-like 4096-4096 head, binary cross-entropy.

Treneska et al. 2022, https://doi.org/10.3390/s22041599, sections 3.4.2 and 4.2.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from bench.contract import Annotations, Batch, Downstream, Trunk
from bench.models.trunk import initialise


class MultilabelTask(Downstream):
    """Multilabel classification on the bottleneck."""

    data: ClassVar[Annotations] = "labels"

    def features(self, trunk: Trunk, inputs: Tensor) -> Tensor:
        """Return the bottleneck, flattened (N, C*h*w) as in the paper, or averaged over h and w (N, C)."""
        bottleneck = trunk.encode(inputs)[-1]
        return bottleneck.flatten(1) if self.protocol.pool == "flatten" else bottleneck.mean(dim=(2, 3))

    def head(self, trunk: Trunk, size: int) -> nn.Module:
        """Return two dense layers with ReLU and dropout 0.5, then one logit per class; for `head_width` 0 one linear layer."""
        places = (size // trunk.stride) ** 2 if self.protocol.pool == "flatten" else 1
        width = self.protocol.head_width
        if not width:
            return initialise(nn.Linear(trunk.bottleneck_channels * places, self.classes))
        return initialise(
            nn.Sequential(
                nn.Linear(trunk.bottleneck_channels * places, width),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Linear(width, self.classes),
            )
        )

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean binary cross-entropy over images and classes; difficult objects count as present or are left out."""
        truth = (target != 0).to(output.dtype)
        if self.protocol.difficult == "positive":
            return binary_cross_entropy_with_logits(output, truth)
        judged = (target != -1).to(output.dtype)
        errors = binary_cross_entropy_with_logits(output, truth, weight=judged, reduction="sum")
        return errors / judged.sum().clamp(min=1)

    def predictions(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return `scores` float32 (N, C) in [0, 1] and `labels` int8 (N, C): 1, 0, or -1 for difficult objects only."""
        return {"scores": torch.sigmoid(output.float()), "labels": batch["target"]}
