"""A job says everything that its row depends on, and nothing else; its digest is its id."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from bench.config import Phase, Protocol, Schedule, Transfer
from bench.schema import Schema

NO_DATA = "none"
Split = Literal["test", "val"]
"""What is scored: the test split, or while rates are searched the validation split."""


class PretrainJob(Schema):
    """One pretrained trunk. Both fingerprints are "none" when nothing is trained."""

    pretext: str
    version: int
    source: str = ""
    """The SHA-256 of a plug-in's file, 16 digits; "" for a built-in task, whose version says what it is."""
    recipe: dict[str, Any] = {}
    """The settings that are not the task's defaults, so that a new setting changes no id."""
    trunk: str
    size: int
    data_fingerprint: str
    splits_fingerprint: str
    seed: int

    @property
    def id(self) -> str:
        """The pretrain id: the pretext's name and twelve hexadecimal digits."""
        return f"{self.pretext}-{self.digest()[:12]}"


class Job(Schema):
    """One row's run: a pretrained trunk, a downstream task, a protocol, data, and the split that is scored.

    `rates` replace the learning rates of the schedule's phases; `study` and `trials` name the search that chose them.
    """

    pretrain: PretrainJob
    downstream: str
    version: int
    source: str = ""
    protocol: str
    """The protocol's name and its changes, as a row shows it."""
    settings: Protocol
    schedule: Schedule
    size: int
    data_fingerprint: str
    splits_fingerprint: str
    split: Split = "test"
    seed: int
    transfer: Transfer = "all"
    statistics_version: int = 1
    """2 for --transfer encoder, and for a task that trains but was given no epochs: their new parts have measured statistics."""
    labels: float = Field(default=1.0, gt=0, le=1)
    """The share of the training images whose labels are used."""
    rates: tuple[float, ...] = ()
    study: str = ""
    trials: int = 0

    @model_validator(mode="after")
    def _fits_together(self) -> Job:
        if self.schedule not in self.settings.schedules:
            raise ValueError(f"its protocol has no {self.schedule} schedule")
        if self.rates and len(self.rates) != len(self.settings.schedules[self.schedule]):
            raise ValueError(f"it has {len(self.rates)} rates for the phases of {self.schedule}")
        return self

    @property
    def id(self) -> str:
        """The run id: pretext, downstream task and twelve hexadecimal digits."""
        return f"{self.pretrain.pretext}-{self.downstream}-{self.digest()[:12]}"

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The schedule's phases with the rates of this job."""
        phases = self.settings.schedules[self.schedule]
        if not self.rates:
            return phases
        return tuple(phase.model_copy(update={"lr": rate}) for phase, rate in zip(phases, self.rates, strict=True))
