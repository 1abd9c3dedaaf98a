"""Published numbers with their sources, from `published.csv`, and how rows of ours deviate from the paper.

Published numbers stand in a table of their own, never in a column of ours.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from bench.record import Record
from results.board import Board, Cell, Row
from results.tables import Line, Table, interval

PAPER = "Treneska et al. 2022"


@dataclass(frozen=True)
class Published:
    """One printed number; `metric` is an id of ours only where the definition is the same."""

    source: str
    url: str
    printed_in: str
    method: str
    backbone: str
    input: str
    pretraining_data: str
    layers_tuned: str
    task: str
    split: str
    metric: str
    unit: str
    value: str
    verified: str
    note: str


def published() -> list[Published]:
    """Return every published number, in the file's order."""
    text = resources.files("results").joinpath("published.csv").read_text(encoding="utf-8")
    return [Published(**row) for row in csv.DictReader(text.splitlines())]


def published_table() -> Table:
    """Return the published numbers as a table."""
    rows = [
        Line(
            (
                *(one.method, f"{one.value} {one.unit}".strip(), one.metric, one.task, one.split, one.backbone),
                *(one.input, one.pretraining_data, one.layers_tuned, f"{one.source}, {one.printed_in}", one.verified, one.note),
            )
        )
        for one in published()
    ]
    columns = (
        *("Method", "Value", "Metric", "Task", "Split", "Backbone"),
        *("Input", "Pretraining data", "Layers tuned", "Source", "Verified", "Note"),
    )
    notes = (
        "Protocols, data and networks differ from ours: read these numbers beside our rows, do not compare them. "
        "Verified: yes, found in the source's text; as cited, found in the citing table only; no, copied.",
    )
    return Table("Published numbers", notes, columns, tuple(rows))


ROWS = {"Baseline": ("random_init", "one-phase"), "Colorization pre-training": ("cgan_color", "two-phase")}
"""The paper's rows by name, and the pretext task and schedule of ours that mean the same."""
TEXT_AND_CODE = (
    "Known deviations of every row of ours from Table 4, where the paper's text and its released code differ or say nothing: the "
    "weight of the L1 term (ours is the code's), Adam's beta1 (the code's), the fine-tuning rates of the segmentation (the "
    "code's), the splits (drawn anew by the same method), the discriminator's field of view (protocol paper: the text's 70 px; "
    "paper-code: the code's). The paper reports one run; its baseline has one phase, its pretrained row two."
)


def paper_table(boards: Sequence[Board]) -> Table:
    """Return Table 4's numbers, and below each our rows of the same metric with their deviations from the paper."""
    lines = []
    for one in published():
        if one.source != PAPER or one.printed_in != "Table 4":
            continue
        lines.append(Line((one.method, one.metric, f"{one.value} %", "the paper", "-")))
        for board in boards:
            for row, cell in _cells(board, one):
                assert cell.estimate is not None
                value = f"{100 * cell.estimate.value:.2f} {interval(cell.estimate)} %"
                where = f"{row.label}; {board.title} (n={cell.estimate.seeds})"
                lines.append(Line(("", "", value, where, "; ".join(_deviations(cell.records[0])) or "none found")))
    columns = ("Table 4's row", "Metric", "Value", "Where", "Deviates from the paper in")
    return Table("Ours beside the paper's Table 4", (TEXT_AND_CODE,), columns, tuple(lines))


def _cells(board: Board, one: Published) -> list[tuple[Row, Cell]]:
    pretext, schedule = ROWS[one.method]
    places = [place for place, column in enumerate(board.columns) if column.metric == one.metric]
    return [
        (row, row.cells[place])
        for row in board.rows
        for place in places
        if (row.pretext, row.schedule, row.transfer) == (pretext, schedule, "all") and row.cells[place].estimate is not None
    ]


SETTINGS: dict[str, dict[str, Any]] = {
    "voc_cls": {
        "split_scheme": "paper-70-20-10", "fit": ["train"], "resize": "squash", "interpolation": "bilinear",
        "augmentation": "none", "batch_size": 32, "difficult": "positive", "statistics": "running",
        "evaluate_one_by_one": False, "head_width": 4096, "pool": "flatten",
    },
    "voc_seg": {
        "split_scheme": "paper-70-20-10", "fit": ["train"], "resize": "crop", "interpolation": "bilinear", "augmentation": "crop",
        "batch_size": 16, "void": "background", "statistics": "running", "evaluate_one_by_one": False,
    },
}  # fmt: skip
"""What the paper's text says about each downstream task, as fields of our protocols."""
PHASES = {
    ("voc_cls", "one-phase"): [("all", 4, 3e-4)],
    ("voc_cls", "two-phase"): [("head", 3, 3e-4), ("all", 1, 5e-5)],
    ("voc_seg", "one-phase"): [("all", 6, 3e-4)],
    ("voc_seg", "two-phase"): [("head", 1, 3e-4), ("all", 5, 5e-5)],
}
RECIPE = {
    "epochs": 20, "batch_size": 32, "lr": 2e-3, "beta1": 0.5, "statistics": "running", "l1_weight": 100.0,
    "discriminator_weight": 0.5, "discriminator_width": 64, "discriminator_blocks": "text",
}  # fmt: skip


def _deviations(record: Record) -> list[str]:
    """Return the settings in which a run differs from what the paper's text describes."""
    settings, recipe, pretrained = record.job.settings, record.pretrain.recipe, record.pretrain.data
    papers = PHASES.get((record.downstream, record.job.schedule))
    ours = [(phase.train, phase.epochs, phase.lr) for phase in record.job.phases]
    facts = [
        ("data", record.data.title, "voc2012"),
        ("trunk", record.job.pretrain.trunk, "unet:depth=8,width=64"),
        ("size", record.job.size, 256),
        ("labels", record.job.labels, 1.0),
        ("phases", _phases(ours), _phases(papers or ours)),
    ]
    facts += [(name, _plain(getattr(settings, name)), value) for name, value in SETTINGS.get(record.downstream, {}).items()]
    if recipe.get("epochs"):
        facts.append(("pretraining data", pretrained.title if pretrained else "none", "coco2014"))
        facts += [(f"pretraining's {name}", recipe.get(name), value) for name, value in RECIPE.items()]
    return [f"{name} {mine} (paper {theirs})" for name, mine, theirs in facts if mine != theirs]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _phases(phases: Sequence[tuple[str, int, float]]) -> str:
    return " then ".join(f"{train} {epochs} epochs at {rate:.3g}" for train, epochs, rate in phases)
