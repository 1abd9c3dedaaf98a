"""Pascal VOC semantic segmentation: the whole U-Net with a new output layer, cross-entropy over background and classes.

Treneska et al. 2022, https://doi.org/10.3390/s22041599, sections 3.4.3 and 4.3: mIU 44.66 % from scratch, 47.07 % after
colorization (one run each, void as background; `miou_paper` here). The field's VOC 2012 train -> val mIoU ignores
void (`miou_voc`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from bench.contract import Batch, Downstream, Phase, Protocol, Trunk
from bench.data.dataset import PADDING, VOID

PAPER = Protocol(
    summary="the paper's text: all VOC 2012 masks 70/20/10, trained on random 256 px crops, tested on whole images in tiles of "
    "that size; void as background and rates from the code",
    split="paper-70-20-10",
    resize="crop",
    augment="crop",
    batch_size=16,
    schedules={
        "one-phase": (Phase(train="all", epochs=6, lr=3e-4),),
        "two-phase": (Phase(train="head", epochs=1, lr=3e-4), Phase(train="all", epochs=5, lr=5e-5)),
        "frozen": (Phase(train="head", epochs=6, lr=3e-4),),
    },
    void="background",
    evaluate_on="whole",
    metrics=("miou_paper", "miou_voc", "pixel_acc"),
)
PAPER_CODE = PAPER.with_changes(
    {
        "summary": "the authors' notebooks: nearest-neighbour resize to 256 px, void as background, batch statistics, one by one",
        "resize": "squash",
        "augment": "none",
        "interpolation": "nearest",
        "statistics": "batch",
        "evaluate_one_by_one": True,
        "evaluate_on": "input",
    },
    "paper-code",
)
STANDARD = Protocol(
    summary="the field's: VOC 2012 train -> val at 512 px, scaled and flipped, void ignored, scored at the original resolution",
    size=512,
    split="official",
    fit=("train", "val"),
    resize="letterbox",
    augment="scale",
    batch_size=16,
    schedules={
        "one-phase": (Phase(train="all", epochs=50, lr=3e-4),),
        "two-phase": (Phase(train="head", epochs=5, lr=3e-4), Phase(train="all", epochs=45, lr=5e-5)),
        "frozen": (Phase(train="head", epochs=50, lr=3e-4),),
    },
    metrics=("miou_voc", "pixel_acc", "miou_paper"),
)
DEMO = Protocol(
    summary="small and quick, for the embedded synthetic data and for first looks",
    size=64,
    trunk="unet:width=16",
    split="official",
    fit=("train", "val"),
    resize="squash",
    batch_size=16,
    schedules={
        "one-phase": (Phase(train="all", epochs=12, lr=1e-3),),
        "two-phase": (Phase(train="head", epochs=2, lr=2e-3), Phase(train="all", epochs=10, lr=1e-3)),
        "frozen": (Phase(train="head", epochs=12, lr=2e-3),),
    },
    metrics=("miou_voc", "miou_paper", "pixel_acc"),
)
SMALL = DEMO.with_changes(
    {
        "summary": "photographs on a few cores: the paper's schedule at 64 px, official split, void ignored",
        "schedules": {
            "one-phase": (Phase(train="all", epochs=6, lr=1e-3),),
            "two-phase": (Phase(train="head", epochs=1, lr=2e-3), Phase(train="all", epochs=5, lr=1e-3)),
            "frozen": (Phase(train="head", epochs=6, lr=2e-3),),
        },
    },
    "small",
)


class VocSeg(Downstream):
    """VOC semantic segmentation on the last decoder activation."""

    title = "Segmentation"
    data: ClassVar[Literal["labels", "masks"]] = "masks"
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "paper": PAPER,
        "paper-code": PAPER_CODE,
        "standard": STANDARD,
        "small": SMALL,
        "demo": DEMO,
    }

    def features(self, trunk: Trunk, seen: Tensor) -> Tensor:
        """Return the last decoder activation."""
        activation: Tensor = trunk(seen)
        return activation

    def head(self, trunk: Trunk, size: int) -> nn.Module:
        """Return a new output layer: background and one channel for each class."""
        return trunk.output(self.classes + 1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy of the pixels; void is background or left out, padding always left out.

        A batch without a pixel to learn from costs nothing.
        """
        left_out = target == PADDING
        if self.protocol.void == "ignore":
            left_out |= target == VOID
        truth = target.masked_fill(target == VOID, 0).long().masked_fill(left_out, PADDING)
        errors = cross_entropy(output, truth, ignore_index=PADDING, reduction="sum")
        return errors / (~left_out).sum().clamp(min=1)

    def predictions(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Keep `confusion` int32 (N, C + 2, C + 1): row truth, column prediction; the last row is void.

        Where the batch has the original resolution, logits are enlarged to it (bilinear) and scored there.
        """
        if "truth" not in batch:
            return {"confusion": self.confusion(output.argmax(dim=1), batch["target"])}
        found = torch.zeros_like(batch["truth"])
        for image, logits in enumerate(output):
            (height, width), (rows, columns) = batch["original"][image].tolist(), batch["content"][image].tolist()
            logits = logits[None, :, :rows, :columns]
            if (rows, columns) != (height, width):
                logits = interpolate(logits.float(), size=(height, width), mode="bilinear", align_corners=False)
            found[image, :height, :width] = logits[0].argmax(dim=0)
        return {"confusion": self.confusion(found, batch["truth"])}

    def image(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Show the classes found beside the true ones, at the size that the network sees."""
        return {"found": output.argmax(dim=1).byte(), "truth": batch["target"]}

    def confusion(self, found: Tensor, truth: Tensor) -> Tensor:
        """Count (truth, prediction) pairs of each image, int32 (N, C + 2, C + 1); padding is not counted."""
        columns = self.classes + 1
        rows = truth.long().masked_fill(truth == VOID, columns)
        images = torch.arange(len(truth), device=truth.device).view(-1, 1, 1) * (columns + 1)
        codes = ((images + rows) * columns + found.long())[truth != PADDING]
        counts = torch.bincount(codes, minlength=len(truth) * (columns + 1) * columns)
        return counts.view(len(truth), columns + 1, columns).int()
