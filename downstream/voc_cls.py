"""Pascal VOC multilabel classification: the encoder to the bottleneck, a VGG-like 4096-4096 head, binary cross-entropy.

Treneska et al. 2022, https://doi.org/10.3390/s22041599, sections 3.4.2 and 4.2: accuracy 47.18 % from scratch, 52.83 % after
colorization (one run each; `acc_keras` here).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bench.contract import Protocol
from downstream._multilabel import MultilabelTask
from downstream._protocols import PROTOCOLS


class VocCls(MultilabelTask):
    """VOC multilabel classification on the bottleneck."""

    title = "Classification"
    protocols: ClassVar[Mapping[str, Protocol]] = PROTOCOLS["voc_cls"]
