"""Downstream tasks on their data: what `--downstream TASK@DATA,TASK` and `--data` name, one pair for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import registry
from bench.config import RunConfig
from bench.data import catalogue, lists
from bench.data.dataset import Dataset
from bench.errors import UsageError

VOC = "voc_"
"""How the tasks on VOC begin; where nothing else is said, they are on VOC, or on the demo data until VOC is prepared."""


@dataclass(frozen=True)
class Target:
    """A downstream task and the name of its labelled data; `key` is what `--set` may call it, TASK or TASK@DATA."""

    task: str
    data: str
    key: str


def targets_of(config: RunConfig) -> tuple[list[Target], str | None, list[str]]:
    """Return the tasks of a command on their data, the images to pretrain on, and notes for the user.

    A task without @DATA takes `--data`; without that the one data set that other tasks of its kind name; else VOC, or the demo
    data. The images are None where they are chosen by the labelled data. UsageError where synthetic and real data would mix.
    """
    asked = [(name, data) for task, data in config.targets for name in registry.names("downstreams", [task])]
    named: dict[bool, list[str]] = {True: [], False: []}
    for name, data in asked:
        if data and data not in named[name.startswith(VOC)]:
            named[name.startswith(VOC)].append(data)
    labelled, unlabelled, note = catalogue.defaults(config.pretrain_data)
    found: dict[tuple[str, str], Target] = {}
    defaulted = False
    for name, data in asked:
        of_kind = named[name.startswith(VOC)]
        own = data or config.data or (of_kind[0] if len(of_kind) == 1 else None)
        defaulted |= own is None
        found.setdefault((name, own or labelled), Target(name, own or labelled, f"{name}@{data}" if data else name))
    targets = list(found.values())
    drawn = {one.data == catalogue.DEMO_LABELLED for one in targets}
    if len(drawn) > 1:
        one = next(one for one in targets if one.data == catalogue.DEMO_LABELLED)
        raise UsageError(
            f"{one.task} would be on the synthetic demo data beside other data, and such scores share no table; name its data, "
            f"{one.task}@DATA, or leave it out."
        )
    return targets, unlabelled if defaulted else config.pretrain_data, [note] if note and defaulted else []


def open_data(targets: Sequence[Target], opened: Callable[[str], Dataset]) -> dict[str, Dataset]:
    """Return the data sets of some tasks by name; UsageError where a task does not fit its data, or two have the same images."""
    data = {name: opened(name) for name in dict.fromkeys(one.data for one in targets)}
    if len({dataset.synthetic for dataset in data.values()}) > 1:
        drawn = next(name for name, dataset in data.items() if dataset.synthetic)
        raise UsageError(f"{drawn} is synthetic and other data here is not, and such scores share no table; a command for each.")
    known: dict[str, str] = {}
    for name, dataset in data.items():
        other = known.setdefault(dataset.fingerprint, name)
        if other != name:
            raise UsageError(f"{other} and {name} have the same images; a command for each keeps their runs apart.")
    for one in targets:
        check(one.task, data[one.data])
    return data


def check(task: str, data: Dataset) -> None:
    """Raise UsageError when a task needs one class an image and the data says otherwise."""
    if registry.load("downstreams", task).single and data.labelled() and not data.single:
        raise UsageError(
            f"{task} is for images that have one class each, and {data.name} has images with none or several; "
            f"{data.name} has {lists.held(data)}."
        )
