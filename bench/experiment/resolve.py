"""From a configuration to jobs: names looked up, defaults filled in, settings applied, data opened."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from bench import metrics, registry, surface
from bench.config import PAPER_SIZE, RunConfig
from bench.data import catalogue, leaks, splits
from bench.data.dataset import Dataset
from bench.data.splits import Splits
from bench.errors import UsageError, unknown
from bench.experiment import choice, evaluations, initialisations
from bench.experiment.initialisations import Initialisation
from bench.experiment.jobs import (
    Evaluation,
    Row,
    Task,
    all_jobs,
    label_of,
    pretrain_job,
    spread,
    subset_of,
    weights_job,
)  # fmt: skip
from bench.experiment.targets import Target, open_data, targets_of
from bench.initialisation import INIT
from bench.job import HeldOut, Job, PretrainJob
from bench.models.trunk import TrunkName, check_size, smallest_size
from bench.probe import PROBES
from bench.protocol import Protocol, Recipe, Transfer
from bench.record import Leaks
from bench.schema import canonical
from bench.text import Echo, quoted

SMALL = ("small", "demo")
"""The protocols whose size is also that of pretraining; in others it is the task's alone (standard segmentation: 512)."""
PHOTOGRAPHS, DRAWN = "small", "demo"
"""The protocols where --protocol is left out: of photographs, and of the drawn demo data."""

Changes = Mapping[str, Mapping[str, Any]]
"""The settings that `--set` changes, by owner (recipe, protocol, a pretext task or a downstream task) and name."""


@dataclass(frozen=True)
class Grid:
    """All jobs of a configuration, and the data sets that they read."""

    jobs: list[Job]
    data: Mapping[str, Dataset]
    """The labelled data by name, as the user wrote it, so that the same command can be written again; so is `pretrain_name`."""
    pretrain_data: Dataset | None
    pretrain_name: str | None = None
    protocol: str = ""
    """The name of the protocol, before its changes."""
    notes: list[str] = field(default_factory=list)
    initialisations: list[Initialisation] = field(default_factory=list)
    """The weights from elsewhere that rows begin with."""
    leaks: dict[tuple[str, str], Leaks] = field(default_factory=dict)
    """What was found of leaks, by the fingerprints of the pretraining split and of the scored one (`bench.experiment.leaks`)."""

    def data_of(self, job: Job) -> Dataset:
        """Return the labelled data of a job."""
        return self.data[self.data_name_of(job)]

    def data_name_of(self, job: Job) -> str:
        """Return the labelled data of a job as the user named it."""
        return next(name for name, data in self.data.items() if data.fingerprint == job.data_fingerprint)

    def label_of(self, job: PretrainJob) -> str:
        """Return what a row is called: the pretext task, the label of weights from elsewhere, or both as TASK@LABEL."""
        label = next((one.label for one in self.initialisations if one.weights == job.weights), "")
        return "@".join(filter(None, ("" if job.pretext == INIT else job.pretext, label)))


