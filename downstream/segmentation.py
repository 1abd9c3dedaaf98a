"""Semantic segmentation of any data with masks: `--downstream segmentation@DATA`, the task of voc_seg."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bench.contract import Protocol
from downstream._protocols import PROTOCOLS
from downstream._segmentation import SegmentationTask


class Segmentation(SegmentationTask):
    """Semantic segmentation of any data with masks."""

    title = "Segmentation"
    protocols: ClassVar[Mapping[str, Protocol]] = PROTOCOLS["segmentation"]
