"""Jobs: all that a pretrained trunk (`PretrainJob`) or a run (`Job`) depends on, and nothing else; a job's digest is its id."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from bench.initialisation import Weights
from bench.probe import AnyProbe
from bench.protocol import Phase, Protocol, Schedule, Train, Transfer
from bench.schema import Schema

NO_DATA = "none"
Split = Literal["test", "val"]
"""The split that is scored: test, or val while learning rates are searched."""


Frozen = Literal["trunk", "encoder"]


class HeldOut(Schema):
    """Labelled data by its fingerprint, and the split schemes by which it has test images; `--leaks drop` holds these out."""

    data_fingerprint: str
    schemes: tuple[str, ...]


class _Identified(Schema):
    """A job, which keeps its id once it is computed, since a grid of thousands asks for each many times."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, with some fields changed and then an id of its own."""
        copied = super().model_copy(update=update, deep=deep)
        if update:
            copied.__dict__.pop("id", None)
        return copied


class PretrainJob(_Identified):
    """What one pretrained trunk depends on. Both fingerprints are "none" when nothing is trained."""

    pretext: str
    version: int
    source: str = ""
    """The first 16 digits of the SHA-256 of a plug-in's file; "" for a built-in task, which its version identifies."""
    recipe: dict[str, Any] = {}
    """The settings that differ from the task's defaults, so that a setting added later changes no id."""
    trunk: str
    size: int
    data_fingerprint: str
    splits_fingerprint: str
    seed: int
    weights: Weights | None = None
    """Weights from elsewhere; None for those that are trained, or drawn, here."""
    held_out: HeldOut | None = None
    """The test images to which the pretraining images were compared, if some were equal or near and left out."""

    @property
    def begins_with(self) -> str:
        """What tells an initialisation of a grid from the others: the pretext task, and the digest of weights from elsewhere."""
        return f"{self.pretext} {self.weights.digest()}" if self.weights is not None else self.pretext

    @cached_property
    def id(self) -> str:
        """The pretrain id: the pretext's name and twelve hexadecimal digits."""
        return f"{self.pretext.replace(':', '-')}-{self.digest()[:12]}"


class Job(_Identified):
    """What one run depends on: a pretrained trunk, a downstream task, a protocol, data, and the split that is scored.

    `rates` replace the learning rates of the schedule's phases. `study` is the id of the search that chose them, and `trials` its
    number of trials.
    """

    pretrain: PretrainJob
    downstream: str
    version: int
    source: str = ""
    protocol: str
    """The protocol's name and the settings changed in it, as a row shows them."""
    settings: Protocol
    schedule: Schedule
    size: int
    data_fingerprint: str
    splits_fingerprint: str
    split: Split = "test"
    seed: int
    transfer: Transfer = "all"
    frozen: Frozen = "trunk"
    """What a frozen phase freezes: the trunk, or the encoder that was inherited, and the new decoder trains."""
    statistics_version: int = 1
    """2 for --transfer encoder with a frozen decoder (once), and for a pretext task that trains but was given no epochs: the
    batch norms of their untrained parts have measured statistics."""
    labels: float = Field(default=1.0, gt=0, le=1)
    """The share of the training images whose labels are used."""
    rates: tuple[float, ...] = ()
    study: str = ""
    trials: int = 0
    probe: AnyProbe | None = None
    """The probe of the frozen trunk that is evaluated instead of a schedule, whose phases are then none; None: the schedule."""

    @model_validator(mode="after")
    def _fits_together(self) -> Job:
        if self.frozen == "encoder" and self.transfer == "all":
            raise ValueError("it freezes the encoder alone, and inherits the decoder")
        if self.schedule not in self.settings.schedules:
            raise ValueError(f"its protocol has no {self.schedule} schedule")
        phases = scaled(self.settings.schedules[self.schedule], self.settings.epochs)
        if self.rates and len(self.rates) != len(phases):
            raise ValueError(f"it has {len(self.rates)} rates, which is not the number of phases of {self.schedule}")
        return self

    @cached_property
    def id(self) -> str:
        """The run id: pretext, downstream task and twelve hexadecimal digits."""
        return f"{self.pretrain.pretext.replace(':', '-')}-{self.downstream}-{self.digest()[:12]}"

    @property
    def evaluation(self) -> str:
        """What is evaluated: finetune, or the probe's name, with the decoder's features told apart."""
        if self.probe is None:
            return "finetune"
        return f"{self.probe.kind}, decoder" if getattr(self.probe, "source", "encoder") == "decoder" else self.probe.kind

    @property
    def about(self) -> str:
        """What an id does not show but the seed: schedule or probe; transfer, labels and rates where they are not the default."""
        parts: list[str] = [self.schedule if self.probe is None else self.evaluation]
        if self.transfer != "all":
            parts.append("encoder alone" if self.frozen == "encoder" else f"{self.transfer} only")
        if self.labels != 1:
            parts.append(f"{self.labels:.3g} of the labels")
        if self.rates:
            parts.append("rates " + " ".join(f"{rate:.3g}" for rate in self.rates))
        return ", ".join(parts)

    @property
    def trains(self) -> list[Train]:
        """What each phase trains: head or all."""
        return [phase.train for phase in self.phases]

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The schedule's phases with the protocol's number of epochs and the rates of this job."""
        phases = scaled(self.settings.schedules[self.schedule], self.settings.epochs)
        if not self.rates:
            return phases
        return tuple(phase.model_copy(update={"lr": rate}) for phase, rate in zip(phases, self.rates, strict=True))


def scaled(phases: Sequence[Phase], epochs: int | None) -> tuple[Phase, ...]:
    """Return a schedule's phases with `epochs` epochs in all; the phases as they are when `epochs` is None.

    Each phase gets its share, rounded by largest remainders, and at least one epoch; a phase of no epochs stays without.
    ValueError when there are fewer epochs than phases.

    >>> tuple(phase.epochs for phase in scaled([Phase(train="head", epochs=12, lr=1), Phase(train="all", epochs=4, lr=1)], 6))
    (4, 2)
    """
    own = [phase.epochs for phase in phases]
    if epochs is None or epochs == sum(own):
        return tuple(phases)
    least = [min(1, count) for count in own]
    if epochs < sum(least) or not any(least):
        raise ValueError(f"a schedule of {sum(least)} phases takes at least {sum(least)} epochs, but got {epochs}")
    shares = [epochs * count / sum(own) for count in own]
    given = [max(one, math.floor(share)) for one, share in zip(least, shares, strict=True)]
    while sum(given) != epochs:
        change = 1 if sum(given) < epochs else -1
        fits = [place for place, count in enumerate(given) if count + change >= least[place] and least[place]]
        given[max(fits, key=lambda place: (change * (shares[place] - given[place]), place))] += change
    return tuple(phase.model_copy(update={"epochs": count}) for phase, count in zip(phases, given, strict=True))