def resolve(config: RunConfig, echo: Echo, known: Mapping[str, Dataset] | None = None) -> Grid:
    """Return the grid of a configuration; UsageError or DataError when something does not exist or does not fit.

    `known` are data sets that are open already, by name.
    """
    asked = _asked(config.pretext, TrunkName.parse(config.trunk or "unet").preprocessing)
    pretexts = list(dict.fromkeys(one.name for one in asked))
    registry.names("downstreams", config.tasks)
    targets, pretrain_name, notes = targets_of(config)
    downstreams = list(dict.fromkeys(one.task for one in targets))
    for kind, chosen in (("pretexts", pretexts), ("downstreams", downstreams)):
        for name in chosen:
            registry.check_complete(kind, name)
    changes = _settings(config.settings, pretexts, [*downstreams, *(one.key for one in targets)])
    _check_contradictions(config, [*downstreams, *(one.key for one in targets)], changes)
    if config.epochs is not None:
        changes = {**changes, "protocol": {**changes.get("protocol", {}), "epochs": config.epochs}}
    protocol_name = config.protocol or _default_protocol(targets[0].data == catalogue.DEMO_LABELLED, downstreams)
    evaluated = evaluations.of_tasks(config, downstreams, changes)
    protocols = {one: _protocol(one, protocol_name, changes) for one in targets}
    recipes = {name: _recipe(name, protocol_name, changes) for name in pretexts}
    own_size = next((p.size for _, p in protocols.values() if p.size and protocol_name in SMALL), None)
    size = config.size or own_size or PAPER_SIZE
    sizes = {one: config.size or protocol.size or size for one, (_, protocol) in protocols.items()}
    weights = initialisations.open_sources(initialisations.parse(config))
    default = initialisations.trunk_for(weights) or protocols[targets[0]][1].trunk
    parsed, of_trunk = _seen(TrunkName.parse(config.trunk or default), pretexts, bool(config.trunk))
    trunk, notes = parsed.fitted(size), [*notes, *of_trunk]
    for fitting in {size, *sizes.values()}:
        check_size(str(trunk), fitting)
    _check_feeds(recipes, str(trunk), size)
    loaded = initialisations.initialise(config, weights, trunk, size, echo)

    def opened(name: str) -> Dataset:
        return (known or {}).get(name) or catalogue.open_dataset(name, echo)

    data = open_data(targets, opened)
    tasks = [_task(config, one, protocols[one], sizes[one], data[one.data], evaluated[one.task], echo) for one in targets]
    needs_images = any(recipe.epochs for recipe in recipes.values())
    if needs_images and pretrain_name is None:
        pretrain_name = catalogue.pretraining_data_for(targets[0].data)
    if config.pretrain_data and not needs_images:
        echo("--pretrain-data is not used, since no pretext task here is trained")
    pretrain_data = opened(pretrain_name) if needs_images and pretrain_name else None
    schemes = {protocol.split_scheme for _, protocol in protocols.values()}
    images, held_out = _pretraining_images(config, pretrain_data, data, schemes, echo)
    rows = [
        Row(pretrain_job(one.name, recipes[one.name], str(trunk), size, images, held_out, given), one.brings, one.label)
        for one, given in ((one, initialisations.begun_with(one.begins, loaded)) for one in asked)
    ]
    rows += [Row(weights_job(one.weights, str(trunk), size), one.origin.brings, one.label) for one in loaded]
    for task, one in zip(tasks, targets, strict=True):
        evaluations.check([task], str(trunk), data[one.data])
    jobs = all_jobs(config, rows, tasks)
    if not jobs:
        raise UsageError("nothing is left to run: no row here brings a trained decoder, which is all that is probed.")
    notes += spread(jobs)
    return Grid(jobs, data, pretrain_data, pretrain_name if needs_images else None, protocol_name, notes, loaded)


def _task(
    config: RunConfig,
    target: Target,
    labelled: tuple[str, Protocol],
    size: int,
    data: Dataset,
    evaluated: tuple[Evaluation, ...],
    echo: Echo,
) -> Task:
    """Return a downstream task on its data; UsageError or DataError where its splits do not serve what is asked for."""
    label, protocol = labelled
    subset = subset_of(registry.load("downstreams", target.task), protocol, data)
    made = splits.open_splits(data, protocol.split_scheme, subset, echo)
    choice.check_scored(data, made, config.labels, echo)
    if config.tune:
        choice.check(data, made, min(config.labels), echo)
    if any(one.probe is not None and one.probe.validates for one in evaluated):
        choice.check(data, made, min(config.labels), echo, f"--evaluate {evaluations.asked(evaluated)}")
    return Task(target.task, label, protocol, size, data.fingerprint, made.fingerprint, evaluated)


def _pretraining_images(
    config: RunConfig, pretrain_data: Dataset | None, data: Mapping[str, Dataset], schemes: set[str], echo: Echo
) -> tuple[Splits | None, HeldOut | None]:
    """Return the splits that trunks are pretrained on, and what `--leaks drop` took out of them, if anything."""
    if pretrain_data is None:
        return None, None
    whole = splits.open_splits(pretrain_data, "pretraining", "images", echo)
    if config.leaks != "drop":
        return whole, None
    if len(data) > 1:
        raise UsageError(f"--leaks drop takes one labelled data set, and this command has {', '.join(data)}; run each by itself.")
    (labelled,) = data.values()
    held_out = HeldOut(data_fingerprint=labelled.fingerprint, schemes=tuple(sorted(schemes)))
    kept = leaks.without(whole, pretrain_data, labelled, held_out, echo)
    return kept, held_out if kept != whole else None


