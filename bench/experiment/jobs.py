"""The jobs of a grid: every row's trunk on every task, for every seed, share of labels, schedule and way to inherit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from bench import registry
from bench.config import RunConfig
from bench.data.dataset import Dataset
from bench.data.packs import PackRule
from bench.data.splits import Splits
from bench.errors import UsageError
from bench.initialisation import INIT, Weights
from bench.job import NO_DATA, Frozen, HeldOut, Job, PretrainJob, scaled
from bench.models.trunk import TrunkName
from bench.probe import AnyProbe, LowShot, Probe
from bench.protocol import Protocol, Recipe, Schedule, Transfer
from bench.schema import canonical

STATISTICS_VERSION = 2
"""2: the batch norms of a trunk that was left untrained have measured statistics."""
MOST_RUNS = 100_000
PARTS = {"head": "the head alone", "all": "everything"}
"""What a phase trains, in words."""


@dataclass(frozen=True)
class Row:
    """An initialisation of a grid: the trunk that it makes, as a job with seed 0, and the modules that it brings."""

    pretrain: PretrainJob
    brings: Transfer
    label: str


@dataclass(frozen=True)
class Evaluation:
    """Fine-tuning, which has no probe, or a probe with its settings; `name` is finetune or the probe's name."""

    name: str
    probe: AnyProbe | None = None


@dataclass(frozen=True)
class Task:
    """A downstream task on its data, with protocol and size; `label` is the protocol's name with the changed settings."""

    name: str
    label: str
    protocol: Protocol
    size: int
    data_fingerprint: str
    splits_fingerprint: str
    evaluations: tuple[Evaluation, ...] = (Evaluation("finetune"),)


def all_jobs(config: RunConfig, rows: Sequence[Row], tasks: Sequence[Task]) -> list[Job]:
    """Return the jobs of every seed, row and downstream task; those of further seeds are copies of the first one's."""
    first = config.all_seeds[0]
    mixed = len({row.brings for row in rows}) > 1
    known: set[str] = set()  # NAME and NAME:encoder have runs in common
    of_one_seed = [
        [job for task in tasks for job in _jobs(config, row, task, mixed) if not _added(job.id, known)]
        for row in (replace(row, pretrain=row.pretrain.model_copy(update={"seed": first})) for row in rows)
    ]
    count = sum(map(len, of_one_seed)) * len(config.all_seeds)
    if count > MOST_RUNS:
        raise UsageError(f"a command makes at most {MOST_RUNS:,} runs, but this one has {count:,}; divide it into several.")
    jobs: list[Job] = []
    for seed in config.all_seeds:
        for made in filter(None, of_one_seed):
            trunk = made[0].pretrain.model_copy(update={"seed": seed if config.vary == "all" else first})
            jobs += (_of_seed(job, seed, trunk) for job in made)
    return list({job.id: job for job in jobs}.values()) if any(job.probe for job in jobs) else jobs


def _of_seed(job: Job, seed: int, trunk: PretrainJob) -> Job:
    """Return a job with another seed and its trunk. A probe has the trunk's seed, and where neither varies there is one run."""
    if job.probe is None:
        return job.model_copy(update={"seed": seed, "pretrain": trunk})
    if trunk.pretext == INIT and not job.probe.varies:
        return job
    return job.model_copy(update={"seed": trunk.seed, "pretrain": trunk})


def _added(identity: str, known: set[str]) -> bool:
    """Add an id to those that are known, and tell whether it was known already."""
    before = identity in known
    known.add(identity)
    return before


def _jobs(config: RunConfig, row: Row, task: Task, mixed: bool) -> Iterator[Job]:
    """Yield the jobs of one trunk on one task: for every share of labels, every way to inherit and schedule, and every probe."""
    finetunes = any(one.name == "finetune" for one in task.evaluations)
    for share in dict.fromkeys(config.labels):
        if finetunes:
            yield from _finetuning_jobs(config, row, task, share, mixed)
        yield from _probe_jobs(row, task, share)


