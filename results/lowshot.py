"""Low-shot probes by the number of labelled positives that they learn from."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from bench import metrics
from bench.probe import LowShot
from bench.record import Record
from results.board import Board, Row
from results.cache import Cache
from results.scores import Reader
from results.sheets import Fields
from results.tables import Line, Table, by_column, label

METRIC = "map_voc"


@dataclass(frozen=True)
class Sample:
    """A row's mean average precisions, in [0, 1], from samples of `shots` labelled positives a class: one a draw and seed."""

    number: int
    board: Board
    place: int
    row: Row
    shots: int
    draws: int
    values: tuple[float, ...]
    """The defined values."""

    @property
    def mean(self) -> float | None:
        """The mean over draws and seeds."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation over draws and seeds; None for a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


FIELDS: Fields[Sample] = {
    "board": ("the number of the board, from 1", lambda s: s.number),
    "row": ("the row's label", lambda s: s.row.label),
    "column": ("the column's heading", lambda s: s.board.columns[s.place].head),
    "shots": ("the number of labelled positives of each class", lambda s: s.shots),
    "draws": ("how many samples were drawn for each seed", lambda s: s.draws),
    "n_seeds": ("how many seeds", lambda s: len(s.row.cells[s.place].records)),
    "value": ("mean average precision: the mean over draws and seeds", lambda s: s.mean),
    "std": ("standard deviation over draws and seeds", lambda s: s.deviation),
}


def samples(boards: Sequence[Board], read: Reader, cache: Cache) -> list[Sample]:
    """Return the scores of every low-shot probe by row and number of shots; a column's draws are those of its task."""
    found = []
    for number, board in enumerate(boards, start=1):
        for place, _ in board.distinct_columns():
            for row in board.rows:
                records = row.cells[place].records
                probe = records[0].job.probe if records else None
                if not isinstance(probe, LowShot):
                    continue
                scored = [by_shots(record, read, cache) for record in records]
                for which, shots in enumerate(probe.shots):
                    values = tuple(value for of_run in scored for value in of_run[which] if value is not None)
                    found.append(Sample(number, board, place, row, shots, probe.draws, values))
    return found


def by_shots(record: Record, read: Reader, cache: Cache) -> list[list[float | None]]:
    """Return a low-shot run's mean average precision for each number of shots, and for each of its draws; None if undefined."""
    judged = record.data.classes, record.data.scored
    return cache.recall(["shots", METRIC, record.predictions, *judged], partial(_by_shots, record, read))


def _by_shots(record: Record, read: Reader) -> list[list[float | None]]:
    predictions = read(record).predictions
    shots, labels = predictions["shots"], predictions["labels"]

    def value(which: int, draw: int) -> float | None:
        one = {"scores": shots[:, which, draw], "labels": labels}
        found = metrics.compute(METRIC, one, record.data.classes, record.data.scored)
        return found if found == found else None

    return [[value(which, draw) for draw in range(shots.shape[2])] for which in range(shots.shape[1])]


def table(board: Board, found: Sequence[Sample]) -> Table | None:
    """Return a board's low-shot probes by the number of shots; None where there are none."""
    numbers = sorted({one.shots for one in found if one.board is board})

    def lines(row: Row, place: int) -> Iterator[Line]:
        values = {one.shots: one for one in found if one.board is board and one.row is row and one.place == place}
        if values:
            yield Line((label(row, place), *(_said(values.get(number)) for number in numbers)))

    note = (
        "Mean average precision (map_voc) in per cent from so many labelled positives of each class, ± the standard deviation "
        "over draws and seeds. Smaller samples lie in larger ones."
    )
    return by_column("Low-shot by shots", board, lines, ("Row", *(f"{n} shot{'s' if n > 1 else ''}" for n in numbers)), note)


def _said(one: Sample | None) -> str:
    if one is None or one.mean is None:
        return "-"
    return f"{100 * one.mean:.2f}" + (f" ± {100 * one.deviation:.2f}" if one.deviation is not None else "")
