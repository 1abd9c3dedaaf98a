"""Records: each holds one finished run, in a JSON file that is never edited, beside the predictions it was scored from."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, model_validator

from bench.errors import DataError
from bench.feature_spread import FeatureSpread
from bench.initialisation import INIT, Origin
from bench.job import Job, PretrainJob
from bench.protocol import SearchSeeds, Trains
from bench.schema import Schema
from bench.selection import LevelDiagnostics, Selection, Watched
from bench.storage import seal

EDGE = 0.1
"""The share of a searched range, on a logarithmic scale, that counts as its edge on either side."""
VERSION = 4
"""2: metrics have versions. 3: records are sealed and hold the digest of the images beside them. 4: the job is a `Job`, and ids
leave defaults out. A record of another version is refused, since its numbers may mean something else."""


def _only_ours(version: int) -> int:
    if version != VERSION:
        raise ValueError(f"it has version {version}, and this program reads version {VERSION}")
    return version


Version = Annotated[int, AfterValidator(_only_ours)]
Summary = dict[str, dict[str, float | None]]
"""Score name -> its average, minimum and maximum over images, and `not_finite`, the number of images without a finite value."""


class DataFacts(Schema):
    """The images that a run was trained and scored on, by fingerprints, and the classes that the data can score."""

    name: str
    synthetic: bool
    fingerprint: str
    splits_fingerprint: str
    counts: dict[str, int]
    classes: tuple[str, ...] = ()
    scored: tuple[str, ...] = ()
    fitted: str = ""
    """The SHA-256 of the ids of the images that were trained on."""
    void: int = 0
    """The number of training images whose masks are void throughout, from which nothing is learned."""
    prior: tuple[float, ...] = ()
    """For each class the share of training images that show it; empty when the images have no labels."""
    left_out: int = 0
    """The number of images left out of the data set because a file of theirs is broken or missing."""
    exclude: tuple[str, ...] = ()
    """The patterns of file names that were left out when the data set was prepared."""
    layout: str = ""
    labels: str = ""
    group: str = ""
    """The layout that it was read by, where that is neither VOC's nor COCO's, its table of labels, and the column of groups."""
    mask_values: tuple[str, ...] = ()
    """What `--map` said of the pixels of masks when the data set was prepared."""
    unused: dict[str, int] = {}
    """What the data set holds and the run does not use, or what was read in an unusual way: counts by reason."""
    scored_list: str = ""
    """The data set's own list that was scored, such as ImageSets/Main/val.txt; "" where a split scheme drew the images."""

    @property
    def short(self) -> str:
        """The name as a title shows it: synthetic, or scored on some classes only."""
        scored = f"{len(self.scored)} of {len(self.classes)} classes" if len(self.scored) < len(self.classes) else ""
        said = [text for text in ("synthetic" if self.synthetic else "", scored) if text]
        return f"{self.name} ({', '.join(said)})" if said else self.name

    @property
    def title_of_all(self) -> str:
        """The name with what the runs of all tasks share: synthetic, and which classes are scored."""
        title = f"{self.name} (synthetic)" if self.synthetic else self.name
        if len(self.scored) < len(self.classes):
            title += f" ({len(self.scored)} of {len(self.classes)} classes scored: {', '.join(self.scored)})"
        return title

    @property
    def title(self) -> str:
        """The name with all that a reader has to know: `title_of_all`, and how many images are left out for the run's task."""
        left_out = f" ({self.left_out:,} image{'s' if self.left_out > 1 else ''} left out)" if self.left_out else ""
        return self.title_of_all + left_out


class Overlap(Schema):
    """How many images of a split are equal to, and how many others are near to, an image that the trunk was pretrained on."""

    images: int
    equal: int
    near: int
    plain: int = 0
    """The number of images of hardly more than one colour, which are compared with none."""
    some: tuple[str, ...] = ()
    """The first ids of equal and near images."""

    @property
    def count(self) -> int:
        """The number of images that are equal or near."""
        return self.equal + self.near