def _probe_jobs(row: Row, task: Task, share: float) -> Iterator[Job]:
    """Yield the job of every probe of one trunk; one on decoder features only where the decoder was trained."""
    pretrain, plugin = row.pretrain, registry.load("downstreams", task.name)
    for one in task.evaluations:
        decoded = getattr(one.probe, "source", "encoder") == "decoder"
        trained = row.brings == "all" and (recipe_of(pretrain).epochs > 0 or pretrain.weights is not None)
        if one.probe is None or (decoded and not trained):
            continue
        name = task.label.partition("+")[0]
        settings, usual = (protocol_of_probe(some, one.probe) for some in (task.protocol, plugin.protocols[name]))
        yield Job(
            pretrain=pretrain,
            downstream=task.name,
            version=plugin.version,
            source=registry.source_digest("downstreams", task.name),
            protocol=label_of(name, settings, usual),
            settings=settings,
            schedule="frozen",
            size=task.size,
            data_fingerprint=task.data_fingerprint,
            splits_fingerprint=task.splits_fingerprint,
            seed=pretrain.seed,
            statistics_version=statistics_version(pretrain, "all"),
            labels=share,
            probe=one.probe,
        )


def label_of(name: str, protocol: Protocol, usual: Protocol) -> str:
    """Return a protocol's name and the settings in which it differs from the usual one of that name, in alphabetical order."""
    changes = protocol.differences(usual).items()
    return "+".join([name, *(f"{key}={value if isinstance(value, str) else canonical(value)}" for key, value in changes)])


def protocol_of_probe(protocol: Protocol, probe: Probe) -> Protocol:
    """Return what a probe needs of a protocol: its data, size and metrics, and nothing that only training depends on.

    Train and val are fitted. Images are neither cut nor augmented; those with masks keep their proportions, so that masks are
    scored at their original resolution. Difficult objects are not judged. Batch norm has running statistics.
    """
    dense = probe.needs == "masks"
    names = {"summary", "size", "trunk", "split_scheme", "masks", "interpolation", "void", "calibration"}
    kept = protocol.model_dump(include=names)
    return Protocol(
        **kept,
        fit=("train", "val"),
        resize="letterbox" if dense else "squash" if protocol.resize == "crop" else protocol.resize,
        batch_size=protocol.batch_size,
        schedules={"frozen": ()},
        difficult="ignore",
        metrics=("map_lowshot",) if isinstance(probe, LowShot) else protocol.metrics,
    )


def _finetuning_jobs(config: RunConfig, row: Row, task: Task, share: float, mixed: bool) -> Iterator[Job]:
    """Yield the fine-tuning jobs of one trunk on one task at one share of labels."""
    pretrain = row.pretrain
    plugin = registry.load("downstreams", task.name)
    schedules = tuple(dict.fromkeys(config.schedule)) or registry.load("pretexts", pretrain.pretext).schedules
    _check_rates(config.rates, task.protocol, schedules)
    for name in schedules:
        if name not in task.protocol.schedules:
            raise UsageError(f"protocol {task.label} has no {name} schedule for {row.label}; choose one by --schedule.")
        try:
            scaled(task.protocol.schedules[name], task.protocol.epochs)
        except ValueError as error:
            raise UsageError(f"{task.name}, {name}: {error}.") from error
    dense = plugin.is_dense(TrunkName.parse(pretrain.trunk).family == "unet")
    for transfer in _transfers(config, row, dense, mixed):
        frozen: Frozen = "encoder" if dense and transfer == "encoder" else "trunk"
        for schedule in schedules:
            yield Job(
                pretrain=pretrain,
                downstream=task.name,
                version=plugin.version,
                source=registry.source_digest("downstreams", task.name),
                protocol=task.label,
                settings=task.protocol,
                schedule=schedule,
                size=task.size,
                data_fingerprint=task.data_fingerprint,
                splits_fingerprint=task.splits_fingerprint,
                seed=pretrain.seed,
                transfer=transfer,
                frozen=frozen,
                statistics_version=statistics_version(pretrain, "all" if frozen == "encoder" else transfer),
                labels=share,
                rates=config.rates,
            )


def _transfers(config: RunConfig, row: Row, dense: bool, mixed: bool) -> Sequence[Transfer]:
    """Return what a task inherits of a row: what the user asks for and the row brings.

    Left out, it is all that the row brings. Where some rows of a grid bring an encoder alone, a dense task is scored with the
    encoder alone of every row too, so that there is a column with all rows. A task that uses no decoder inherits the encoder
    either way.
    """
    asked: Sequence[Transfer] = tuple(dict.fromkeys(config.transfer))
    if not dense:
        return asked if asked and recipe_of(row.pretrain).epochs else ("all",)
    if row.brings == "encoder":
        if asked and "encoder" not in asked:
            raise UsageError(f"{row.label} brings an encoder alone, so it has no decoder to inherit; leave --transfer out.")
        return ("encoder",)
    return asked or (("all", "encoder") if mixed else ("all",))


