"""No pretext task: the trunk keeps its random weights. The baseline that every other row has to beat.

It is fine-tuned by two schedules. The paper's baseline from scratch trains in one phase; on the two-phase schedule, only the
initialisation differs from the pretrained rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from bench.contract import Batch, Pretext, Recipe, Schedule


class NoRecipe(Recipe):
    """Nothing is trained."""

    epochs: int = Field(default=0, ge=0, le=0)


class RandomInit(Pretext):
    """Random initialisation, N(0, 0.02) for the U-Net as in the paper.

    The trunk's batch-norm statistics are measured before fine-tuning (`bench.models.batch_norm`), as for every untrained part of
    a trunk.
    """

    version: ClassVar[int] = 2
    """2: measured statistics. In version 1 a frozen random trunk mapped all images to nearly the same features."""
    Recipe = NoRecipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    schedules: ClassVar[tuple[Schedule, ...]] = ("one-phase", "two-phase")

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return no optimizer."""
        return {}

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return an empty batch."""
        return {}

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield nothing."""
        yield from ()
