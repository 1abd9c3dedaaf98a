"""Published numbers with their sources, from `published.csv`, and how rows of ours deviate from the paper.

Published numbers stand in a table of their own, never in a column of ours.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from bench.record import Record
from bench.text import plain
from results.board import Board, Row
from results.grouping import FINETUNE
from results.rows import groups
from results.statistics import Estimate
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


FACTS = {
    "Scored on": ("task", "split"),
    "Trained": ("backbone", "input", "pretraining_data", "layers_tuned"),
    "Note": ("note", "verified", "url"),
}
"""What is said of numbers: in a column where it differs within a table of their source, else once below that table."""
APART = "Protocols, data and networks differ from ours: read these numbers beside our rows, do not compare them."
VERIFIED = {
    "yes": "The numbers were found in the source's text.",
    "as cited": "The numbers were found in the citing table only.",
    "no": "The numbers are copied.",
}


def published_tables() -> list[Table]:
    """Return the published numbers, a table for each that they were printed in."""
    sources = groups(published(), lambda one: f"{one.source}, {one.printed_in}")
    return [_published(title, numbers) for title, numbers in sources.items()]


def _published(title: str, numbers: Sequence[Published]) -> Table:
    shared = [name for names in FACTS.values() for name in names if len({getattr(one, name) for one in numbers}) == 1]
    columns = {"Method": [one.method for one in numbers], "Value": [f"{one.value} {one.unit}".strip() for one in numbers]}
    columns["Metric"] = [one.metric for one in numbers]
    for head, names in FACTS.items():
        own = [name for name in names if name not in shared]
        if own:
            columns[head] = ["; ".join(text for name in own if (text := getattr(one, name))) for one in numbers]
    said = [_said(name, text) for name in shared if (text := getattr(numbers[0], name))]
    rows = tuple(map(Line, zip(*columns.values(), strict=True)))
    return Table(f"Published: {title}", (" ".join(said), APART), tuple(columns), rows)


def _said(name: str, text: str) -> str:
    if name in ("verified", "url"):
        return VERIFIED.get(text, text)
    return f"{name.replace('_', ' ').capitalize()}: {text}."


ROWS = {"Baseline": ("random_init", "one-phase"), "Colorization pre-training": ("cgan_color", "two-phase")}
"""The paper's rows by name, and the pretext task and schedule of ours that mean the same."""
TEXT_AND_CODE = (
    "Every row of ours deviates where the paper's text and its released code differ or say nothing: the weight of the L1 term "
    "(the code's), Adam's beta1 (the code's), the fine-tuning rates of the segmentation (the code's).",
    "And: the splits (drawn anew by the same method), the discriminator's field of view (protocol paper: the text's 70 px; "
    "paper-code: the code's). The paper's baseline has one phase, its pretrained row two.",
)


@dataclass(frozen=True)
class Ours:
    """A row of ours, which has a value, beside a number of the paper's, and the settings in which it deviates from the paper."""

    board: Board
    row: Row
    estimate: Estimate
    deviations: list[str]


def beside_paper(boards: Sequence[Board]) -> dict[Published, list[Ours]]:
    """Return Table 4's numbers, each with our rows of the same metric."""
    papers = [one for one in published() if (one.source, one.printed_in) == (PAPER, "Table 4")]
    return {one: [ours for board in boards for ours in _ours(board, one)] for one in papers}


def paper_table(boards: Sequence[Board]) -> Table:
    """Return Table 4's numbers, and below each our rows of the same metric; notes say how these deviate from the paper."""
    numbers = beside_paper(boards)
    every = [ours.deviations for found in numbers.values() for ours in found]
    common = [deviation for deviation in every[0] if all(deviation in found for found in every)] if every else []
    lines = []
    notes: dict[str, int] = {}
    for one, found in numbers.items():
        lines.append(Line((f"{one.method} (the paper)", one.metric, f"{one.value} %", "1", "-")))
        for ours in found:
            value = f"{100 * ours.estimate.value:.2f} {interval(ours.estimate)} %"
            own = [deviation for deviation in ours.deviations if deviation not in common]
            number = notes.setdefault(f"{ours.board.title}; {'; '.join(own) or 'nothing else'}.", len(notes) + 1)
            lines.append(Line((ours.row.label, one.metric, value, str(ours.estimate.seeds), f"note {number}")))
    said = [f"Every row of ours deviates in: {'; '.join(common)}."] if common else []
    said += [f"Note {number}: {note}" for note, number in notes.items()]
    columns = ("Row", "Metric", "Value", "Seeds", "Deviations")
    return Table("Ours beside the paper's Table 4", (*said, *TEXT_AND_CODE), columns, tuple(lines))


def _ours(board: Board, one: Published) -> Iterator[Ours]:
    pretext, schedule = ROWS[one.method]
    tuned = [place for place, column in enumerate(board.columns) if column.evaluation == FINETUNE]
    places = [place for place in tuned if board.columns[place].metric == one.metric]
    for row in board.rows:
        if (row.pretext, row.schedule, row.transfer) != (pretext, schedule, "all"):
            continue
        for cell in (row.cells[place] for place in places):
            if cell.estimate is not None:
                yield Ours(board, row, cell.estimate, _deviations(cell.records[0]))


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
        ("data", record.data.short, "voc2012"),
        ("trunk", record.job.pretrain.trunk, "unet:depth=8,width=64"),
        ("size", record.job.size, 256),
        ("labels", record.job.labels, 1.0),
        ("phases", _phases(ours), _phases(papers or ours)),
    ]
    facts += [(name, _plain(getattr(settings, name)), value) for name, value in SETTINGS.get(record.downstream, {}).items()]
    if recipe.get("epochs"):
        facts.append(("pretraining data", pretrained.short if pretrained else "none", "coco2014"))
        facts += [(f"pretraining's {name}", recipe.get(name), value) for name, value in RECIPE.items()]
    return [f"{name} {plain(mine)} (paper {plain(theirs)})" for name, mine, theirs in facts if mine != theirs]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _phases(phases: Sequence[tuple[str, int, float]]) -> str:
    return " then ".join(f"{train} {epochs} epoch{'s' if epochs > 1 else ''} at {rate:.3g}" for train, epochs, rate in phases)