def pretrain_job(
    pretext: str,
    recipe: Recipe,
    trunk: str,
    size: int,
    images: Splits | None,
    held_out: HeldOut | None,
    weights: Weights | None = None,
) -> PretrainJob:
    """Return the job of one pretrained trunk, with seed 0; a recipe of 0 epochs needs no images. It may begin with weights."""
    plugin = registry.load("pretexts", pretext)
    trained = images if recipe.epochs else None
    return PretrainJob(
        pretext=pretext,
        version=plugin.version,
        source=registry.source_digest("pretexts", pretext),
        recipe=recipe.identity(),
        trunk=trunk,
        size=size,
        data_fingerprint=trained.data_fingerprint if trained else NO_DATA,
        splits_fingerprint=trained.fingerprint if trained else NO_DATA,
        seed=0,
        held_out=held_out if trained else None,
        weights=weights,
    )


def weights_job(weights: Weights, trunk: str, size: int) -> PretrainJob:
    """Return the job of a trunk with weights from elsewhere, with seed 0."""
    version = registry.load("pretexts", INIT).version
    return PretrainJob(
        pretext=INIT,
        version=version,
        trunk=trunk,
        size=size,
        data_fingerprint=NO_DATA,
        splits_fingerprint=NO_DATA,
        seed=0,
        weights=weights,
    )


def recipe_of(job: PretrainJob) -> Recipe:
    """Return the whole recipe of a pretraining job, defaults included."""
    settings = {name: value for name, value in job.recipe.items() if name != "defaults_version"}
    return cast(Recipe, registry.load("pretexts", job.pretext).Recipe.model_validate(settings))


def statistics_version(pretrain: PretrainJob, transfer: Transfer) -> int:
    """Return a job's `statistics_version`: 2 for an encoder alone and for a trainable pretext task with 0 epochs, else 1.

    Tasks that never train, such as random_init, have it at 1: their own version was raised when statistics were first measured.
    """
    untrained = not recipe_of(pretrain).epochs and registry.load("pretexts", pretrain.pretext).Recipe().epochs
    return STATISTICS_VERSION if transfer != "all" or untrained else 1


def subset_of(downstream: Any, protocol: Protocol, data: Dataset) -> str:
    """Return the name of the subset of images that a downstream task reads: `labels`, `boxes`, or the name of its mask folder.

    Layouts other than VOC have one folder of masks, whatever a protocol that was written for VOC calls it.
    """
    if downstream.data != "masks":
        return str(downstream.data)
    usual = Protocol.model_fields["masks"].default
    return next(iter(data.masks), protocol.masks) if data.kind != "voc" and protocol.masks == usual else protocol.masks


def pack_of(subset: str, protocol: Protocol, size: int) -> tuple[str, PackRule]:
    """Return what names the pack that a job reads: the subset of images (`images` or a mask folder), and how to resize them."""
    rule = PackRule(size=size, resize=protocol.resize, interpolation=protocol.interpolation)
    return ("images" if subset in ("labels", "boxes") else subset), rule


def _check_rates(rates: Sequence[float], protocol: Protocol, schedules: Sequence[Schedule]) -> None:
    for schedule in schedules:
        phases = protocol.schedules.get(schedule, ())
        if rates and (len(rates) != len(phases) or not all(0 < rate < math.inf for rate in rates)):
            given = ", ".join(f"{rate:g}" for rate in rates)
            raise UsageError(
                f"--rates takes {len(phases)} rates above 0, one for each phase of the schedule {schedule}, but got {given}; "
                "choose the schedule with --schedule."
            )


def spread(jobs: Sequence[Job]) -> list[str]:
    """Return a line for each downstream task whose epochs were changed: how many each phase of a schedule has now."""
    found: dict[str, dict[str, str]] = {}
    for job in jobs:
        if job.settings.epochs is not None:
            phases = " + ".join(f"{phase.epochs} ({PARTS[phase.train]})" for phase in job.phases)
            found.setdefault(f"{job.downstream} has {job.settings.epochs} epochs", {})[job.schedule] = phases
    cut = {job.downstream: job.settings.most_steps for job in jobs if job.settings.most_steps is not None}
    return [
        *(f"{task}: {'; '.join(f'{name} {phases}' for name, phases in each.items())}" for task, each in found.items()),
        *(f"{task} ends after {most:,} training steps, whatever its epochs" for task, most in cut.items()),
    ]
