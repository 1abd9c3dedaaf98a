"""From a configuration to jobs: names looked up, defaults filled in, settings applied, data opened."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from bench import metrics, registry
from bench.config import PAPER_SIZE, Protocol, Recipe, RunConfig, Schedule, Transfer
from bench.data import catalogue, leaks, splits
from bench.data.dataset import Dataset
from bench.data.packs import PackRule
from bench.data.splits import Splits
from bench.errors import UsageError, unknown
from bench.experiment import choice
from bench.job import NO_DATA, HeldOut, Job, PretrainJob, scaled
from bench.models.trunk import TrunkName, check_size
from bench.record import Leaks
from bench.schema import canonical
from bench.text import Echo, quoted

STATISTICS_VERSION = 2
"""2: the batch norms of a new decoder, and of a trunk that was left untrained, have measured statistics."""
SMALL = ("small", "demo")
"""The protocols whose size is also that of pretraining; in others it is the task's alone (standard segmentation: 512)."""
MOST_RUNS = 100_000
PHOTOGRAPHS, DRAWN = "small", "demo"
"""The protocols where --protocol is left out: of photographs, and of the drawn demo data."""
PARTS = {"head": "the head alone", "all": "everything"}
"""What a phase trains, in words."""

Changes = Mapping[str, Mapping[str, Any]]
"""The settings that `--set` changes, by owner (recipe, protocol, a pretext task or a downstream task) and name."""


@dataclass(frozen=True)
class Grid:
    """All jobs of a configuration, and the data sets that they read."""

    jobs: list[Job]
    data: Dataset
    pretrain_data: Dataset | None
    data_name: str = ""
    pretrain_name: str | None = None
    """`data_name` and `pretrain_name` are the data sets as the user named them, so that the same command can be written again."""
    protocol: str = ""
    """The name of the protocol, before its changes."""
    notes: list[str] = field(default_factory=list)
    leaks: dict[tuple[str, str], Leaks] = field(default_factory=dict)
    """What was found of leaks, by the fingerprints of the pretraining split and of the scored one (`bench.experiment.leaks`)."""


@dataclass(frozen=True)
class _Task:
    """A downstream task with its protocol, size and splits; `label` is the protocol's name with the changed settings."""

    name: str
    label: str
    protocol: Protocol
    size: int
    splits_fingerprint: str


def resolve(config: RunConfig, echo: Echo, known: Mapping[str, Dataset] | None = None) -> Grid:
    """Return the grid of a configuration; UsageError or DataError when something does not exist or does not fit.

    `known` are data sets that are open already, by name.
    """
    pretexts = registry.names("pretexts", config.pretext)
    downstreams = registry.names("downstreams", config.tasks)
    for kind, chosen in (("pretexts", pretexts), ("downstreams", downstreams)):
        for name in chosen:
            registry.check_complete(kind, name)
    changes = _settings(config.settings, pretexts, downstreams)
    _check_contradictions(config, downstreams, changes)
    if config.epochs is not None:
        changes = {**changes, "protocol": {**changes.get("protocol", {}), "epochs": config.epochs}}
    data_name, pretrain_name, notes = _choose_data(config)
    protocol_name = config.protocol or _default_protocol(data_name == catalogue.DEMO_LABELLED, downstreams)
    protocols = {name: _protocol(name, protocol_name, changes) for name in downstreams}
    recipes = {name: _recipe(name, protocol_name, changes) for name in pretexts}
    own_size = next((p.size for _, p in protocols.values() if p.size and protocol_name in SMALL), None)
    size = config.size or own_size or PAPER_SIZE
    sizes = {name: config.size or protocol.size or size for name, (_, protocol) in protocols.items()}
    trunk = TrunkName.parse(config.trunk or protocols[downstreams[0]][1].trunk).fitted(size)
    for fitting in {size, *sizes.values()}:
        check_size(str(trunk), fitting)

    def opened(name: str) -> Dataset:
        return (known or {}).get(name) or catalogue.open_dataset(name, echo)

    data = opened(data_name)
    tasks = []
    for name, (label, protocol) in protocols.items():
        subset = subset_of(registry.load("downstreams", name), protocol)
        made = splits.open_splits(data, protocol.split_scheme, subset, echo)
        if config.tune:
            choice.check(data, made, min(config.labels), echo)
        tasks.append(_Task(name, label, protocol, sizes[name], made.fingerprint))
    needs_images = any(recipe.epochs for recipe in recipes.values())
    if needs_images and pretrain_name is None:
        pretrain_name = catalogue.pretraining_data_for(data_name)
    if config.pretrain_data and not needs_images:
        echo("--pretrain-data is not used, since no pretext task here is trained")
    pretrain_data = opened(pretrain_name) if needs_images and pretrain_name else None
    pretrain_splits = splits.open_splits(pretrain_data, "pretraining", "images", echo) if pretrain_data else None
    held_out = None
    if pretrain_data and pretrain_splits and config.leaks == "drop":
        schemes = tuple(sorted({protocol.split_scheme for _, protocol in protocols.values()}))
        held_out = HeldOut(data_fingerprint=data.fingerprint, schemes=schemes)
        whole, pretrain_splits = pretrain_splits, leaks.without(pretrain_splits, pretrain_data, data, held_out, echo)
        held_out = held_out if pretrain_splits != whole else None
    pretrain = [_pretrain_job(name, recipes[name], str(trunk), size, pretrain_splits, held_out) for name in pretexts]
    jobs = _all_jobs(config, pretrain, tasks, data.fingerprint)
    notes += _spread(jobs)
    return Grid(jobs, data, pretrain_data, data_name, pretrain_name if needs_images else None, protocol_name, notes)


