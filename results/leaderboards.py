"""The CSV files: plain numbers, one documented schema each, rebuilt from the records every time.

`pandas.read_csv(path)` reads them back without options. Metric values, intervals and differences are shares in [0, 1], not per
cent; texts that a reader would take for a formula or a missing value have an apostrophe before them; lists are JSON.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bench.config import as_space
from bench.record import Record
from bench.schema import canonical
from bench.text import printable
from results.board import Board, Cell, Row
from results.columns import Column
from results.cost import row_cost
from results.rows import dead, precision_of, recipe_of, trained

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("NULL", "null", "NA", "NaN", "nan", "None", "N/A", "n/a", "<NA>", "#N/A", "#NA", "-NaN", "-nan")
"""Texts that pandas takes for an empty cell."""
FORMULAS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What begins a formula, in both widths; readers look past white space."""
DIGITS = 9
"""Decimals that are written: fewer than differ between machines."""

LEADERBOARD = {
    "pretext": "the pretext task",
    "schedule": "one-phase, two-phase or frozen",
    "transfer": "what is inherited: all or encoder",
    "vary": "what the seeds vary: all, or finetune alone",
    "downstream": "the downstream task",
    "metric": "the protocol's main metric, with its version",
    "tuned": "whether the rates were searched",
    "tuning": "the search: budget, ranges, sampler, pruner, objective; or the rates that were given",
    "rates": "the learning rate of each phase",
    "sensitivity": "how far the median complete trial is below the best, on the validation split",
    "wider": "wider ranges for --space, where a rate was chosen in the outermost tenth of its range; else empty",
    "value": "mean over seeds",
    "low": "lower end of the 95 % interval: over images alone with one seed, over images and seeds with several",
    "high": "upper end",
    "n_seeds": "how many seeds have a value",
    "std": "standard deviation over seeds",
    "values": "the value of each seed that has one, in the order of `seeds`, JSON",
    "leading": "whether it is one of those among which, with 95 % confidence, the best of its column is",
    "floor": "the best trivial predictor, where the interval does not lie above its value; else empty",
    "dead": "why a network was dead before fine-tuning; empty where none was",
    "spread": "how far features differ between images before fine-tuning, worst layer and seed: 1 as under batch statistics",
    "baseline": "the row that the difference is measured from",
    "delta": "difference to it, paired over images and seeds",
    "delta_low": "lower end of its 95 % interval",
    "delta_high": "upper end",
    "p": "two-sided p value; empty with one seed",
    "p_holm": "the same at its look, after Holm's correction over the table; empty for seeds beside the declared looks",
    "points_per_hour": "points of the metric (per cent) over the baseline for each hour of pretraining",
    "device": "what computed: cpu or cuda",
    "pretrain_seconds": "seconds of pretraining, mean over seeds",
    "tune_seconds": "seconds of the search",
    "finetune_seconds": "seconds of fine-tuning, mean over seeds",
    "images": "images seen by all three",
    "peak_memory": "most bytes held",
    "precision": "what the networks computed in",
    "joules": "energy of all three where the device tells",
    "data": "the labelled data",
    "synthetic": "whether it was drawn by the program",
    "scored_classes": "how many classes the data can judge",
    "labels": "share of the training labels that was used",
    "split": "the split that was scored",
    "protocol": "the protocol and its changes",
    "trunk": "the trunk",
    "size": "side of the images in pretraining",
    "recipe": "the pretext task's settings, JSON",
    "pretrain_data": "the unlabelled data",
    "seeds": "the seeds",
    "data_fingerprint": "SHA-256 over the labelled data",
    "split_fingerprint": "SHA-256 over the split",
    "pretrain_data_fingerprint": "SHA-256 over the unlabelled data",
    "variant": "digest of all else that the runs of a column share",
    "commits": "commits of the program, + for changed files",
    "run_ids": "the runs",
    "pretrain_ids": "the pretrained trunks",
}