class Leaks(Schema):
    """The test and validation images that the trunk was pretrained on, by hashes of their content."""

    trained: int
    """The number of images that the trunk was pretrained on."""
    test: Overlap
    val: Overlap
    dropped: int = 0
    """The number of images that `--leaks drop` removed from pretraining."""


class Cost(Schema):
    """What training cost: seconds on one device, images seen, peak memory in bytes.

    The peak memory is that of the process, or on a GPU that of torch, without images and features that stay there to save time.
    `joules` is the energy that the device reports, None where it reports none.
    """

    seconds: float
    images: int
    peak_memory: int
    device: str = "cpu"
    joules: float | None = None


class Trial(Schema):
    """One trial of a search: the rates that were tried, and the main metric on the validation split after every epoch.

    `state` is complete, pruned, or diverged (a loss that was not a number). `value` is the metric after the last epoch of a
    complete trial, else None.
    """

    number: int
    rates: dict[str, float]
    state: str
    value: float | None
    epochs: dict[int, float] = {}
    seconds: float = 0.0
    images: int = 0


class Tuning(Schema):
    """A finished search for learning rates: ranges, sampler, pruner, every trial, the chosen rates and the cost."""

    study: str
    budget: int
    space: dict[str, tuple[float, float]]
    ranges: dict[str, tuple[float, float]] = {}
    """The ranges by what a phase trains, and the pretext task's own; rows with other schedules have the same."""
    drawn: tuple[tuple[str, ...], ...] = ()
    """The rates that each Sobol sequence of the first trials draws together; empty when one sequence drew all of `space`."""
    sampler: str
    pruner: str
    metric: str
    seed: int
    seeds: SearchSeeds = "first"
    trials: tuple[Trial, ...]
    best: dict[str, float]
    best_value: float
    cost: Cost

    @property
    def sensitivity(self) -> float | None:
        """The best trial's value minus the median of complete trials: how much the score depends on tuning."""
        values = [trial.value for trial in self.trials if trial.value is not None]
        return self.best_value - statistics.median(values) if values else None

    def wider(self, phases: Sequence[str]) -> dict[str, tuple[float, float]]:
        """Return ranges for another search: where a chosen rate is at the edge of its range, that edge is moved tenfold.

        The edge is the outermost tenth of a range on a logarithmic scale. `phases` says what each phase trains, in order. The
        ranges are named as in `--space`: head, all or pretext.
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


class PretrainRecord(Schema):
    """A pretrained trunk: its job, its scores at its own task, its cost, and the SHA-256 of its weights."""

    version: Version = VERSION
    id: str
    job: PretrainJob
    recipe: dict[str, Any]
    """Every setting that it was trained with, defaults included."""
    data: DataFacts | None
    evaluation: Summary = {}
    """The pretext task's own scores on test images."""
    baselines: dict[str, Summary] = {}
    """The scores of the pretext task's baselines, by the baseline's name."""
    evaluation_images: int = 0
    trains: Trains | None = None
    """What the task trained of the trunk; None in records of before it was written."""
    caveats: tuple[str, ...] = ()
    """What weakens the task with this trunk and recipe."""
    history: list[dict[str, float]] = []
    watched: tuple[Watched, ...] = ()
    """What a probe saw of it during pretraining (`--watch`)."""
    cost: Cost
    weights: str
    origin: Origin | None = None
    """Where weights from elsewhere came from."""
    precision: str = "fp32"
    """What networks computed in: fp32 or bf16, compiled or not."""
    provenance: dict[str, Any]

    @property
    def label(self) -> str:
        """The pretext task, the label of weights from elsewhere, or both as TASK@LABEL."""
        task = self.job.pretext
        return task if self.origin is None else self.origin.label if task == INIT else f"{task}@{self.origin.label}"

    @property
    def supervision(self) -> str:
        """Which labels were used to train the trunk: none, a text, or unknown, as for a plug-in that trains nothing here."""
        if self.origin is not None:
            return self.origin.supervision
        return "unknown" if self.job.source and not self.history else "none"

    @model_validator(mode="after")
    def _is_of_its_job(self) -> PretrainRecord:
        if self.id != self.job.id:
            raise ValueError(f"its id is not that of its job, {self.job.id}")
        return self


