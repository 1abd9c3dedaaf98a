"""Multilabel classification of any labelled data: `--downstream multilabel@DATA`, the task of voc_cls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bench.contract import Protocol
from downstream._multilabel import MultilabelTask
from downstream._protocols import PROTOCOLS


class Multilabel(MultilabelTask):
    """Multilabel classification of any data with labels."""

    title = "Multilabel"
    protocols: ClassVar[Mapping[str, Protocol]] = PROTOCOLS["multilabel"]
