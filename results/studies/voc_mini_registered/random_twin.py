"""A planted null: random initialisation under another name, with weights drawn anew from the same distribution.

Between `random_init` and this row there is no difference but chance, so a test that tells them apart gives a false alarm.
"""

from __future__ import annotations

from typing import Any, ClassVar

from bench.contract import Schedule, Trunk
from bench.models.unet import initialise
from pretexts.random_init import RandomInit


class RandomTwin(RandomInit):
    """Random initialisation of a U-Net, N(0, 0.02), drawn after `random_init`'s, which it replaces."""

    schedules: ClassVar[tuple[Schedule, ...]] = ("two-phase",)

    def __init__(self, recipe: Any, trunk: Trunk) -> None:
        super().__init__(recipe, trunk)
        initialise(trunk)
