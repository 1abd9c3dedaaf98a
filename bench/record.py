"""A record: one finished run as it was, in one JSON file that is never edited, beside the predictions it was scored from."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ValidationError

from bench.errors import DataError
from bench.schema import Frozen
from bench.storage import seal

LEAST_RATIO, MOST_COSINE = 0.1, 0.999
"""What the spread of features over images must be at least, and their cosine at most, for a network to be alive."""
EDGE = 0.1
"""The share of a searched range, in logarithms, that counts as its edge on either side."""
VERSION = 3
"""2: metrics have versions. 3: sealed, with the digest of the images beside it. A record of another version is refused, since
its numbers may mean something else."""


def _only_ours(version: int) -> int:
    if version != VERSION:
        raise ValueError(f"it has version {version}, this is version {VERSION}")
    return version


Version = Annotated[int, AfterValidator(_only_ours)]


class DataFacts(Frozen):
    """Which images a run saw, by fingerprints, and which classes its test can judge."""

    name: str
    synthetic: bool
    fingerprint: str
    split: str
    counts: dict[str, int]
    classes: tuple[str, ...] = ()
    scored: tuple[str, ...] = ()
    fitted: str = ""
    """The SHA-256 of the ids of the images that were trained on."""
    void: int = 0
    """Images among them whose masks are void throughout, which teach nothing."""
    prior: tuple[float, ...] = ()
    """The share of those images that each class is in; empty when they have no labels."""
    left_out: int = 0
    """How many images the data set is without, because they or their masks do not decode."""

    @property
    def title(self) -> str:
        """The name as a table shows it, with what is unusual about it."""
        title = f"{self.name} (synthetic)" if self.synthetic else self.name
        if len(self.scored) < len(self.classes):
            title += f" ({len(self.scored)} of {len(self.classes)} classes scored: {', '.join(self.scored)})"
        if self.left_out:
            title += f" ({self.left_out:,} broken image{'s' if self.left_out > 1 else ''} left out)"
        return title


class FeatureSpread(Frozen):
    """How far the features of different training images differ before the first phase, as the network then runs.

    `ratio` is that of the worst batch norm, `layer`: the standard deviation over images of its output, as a share of what it is
    under the batch's own statistics. `cosine` is the median cosine between what the head gets of two images.
    """

    images: int
    """How many were compared."""
    layer: str = ""
    ratio: float | None = None
    cosine: float | None = None
    measured: tuple[str, ...] = ()
    """The batch norms whose statistics were measured before, by name."""
    measured_on: int = 0
    """How many images they were measured on."""

    @property
    def problem(self) -> str:
        """What is wrong with features that hardly differ; "" where nothing is."""
        if self.ratio is not None and self.ratio < LEAST_RATIO:
            return f"images differ in {self.layer} by {100 * self.ratio:.2g} % of what they do under batch statistics"
        if self.cosine is not None and self.cosine > MOST_COSINE:
            return f"the features of two images have a median cosine of {self.cosine:.5f}"
        return ""


class Cost(Frozen):
    """What something cost: seconds of training on one device, images seen, most memory held in bytes.

    `joules` is the energy that the device says it used, None where it does not tell.
    """

    seconds: float
    images: int
    peak_memory: int
    device: str = "cpu"
    joules: float | None = None


class Trial(Frozen):
    """One trial of a search: the rates that were tried, and the main metric on the validation part after every epoch.

    `state` is complete, pruned, or diverged (a loss that was not a number); `value` is the last epoch's of a complete trial.
    """

    number: int
    rates: dict[str, float]
    state: str
    value: float | None
    epochs: dict[int, float] = {}
    seconds: float = 0.0
    images: int = 0


class Tuning(Frozen):
    """A search for learning rates: what was searched, how, every trial, what was chosen and what it cost."""

    study: str
    budget: int
    space: dict[str, tuple[float, float]]
    ranges: dict[str, tuple[float, float]] = {}
    """The ranges that rows with other schedules share: by what a phase trains, and the pretext task's own."""
    drawn: tuple[tuple[str, ...], ...] = ()
    """What the first trials range over, by sequence; empty where that was `space` alone, whatever other rows have."""
    sampler: str
    pruner: str
    metric: str
    seed: int
    trials: tuple[Trial, ...]
    best: dict[str, float]
    best_value: float
    cost: Cost

    @property
    def sensitivity(self) -> float | None:
        """By how much the median complete trial is worse than the best: how much depends on tuning."""
        values = [trial.value for trial in self.trials if trial.value is not None]
        return self.best_value - statistics.median(values) if values else None

    def wider(self, phases: Sequence[str]) -> dict[str, tuple[float, float]]:
        """Return wider ranges for the rates that were chosen in the outermost tenth of theirs, as logarithms, ten times as far.

        `phases` says what each phase trains, in order; the ranges are by that, as `--space` takes them, or `pretext`.
        """
        found: dict[str, tuple[float, float]] = {}
        for name, (low, high) in self.space.items():
            place = math.log(self.best[name] / low) / math.log(high / low) if low < high else 0.5
            if EDGE < place < 1 - EDGE:
                continue
            number = name.removeprefix("phase-")
            kind = phases[int(number) - 1] if number.isdigit() else name
            before = found.get(kind, (low, high))
            found[kind] = (min(before[0], low / 10), before[1]) if place <= EDGE else (before[0], max(before[1], high * 10))
        return found


