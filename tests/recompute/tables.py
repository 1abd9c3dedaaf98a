"""What is compared, with what a study's table says of it; the comparisons of a table."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.recompute.measured import METRICS
from tests.recompute.report import Report
from tests.recompute.runs import Run
from tests.recompute.tested import Estimate

Line = Mapping[str, str]


@dataclass(frozen=True)
class Published:
    """What a table says of a comparison; `p_holm` is None where it is not among the corrected ones."""

    estimate: Estimate
    p_holm: float | None


@dataclass(frozen=True)
class Comparison:
    """Two rows with their runs in the same order of seeds, none where runs are missing; and what a table says."""

    said: str
    metric: str
    chosen: Sequence[Run]
    baseline: Sequence[Run]
    published: Published | None
    search_each: bool = False


def read_lines(path: Path) -> list[dict[str, str]]:
    """Return the lines of a CSV file by the names of their columns."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def published(line: Line) -> Published | None:
    """Return what a line of a table says of its comparison; None where there was nothing to test."""
    if not line["p"]:
        return None
    estimate = Estimate(*(float(line[name]) for name in ("delta", "delta_low", "delta_high", "p")))
    return Published(estimate, float(line["p_holm"]) if line["p_holm"] else None)


def baseline_of(line: Line, lines: Sequence[Line]) -> Sequence[Line]:
    """Return the lines that may be the baseline that a line names, PRETEXT or PRETEXT (DESCRIPTION); one, if all is well."""
    name = line["baseline"].partition(" (")[0]
    found = [
        one
        for one in lines
        if one is not line
        and (one["downstream"], one["metric"], one["pretext"]) == (line["downstream"], line["metric"], name)
        and json.loads(one["seeds"])
    ]
    if len(found) > 1:
        named = [one for one in found if re.search(rf"\b{re.escape(one['schedule'])}\b", line["baseline"])]
        found = named or [one for one in found if one["variant"] == line["variant"]] or found
    if len(found) > 1:
        found = [one for one in found if not one["baseline"]]
    return found


def table_comparisons(folder: Path, table: str, runs: Sequence[Run], report: Report) -> list[Comparison]:
    """Return the comparisons of a table of fine-tuned rows; of probes, where it has nothing else."""
    lines = read_lines(folder / table / "leaderboard.csv")
    lines = [line for line in lines if line["evaluation"] == "finetune"] or lines
    by_id = {run.id: run for run in runs}
    found = []
    for line in lines:
        if not line["baseline"]:
            continue
        metric = line["metric"].partition("@")[0]
        said = f"{line['pretext']}:{line['schedule']} {line['transfer']} - {line['baseline']}, {line['downstream']} {metric}"
        baselines = baseline_of(line, lines)
        if len(baselines) != 1 or metric not in METRICS:
            report.line(f"  not compared: {said} ({len(baselines)} lines may be the baseline)")
            continue
        ids = [json.loads(one["run_ids"]) for one in (line, baselines[0])]
        missing = sorted({one for row in ids for one in row} - by_id.keys())
        if missing:
            report.finding(f"{table}: {said}: no records of {missing}")
            continue
        chosen, baseline = ([by_id[one] for one in row] for row in ids)
        if not [run.seed for run in chosen] == [run.seed for run in baseline] == json.loads(line["seeds"]):
            report.finding(f"{table}: {said}: the seeds of the two rows are not those of the table")
            continue
        found.append(Comparison(said, metric, chosen, baseline, published(line)))
    return found
