"""Pascal VOC object detection: Faster R-CNN on the trunk's feature pyramid, VOC 2007 and 2012 trainval to VOC 2007 test.

Everingham et al. 2010, and He et al. 2020, https://arxiv.org/abs/1911.05722, appendix A.2, for the schedule of the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bench.contract import Protocol
from downstream._detection import DetectionTask
from downstream._protocols import PROTOCOLS


class VocDet(DetectionTask):
    """VOC object detection."""

    title = "Detection"
    protocols: ClassVar[Mapping[str, Protocol]] = PROTOCOLS["voc_det"]
