"""The runs of a study, which of them a comparison is of, and whether these can be compared."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.recompute.report import Report

Array = NDArray[Any]
View = Callable[["Run"], object]


@dataclass(frozen=True)
class Run:
    """A run: its folder, the contents of its record, and its predictions once they are asked for."""

    folder: Path
    record: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The run's id, which is the name of its folder."""
        return str(self.record["id"])

    @property
    def job(self) -> Mapping[str, Any]:
        """What the run was to do."""
        return self.record["job"]  # type: ignore[no-any-return]

    @property
    def seed(self) -> int:
        """The seed of fine-tuning."""
        return int(self.job["seed"])

    @property
    def trunk(self) -> str:
        """The trunk's name with its options."""
        return str(self.job["pretrain"]["trunk"])

    @property
    def probe(self) -> bool:
        """Whether the run is of a probe of frozen features."""
        return bool(self.job.get("probe"))

    @cached_property
    def scored(self) -> NDArray[np.bool_]:
        """Which of the classes (C,) are scored."""
        return np.array([name in self.record["data"]["scored"] for name in self.record["data"]["classes"]])

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """The saved predictions."""
        with np.load(self.folder / "predictions.npz", allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    @property
    def images(self) -> int:
        """The number of test images."""
        return len(self.arrays["ids"])


def read_runs(folder: Path, report: Report) -> list[Run]:
    """Return the runs of a study, ordered by id; a record whose seal does not fit its text is a finding."""
    runs = []
    for path in sorted((folder / "records" / "runs").glob("*/record.json")):
        raw = path.read_bytes()
        seal = re.match(rb'\{"sha256": "([0-9a-f]{64})",', raw)
        if not seal or hashlib.sha256(raw[seal.end() :]).hexdigest().encode() != seal[1]:
            report.finding(f"{path.parent.name}: the seal of record.json does not fit its text")
        runs.append(Run(path.parent, json.loads(raw)))
    return runs


def same_trunk(asked: str, had: str) -> bool:
    """Return whether two spellings of a trunk agree: the same family, and no option with two values."""

    def parsed(text: str) -> tuple[str, dict[str, str]]:
        family, _, options = text.partition(":")
        pairs = (item.partition("=") for item in options.split(",") if item)
        return family, {key: value for key, _, value in pairs}

    (first, ours), (second, theirs) = parsed(asked), parsed(had)
    return first == second and all(ours[key] == theirs[key] for key in ours.keys() & theirs.keys())


SOURCE = 16
"""How many digits of a plug-in's SHA-256 a record has."""


def split(row: str) -> tuple[str, str]:
    """Return the pretext task and the schedule, or "", that a row's name says; NAME:shuffled is a task's own name."""
    pretext, colon, schedule = row.rpartition(":")
    return (pretext, schedule) if colon and schedule != "shuffled" else (row, "")


def fits(run: Run, row: str, task: str, wanted: Mapping[str, Any]) -> bool:
    """Return whether a run is of a row (PRETEXT or PRETEXT:SCHEDULE) on a task and has the options that are `wanted`."""
    pretext, schedule = split(row)
    job, pretrain = run.job, run.job["pretrain"]
    recipe, provenance = run.record["pretrain"]["recipe"], run.record["provenance"]
    untrained = pretext.startswith("random_") and pretrain["data_fingerprint"] == "none"  # so its record names no such data
    return (
        not run.probe
        and pretrain["pretext"] == pretext
        and schedule in ("", job["schedule"])
        and job["downstream"] == task
        and job.get("split", "test") == "test"
        and job.get("transfer", "all") == wanted.get("transfer", "all")
        and (pretrain.get("source") or "") == wanted.get("source", "")[:SOURCE]
        and float(job.get("labels", 1.0)) == float(wanted.get("labels", 1.0))
        and int(job.get("trials") or 0) == int(wanted.get("tune", 0))
        and ("trunk" not in wanted or same_trunk(wanted["trunk"], run.trunk))
        and ("size" not in wanted or job["size"] == pretrain["size"] == wanted["size"])
        and wanted.get("protocol", job["protocol"]) == job["protocol"]
        and wanted.get("data", run.record["data"]["name"]) == run.record["data"]["name"]
        and (untrained or wanted.get("pretrain-data") in (None, provenance.get("pretrain_data")))
        and all(str(recipe.get(name)) == value for name, value in wanted.get("recipes", {}).get(pretext, {}).items())
    )


def choose(fitting: Sequence[Run], row: str, seeds: Sequence[int], said: str, report: Report) -> list[Run]:
    """Return the one run of each seed; none at all, and a finding, where a seed does not have exactly one."""
    chosen = []
    for seed in seeds:
        of_seed = [run for run in fitting if run.seed == seed]
        if len(of_seed) != 1:
            report.finding(f"{said}: {row} has {len(of_seed)} runs of seed {seed} {[run.id for run in of_seed]}")
            return []
        if of_seed[0].job["pretrain"]["seed"] != seed:
            report.finding(f"{said}: {of_seed[0].id} has a trunk of seed {of_seed[0].job['pretrain']['seed']}")
        chosen += of_seed
    further = sorted({run.seed for run in fitting} - set(seeds))
    if further:
        report.line(f"  note: {said}: {row} has runs of further seeds {further}, which are not used")
    return chosen


ALIKE: dict[str, View] = {
    "protocol": lambda run: run.job["protocol"],
    "settings": lambda run: run.job["settings"],
    "size": lambda run: run.job["size"],
    "trials": lambda run: run.job.get("trials"),
    "labels": lambda run: run.job.get("labels"),
    "trunk": lambda run: run.trunk,
    "data": lambda run: run.job["data_fingerprint"],
    "splits": lambda run: run.job["splits_fingerprint"],
    "precision": lambda run: run.record["precision"],
    "scored classes": lambda run: run.record["data"]["scored"],
}
"""What both rows of a comparison have to have in common."""
ALIKE_IN_A_ROW: dict[str, View] = {
    "rates": lambda run: run.job["rates"],
    "recipe": lambda run: run.job["pretrain"].get("recipe"),
    "schedule": lambda run: run.job["schedule"],
}
"""What the seeds of one row have to have in common."""


def differs(runs: Sequence[Run], view: View) -> bool:
    """Return whether runs differ in what a view shows."""
    return len({json.dumps(view(run), sort_keys=True) for run in runs}) > 1


def check_alike(rows: Sequence[Sequence[Run]], search_each: bool, said: str, report: Report) -> None:
    """Find where the runs of two rows are not comparable; with `search_each` every seed has its own search and rates."""
    both = [run for row in rows for run in row]
    for name, view in ALIKE.items():
        if differs(both, view):
            report.finding(f"{said}: the runs differ in {name}")
    for row in rows:
        for name, view in ALIKE_IN_A_ROW.items():
            if differs(row, view) and not (search_each and name == "rates"):
                report.finding(f"{said}: the seeds of one row differ in {name}")
        searches = {run.job.get("study") for run in row}
        if search_each and len(searches) != len(row):
            report.finding(f"{said}: {len(row)} seeds like {row[0].id} have {len(searches)} searches, not each its own")
    for run in both:
        check_search(run, said, report)
        check_images(run, both[0], said, report)


def check_search(run: Run, said: str, report: Report) -> None:
    """Find a search that does not have as many finished trials as its budget says."""
    tuning = run.record.get("tuning")
    states = [trial["state"] for trial in tuning["trials"]] if tuning else []
    if tuning and sum(state in ("complete", "pruned") for state in states) != tuning["budget"]:
        report.finding(f"{said}: the search of {run.id} has trials {states} for a budget of {tuning['budget']}")


def check_images(run: Run, first: Run, said: str, report: Report) -> None:
    """Find predictions for other images, in another order or with another truth than those of the first run."""

    def truth(one: Run) -> Array:
        return one.arrays["labels"] if "labels" in first.arrays else one.arrays["confusion"].sum(axis=2)

    if not np.array_equal(run.arrays["ids"], first.arrays["ids"]):
        report.finding(f"{said}: {run.id} has other images or another order than {first.id}")
    elif not np.array_equal(truth(run), truth(first)):
        report.finding(f"{said}: {run.id} has another truth than {first.id}")
