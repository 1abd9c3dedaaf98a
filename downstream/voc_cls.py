"""Pascal VOC multilabel classification: the encoder to the bottleneck, a VGG-like 4096-4096 head, binary cross-entropy.

Treneska et al. 2022, https://doi.org/10.3390/s22041599, sections 3.4.2 and 4.2: accuracy 47.18 % from scratch, 52.83 % after
colorization (one run each; `acc_keras` here).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from bench.contract import Batch, Downstream, Protocol, Trunk
from bench.models.trunk import initialise
from downstream._protocols import AUTHORS_CODE, DEMO_SUMMARY, SMALL, schedules

PAPER = Protocol(
    summary="the paper's text: all annotated VOC 2012 images 70/20/10, squashed to 256 px, lightness only",
    split_scheme="paper-70-20-10",
    resize="squash",
    batch_size=32,
    schedules=schedules(one_phase=(4, 3e-4), head=(3, 3e-4), everything=(1, 5e-5), frozen=(4, 3e-4)),
    difficult="positive",
    metrics=("acc_keras", "map_voc", "map_voc07", "f1_macro", "acc_subset"),
)
PAPER_CODE = PAPER.with_changes(
    {
        "summary": "the authors' notebooks: as the text, but batch statistics and dropout always on, nearest-neighbour resize",
        **AUTHORS_CODE,
    },
    "paper-code",
)
STANDARD = Protocol(
    summary="the field's: VOC 2007 trainval -> test or VOC 2012 train -> val, multilabel mAP, difficult objects not judged",
    split_scheme="official",
    fit=("train", "val"),
    resize="squash",
    augmentation="flip",
    batch_size=32,
    schedules=schedules(one_phase=(30, 3e-4), head=(10, 3e-4), everything=(20, 5e-5), frozen=(30, 3e-4)),
    difficult="ignore",
    metrics=("map_voc", "map_voc07", "f1_macro", "acc_subset", "acc_keras"),
)
DEMO = Protocol(
    summary=DEMO_SUMMARY,
    batch_size=32,
    schedules=schedules(one_phase=(16, 5e-4), head=(8, 5e-4), everything=(8, 5e-4), frozen=(16, 5e-4)),
    difficult="ignore",
    head_width=512,
    metrics=("acc_keras", "map_voc", "map_voc07", "f1_macro", "acc_subset"),
    **SMALL,
)
FEW_CORES = DEMO.with_changes(
    {
        "summary": "photographs on a few cores: the paper's schedule with four times the epochs at 64 px, official split scheme",
        "schedules": schedules(one_phase=(16, 5e-4), head=(12, 5e-4), everything=(4, 2e-4), frozen=(16, 5e-4)),
        "metrics": ("map_voc", "acc_keras", "map_voc07", "f1_macro", "acc_subset"),
    },
    "small",
)


class VocCls(Downstream):
    """VOC multilabel classification on the bottleneck."""

    title = "Classification"
    data: ClassVar[Literal["labels", "masks"]] = "labels"
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "paper": PAPER,
        "paper-code": PAPER_CODE,
        "standard": STANDARD,
        "small": FEW_CORES,
        "demo": DEMO,
    }

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
