"""Do two metrics order the rows of a column alike? A pretext task that wins by one name only has not won."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from bench.metrics import direction
from bench.record import Record
from results.board import Board, Cell
from results.grouping import Column


@dataclass(frozen=True)
class Order:
    """How many pairs of rows two metrics order alike and differently; Kendall's tau-b, None where a metric has ties alone."""

    alike: int
    differently: int
    tau: float | None


@dataclass(frozen=True)
class Agreement:
    """How two metrics order the rows of a column; `rows` is how many rows have both, and `record` is a run of the first row."""

    column: Column
    record: Record
    metric: str
    other: str
    rows: int
    order: Order


def agreements(boards: Sequence[Board]) -> Iterator[Agreement]:
    """Yield how each pair of metrics that two rows or more have agrees, by means over seeds, for each column's runs."""
    for board in boards:
        for place, column in board.distinct_columns():
            cells = [row.cells[place] for row in board.rows if row.cells[place].records]
            for metric, other in combinations(cells[0].records[0].metric_ids if cells else (), 2):
                pairs = [pair for cell in cells if (pair := _means(cell, metric, other)) is not None]
                if len(pairs) > 1:
                    yield Agreement(column, cells[0].records[0], metric, other, len(pairs), order(pairs))


def _means(cell: Cell, metric: str, other: str) -> tuple[float, float] | None:
    """Return the means of two metrics over the seeds that have both, negative where lower is better; None where none has."""
    values = [(record.metrics.get(metric), record.metrics.get(other)) for record in cell.records]
    known = [(one, two) for one, two in values if one is not None and two is not None]
    if not known:
        return None
    ours, theirs = (
        direction(name) * statistics.fmean(side) for name, side in zip((metric, other), zip(*known, strict=True), strict=True)
    )
    return ours, theirs


def order(pairs: Sequence[tuple[float, float]]) -> Order:
    """Return how two metrics order rows, each row with its value by both; tau-b is Kendall's of 1945.

    >>> order([(0.1, 0.5), (0.2, 0.6), (0.3, 0.4)])
    Order(alike=1, differently=2, tau=-0.3333333333333333)
    """
    signs = [(_sign(a[0] - b[0]), _sign(a[1] - b[1])) for a, b in combinations(pairs, 2)]
    products = [one * other for one, other in signs]
    alike, differently = products.count(1), products.count(-1)
    untied = math.sqrt(sum(one != 0 for one, _ in signs) * sum(other != 0 for _, other in signs))
    return Order(alike, differently, (alike - differently) / untied if untied else None)


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)