PER_RUN = {
    "run_id": "the run",
    "pretrain_id": "its pretrained trunk",
    "pretext": "the pretext task",
    "schedule": "one-phase, two-phase or frozen",
    "transfer": "what is inherited",
    "downstream": "the downstream task",
    "protocol": "the protocol and its changes",
    "data": "the labelled data",
    "trunk": "the trunk",
    "size": "side of the images in fine-tuning",
    "labels": "share of the training labels that was used",
    "split": "the split that was scored",
    "tuned": "whether the rates were searched",
    "rates": "the learning rate of each phase",
    "seed": "the seed of fine-tuning",
    "pretrain_seed": "the seed of pretraining",
    "metric": "metric id with its version",
    "value": "its value; empty where it is undefined",
    "spread": "how far features differ between images before fine-tuning, in the worst layer: 1 as under batch statistics",
    "dead": "why its network was dead before fine-tuning; empty where it was not",
    "seconds": "seconds of fine-tuning",
    "precision": "what the networks computed in",
    "predictions": "SHA-256 of the predictions",
    "weights": "SHA-256 of the fine-tuned network",
    "trunk_weights": "SHA-256 of the pretrained trunk's file",
}

PER_CLASS = {
    "run_id": "the run",
    "pretext": "the pretext task",
    "schedule": "one-phase, two-phase or frozen",
    "downstream": "the downstream task",
    "seed": "the seed of fine-tuning",
    "metric": "metric id with its version",
    "class": "the class",
    "value": "its value; empty where the class does not occur",
}

AGREEMENT = {
    "downstream": "the downstream task",
    "metric": "a metric, with its version",
    "other": "another of the same runs",
    "rows": "how many rows have both, by their means over seeds",
    "alike": "pairs of rows whose means both order alike; whether they can be told apart is not asked",
    "differently": "pairs of rows of which each prefers another",
    "tau": "Kendall's tau-b: 1 the same order, -1 the reverse; empty where one metric tells no rows apart",
    "data": "the labelled data",
    "labels": "share of the training labels that was used",
    "split": "the split that was scored",
    "protocol": "the protocol and its changes",
    "trunk": "the trunk",
    "size": "side of the images in pretraining",
    "data_fingerprint": "SHA-256 over the labelled data",
    "variant": "digest of all else that the runs of a column share",
}

SCHEMAS = {"leaderboard.csv": LEADERBOARD, "per_run.csv": PER_RUN, "per_class.csv": PER_CLASS, "agreement.csv": AGREEMENT}


@dataclass(frozen=True)
class Sheet:
    """The lines of a CSV file, each with a value for every column of its schema."""

    schema: Mapping[str, str]
    lines: Sequence[Mapping[str, Any]]

    def frame(self) -> pd.DataFrame:
        """Return the same as a data frame; pandas is imported here alone, since that takes longer than a whole report."""
        import pandas

        return pandas.DataFrame(self.lines, columns=list(self.schema))


