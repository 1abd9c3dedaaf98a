"""Classification of images that have one class each: `--downstream classes@DATA`, cross-entropy on the head of voc_cls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bench.contract import Batch, Protocol
from downstream._multilabel import MultilabelTask
from downstream._protocols import PROTOCOLS


class Classes(MultilabelTask):
    """Classification on the bottleneck, where each image has one class."""

    title = "Classification"
    single = True
    protocols: ClassVar[Mapping[str, Protocol]] = PROTOCOLS["classes"]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy over images."""
        return cross_entropy(output, (target == 1).to(torch.uint8).argmax(dim=1))

    def predictions(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return `scores` float32 (N, C) in [0, 1], which add up to 1, and `labels` int8 (N, C): 1 for the image's class."""
        return {"scores": torch.softmax(output.float(), dim=1), "labels": batch["target"]}
