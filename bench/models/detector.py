"""A detector on a trunk's feature maps: torchvision's Faster R-CNN without its backbone and without its transform.

Its transform would normalise and resize the images a second time: the trunk's preprocessing has done the one, packs the other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, roi_align

from bench.contract import Batch, Protocol, Trunk

FINEST, MOST_LEVELS = 4, 4
"""The stride of the finest level that a detector reads, and how many levels it reads at most."""
RATIOS = (0.5, 1.0, 2.0)
"""Height over width of the anchors of a place; torchvision's."""
OF_ONE_LEVEL = (0.25, 0.5, 1.0, 2.0, 4.0)
"""The sides of the anchors of a single level, over the side that a level of a pyramid has: 32 to 512 px at stride 16."""
CANONICAL = 28.0
"""The side of a box that is read at level 4, in anchor scales: 224 px for a scale of 8, as in Lin et al. 2017."""
FLAG, CROWD = 5, 2
"""Where a row of a target has its flag, and the flag of a crowd."""
DETECTIONS = 100
"""The most detections of an image; torchvision's and COCO's."""
Shapes = list[torch.Size]


def maps_of(trunk: Trunk, inputs: Tensor, side: int) -> list[Tensor]:
    """Return the feature maps that a detector reads of preprocessed images of `side` pixels: strides 4 to 32, finest first.

    `inputs` (N, channels, side, side) are whatever the trunk's `encode` takes. The maps are levels of the trunk's pyramid from
    stride 4 on, four at most; the finest that there is where all are coarser.
    """
    maps = trunk.pyramid(trunk.encode(inputs))
    return [one for one in maps if side // one.shape[-1] >= FINEST and one.shape[-1] > 1][:MOST_LEVELS] or maps[-1:]


@torch.no_grad()
def shapes_of(trunk: Trunk, size: int) -> Shapes:
    """Return the shapes (C, h, w) of what a detector reads of an image of `size` pixels."""
    parameter = next(trunk.parameters())
    modes = [(module, module.training) for module in trunk.modules()]
    trunk.eval()  # the statistics of batch norms must not change
    zeros = torch.zeros(1, trunk.preprocessing.channels, size, size, device=parameter.device)
    found = [one.shape[1:] for one in maps_of(trunk, zeros, size)]
    for module, training in modes:
        module.training = training
    return found


class _Backbone(nn.Module):
    """What `FasterRCNN` asks of a backbone: how many channels its maps have."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels


class Detector(nn.Module):
    """The feature pyramid, the region proposal network and the box head of Faster R-CNN, on flattened feature maps.

    Several maps get a feature pyramid (Lin et al. 2017, https://arxiv.org/abs/1612.03144) with one size of anchors a level. A
    single map, as of a plain vision transformer, is read as it is with five sizes of anchors, as Faster R-CNN reads C4 (Ren et
    al. 2015, https://arxiv.org/abs/1506.01497), with two dense layers in the place of ResNet's last stage.
    """

    def __init__(self, shapes: Shapes, size: int, classes: int, settings: Protocol) -> None:
        super().__init__()
        self.shapes, self.size, self.difficult = shapes, size, settings.difficult
        width, head_width, anchor_scale = settings.pyramid_width, settings.head_width, settings.anchor_scale
        channels = [shape[0] for shape in shapes]
        strides = [size / shape[-1] for shape in shapes]
        several = len(shapes) > 1
        self.neck: nn.Module = FeaturePyramidNetwork(channels, width) if several else nn.Conv2d(channels[0], width, 1)
        scales = (1.0,) if several else OF_ONE_LEVEL
        sizes = tuple(tuple(anchor_scale * stride * scale for scale in scales) for stride in strides)
        names = [str(place) for place in range(len(shapes))]
        detector = FasterRCNN(
            _Backbone(width),
            rpn_anchor_generator=AnchorGenerator(sizes, (RATIOS,) * len(sizes)),
            box_roi_pool=MultiScaleRoIAlign(names, 7, 2, canonical_scale=round(CANONICAL * anchor_scale)),
            box_head=TwoMLPHead(width * 49, head_width),
            box_predictor=FastRCNNPredictor(head_width, classes + 1),
            rpn_post_nms_top_n_train=min(4 * settings.proposals, 2000),
            rpn_post_nms_top_n_test=min(2 * settings.proposals, 1000),
            box_batch_size_per_image=settings.proposals,
            box_detections_per_img=DETECTIONS,
        )
        self.rpn, self.roi_heads = detector.rpn, detector.roi_heads
        if not several:
            self.roi_heads.box_roi_pool = _PoolOfOne(1 / strides[0])

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, flat: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of a batch in training, by name; else its detections.

        `flat` (N, M) holds the maps of each image; `batch` has the `target` that is trained on. Detections are `boxes`
        (N, 100, 4) in pixels of the input, `confidences` (N, 100) in [0, 1] and `found` int16 (N, 100), the class or -1 for none.
        """
        with torch.autocast(flat.device.type, enabled=False):
            flat = flat.float()
            parts = torch.split(flat, [shape.numel() for shape in self.shapes], dim=1)
            maps = [part.reshape(len(part), *shape) for part, shape in zip(parts, self.shapes, strict=True)]
            levels = OrderedDict((str(place), level) for place, level in enumerate(maps))
            levels = self.neck(levels) if len(maps) > 1 else OrderedDict([("0", self.neck(maps[0]))])
            sides = [(self.size, self.size)] * len(flat)
            images = ImageList(flat.new_zeros(()).expand(len(flat), 1, self.size, self.size), sides)
            targets = _targets(batch["target"], self.difficult == "ignore") if self.training else None
            proposals, of_proposals = self.rpn(images, levels, targets)
            found, of_boxes = self.roi_heads(levels, proposals, sides, targets)
        return {**of_proposals, **of_boxes} if self.training else _padded(found)


class _PoolOfOne(nn.Module):
    """Reads regions of a single map at its own stride; torchvision's pool of several maps rounds strides to powers of two."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, levels: Mapping[str, Tensor], boxes: list[Tensor], sides: Sequence[tuple[int, int]]) -> Tensor:
        """Return the features (R, C, 7, 7) of boxes (R, 4) in pixels of the images."""
        found: Tensor = roi_align(levels["0"], boxes, 7, self.scale, 2)
        return found


def _targets(target: Tensor, judged_alone: bool) -> list[dict[str, Tensor]]:
    """Return the boxes of each image that are trained on as torchvision has them: `labels` from 1, since 0 is the background.

    Crowds are left out, and with `judged_alone` difficult boxes too.
    """
    found = []
    left_out = target[..., FLAG] != 0 if judged_alone else target[..., FLAG] == CROWD
    for rows, out in zip(target, left_out, strict=True):
        boxes = rows[(rows[:, 0] >= 0) & ~out & (rows[:, 3] > rows[:, 1]) & (rows[:, 4] > rows[:, 2])]
        found.append({"boxes": boxes[:, 1:5].float(), "labels": boxes[:, 0].long() + 1})
    return found


def _padded(found: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Return the detections of each image as tensors of `DETECTIONS` rows."""
    device = found[0]["boxes"].device
    boxes = torch.zeros(len(found), DETECTIONS, 4, device=device)
    confidences = torch.zeros(len(found), DETECTIONS, device=device)
    classes = torch.full((len(found), DETECTIONS), -1, dtype=torch.int16, device=device)
    for place, one in enumerate(found):
        count = len(one["scores"])
        boxes[place, :count], confidences[place, :count] = one["boxes"], one["scores"]
        classes[place, :count] = (one["labels"] - 1).to(torch.int16)
    return {"boxes": boxes, "confidences": confidences, "found": classes}
