"""The registered comparisons: which runs preregistration.toml asks for, and what confirmatory.csv says of them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.recompute.registration import FILE
from tests.recompute.report import Report
from tests.recompute.runs import Run, choose, fits, split
from tests.recompute.tables import Comparison, Published, published, read_lines

Key = tuple[str, str, str, str]
"""Task, row, baseline and metric."""


def options_of(plan: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the options of a part: those of the plan, or of the part that it is like, unless it has its own."""
    part = dict(plan["parts"][name])
    like = part.pop("like", None)
    return {**(options_of(plan, like) if like else plan.get("options", {})), **part}


def asked_for(
    plan: Mapping[str, Any], one: Mapping[str, Any], row: str, said: str, report: Report
) -> tuple[list[int], dict[str, Any]]:
    """Return the seeds of a comparison's row, those of all parts that have its pretext task, and the options of its runs."""
    all_parts = [options_of(plan, name) for name in one["parts"]]
    parts = [part for part in all_parts if has(part, split(row)[0])]
    if not parts:
        report.finding(f"{said}: no part has {row}")
        return [], {}
    asked = [part.pop("seeds") for part in parts]
    seeds = sorted(seed for some in asked for seed in (some if isinstance(some, list) else range(int(some))))
    wanted = parts[0]
    if any(part != wanted for part in parts):
        report.finding(f"{said}: the parts of the comparison differ in more than seeds")
    if len(set(seeds)) != len(seeds):
        report.finding(f"{said}: a seed is in two parts")
    recipes: dict[str, dict[str, str]] = {}
    for text in wanted.pop("set", []):
        place, _, value = text.partition("=")
        name, _, field = place.partition(".")
        if name in ("protocol", one["task"]):
            wanted.pop("protocol", None)  # a protocol that is changed has another name
        else:
            recipes.setdefault(name, {})[field] = value
    return seeds, {**wanted, "recipes": recipes, "source": plan.get("plugins", {}).get(row.partition(":")[0], "")}


def has(part: Mapping[str, Any], pretext: str) -> bool:
    """Return whether a part has a pretext task, in a list or among names with commas, or does not say which it has."""
    given = part.get("pretext", pretext)
    return pretext in ([name.strip() for name in given.split(",")] if isinstance(given, str) else given)


def read_confirmatory(folder: Path, report: Report) -> dict[Key, Published | None] | None:
    """Return what confirmatory.csv says of each comparison, None where there is no such file; a refusal is a finding."""
    path = folder / "confirmatory" / "confirmatory.csv"
    if not path.exists():
        return None
    found = {}
    for line in read_lines(path):
        if line["refused"]:
            report.finding(f"confirmatory.csv refuses {line['row']} - {line['baseline']}, {line['metric']}: {line['refused']}")
        metric = line["metric"].partition("@")[0]
        found[line["task"], line["row"], line["baseline"], metric] = None if line["refused"] else published(line)
    return found


def registered_comparisons(folder: Path, runs: Sequence[Run], report: Report) -> list[Comparison]:
    """Return the comparisons of a preregistration with their runs; without runs, where a planned one is not there."""
    plan = tomllib.loads((folder / FILE).read_text())
    confirmatory = read_confirmatory(folder, report)
    found = []
    for one in plan.get("comparisons", []):
        said = f"{one['row']} - {one['against']}, {one['task']} {one['metric']}{' (null)' if one.get('null') else ''}"
        if one.get("evaluation", "finetune") != "finetune":
            report.finding(f"{said} is of a probe, which is not compared here: Holm's correction lacks it")
            continue
        rows = one["row"], one["against"]
        (seeds, wanted), (others, also) = (asked_for(plan, one, row, said, report) for row in rows)
        each = wanted.get("search") == "each"
        if seeds != others or each != (also.get("search") == "each"):
            report.finding(f"{said}: the rows are asked for with other seeds or another search")
            continue
        chosen, baseline = (
            choose([run for run in runs if fits(run, row, one["task"], options)], row, seeds, said, report)
            for row, options in zip(rows, (wanted, also), strict=True)
        )
        key = one["task"], one["row"], one["against"], one["metric"]
        if confirmatory is not None and key not in confirmatory:
            report.finding(f"{said}: confirmatory.csv has no line of it")
        says = (confirmatory or {}).get(key)
        found.append(Comparison(said, one["metric"], chosen, baseline, says, each))
    return found
