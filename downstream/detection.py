"""Object detection on any data with boxes: `--downstream detection@DATA`, the task of voc_det."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bench.contract import Protocol
from downstream._detection import DetectionTask
from downstream._protocols import PROTOCOLS


class Detection(DetectionTask):
    """Object detection on any data with boxes."""

    title = "Detection"
    protocols: ClassVar[Mapping[str, Protocol]] = PROTOCOLS["detection"]
