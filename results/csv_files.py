"""The CSV files: plain numbers, one documented schema each, rebuilt from the records every time.

`pandas.read_csv(path)` reads them back without options. Metric values, intervals and differences are shares in [0, 1], not per
cent; texts that a reader would take for a formula or a missing value have an apostrophe before them; lists are JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.config import as_space
from bench.record import Record
from results import leaks
from results.agreement import Agreement, agreements
from results.board import Board, Cell
from results.cost import RowCost, row_cost
from results.grouping import Column
from results.pretext_scores import PretextScore, PretextScores, pretext_scores
from results.rows import dead, precision_of, recipe_of
from results.sheets import Fields, Sheet, rounded, sheet, texts
from results.significance import Difference
from results.statistics import Estimate


def leaderboard(boards: Sequence[Board]) -> Sheet:
    """Return a line for each board, column of it, and row that has runs there."""
    columns = ((board, place, column) for board in boards for place, column in enumerate(board.columns))
    lines = (_Shown(column, row.cells[place], row.vary) for board, place, column in columns for row in board.rows)
    return sheet(_LEADERBOARD, (line for line in lines if line.cell.records))


def leaderboard_line(column: Column, cell: Cell, vary: str) -> dict[str, Any]:
    """Return the leaderboard's line about a cell that has runs, in its column; `vary` is what the seeds of its row vary."""
    shown = _Shown(column, cell, vary)
    return {name: value(shown) for name, (_, value) in _LEADERBOARD.items()}


def per_run(records: Sequence[Record]) -> Sheet:
    """Return a line for each run and metric of its protocol."""
    return sheet(_PER_RUN, (_Scored(record, metric) for record in records for metric in record.metric_ids))


def main_scores(records: Sequence[Record]) -> Sheet:
    """Return a line for each run with its protocol's main metric, as `per_run` has it."""
    return sheet(_PER_RUN, (_Scored(record, record.metric_ids[0]) for record in records))


def per_class(records: Sequence[Record]) -> Sheet:
    """Return a line for each run, metric that has a value for each class, and class."""
    runs = ((record, metric) for record in records for metric in record.metric_ids)
    return sheet(_PER_CLASS, (_Scored(*run, name) for run in runs for name in run[0].per_class.get(run[1], {})))


def agreement(boards: Sequence[Board]) -> Sheet:
    """Return a line for each board, column of runs and pair of metrics that two rows or more have."""
    return sheet(_AGREEMENT, agreements(boards))


def table3(records: Sequence[Record]) -> Sheet:
    """Return a line for each pretext task or baseline and score."""
    return sheet(_TABLE3, ((found, one) for found in pretext_scores(records) for one in found.scores))


@dataclass(frozen=True)
class _Scored:
    """What a line of per_run.csv and per_class.csv is about: a run, a metric, and in the second a class."""

    record: Record
    metric: str
    name: str = ""


@dataclass(frozen=True)
class _Shown:
    """What a line of leaderboard.csv is about: a row in a column, and what the seeds of the row vary."""

    column: Column
    cell: Cell
    vary: str

    @property
    def record(self) -> Record:
        """The first run."""
        return self.cell.records[0]

    @cached_property
    def cost(self) -> RowCost:
        return row_cost(self.cell)

    @property
    def estimate(self) -> Estimate:
        return self.cell.estimate or _UNDEFINED

    @property
    def difference(self) -> Difference:
        return self.cell.difference or Difference("", _UNDEFINED)


_UNDEFINED = Estimate(math.nan, math.nan, math.nan, 0)
"""What stands for a missing estimate: every number of it is an empty cell."""


def _spread(record: Record) -> float | None:
    return record.spread.ratio if record.spread else None


def _wider(record: Record) -> str:
    wider = record.tuning.wider(record.job.trains) if record.tuning else {}
    return as_space(wider) if wider else ""