def as_space(ranges: Mapping[str, tuple[float, float]]) -> str:
    """Write ranges as `--space` takes them.

    >>> as_space({"head": (1e-4, 1e-2), "all": (1e-5, 1e-3)})
    'head=0.0001:0.01,all=1e-05:0.001'
    """
    return ",".join(f"{kind}={low:g}:{high:g}" for kind, (low, high) in ranges.items())


class PretrainRecord(Frozen):
    """A pretrained trunk: its job, what it says about itself, its cost, and the SHA-256 of its weights."""

    version: Version = VERSION
    id: str
    job: dict[str, Any]
    data: DataFacts | None
    report: dict[str, dict[str, float | None]] = {}
    trivial: dict[str, dict[str, dict[str, float | None]]] = {}
    report_images: int = 0
    history: list[dict[str, float]] = []
    cost: Cost
    weights: str
    precision: str = "fp32"
    """What networks computed in: fp32 or bf16, compiled or not."""
    provenance: dict[str, Any]


class Record(Frozen):
    """A finished run."""

    version: Version = VERSION
    id: str
    job: dict[str, Any]
    pretext: str
    schedule: str
    downstream: str
    title: str
    protocol: str
    trunk: str
    size: int
    seed: int
    part: str
    transfer: str = "all"
    labels: float = 1.0
    rates: tuple[float, ...] = ()
    data: DataFacts
    metrics: dict[str, float | None]
    per_class: dict[str, dict[str, float | None]] = {}
    history: list[dict[str, Any]] = []
    cost: Cost
    pretrain: PretrainRecord
    tuning: Tuning | None = None
    predictions: str
    examples: str = ""
    """The SHA-256 of the images beside the record, "" where there are none."""
    weights: str = ""
    """The SHA-256 of the fine-tuned network, which is not kept."""
    head: str = ""
    spread: FeatureSpread | None = None
    """How far features differed before the first phase; None in records from before this was looked at."""
    precision: str = "fp32"
    """What networks computed in: fp32 or bf16, compiled or not."""
    provenance: dict[str, Any]

    @property
    def metric_ids(self) -> tuple[str, ...]:
        """The protocol's metrics in its order, with their versions; the first is the main one."""
        order = {name: place for place, name in enumerate(self.job["settings"]["metrics"])}
        return tuple(sorted(self.metrics, key=lambda identity: order[identity.partition("@")[0]]))


def paths(out: Path) -> list[Path]:
    """Return the files of the records below an output folder; what is being written, or was by a dead process, is none yet."""
    return sorted((out / "runs").glob("[!.]*/record.json"))


def read(out: Path) -> list[Record]:
    """Return the records below an output folder, by id; DataError names one that cannot be read."""
    return [read_one(path) for path in paths(out)]


def read_one(path: Path) -> Record:
    """Return one record from its file; DataError when it is not one, or not as it was written."""
    way_out = "remove its folder to run it again"
    content = seal.read(path, "a record", way_out)
    try:
        record = Record.model_validate_json(content)
        _check_jobs(record)
        if record.id != path.parent.name:
            raise ValueError("its folder has another name than its run")
    except ValueError as error:  # ValidationError is one
        reason = error.errors()[0]["msg"].removeprefix("Value error, ") if isinstance(error, ValidationError) else error
        raise DataError(f"{path} is not a record of this version: {reason}; {way_out}.") from error
    return record


def _check_jobs(record: Record) -> None:
    """Raise ValueError when what tables read of a record's jobs, which are JSON to it, is not there or does not fit it."""
    _PretrainJob.model_validate(record.pretrain.job)
    settings = _Job.model_validate(record.job).settings
    phases = settings.schedules.get(record.schedule)
    if phases is None:
        raise ValueError(f"its job has no {record.schedule} schedule")
    if not {identity.partition("@")[0] for identity in record.metrics} <= set(settings.metrics):
        raise ValueError("its job has other metrics")
    if record.tuning is not None and not {f"phase-{n}" for n in range(1, len(phases) + 1)} <= record.tuning.space.keys():
        raise ValueError("its search has other phases than its job")


class _Phase(BaseModel):
    train: str
    epochs: int
    lr: float


class _Settings(BaseModel):
    metrics: tuple[str, ...]
    schedules: dict[str, tuple[_Phase, ...]]
    space: dict[str, tuple[float, float]]


class _Job(BaseModel):
    """What tables read of a run's job, which they know as JSON alone."""

    settings: _Settings
    version: int
    source: str
    size: int
    split: str
    rates: tuple[float, ...] = ()


class _PretrainJob(BaseModel):
    """The same of a trunk's."""

    recipe: dict[str, Any]
    data: str
    split: str
    version: int
    source: str
    size: int
    seed: int