def _all_jobs(config: RunConfig, pretrain: Sequence[PretrainJob], tasks: Sequence[_Task], data_fingerprint: str) -> list[Job]:
    """Return the jobs of every seed, pretext task and downstream task; those of further seeds are copies of the first one's."""
    first = config.all_seeds[0]
    of_one_seed = [
        [job for task in tasks for job in _jobs(config, trunk.model_copy(update={"seed": first}), task, data_fingerprint, first)]
        for trunk in pretrain
    ]
    count = sum(map(len, of_one_seed)) * len(config.all_seeds)
    if count > MOST_RUNS:
        raise UsageError(f"a command makes at most {MOST_RUNS:,} runs, but this one has {count:,}; divide it into several.")
    jobs: list[Job] = []
    for seed in config.all_seeds:
        for made in filter(None, of_one_seed):
            trunk = made[0].pretrain.model_copy(update={"seed": seed if config.vary == "all" else first})
            jobs += (job.model_copy(update={"seed": seed, "pretrain": trunk}) for job in made)
    return jobs


def _spread(jobs: Sequence[Job]) -> list[str]:
    """Return a line for each downstream task whose epochs were changed: how many each phase of a schedule has now."""
    found: dict[str, dict[str, str]] = {}
    for job in jobs:
        if job.settings.epochs is not None:
            phases = " + ".join(f"{phase.epochs} ({PARTS[phase.train]})" for phase in job.phases)
            found.setdefault(f"{job.downstream} has {job.settings.epochs} epochs", {})[job.schedule] = phases
    return [f"{task}: {'; '.join(f'{name} {phases}' for name, phases in each.items())}" for task, each in found.items()]


def _jobs(config: RunConfig, pretrain: PretrainJob, task: _Task, data_fingerprint: str, seed: int) -> Iterator[Job]:
    """Yield the jobs of one trunk on one task: for every share of labels, every transfer and every schedule."""
    plugin = registry.load("downstreams", task.name)
    schedules = tuple(dict.fromkeys(config.schedule)) or registry.load("pretexts", pretrain.pretext).schedules
    _check_rates(config.rates, task.protocol, schedules)
    for name in schedules:
        if name not in task.protocol.schedules:
            raise UsageError(f"protocol {task.label} has no {name} schedule for {pretrain.pretext}; choose one by --schedule.")
        try:
            scaled(task.protocol.schedules[name], task.protocol.epochs)
        except ValueError as error:
            raise UsageError(f"{task.name}, {name}: {error}.") from error
    transfers: Sequence[Transfer] = tuple(dict.fromkeys(config.transfer)) if recipe_of(pretrain).epochs else ("all",)
    for share in dict.fromkeys(config.labels):
        for transfer in transfers:
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
                    data_fingerprint=data_fingerprint,
                    splits_fingerprint=task.splits_fingerprint,
                    seed=seed,
                    transfer=transfer,
                    statistics_version=statistics_version(pretrain, transfer),
                    labels=share,
                    rates=config.rates,
                )


