"""From what was asked on the command line to jobs: names looked up, defaults filled in, data opened, settings applied."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from bench import metrics, registry
from bench.contract import Protocol, Recipe, Schedule, Transfer
from bench.data import catalogue, splits
from bench.data.dataset import Dataset, Echo
from bench.data.packs import PackRule
from bench.errors import UsageError, unknown
from bench.job import NO_DATA, Job, PretrainJob
from bench.models.trunk import TrunkName, check_size
from bench.schema import canonical
from bench.text import quoted

SCHEDULES: tuple[Schedule, ...] = ("one-phase", "two-phase", "frozen")
TRANSFERS: tuple[Transfer, ...] = ("all", "encoder")
STATISTICS_VERSION = 2
"""2: the batch norms of a new decoder, and of a trunk that was left untrained, have measured statistics."""
VARY = ("all", "finetune")
PAPER_SIZE = 256
SMALL = ("small", "demo")
"""Protocols whose size is that of the pretraining too; another's is that of its own images (standard segmentation: 512)."""


@dataclass(frozen=True)
class Request:
    """What the user asked for; None means: choose."""

    pretexts: tuple[str, ...]
    downstreams: tuple[str, ...]
    protocol: str | None = None
    data: str | None = None
    pretrain_data: str | None = None
    trunk: str | None = None
    size: int | None = None
    seeds: tuple[int, ...] = (0,)
    schedules: tuple[str, ...] = ()
    transfers: tuple[str, ...] = ("all",)
    labels: tuple[float, ...] = (1.0,)
    vary: str = "all"
    rates: tuple[float, ...] = ()
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """Every job that a request means, and the data they read."""

    jobs: list[Job]
    data: Dataset
    pretrain_data: Dataset | None
    data_name: str = ""
    pretrain_name: str | None = None
    """The data as the user named them, so that the same command can be written again."""
    notes: list[str] = field(default_factory=list)


def resolve(request: Request, echo: Echo) -> Grid:
    """Return the jobs of a request; UsageError or DataError when something does not exist or does not fit."""
    pretexts = registry.names("pretexts", request.pretexts)
    downstreams = registry.names("downstreams", request.downstreams)
    changes = _settings(request.settings, pretexts, downstreams)
    for owner in downstreams:
        if "trunk" in changes.get(owner, {}):
            raise UsageError(f"--set {owner}.trunk: one trunk serves every downstream task; give --trunk.")
    for name, asked in (("size", request.size), ("trunk", request.trunk)):
        for owner in ("protocol", *downstreams):
            if asked and name in changes.get(owner, {}):
                raise UsageError(f"--{name} and --set {owner}.{name} contradict each other; give one of the two.")
    data_name, pretrain_name, notes = _choose_data(request)
    protocol_name = request.protocol or ("demo" if data_name == catalogue.DEMO_LABELLED else "paper")
    shared = changes.get("protocol", {})
    protocols = {name: _protocol(name, protocol_name, {**shared, **changes.get(name, {})}) for name in downstreams}
    recipes = {name: _recipe(name, protocol_name, changes) for name in pretexts}
    schedules = {name: _schedules(name, request.schedules) for name in pretexts}
    transfers = _transfers(request.transfers)
    _check_shares(request)
    first = protocols[downstreams[0]][1]
    small = protocol_name in SMALL
    size = request.size or next((p.size for _, p in protocols.values() if p.size and small), PAPER_SIZE)
    trunk = TrunkName.parse(request.trunk or first.trunk).fitted(size)
    for fitting in {size, *(request.size or protocol.size or size for _, protocol in protocols.values())}:
        check_size(str(trunk), fitting)
    data = catalogue.open_dataset(data_name, echo)
    needs_images = any(recipe.epochs for recipe in recipes.values())
    if needs_images and pretrain_name is None:
        pretrain_name = catalogue.pretraining_data_for(data_name)
    pretrain_data = catalogue.open_dataset(pretrain_name, echo) if needs_images and pretrain_name else None
    if pretrain_data is not None:
        splits.open_split(pretrain_data, "pretraining", "images", echo)
    jobs = []
    for seed in request.seeds:
        for pretext in pretexts:
            trunk_seed = seed if request.vary == "all" else request.seeds[0]
            pretrain = pretrain_job(pretext, recipes[pretext], str(trunk), size, pretrain_data, trunk_seed)
            for downstream in downstreams:
                label, protocol = protocols[downstream]
                plugin = registry.load("downstreams", downstream)
                own_size = request.size or protocol.size or size
                missing = [name for name in schedules[pretext] if name not in protocol.schedules]
                _check_rates(request.rates, protocol, schedules[pretext])
                if missing:
                    raise UsageError(f"protocol {label} has no {missing[0]} schedule, on which {pretext} runs; see --schedule.")
                split = splits.open_split(data, protocol.split, subset_of(plugin, protocol), echo)
                jobs += [
                    Job(
                        pretrain=pretrain,
                        downstream=downstream,
                        version=plugin.version,
                        source=registry.source_digest("downstreams", downstream),
                        protocol=label,
                        settings=protocol,
                        schedule=schedule,
                        size=own_size,
                        data=data.fingerprint,
                        split=split.fingerprint,
                        seed=seed,
                        transfer=transfer,
                        statistics_version=statistics_version(pretrain, transfer),
                        labels=share,
                        rates=request.rates,
                    )
                    for share in dict.fromkeys(request.labels)
                    for transfer in (transfers if recipes[pretext].epochs else ("all",))
                    for schedule in schedules[pretext]
                ]
    return Grid(jobs, data, pretrain_data, data_name, pretrain_name, notes)


