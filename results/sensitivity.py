"""Does the order of trunks depend on the protocol? The same rows under pairs of columns: fine-tuning, probes, other settings.

The order is that of the rows' means over seeds; how alike two orders are is Kendall's tau-b, with the interval of `results.tau`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product

import numpy as np

from bench.record import Record
from bench.schema import canonical
from results import tau
from results.agreement import Order, order
from results.board import Board, Cell
from results.cache import Cache
from results.grouping import Column
from results.rows import groups
from results.scores import Reader, Scores
from results.sheets import Fields
from results.significance import Difference, corrected
from results.tables import Line, Table

RESAMPLES = 1_000
LEAST = 3
"""The least number of rows that two columns must share."""


@dataclass(frozen=True)
class Side:
    """A column of a board, by their numbers; boards are counted from 1."""

    number: int
    board: Board
    place: int

    @property
    def column(self) -> Column:
        """The column."""
        return self.board.columns[self.place]

    def cells(self) -> dict[str, Cell]:
        """Return the cells that have a value, by the row's label.

        Rows of one shared trunk repeat runs of other rows, and are left out where there are others.
        """
        known = [row for row in self.board.rows if row.cells[self.place].estimate is not None]
        own = [row for row in known if row.trunk_seed is None] or known
        return {row.label: row.cells[self.place] for row in own}


@dataclass(frozen=True)
class Compared:
    """How two columns order the rows that both have; `low` and `high` are the ends of tau's 95 % interval, nan without one."""

    one: Side
    other: Side
    rows: tuple[str, ...]
    order: Order
    low: float
    high: float
    told: int
    """How many of the pairs of rows that change places are told apart in both columns, after Holm's correction in each."""


FIELDS: Fields[Compared] = {
    "board": ("the number of the board, from 1", lambda c: c.one.number),
    "column": ("the column's heading", lambda c: c.one.column.head),
    "other_board": ("the number of the other column's board", lambda c: c.other.number),
    "other_column": ("the other column's heading", lambda c: c.other.column.head),
    "rows": ("the labels of the rows that both have", lambda c: list(c.rows)),
    "alike": ("pairs of rows that both order alike, by means over seeds", lambda c: c.order.alike),
    "differently": ("pairs of rows that change places", lambda c: c.order.differently),
    "told_apart": ("how many of these are told apart in both columns", lambda c: c.told),
    "tau": ("Kendall's tau-b; empty where one column tells no rows apart", lambda c: c.order.tau),
    "tau_low": ("lower end of its 95 % interval, over images and seeds", lambda c: c.low),
    "tau_high": ("upper end", lambda c: c.high),
}


def sensitivities(boards: Sequence[Board], read: Reader, cache: Cache, looks: Sequence[int] = ()) -> list[Compared]:
    """Return how each pair of columns of a task orders the rows that both have, where these are three at least.

    The columns are of one board, or those of the same name on two boards that differ in their protocol alone; rows of two boards
    are the same by their labels. Columns that differ by their metric alone have the same runs and are not compared, which
    `results.agreement` does; others are compared by the metrics that both have, or by any where they share none.
    """
    known: dict[tuple[int, int], Scores] = {}

    def scores_of(side: Side) -> Scores:
        key = side.number, side.place
        if key not in known:
            runs = {record.id: record for row in side.board.rows for record in row.cells[side.place].records}
            known[key] = Scores(side.column.metric, list(runs.values()), read, RESAMPLES, cache)
        return known[key]

    found = []
    for one, other in _pairs(boards):
        ours, theirs = one.cells(), other.cells()
        shared = [label for label in ours if label in theirs]
        if len(shared) >= LEAST:
            rows = _Rows.of([ours[label] for label in shared], scores_of(one))
            others = _Rows.of([theirs[label] for label in shared], scores_of(other))
            orders = order(list(zip(rows.means, others.means, strict=True)))
            low, high = _interval(orders.tau, rows, others, cache)
            told, also = rows.told(looks), others.told(looks)
            changed = sum(also.get(pair) == -sign for pair, sign in told.items())
            found.append(Compared(one, other, tuple(shared), orders, low, high, min(changed, orders.differently)))
    return found


def _pairs(boards: Sequence[Board]) -> Iterator[tuple[Side, Side]]:
    """Yield the pairs of columns to compare: of one board, and of two that differ in their protocol alone."""
    sets = [_sets_of_runs(number, board) for number, board in enumerate(boards, start=1)]
    for of_board in sets:
        for some, others in combinations(of_board, 2):
            if some[0].column.downstream == others[0].column.downstream:
                yield from _by_metric(some, others)
    for of_board, of_other in combinations(sets, 2):
        for some, others in product(of_board, of_other):
            one, other = some[0], others[0]
            same = (one.column.downstream, one.column.title) == (other.column.downstream, other.column.title)
            if same and _differ_in_protocol_alone(one.board, other.board):
                yield from _by_metric(some, others)