@dataclass(frozen=True)
class _Asked:
    """A pretext task that was asked for, what it brings, and the label of the weights that it begins with, "" for random ones."""

    name: str
    brings: Transfer
    begins: str

    @property
    def label(self) -> str:
        return f"{self.name}@{self.begins}" if self.begins else self.name


def _asked(pretexts: Sequence[str], seen: str) -> list[_Asked]:
    """Return the pretext tasks asked for: NAME, NAME:shuffled, each with @LABEL where it begins with the weights of an `--init`.

    Of a group's tasks those are left out that do not take a trunk with the preprocessing `seen`.
    What each brings is its own, or an encoder alone where :encoder stands at the end. NAME:shuffled is a task of its own, with
    other targets, so NAME:shuffled:encoder is possible too.
    """
    found: dict[_Asked, None] = {}
    for text in pretexts:
        first, at, label = text.partition("@")
        label, colon_of_label, part_of_label = label.partition(":")
        whole = first + colon_of_label + part_of_label
        name, colon, part = whole.rpartition(":")
        if not colon or part == registry.SHUFFLED:
            name, part = whole, ""
        if part not in ("", "encoder") or (at and not label):
            raise UsageError(
                f"--pretext takes NAME, NAME:encoder, which brings its encoder alone, NAME:{registry.SHUFFLED}, whose answers "
                f"belong to other images, or NAME@LABEL, which begins with the weights of --init LABEL, but got {quoted(text)}."
            )
        chosen = registry.names("pretexts", [name])
        for one in chosen:
            task = registry.load("pretexts", one)
            if chosen != [name] and task.preprocessing and seen not in task.preprocessing:
                continue  # a group is those of its tasks that take the trunk
            if label and not task.Recipe().epochs:
                raise UsageError(f"{one} trains nothing, so {text} would be the row {label} again; leave it out.")
            found[_Asked(one, "encoder" if part or task.trains == "encoder" else "all", label)] = None
    return list(found)


def _seen(trunk: TrunkName, pretexts: Sequence[str], named: bool) -> tuple[TrunkName, list[str]]:
    """Return the trunk with a preprocessing that all pretext tasks take, and a note where it is not the usual one.

    UsageError where there is none, and where the user `named` a trunk that one of them does not take.
    """
    taken = {name: registry.load("pretexts", name).preprocessing for name in pretexts}
    choosy = {name: accepted for name, accepted in taken.items() if accepted and trunk.preprocessing not in accepted}
    if not choosy:
        return trunk, []
    name, accepted = next(iter(choosy.items()))
    others = [other for other, takes in taken.items() if takes and accepted[0] not in takes]
    if others:
        raise UsageError(
            f"{name} takes a trunk with preprocessing={accepted[0]} and {others[0]} takes none such; run them apart."
        )
    if named or trunk.family != "unet":
        example = f"--trunk unet:preprocessing={accepted[0]}"
        raise UsageError(f"{name} takes no trunk {trunk}, but one with preprocessing={accepted[0]}, such as {example}.")
    fitting = trunk.model_copy(update={"preprocessing": accepted[0]})
    return fitting, [f"{name} takes a trunk with preprocessing={accepted[0]}, so every row here has one"]


def _check_feeds(recipes: Mapping[str, Recipe], trunk: str, size: int) -> None:
    """Raise UsageError where a pretext task would feed the trunk patches or crops of a size that it does not take."""
    for name, recipe in recipes.items():
        if not recipe.epochs:
            continue
        for what, side in registry.load("pretexts", name).feeds(recipe, size, smallest_size(trunk)).items():
            try:
                check_size(trunk, side)
            except UsageError as error:
                raise UsageError(f"{name} feeds {what} of {side} px to the trunk: {error}") from error


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