def pretrain_job(pretext: str, recipe: Recipe, trunk: str, size: int, data: Dataset | None, seed: int) -> PretrainJob:
    """Return the job of one pretrained trunk; a recipe of no epochs needs no data."""
    plugin = registry.load("pretexts", pretext)
    trained = recipe.epochs > 0 and data is not None
    return PretrainJob(
        pretext=pretext,
        version=plugin.version,
        source=registry.source_digest("pretexts", pretext),
        recipe=recipe.model_dump(mode="json"),
        trunk=trunk,
        size=size,
        data=data.fingerprint if trained and data else NO_DATA,
        split=splits.open_split(data, "pretraining", "images").fingerprint if trained and data else NO_DATA,
        seed=seed,
    )


def statistics_version(pretrain: PretrainJob, transfer: Transfer) -> int:
    """Return 2 for --transfer encoder, and for a task that trains but was given no epochs; 1 otherwise.

    A task that never trains, random_init, has a version of its own.
    """
    untrained = not pretrain.recipe["epochs"] and registry.load("pretexts", pretrain.pretext).Recipe().epochs
    return STATISTICS_VERSION if transfer != "all" or untrained else 1


def subset_of(downstream: Any, protocol: Protocol) -> str:
    """Return the images that a downstream task reads: `labels`, or the folder of its masks."""
    return "labels" if downstream.data == "labels" else protocol.masks


def pack_of(subset: str, protocol: Protocol, size: int) -> tuple[str, PackRule]:
    """Return the pack that a job reads: which images, and what becomes of them."""
    rule = PackRule(size=size, resize=protocol.resize, interpolation=protocol.interpolation)
    return ("images" if subset == "labels" else subset), rule


def _choose_data(request: Request) -> tuple[str, str | None, list[str]]:
    if request.data:
        return request.data, request.pretrain_data, []
    data, pretrain, note = catalogue.defaults(request.pretrain_data)
    return data, pretrain, [note] if note else []


