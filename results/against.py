"""What speaks against a table, from the same records: a result is only as good as the figures its author did not choose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from bench.metrics import direction
from bench.record import Record
from results.agreement import order
from results.board import Board, Cell
from results.grouping import Column
from results.rows import groups

HEAD = "What speaks against:"
HIGHER = ("psnr", "psnr_hidden", "ssim", "accuracy", "accuracy_lightness", "information")
LOWER = ("loss", "error", "error_lightness")
"""Scores of pretext tasks that are better when they are higher, and when they are lower."""


def against(board: Board, by_metric: Sequence[Board]) -> list[str]:
    """Return lines with what speaks against a board.

    Named are metrics that order the rows differently or tell fewer of them from their baseline, rows that do not lie above a
    trivial predictor, and pretext tasks that score no better than a baseline at their own task. `by_metric` are the boards of the
    same runs for each metric of their protocols; a task without that metric has no column there.
    """
    said = []
    for place, column in enumerate(board.columns):
        others = [
            (other, number)
            for other in by_metric
            for number, one in enumerate(other.columns)
            if one.runs == column.runs and one.metric != column.metric
        ]
        of_column = [*_told(board, place, others), *_order(board, place, others)]
        said += [f"in {column.title} by {_name(column.metric)}, {one}" for one in of_column]
    said += _floors(by_metric)
    said += _below(board.records())
    return [f"{HEAD} {one}." for one in said] or [f"{HEAD} nothing that these records tell."]


def _order(board: Board, place: int, others: Sequence[tuple[Board, int]]) -> list[str]:
    """Return a phrase with the metrics that order some pairs of rows differently."""
    said = []
    for other, number in others:
        pairs = [
            (direction(board.columns[place].metric) * one.value, direction(other.columns[number].metric) * two.value)
            for row, again in zip(board.rows, other.rows, strict=True)
            if (one := row.cells[place].estimate) is not None and (two := again.cells[number].estimate) is not None
        ]
        count = order(pairs).differently
        if count:
            said.append(f"{count} of {math.comb(len(pairs), 2)} by {_name(other.columns[number].metric)}")
    return [f"pairs of rows in another order: {', '.join(said)}"] if said else []


def _told(board: Board, place: int, others: Sequence[tuple[Board, int]]) -> list[str]:
    """Return a phrase for rows whose differences the same other metrics do not tell, or one where no difference is told."""
    differences = [
        (number, difference) for number, row in enumerate(board.rows) if (difference := row.cells[place].difference) is not None
    ]
    told = [number for number, difference in differences if difference.distinguishable]
    if not told and any(difference.distinguishable is not None for _, difference in differences):
        return ["no difference from a baseline is told from zero"]
    found: dict[str, list[str]] = {}
    for number in told:
        row = board.rows[number]
        lacking = [
            _name(other.columns[column].metric)
            for other, column in others
            if not _same(
                row.cells[place], other.rows[number].cells[column], alike=_alike(board.columns[place], other.columns[column])
            )
        ]
        if lacking:
            found.setdefault(", ".join(lacking), []).append(row.label)
    return [f"told from a baseline, but not by {lacking}: {', '.join(labels)}" for lacking, labels in found.items()]


def _alike(one: Column, other: Column) -> bool:
    return direction(one.metric) == direction(other.metric)


def _same(cell: Cell, other: Cell, alike: bool) -> bool:
    """Whether a cell and the same cell by another metric both differ from their baseline, and both are better or both worse.

    `alike` says whether both metrics are better when higher, or both when lower.
    """
    if cell.difference is None or other.difference is None:
        return False
    signs = other.difference.estimate.value > 0, cell.difference.estimate.value > 0
    return bool(other.difference.distinguishable) and (signs[0] == signs[1]) == alike


def _floors(boards: Sequence[Board]) -> list[str]:
    """Return a phrase for each task with how many rows do not lie above a trivial predictor, by which metrics."""
    found: dict[str, dict[str, list[str]]] = {}
    columns = [(board, place, column) for board in boards for place, column in enumerate(board.columns)]
    for board, place, column in columns:
        cells = [row.cells[place] for row in board.rows if row.cells[place].estimate is not None]
        for predictor, reaching in groups((cell for cell in cells if cell.floor), lambda cell: cell.floor).items():
            said = f"{len(reaching)} of {len(cells)} rows ({predictor})"
            names = found.setdefault(column.title, {}).setdefault(said, [])
            if _name(column.metric) not in names:
                names.append(_name(column.metric))
    lines = []
    for title, parts in found.items():
        phrases = [f"{said} by {', '.join(names)}" for said, names in parts.items()]
        lines.append(f"no better than a trivial predictor in {title}: {'; '.join(phrases)}")
    return lines


def _name(metric: str) -> str:
    return metric.partition("@")[0]


def _below(records: Sequence[Record]) -> list[str]:
    """Return a phrase for each pretext task that scores no better at its own task than a baseline on the same images."""
    found = []
    for pretext, members in groups(records, lambda record: record.pretext).items():
        trunks = list({record.pretrain.id: record.pretrain for record in members}.values())
        said = []
        for score in (*HIGHER, *LOWER):
            own = [value for one in trunks if (value := one.evaluation.get(score, {}).get("average")) is not None]
            answers = {
                name: value
                for one in trunks
                for name, scores in one.baselines.items()
                if (value := scores.get(score, {}).get("average")) is not None
            }
            sign = 1 if score in HIGHER else -1
            best = max(answers, key=lambda name: sign * answers[name], default=None)
            if own and best is not None and sign * fmean(own) <= sign * answers[best]:
                said.append(f"{score} {fmean(own):.3f} ({best} {answers[best]:.3f})")
        if said:
            found.append(f"at its own task {pretext} is no better than a baseline: {', '.join(said)}")
    return found