class Record(Schema):
    """A finished run: its job, its scores, its cost, its trunk, its search, and where it came from."""

    version: Version = VERSION
    id: str
    job: Job
    title: str
    """The downstream task's name in tables."""
    data: DataFacts
    metrics: dict[str, float | None]
    per_class: dict[str, dict[str, float | None]] = {}
    losses: list[list[float]] = []
    """The mean loss of each epoch, by phase."""
    cost: Cost
    pretrain: PretrainRecord
    tuning: Tuning | None = None
    predictions: str
    """The SHA-256 of the predictions beside the record."""
    examples: str = ""
    """The SHA-256 of the images beside the record, "" where there are none."""
    weights: str = ""
    """The SHA-256 of the fine-tuned network, which is not kept."""
    head: str = ""
    """The head as torch prints it, cut to 2,000 characters."""
    selection: Selection | None = None
    """How a probe's settings were chosen; None for fine-tuning."""
    diagnostics: tuple[LevelDiagnostics, ...] = ()
    """Of each encoder level, the finest first, for probes of whole images: no scores."""
    spread: FeatureSpread | None = None
    """How much features differed before the first phase; None in records made before this was measured."""
    leaks: Leaks | None = None
    """None where nothing was pretrained, and in records made before images were compared."""
    precision: str = "fp32"
    """What networks computed in: fp32 or bf16, compiled or not."""
    plugins: dict[str, str] = {}
    """The text of the file of each plug-in, by its kind: pretexts or downstreams. Empty in records of before it was kept."""
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _is_of_its_job(self) -> Record:
        if self.id != self.job.id:
            raise ValueError(f"its id is not that of its job, {self.job.id}")
        if self.pretrain.job != self.job.pretrain:
            raise ValueError("its trunk is not the one that its job names")
        if not {identity.partition("@")[0] for identity in self.metrics} <= set(self.job.settings.metrics):
            raise ValueError("its metrics are not those of its job")
        phases = {f"phase-{number}" for number in range(1, len(self.job.phases) + 1)}
        if self.tuning is not None and not phases <= self.tuning.space.keys():
            raise ValueError("its search lacks phases of its job")
        return self

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def pretext(self) -> str:
        """The pretext task, the label of weights from elsewhere, or both as TASK@LABEL."""
        return self.pretrain.label

    @property
    def downstream(self) -> str:
        """The downstream task."""
        return self.job.downstream

    @property
    def metric_ids(self) -> tuple[str, ...]:
        """The protocol's metrics in its order, with their versions; the first is the main one."""
        order = {name: place for place, name in enumerate(self.job.settings.metrics)}
        return tuple(sorted(self.metrics, key=lambda identity: order[identity.partition("@")[0]]))

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rate of each phase."""
        return tuple(phase.lr for phase in self.job.phases)


def record_path(out: Path, run: str) -> Path:
    """Return the file of a run's record in an output folder."""
    return out / "runs" / run / "record.json"


def paths(out: Path) -> list[Path]:
    """Return the record files below an output folder, without those that are still under a temporary name."""
    return sorted((out / "runs").glob("[!.]*/record.json"))


def read(out: Path) -> list[Record]:
    """Return the records below an output folder, by id; DataError names one that cannot be read."""
    return [read_one(path) for path in paths(out)]


def read_one(path: Path) -> Record:
    """Return one record from its file; DataError when the file is no record or was changed."""
    record = seal.read_model(Record, path, "a record", "remove its folder to run it again")
    if record.id != path.parent.name:
        raise DataError(f"{path} is the record of another run, {record.id}; remove its folder to run it again.")
    return record


def read_pretrained(path: Path) -> PretrainRecord:
    """Return the record of a pretrained trunk from its file; DataError when the file is no such record or was changed."""
    return seal.read_model(PretrainRecord, path, "a record", "remove its folder to train it again")


def read_tuning(path: Path) -> Tuning:
    """Return a finished search from its file; DataError when the file is no search or was changed."""
    return seal.read_model(Tuning, path, "a search", "remove the file, and it is made again from its trials")