def _commit(record: Record) -> str:
    commit = record.provenance.get("commit") or "unknown"
    return f"{commit[:12]}{'+' if record.provenance.get('dirty') else ''}"


_OF_RUN: Fields[Record] = {
    "pretext": ("the pretext task", lambda r: r.pretext),
    "schedule": ("one-phase, two-phase or frozen", lambda r: r.job.schedule),
    "evaluation": ("finetune, or the probe of the frozen trunk", lambda r: r.job.evaluation),
    "downstream": ("the downstream task", lambda r: r.downstream),
    "tuned": ("whether the rates were searched", lambda r: r.tuning is not None),
    "rates": ("the learning rate of each phase", lambda r: [float(f"{rate:.6g}") for rate in r.rates]),
    "chosen": ("what a probe chose, by name, JSON; empty for fine-tuning", lambda r: r.selection.chosen if r.selection else ""),
    "precision": ("what the networks computed in", precision_of),
    "data": ("the labelled data", lambda r: r.data.name),
    "labels": ("how much of the training labels was used", lambda r: r.job.labels),
    "split": ("the split that was scored", lambda r: r.job.split),
    "protocol": ("the protocol and its changes", lambda r: r.job.protocol),
    "trunk": ("the trunk", lambda r: r.job.pretrain.trunk),
    "size": ("side of the images in pretraining", lambda r: r.pretrain.job.size),
    "data_fingerprint": ("SHA-256 over the labelled data", lambda r: r.data.fingerprint),
    "seed": ("the seed of fine-tuning", lambda r: r.job.seed),
    "run_id": ("the run", lambda r: r.id),
    **leaks.COLUMNS,
}
"""Columns that several files have."""


def _of_run(*names: str) -> dict[str, tuple[str, Callable[[Any], Any]]]:
    """Return columns of `_OF_RUN` for lines about anything that has a record."""

    def of(value: Callable[[Record], Any]) -> Callable[[Any], Any]:
        return lambda item: value(item.record)

    return {name: (_OF_RUN[name][0], of(_OF_RUN[name][1])) for name in names}