def _sets_of_runs(number: int, board: Board) -> list[list[Side]]:
    """Return the columns of a board, those of the same runs together."""
    sides = [Side(number, board, place) for place in range(len(board.columns))]
    return list(groups(sides, lambda side: side.column.runs).values())


def _by_metric(some: Sequence[Side], others: Sequence[Side]) -> Iterator[tuple[Side, Side]]:
    """Yield the pairs of columns of two sets of runs that have the same metric; all pairs where they share none."""
    pairs = list(product(some, others))
    same = [(one, other) for one, other in pairs if one.column.metric == other.column.metric]
    yield from same or pairs


def _differ_in_protocol_alone(one: Board, other: Board) -> bool:
    return all(value == other.facts[name] for name, value in one.facts.items() if name != "protocol")


@dataclass(frozen=True)
class _Rows:
    """Rows in a column: the column's scores, and each row's runs that have a value, by seed."""

    scores: Scores
    runs: tuple[tuple[Record, ...], ...]

    @classmethod
    def of(cls, cells: Sequence[Cell], scores: Scores) -> _Rows:
        defined = ((record for record in cell.records if record.id in scores.values) for cell in cells)
        return cls(scores, tuple(tuple(sorted(row, key=lambda record: record.job.seed)) for row in defined))

    @property
    def means(self) -> list[float]:
        """Each row's mean over seeds, negative where lower is better."""
        return [self.scores.sign * float(np.mean([self.scores.values[record.id] for record in row])) for row in self.runs]

    @property
    def seeds(self) -> list[list[int]]:
        return [[record.job.seed for record in row] for row in self.runs]

    def depends_on(self) -> list[object]:
        """Return what the rows' values on every resample depend on, as JSON values."""
        return [self.seeds, *(self.scores.depends_on([record.id for record in row]) for row in self.runs)]

    def replicates(self) -> list[tau.Floats]:
        return [self.scores.sign * self.scores.replicates([record.id for record in row]) for row in self.runs]

    def told(self, looks: Sequence[int]) -> dict[tuple[int, int], int]:
        """Return which row is better, 1 or -1, of each pair that is told apart, after Holm's correction over all pairs."""
        differences = {}
        for a, b in combinations(range(len(self.runs)), 2):
            estimate = self.scores.difference(self.runs[a], self.runs[b])
            if estimate is not None:
                differences[a, b] = Difference("", estimate)
        tested = corrected(differences, looks)
        sign = self.scores.sign
        return {pair: sign if one.estimate.value > 0 else -sign for pair, one in tested.items() if one.distinguishable}


def _interval(found: float | None, rows: _Rows, others: _Rows, cache: Cache) -> tuple[float, float]:
    """Return the ends of tau's interval; nan where tau is not defined."""
    if found is None:
        return math.nan, math.nan
    depends_on = ["tau", rows.depends_on(), others.depends_on()]
    digest = hashlib.sha256(canonical(depends_on).encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "big"))

    def compute(value: float) -> list[float]:
        return tau.interval(value, rows.replicates(), others.replicates(), rows.seeds, others.seeds, random)

    low, high = cache.recall(depends_on, partial(compute, found))
    return low, high


NOTES = (
    "Kendall's tau-b between the orders of the rows' means: 1 the same, -1 the reverse. Its 95 % interval is over images and "
    "seeds, for these rows; with one seed over images alone.",
    "Change places: pairs of rows that the two columns order differently. Told apart: how many of them are told apart in both "
    "columns, after Holm's correction over a column's pairs of rows; with one seed none is.",
)
NOTHING = f"No two columns of a task have {LEAST} rows in common, so there are no orders to compare."
_HEADS = ("Column", "Other column", "Rows", "tau-b", "95 % interval", "Change places", "Told apart")


def table(found: Sequence[Compared]) -> Table:
    """Return the comparisons of all boards, under a heading for each board or pair of boards."""
    lines: list[Line] = []
    for (number, other), members in groups(found, lambda one: (one.one.number, one.other.number)).items():
        first = members[0]
        title = first.one.board.title
        if number != other:
            title += f"; the other column under protocol {first.other.board.facts['protocol']}"
        lines.append(Line((title, *("" for _ in _HEADS[1:])), heading=True))
        lines += [_line(one) for one in members]
    return Table("Protocol sensitivity", NOTES if found else (NOTHING,), _HEADS, tuple(lines))


def _line(one: Compared) -> Line:
    value = "-" if one.order.tau is None else f"{one.order.tau:+.2f}"
    ends = "-" if math.isnan(one.low) else f"[{one.low:+.2f}, {one.high:+.2f}]"
    changed = f"{one.order.differently} of {math.comb(len(one.rows), 2)} pairs"
    return Line((one.one.column.head, one.other.column.head, str(len(one.rows)), value, ends, changed, str(one.told)))