def _protocol(target: Target, name: str, changes: Changes) -> tuple[str, Protocol]:
    """Return a protocol after `--set`, and before it its label: its name and the changed settings, in alphabetical order."""
    downstream = target.task
    plugin = registry.load("downstreams", downstream)
    if name not in plugin.protocols:
        raise unknown("protocol", name, plugin.protocols, f" of {downstream}")
    base: Protocol = plugin.protocols[name]
    own = {**changes.get("protocol", {}), **changes.get(downstream, {}), **changes.get(target.key, {})}
    protocol = base.with_changes(own, f"protocol {name} of {downstream}") if own else base
    if all(sum(phase.epochs for phase in phases) == protocol.epochs for phases in protocol.schedules.values()):
        protocol = protocol.model_copy(update={"epochs": None})  # nothing changes, and the rows are the same
    if protocol.evaluate_on == "whole" and plugin.data != "masks":
        raise UsageError(f"evaluate_on=whole is for tasks with masks, and {downstream} has {plugin.data}.")
    if plugin.data == "boxes" and (protocol.resize == "crop" or protocol.augmentation in ("crop", "scale")):
        raise UsageError(
            f"{downstream} has boxes, which are mirrored at most: resize=squash or letterbox, augmentation=none or flip."
        )
    needed = {"labels": ("scores",), "masks": ("confusion", "surface"), "boxes": ("boxes",)}[plugin.data]
    found = [metrics.get(metric) for metric in protocol.metrics]
    for metric in found:
        if metric.needs not in needed:
            raise UsageError(f"{metric.id} is no metric of {downstream}: the metric needs {metric.needs}.")
        if metric.needs == "surface":
            surface.require()
        if metric.single and not plugin.single:
            raise UsageError(f"{metric.id} is of images that have one class each, and {downstream} is for others too.")
    if found[0].lower:
        raise UsageError(f"{found[0].id} is better when lower, so it is no main metric; name another one first.")
    protocol = protocol.model_copy(update={"metrics": tuple(metric.id for metric in found)})
    return label_of(name, protocol, base), protocol


def _recipe(pretext: str, protocol: str, changes: Changes) -> Recipe:
    plugin = registry.load("pretexts", pretext)
    known = plugin.Recipe.model_fields if plugin.Recipe().epochs else ()
    common = {name: value for name, value in changes.get("recipe", {}).items() if name in known}
    own = {**changes.get(pretext.partition(":")[0], {}), **changes.get(pretext, {})}
    recipe = plugin.default_recipe(protocol).with_changes({**common, **own}, f"recipe of {pretext}")
    return cast(Recipe, recipe)


def _settings(texts: Sequence[str], pretexts: Sequence[str], downstreams: Sequence[str]) -> Changes:
    """Return the changes of `--set owner.name=value`; an owner is recipe, protocol, a pretext or downstream task, or a probe."""
    bases = [name.partition(":")[0] for name in pretexts]
    owners = tuple(dict.fromkeys(("recipe", "protocol", *bases, *pretexts, *downstreams, *PROBES)))
    changes: dict[str, dict[str, Any]] = {}
    for text in texts:
        target, equals, value = text.partition("=")
        owner, dot, name = target.strip().rpartition(".") if "@" in target else target.strip().partition(".")
        if not (equals and dot and name):
            raise UsageError(f"--set takes owner.name=value, for example recipe.lr=1e-4, but got {quoted(text)}.")
        if owner not in owners:
            raise unknown("owner", owner, owners, " of a setting")
        try:
            changes.setdefault(owner, {})[name] = json.loads(value)
        except (ValueError, RecursionError):  # what Python cannot read as JSON is a text
            changes.setdefault(owner, {})[name] = value
    recipes = [registry.load("pretexts", pretext).Recipe() for pretext in pretexts or (INIT,)]
    for name in changes.get("recipe", {}):
        if not any(name in type(recipe).model_fields for recipe in recipes):
            raise _unknown_setting(name, recipes)
    return changes


def _unknown_setting(name: str, recipes: Sequence[Recipe]) -> UsageError:
    """Return the error for a setting that no recipe has: the settings that there are, with their defaults."""
    known = {field: value for recipe in reversed(recipes) for field, value in recipe.model_dump(mode="json").items()}
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    taken = ", ".join(f"{field}={canonical(value)}" for field, value in sorted(known.items()))
    return UsageError(f"unknown setting {quoted(name)} of the recipe{hint} It takes, with these defaults: {taken}.")
