"""No pretext task: the trunk keeps its random weights. The baseline that every other row has to beat.

It is fine-tuned by two schedules. The paper's baseline from scratch trains in one phase; on the two-phase schedule, only the
initialisation differs from the pretrained rows.
"""

from __future__ import annotations

from typing import ClassVar

from bench.contract import Family, Schedule, Trains, Untrained


class RandomInit(Untrained):
    """Random initialisation, N(0, 0.02) for the U-Net as in the paper.

    The trunk's batch-norm statistics are measured before fine-tuning (`bench.models.batch_norm`), as for every untrained part of
    a trunk. `random_init:encoder` brings the random encoder alone, the control of rows that bring an encoder.
    """

    family: ClassVar[Family] = "control"
    trains: ClassVar[Trains] = "nothing"
    version: ClassVar[int] = 2
    """2: measured statistics. In version 1 a frozen random trunk mapped all images to nearly the same features."""
    schedules: ClassVar[tuple[Schedule, ...]] = ("one-phase", "two-phase")