def _pretrain_job(
    pretext: str, recipe: Recipe, trunk: str, size: int, images: Splits | None, held_out: HeldOut | None
) -> PretrainJob:
    """Return the job of one pretrained trunk, with seed 0; a recipe of 0 epochs needs no images."""
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
    )


def recipe_of(job: PretrainJob) -> Recipe:
    """Return the whole recipe of a pretraining job, defaults included."""
    settings = {name: value for name, value in job.recipe.items() if name != "defaults_version"}
    return cast(Recipe, registry.load("pretexts", job.pretext).Recipe.model_validate(settings))


def statistics_version(pretrain: PretrainJob, transfer: Transfer) -> int:
    """Return a job's `statistics_version`: 2 for --transfer encoder and for a trainable pretext task with 0 epochs, else 1.

    Tasks that never train, such as random_init, have it at 1: their own version was raised when statistics were first measured.
    """
    untrained = not recipe_of(pretrain).epochs and registry.load("pretexts", pretrain.pretext).Recipe().epochs
    return STATISTICS_VERSION if transfer != "all" or untrained else 1


def subset_of(downstream: Any, protocol: Protocol) -> str:
    """Return the name of the subset of images that a downstream task reads: `labels`, or the name of its mask folder."""
    return "labels" if downstream.data == "labels" else protocol.masks


def pack_of(subset: str, protocol: Protocol, size: int) -> tuple[str, PackRule]:
    """Return what names the pack that a job reads: the subset of images (`images` or a mask folder), and how to resize them."""
    rule = PackRule(size=size, resize=protocol.resize, interpolation=protocol.interpolation)
    return ("images" if subset == "labels" else subset), rule


def _choose_data(config: RunConfig) -> tuple[str, str | None, list[str]]:
    """Return the labelled data, the images to pretrain on (None: chosen by the labelled data), and notes for the user."""
    if config.labelled_data:
        return config.labelled_data, config.pretrain_data, []
    labelled, unlabelled, note = catalogue.defaults(config.pretrain_data)
    return labelled, unlabelled, [note] if note else []


def _default_protocol(drawn: bool, downstreams: Sequence[str]) -> str:
    """Return the protocol where none is named: `demo` for the drawn demo data, `small` for photographs, on every machine alike.

    Where a downstream task lacks it, as one of a user's own may, it is the first protocol that all these tasks have.
    """
    preferred = DRAWN if drawn else PHOTOGRAPHS
    its = [registry.protocols(name) for name in downstreams]
    return next((name for name in (preferred, *its[0]) if all(name in known for known in its)), preferred)


def _check_contradictions(config: RunConfig, downstreams: Sequence[str], changes: Changes) -> None:
    for owner in downstreams:
        if "trunk" in changes.get(owner, {}):
            raise UsageError(f"--set {owner}.trunk: one trunk serves every downstream task; give --trunk.")
    for name, given in (("size", config.size), ("trunk", config.trunk), ("epochs", config.epochs)):
        for owner in ("protocol", *downstreams):
            if given and name in changes.get(owner, {}):
                raise UsageError(f"--{name} and --set {owner}.{name} contradict each other; give one of the two.")