_LEADERBOARD: Fields[_Shown] = {
    **_of_run("pretext", "schedule", "evaluation"),
    "transfer": ("what is inherited: all or encoder", lambda s: s.record.job.transfer),
    "supervision": (
        "the labels used to train the trunk: none, a text, or unknown",
        lambda s: s.record.pretrain.supervision,
    ),
    "vary": ("what the seeds vary: all, or finetune alone", lambda s: s.vary),
    **_of_run("downstream"),
    "metric": (
        "the metric, with its version: the protocol's main one, or a study's choice",
        lambda s: s.column.metric,
    ),
    **_of_run("tuned"),
    "tuning": ("the search: budget, ranges, sampler, pruner, objective; or the rates that were given", lambda s: s.column.tuning),
    **_of_run("rates"),
    "chosen": (
        "what the first run's probe chose, by name, JSON; empty for fine-tuning",
        lambda s: _OF_RUN["chosen"][1](s.record),
    ),
    "sensitivity": (
        "how far the median complete trial is below the best, on the validation split",
        lambda s: s.record.tuning and s.record.tuning.sensitivity,
    ),
    "wider": (
        "wider ranges for --space, where a rate was chosen in the outermost tenth of its range; else empty",
        lambda s: _wider(s.record),
    ),
    "value": ("mean over seeds", lambda s: s.estimate.value),
    "low": (
        "lower end of the 95 % interval: over images alone with one seed, over images and seeds with several",
        lambda s: s.estimate.low,
    ),
    "high": ("upper end", lambda s: s.estimate.high),
    "n_seeds": ("how many seeds have a value", lambda s: s.estimate.seeds),
    "std": ("standard deviation over seeds", lambda s: s.estimate.deviation),
    "values": (
        "the value of each seed that has one, in the order of `seeds`, JSON",
        lambda s: [rounded(value) for value in s.estimate.values],
    ),
    "leading": (
        "whether it is one of those among which, with 95 % confidence, the best of its column is; none where none is left out",
        lambda s: s.cell.leading,
    ),
    "floor": ("the best trivial predictor, where the interval does not lie above its value; else empty", lambda s: s.cell.floor),
    "same": ("the trivial predictor that some seeds equal on every resample of the images; else empty", lambda s: s.cell.same[0]),
    "same_seeds": ("how many seeds equal it", lambda s: s.cell.same[1]),
    "dead": ("why a network was dead before fine-tuning; empty where none was", lambda s: s.cell.dead),
    "spread": (
        "how far features differ between images before fine-tuning, worst layer and seed: 1 as under batch statistics",
        lambda s: min((ratio for record in s.cell.records if (ratio := _spread(record)) is not None), default=None),
    ),
    **_of_run(*leaks.COLUMNS),
    "baseline": ("the row that the difference is measured from", lambda s: s.difference.against),
    "delta": ("difference to it, paired over images and seeds", lambda s: s.difference.estimate.value),
    "delta_low": ("lower end of its 95 % interval", lambda s: s.difference.estimate.low),
    "delta_high": ("upper end", lambda s: s.difference.estimate.high),
    "p": ("two-sided p value; empty with one seed", lambda s: s.difference.estimate.p),
    "p_holm": (
        "the same at its look, after Holm's correction over the table; empty for seeds beside the declared looks",
        lambda s: s.difference.corrected,
    ),
    "points_per_hour": (
        "points over the baseline for each hour of pretraining; empty where the baseline is pretrained too",
        lambda s: s.cost.points_per_hour,
    ),
    "device": ("what computed: cpu or cuda", lambda s: s.cost.device),
    "pretrain_seconds": ("seconds of pretraining, mean over seeds", lambda s: s.cost.pretrain_seconds),
    "tune_seconds": ("seconds of the search", lambda s: s.cost.tune_seconds),
    "finetune_seconds": ("seconds of fine-tuning, mean over seeds", lambda s: s.cost.finetune_seconds),
    "images": ("images seen by all three", lambda s: s.cost.images),
    "peak_memory": ("most bytes held", lambda s: s.cost.peak_memory),
    **_of_run("precision"),
    "joules": ("energy of all three where the device tells", lambda s: s.cost.joules),
    **_of_run("data"),
    "synthetic": ("whether it was drawn by the program", lambda s: s.record.data.synthetic),
    "scored_classes": ("how many classes the data can judge", lambda s: len(s.record.data.scored)),
    **_of_run("labels", "split", "protocol", "trunk", "size"),
    "recipe": ("the pretext task's settings, JSON", lambda s: recipe_of(s.record)),
    "pretrain_data": ("the unlabelled data", lambda s: s.record.pretrain.data.name if s.record.pretrain.data else "none"),
    "seeds": ("the seeds", lambda s: [record.job.seed for record in s.cell.records]),
    **_of_run("data_fingerprint"),
    "split_fingerprint": ("SHA-256 over the split", lambda s: s.record.data.splits_fingerprint),
    "pretrain_data_fingerprint": (
        "SHA-256 over the unlabelled data",
        lambda s: s.record.pretrain.data.fingerprint if s.record.pretrain.data else "none",
    ),
    "variant": ("digest of all else that the runs of a column share", lambda s: s.column.variant),
    "commits": (
        "commits of the program, + for changed files",
        lambda s: sorted({_commit(record) for record in s.cell.records}),
    ),
    "run_ids": ("the runs", lambda s: [record.id for record in s.cell.records]),
    "pretrain_ids": (
        "the pretrained trunks",
        lambda s: list(dict.fromkeys(record.pretrain.id for record in s.cell.records)),
    ),
}

