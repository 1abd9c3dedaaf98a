"""A job says everything that its row depends on, and nothing else; its digest is its id."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bench.contract import Phase, Protocol, Schedule, Transfer
from bench.schema import Frozen, added_field

NO_DATA = "none"


class PretrainJob(Frozen):
    """One pretrained trunk. `data` and `split` are fingerprints; both are "none" when nothing is trained."""

    pretext: str
    version: int
    source: str = ""
    recipe: dict[str, Any]
    trunk: str
    size: int
    data: str
    split: str
    seed: int

    @property
    def id(self) -> str:
        """The pretrain id: the pretext's name and twelve hexadecimal digits."""
        return f"{self.pretext}-{self.digest()[:12]}"


class Job(Frozen):
    """One row's run: a pretrained trunk, a downstream task, a protocol, data, and which part is scored.

    `rates` replace the learning rates of the schedule's phases; `study` and `trials` say which search chose them.
    """

    pretrain: PretrainJob
    downstream: str
    version: int
    source: str = ""
    protocol: str
    settings: Protocol
    schedule: Schedule
    size: int
    data: str
    split: str
    part: Literal["test", "val"] = "test"
    seed: int
    transfer: Transfer = "all"
    statistics_version: int = added_field(1)
    """2 for --transfer encoder, and for a task that trains but was given no epochs: their new parts have measured statistics."""
    labels: float = Field(default=1.0, gt=0, le=1)  # the share of the training images whose labels are used
    rates: tuple[float, ...] = ()
    study: str = ""
    trials: int = 0

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