def csv_text(sheet: Sheet) -> str:
    """Return a sheet as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(sheet.schema)
    for line in sheet.lines:
        values = [line[name] for name in sheet.schema]
        writer.writerow([_safe(value) if isinstance(value, str) else _rounded(value) for value in values])
    return text.getvalue()


def leaderboard(boards: Sequence[Board]) -> Sheet:
    """Return one row for each pretext task (with its schedule and what is inherited), column of a board, and board."""
    lines = [
        _line(row, column, cell)
        for board in boards
        for place, column in enumerate(board.columns)
        for row in board.rows
        if (cell := row.cells[place]).records
    ]
    return Sheet(LEADERBOARD, lines)


def _line(row: Row, column: Column, cell: Cell) -> dict[str, Any]:
    first, records, found, difference, cost = cell.records[0], cell.records, cell.estimate, cell.difference, row_cost(cell)
    pretrained = first.pretrain.data
    return {
        "pretext": row.pretext,
        "schedule": row.schedule,
        "transfer": row.transfer,
        "vary": row.vary,
        "downstream": column.downstream,
        "metric": column.metric,
        "tuned": column.trials > 0,
        "tuning": column.tuning,
        "rates": _rates(first),
        "sensitivity": first.tuning.sensitivity if first.tuning else None,
        "wider": as_space(wider) if first.tuning and (wider := first.tuning.wider(trained(first))) else "",
        "value": found.value if found else None,
        "low": found.low if found else None,
        "high": found.high if found else None,
        "n_seeds": found.seeds if found else 0,
        "std": found.deviation if found else None,
        "values": json.dumps([_rounded(value) for value in found.values] if found else []),
        "leading": cell.leading,
        "floor": cell.floor,
        "dead": cell.dead,
        "spread": min((ratio for record in records if (ratio := _spread(record)) is not None), default=None),
        "baseline": difference.against if difference else "",
        "delta": difference.estimate.value if difference else None,
        "delta_low": difference.estimate.low if difference else None,
        "delta_high": difference.estimate.high if difference else None,
        "p": difference.estimate.p if difference else None,
        "p_holm": difference.corrected if difference else None,
        "points_per_hour": cost.points_per_hour,
        "device": cost.device,
        "pretrain_seconds": cost.pretrain_seconds,
        "tune_seconds": cost.tune_seconds,
        "finetune_seconds": cost.finetune_seconds,
        "images": cost.images,
        "peak_memory": cost.peak_memory,
        "precision": precision_of(first),
        "joules": cost.joules,
        "data": first.data.name,
        "synthetic": first.data.synthetic,
        "scored_classes": len(first.data.scored),
        "labels": first.job.labels,
        "split": first.job.split,
        "protocol": first.job.protocol,
        "trunk": first.job.pretrain.trunk,
        "size": first.pretrain.job.size,
        "recipe": canonical(recipe_of(first)),
        "pretrain_data": pretrained.name if pretrained else "none",
        "seeds": json.dumps([record.job.seed for record in records]),
        "data_fingerprint": first.data.fingerprint,
        "split_fingerprint": first.data.splits_fingerprint,
        "pretrain_data_fingerprint": pretrained.fingerprint if pretrained else "none",
        "variant": column.variant,
        "commits": json.dumps(sorted({_commit(record) for record in records})),
        "run_ids": json.dumps([record.id for record in records]),
        "pretrain_ids": json.dumps(list(dict.fromkeys(record.pretrain.id for record in records))),
    }


def per_run(records: Sequence[Record]) -> Sheet:
    """Return one row for each run and metric of its protocol."""
    lines = [
        {
            "run_id": record.id,
            "pretrain_id": record.pretrain.id,
            "pretext": record.pretext,
            "schedule": record.job.schedule,
            "transfer": record.job.transfer,
            "downstream": record.downstream,
            "protocol": record.job.protocol,
            "data": record.data.name,
            "trunk": record.job.pretrain.trunk,
            "size": record.job.size,
            "labels": record.job.labels,
            "split": record.job.split,
            "tuned": record.tuning is not None,
            "rates": _rates(record),
            "seed": record.job.seed,
            "pretrain_seed": record.pretrain.job.seed,
            "metric": metric,
            "value": record.metrics[metric],
            "spread": _spread(record),
            "dead": dead(record),
            "seconds": record.cost.seconds,
            "precision": precision_of(record),
            "predictions": record.predictions,
            "weights": record.weights,
            "trunk_weights": record.pretrain.weights,
        }
        for record in records
        for metric in record.metric_ids
    ]
    return Sheet(PER_RUN, lines)


def per_class(records: Sequence[Record]) -> Sheet:
    """Return one row for each run, metric that has a value a class, and class."""
    lines = [
        {
            "run_id": record.id,
            "pretext": record.pretext,
            "schedule": record.job.schedule,
            "downstream": record.downstream,
            "seed": record.job.seed,
            "metric": metric,
            "class": name,
            "value": value,
        }
        for record in records
        for metric in record.metric_ids
        for name, value in record.per_class.get(metric, {}).items()
    ]
    return Sheet(PER_CLASS, lines)


@lru_cache(maxsize=1 << 14)
def _safe(value: str) -> str:
    text = printable(value)
    return f"'{text}" if text.lstrip()[:1] in FORMULAS or text in MISSING else text


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, DIGITS)
    return value


def _rates(record: Record) -> str:
    return json.dumps([float(f"{rate:.6g}") for rate in record.rates])


def _spread(record: Record) -> float | None:
    return record.spread.ratio if record.spread else None


def _commit(record: Record) -> str:
    commit = record.provenance.get("commit") or "unknown"
    return f"{commit[:12]}{'+' if record.provenance.get('dirty') else ''}"
