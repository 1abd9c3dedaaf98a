"""Pascal VOC semantic segmentation: the whole U-Net with a new output layer, cross-entropy over background and classes.

Treneska et al. 2022, https://doi.org/10.3390/s22041599, sections 3.4.3 and 4.3: mIU 44.66 % from scratch, 47.07 % after
colorization (one run each, void as background; `miou_paper` here). The field's VOC 2012 train -> val mIoU ignores
void (`miou_voc`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bench.contract import Protocol
from downstream._protocols import PROTOCOLS
from downstream._segmentation import SegmentationTask


class VocSeg(SegmentationTask):
    """VOC semantic segmentation on the last decoder activation."""

    title = "Segmentation"
    protocols: ClassVar[Mapping[str, Protocol]] = PROTOCOLS["voc_seg"]
