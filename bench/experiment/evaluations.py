"""The evaluations of each downstream task: fine-tuning, and the probes that `--evaluate` asks for and that fit the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench import registry
from bench.config import RunConfig
from bench.data.dataset import Dataset
from bench.errors import UsageError
from bench.experiment.jobs import Evaluation, Task
from bench.models.trunk import levels_of
from bench.probe import DECODED, EVALUATIONS, LEVELLED, OF_EVALUATION, PROBES, LinearSgd, LowShot, make

DINO_LAYERS: tuple[int, ...] = LinearSgd.model_fields["layers"].default
"""How many of the last levels DINOv2 takes; a trunk that has fewer gives all it has."""


def of_tasks(
    config: RunConfig, downstreams: Sequence[str], changes: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[Evaluation, ...]]:
    """Return the evaluations of each downstream task by its name.

    `changes` are the settings that --set changes, by owner. UsageError for a probe that fits none of the tasks, for a task that
    none of the evaluations fits, for settings of a probe that is not asked for, and for a level where it has no sense.
    """
    needs = {name: registry.load("downstreams", name).data for name in downstreams}
    asked = [probe for name in config.evaluate if name != "finetune" for probe in OF_EVALUATION.get(name, (name,))]
    for owner in changes:
        if owner in PROBES and owner not in asked:
            raise UsageError(f"--set {owner}: it is no evaluation of this command; add it to --evaluate.")
    if config.watch and "labels" not in needs.values():
        other = _task_for("labels", downstreams)
        raise UsageError(f"--watch knn is scored by labels of images, and no downstream task here has them; add {other}.")
    all_asked = set(config.evaluate) == set(EVALUATIONS)
    found: dict[str, tuple[Evaluation, ...]] = {}
    for name in downstreams:
        probes = [probe for probe in asked if PROBES[probe].needs == needs[name]]
        finetune = [Evaluation("finetune")] if "finetune" in config.evaluate else []
        found[name] = (*finetune, *(one for probe in probes for one in _made(config, probe, changes.get(probe, {}))))
        if not found[name]:
            fitting = ", ".join(probe for probe in EVALUATIONS if probe in PROBES and PROBES[probe].needs == needs[name])
            there = f"are finetune and the probes {fitting}" if fitting else "is finetune alone, and no probe"
            raise UsageError(f"{name} is a task with {needs[name]}, for which there {there}.")
    for probe in asked:
        if PROBES[probe].needs not in needs.values() and not all_asked:
            other = _task_for(PROBES[probe].needs, downstreams)
            where = f"@{config.labelled_data[0]}" if len(config.labelled_data) == 1 and config.data is None else ""
            hint = f"; add it by --downstream {other}{where}" if other else ""
            raise UsageError(f"{probe} is a probe for tasks with {PROBES[probe].needs}, and none is named{hint}.")
    return found


def asked(evaluations: Sequence[Evaluation]) -> str:
    """Return the evaluations that choose on the validation split, as `--evaluate` takes them."""
    names = (one.name for one in evaluations if one.probe is not None and one.probe.validates)
    return ",".join(dict.fromkeys(next((e for e, several in OF_EVALUATION.items() if name in several), name) for name in names))


def check(tasks: Sequence[Task], trunk: str, data: Dataset) -> None:
    """Raise UsageError for a level, or a number of levels, that the trunk's encoder has not, and for too few classes."""
    for task in tasks:
        for probe in (one.probe for one in task.evaluations if one.probe is not None):
            count, level = levels_of(trunk, task.size), getattr(probe, "level", None)
            if level is not None and level > count:
                raise UsageError(f"--level takes 1 to {count}, the levels of {trunk} from the finest, but got {level}.")
            most = max(count, *DINO_LAYERS)
            if isinstance(probe, LinearSgd) and level is None and max(probe.layers) > most:
                raise UsageError(f"linear-sgd.layers takes 1 to {most}, and {trunk} has {count}; got {max(probe.layers)}.")
            if isinstance(probe, LowShot) and len(data.scored) < 2:
                raise UsageError(f"lowshot takes its negatives from other classes, and {data.name} has one scored class.")


def _made(config: RunConfig, name: str, changes: Mapping[str, Any]) -> list[Evaluation]:
    """Return a probe with its settings; that of dense features also on the decoder's."""
    if config.level is not None and name in LEVELLED:
        if "level" in changes:
            raise UsageError(f"--level and --set {name}.level contradict each other; give one of the two.")
        changes = {**changes, "level": config.level}
    made = [Evaluation(name, make(name, dict(changes)))]
    if name in DECODED and "source" not in changes:
        made.append(Evaluation(name, make(name, {**changes, "source": "decoder"})))
    return made


def _task_for(needs: str, beside: Sequence[str]) -> str:
    """Return a task with some annotations, on VOC if the tasks beside it are; "" where there is none."""
    on_voc = beside[0].startswith("voc_")
    fitting = [task for task in registry.summaries("downstreams") if registry.load("downstreams", task).data == needs]
    plain = [task for task in fitting if task.startswith("voc_") == on_voc and not registry.load("downstreams", task).single]
    return next(iter([*plain, *fitting]), "")
