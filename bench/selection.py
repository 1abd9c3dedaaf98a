"""How a probe's settings were chosen, and what features look like without labels, as a record says it."""

from __future__ import annotations

import math

from bench.schema import Schema

Choice = dict[str, int | float | str | tuple[int | float, ...]]
"""The settings that a probe has to choose, by name: an encoder level, k, a penalty, a rate, a cost for each class."""


class Tried(Schema):
    """A candidate of a probe, and its main metric where choices are made and on the test split, where none is made."""

    choice: Choice
    val: float | None
    test: float | None

    @classmethod
    def of(cls, choice: Choice, val: float, test: float) -> Tried:
        """Return a candidate whose undefined values are None."""
        return cls(choice=choice, val=val if math.isfinite(val) else None, test=test if math.isfinite(test) else None)


class Selection(Schema):
    """How a probe's settings were chosen, and what choosing them on the test split would have reported."""

    by: str
    """What they were chosen on."""
    metric: str
    """The main metric, with its version."""
    chosen: Choice
    tried: tuple[Tried, ...]
    value: float | None
    """The main metric on the test split, which the run reports."""
    on_test: Choice
    """What the test split would have chosen; it is never the result."""
    on_test_value: float | None
    predictions: str = ""
    """The SHA-256 of the predictions of that choice, kept beside the record; "" where it is the choice that was made."""


class Watched(Schema):
    """What a probe saw of a trunk after an epoch of pretraining, on validation; for curves, and nothing is chosen by it."""

    epoch: int
    probe: str
    task: str
    """The downstream task whose labels were used."""
    metric: str
    value: float | None
    choice: Choice


class LevelDiagnostics(Schema):
    """What the features of an encoder level look like without labels (`bench.probes.diagnostics`)."""

    channels: int
    images: int
    rankme: float | None
    effective_rank: float | None
    alignment: float | None
    uniformity: float | None
    dead_channels: float
    """The share of channels that are the same for every image, in [0, 1]."""