def _protocol(downstream: str, name: str, changes: Changes) -> tuple[str, Protocol]:
    """Return a protocol after `--set`, and before it its label: its name and the changed settings, in alphabetical order."""
    plugin = registry.load("downstreams", downstream)
    if name not in plugin.protocols:
        raise unknown("protocol", name, plugin.protocols, f" of {downstream}")
    base: Protocol = plugin.protocols[name]
    own = {**changes.get("protocol", {}), **changes.get(downstream, {})}
    protocol = base.with_changes(own, f"protocol {name} of {downstream}") if own else base
    if all(sum(phase.epochs for phase in phases) == protocol.epochs for phases in protocol.schedules.values()):
        protocol = protocol.model_copy(update={"epochs": None})  # nothing changes, and the rows are the same
    if protocol.evaluate_on == "whole" and plugin.data == "labels":
        raise UsageError(f"evaluate_on=whole is for tasks with masks, and {downstream} has labels.")
    needed = "scores" if plugin.data == "labels" else "confusion"
    for metric in protocol.metrics:
        if metrics.get(metric).needs != needed:
            raise UsageError(f"{metric} is no metric of {downstream}: the metric needs {metrics.get(metric).needs}.")
    protocol = protocol.model_copy(update={"metrics": tuple(metrics.get(metric).id for metric in protocol.metrics)})
    texts = [
        f"{key}={value if isinstance(value, str) else canonical(value)}" for key, value in protocol.differences(base).items()
    ]
    return "+".join([name, *texts]), protocol


def _recipe(pretext: str, protocol: str, changes: Changes) -> Recipe:
    plugin = registry.load("pretexts", pretext)
    known = plugin.Recipe.model_fields if plugin.Recipe().epochs else ()
    common = {name: value for name, value in changes.get("recipe", {}).items() if name in known}
    recipe = plugin.default_recipe(protocol).with_changes({**common, **changes.get(pretext, {})}, f"recipe of {pretext}")
    return cast(Recipe, recipe)


def _check_rates(rates: Sequence[float], protocol: Protocol, schedules: Sequence[Schedule]) -> None:
    for schedule in schedules:
        phases = protocol.schedules.get(schedule, ())
        if rates and (len(rates) != len(phases) or not all(0 < rate < math.inf for rate in rates)):
            given = ", ".join(f"{rate:g}" for rate in rates)
            raise UsageError(
                f"--rates takes {len(phases)} rates above 0, one for each phase of the schedule {schedule}, but got {given}; "
                "choose the schedule with --schedule."
            )


def _settings(texts: Sequence[str], pretexts: Sequence[str], downstreams: Sequence[str]) -> Changes:
    """Return the changes of `--set owner.name=value`; an owner is recipe, protocol, a pretext task or a downstream task."""
    owners = ("recipe", "protocol", *pretexts, *downstreams)
    changes: dict[str, dict[str, Any]] = {}
    for text in texts:
        target, equals, value = text.partition("=")
        owner, dot, name = target.strip().partition(".")
        if not (equals and dot and name):
            raise UsageError(f"--set takes owner.name=value, for example recipe.lr=1e-4, but got {quoted(text)}.")
        if owner not in owners:
            raise unknown("owner", owner, owners, " of a setting")
        try:
            changes.setdefault(owner, {})[name] = json.loads(value)
        except (ValueError, RecursionError):  # what Python cannot read as JSON is a text
            changes.setdefault(owner, {})[name] = value
    for name in changes.get("recipe", {}):
        fields = {field for pretext in pretexts for field in registry.load("pretexts", pretext).Recipe.model_fields}
        if name not in fields:
            raise _unknown_setting(name, [registry.load("pretexts", pretext).Recipe() for pretext in pretexts])
    return changes


def _unknown_setting(name: str, recipes: Sequence[Recipe]) -> UsageError:
    """Return the error for a setting that no recipe has: the settings that there are, with their defaults."""
    known = {field: value for recipe in reversed(recipes) for field, value in recipe.model_dump(mode="json").items()}
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    taken = ", ".join(f"{field}={canonical(value)}" for field, value in sorted(known.items()))
    return UsageError(f"unknown setting {quoted(name)} of the recipe{hint} It takes, with these defaults: {taken}.")