def _protocol(downstream: str, name: str, changes: dict[str, Any]) -> tuple[str, Protocol]:
    """Return a protocol with its changes, and its name with the ones that make a difference, in a fixed order."""
    plugin = registry.load("downstreams", downstream)
    if name not in plugin.protocols:
        raise unknown(f"protocol of {downstream}", name, plugin.protocols)
    base: Protocol = plugin.protocols[name]
    protocol = base.with_changes(changes, f"protocol {name} of {downstream}") if changes else base
    if protocol.evaluate_on == "whole" and plugin.data == "labels":
        raise UsageError(f"evaluate_on=whole is for tasks with masks, and {downstream} has labels.")
    needed = "scores" if plugin.data == "labels" else "confusion"
    for metric in protocol.metrics:
        if metrics.get(metric).needs != needed:
            raise UsageError(f"{metric} is no metric of {downstream}: it is computed from {metrics.get(metric).needs}.")
    protocol = protocol.model_copy(update={"metrics": tuple(metrics.get(metric).id for metric in protocol.metrics)})
    texts = [
        f"{key}={value if isinstance(value, str) else canonical(value)}" for key, value in protocol.differences(base).items()
    ]
    return "+".join([name, *texts]), protocol


def _recipe(pretext: str, protocol: str, changes: dict[str, dict[str, Any]]) -> Recipe:
    plugin = registry.load("pretexts", pretext)
    preset = dict(plugin.presets.get(protocol, {}))
    known = plugin.Recipe.model_fields
    common = {name: value for name, value in changes.get("recipe", {}).items() if name in known}
    if plugin.Recipe().epochs == 0:
        common = {}
    recipe = plugin.Recipe().with_changes({**preset, **common, **changes.get(pretext, {})}, f"recipe of {pretext}")
    return cast(Recipe, recipe)


def _schedules(pretext: str, asked: Sequence[str]) -> tuple[Schedule, ...]:
    for name in asked:
        if name not in SCHEDULES:
            raise unknown("schedule", name, SCHEDULES)
    return cast(tuple[Schedule, ...], tuple(dict.fromkeys(asked))) or registry.load("pretexts", pretext).schedules


def _transfers(asked: Sequence[str]) -> tuple[Transfer, ...]:
    for name in asked:
        if name not in TRANSFERS:
            raise unknown("transfer", name, TRANSFERS)
    if not asked:
        raise UsageError(f"--transfer names at least one of {', '.join(TRANSFERS)}.")
    return cast(tuple[Transfer, ...], tuple(dict.fromkeys(asked)))


def _check_rates(rates: Sequence[float], protocol: Protocol, schedules: Sequence[Schedule]) -> None:
    for schedule in schedules:
        phases = protocol.schedules.get(schedule, ())
        if rates and (len(rates) != len(phases) or not all(0 < rate < math.inf for rate in rates)):
            given = ", ".join(f"{rate:g}" for rate in rates)
            raise UsageError(
                f"--rates takes a rate above 0 for each phase of {schedule}, {len(phases)} of them, but got {given}; "
                "see --schedule."
            )


def _check_shares(request: Request) -> None:
    if not request.labels:
        raise UsageError("--labels names at least one share, for example 0.01,0.1,1.")
    for share in request.labels:
        if not 0 < share <= 1:
            raise UsageError(f"--labels takes shares above 0 and at most 1, for example 0.01,0.1,1, but got {share:g}.")
    if request.vary not in VARY:
        raise unknown("kind of variation", request.vary, VARY)


def _settings(texts: Sequence[str], pretexts: Sequence[str], downstreams: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read `--set owner.name=value`; the owner is recipe or a pretext task, protocol or a downstream task."""
    owners = ("recipe", "protocol", *pretexts, *downstreams)
    changes: dict[str, dict[str, Any]] = {}
    for text in texts:
        target, equals, value = text.partition("=")
        owner, dot, name = target.strip().partition(".")
        if not (equals and dot and name):
            raise UsageError(f"--set takes owner.name=value, for example recipe.lr=1e-4, but got {quoted(text)}.")
        if owner not in owners:
            raise unknown("owner of a setting", owner, owners)
        try:
            changes.setdefault(owner, {})[name] = json.loads(value)
        except (ValueError, RecursionError):  # no JSON, or none that Python reads: a text
            changes.setdefault(owner, {})[name] = value
    for name in changes.get("recipe", {}):
        fields = {field for pretext in pretexts for field in registry.load("pretexts", pretext).Recipe.model_fields}
        if name not in fields:
            raise unknown("setting of recipe", name, fields)
    return changes