_PER_RUN: Fields[_Scored] = {
    **_of_run("run_id"),
    "pretrain_id": ("its pretrained trunk", lambda s: s.record.pretrain.id),
    **_of_run("pretext", "schedule", "evaluation"),
    "transfer": ("what is inherited", lambda s: s.record.job.transfer),
    **_of_run("downstream", "protocol", "data", "trunk"),
    "size": ("side of the images in fine-tuning", lambda s: s.record.job.size),
    **_of_run("labels", "split", "tuned", "rates", "chosen", "seed"),
    "pretrain_seed": ("the seed of pretraining", lambda s: s.record.pretrain.job.seed),
    "metric": ("metric id with its version", lambda s: s.metric),
    "value": ("its value; empty where it is undefined", lambda s: s.record.metrics[s.metric]),
    "spread": (
        "how far features differ between images before fine-tuning, in the worst layer: 1 as under batch statistics",
        lambda s: _spread(s.record),
    ),
    "dead": ("why its network was dead before fine-tuning; empty where it was not", lambda s: dead(s.record)),
    **_of_run(*leaks.COLUMNS),
    "seconds": ("seconds of fine-tuning", lambda s: s.record.cost.seconds),
    **_of_run("precision"),
    "predictions": ("SHA-256 of the predictions", lambda s: s.record.predictions),
    "weights": ("SHA-256 of the fine-tuned network", lambda s: s.record.weights),
    "trunk_weights": ("SHA-256 of the pretrained trunk's file", lambda s: s.record.pretrain.weights),
}

_PER_CLASS: Fields[_Scored] = {
    **_of_run("run_id", "pretext", "schedule", "evaluation", "downstream", "data", "seed"),
    "metric": ("metric id with its version", lambda s: s.metric),
    "class": ("the class", lambda s: s.name),
    "value": ("its value; empty where the class does not occur", lambda s: s.record.per_class[s.metric][s.name]),
}

_AGREEMENT: Fields[Agreement] = {
    **_of_run("downstream"),
    "metric": ("a metric, with its version", lambda a: a.metric),
    "other": ("another of the same runs", lambda a: a.other),
    "rows": ("how many rows have both, by their means over seeds", lambda a: a.rows),
    "alike": ("pairs of rows whose means both order alike; whether they can be told apart is not asked", lambda a: a.order.alike),
    "differently": ("pairs of rows of which each prefers another", lambda a: a.order.differently),
    "tau": (
        "Kendall's tau-b: 1 the same order, -1 the reverse; empty where one metric tells no rows apart",
        lambda a: a.order.tau,
    ),
    **_of_run("data", "labels", "split", "protocol", "trunk", "size", "data_fingerprint"),
    "variant": ("digest of all else that the runs of a column share", lambda a: a.column.variant),
}

_TABLE3: Fields[tuple[PretextScores, PretextScore]] = {
    "data": ("the unlabelled data", lambda p: p[0].data.name),
    "data_fingerprint": ("SHA-256 over them", lambda p: p[0].data.fingerprint),
    "trunk": ("the trunk", lambda p: p[0].job.trunk),
    "size": ("side of the images", lambda p: p[0].job.size),
    "images": ("numbers of test images", lambda p: list(p[0].images)),
    "row": ("the pretext task's label, or the baseline's name", lambda p: p[1].label),
    "is_baseline": ("whether it is a baseline, which learns nothing", lambda p: p[1].trunks is None),
    "score": ("the score's name; its unit is the score's own", lambda p: p[1].name),
    "average": ("mean over images and seeds", lambda p: p[1].average),
    "min": ("least over images and seeds", lambda p: p[1].least),
    "max": ("most over images and seeds", lambda p: p[1].most),
    "n_seeds": ("how many trunks, a seed each", lambda p: p[1].trunks),
}

SCHEMAS = {
    "leaderboard.csv": texts(_LEADERBOARD),
    "per_run.csv": texts(_PER_RUN),
    "per_class.csv": texts(_PER_CLASS),
    "agreement.csv": texts(_AGREEMENT),
    "table3.csv": texts(_TABLE3),
}
"""What the columns of each CSV file mean, in order, by the file's name."""
