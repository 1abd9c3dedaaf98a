"""No pretext task: the trunk keeps its random weights. What every other row has to beat.

It runs on both schedules: the paper's scratch baseline trains in one phase; on the two-phase schedule initialisation is the only
difference to the pretrained rows.
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
    """Random initialisation, N(0, 0.02) for the U-Net as the paper has it.

    The statistics of its batch norms are measured before fine-tuning (`bench.models.batch_norm`), as for every new part of a trunk.
    """

    version: ClassVar[int] = 2
    """2: measured statistics. Before, a frozen random trunk mapped all images to nearly the same features."""
    Recipe = NoRecipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    schedules: ClassVar[tuple[Schedule, ...]] = ("one-phase", "two-phase")

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return none."""
        return {}

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return an empty batch."""
        return {}

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield nothing."""
        yield from ()
