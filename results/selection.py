"""What choosing a probe's settings on the test split would have reported, beside what was chosen without it.

The difference, here called inflation, is how much a result would have been flattered. It is never part of a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from bench.record import Record
from results.board import Board, Row
from results.cache import Cache
from results.choices import best_on_test, chosen_by
from results.scores import Reader, Scores
from results.sheets import Fields
from results.statistics import Estimate
from results.tables import Line, Table, interval

RESAMPLES = 1_000
NOTES = (
    "Chosen properly: what the runs report, their settings chosen without the test split. Chosen on test: with the settings "
    "whose main metric is highest there.",
    "On test, SVM takes the cost of each class by its average precision, and low-shot one level for all samples: theirs can be "
    "the lower number.",
    "Inflation: the difference, paired over images and seeds; 0 where both choices are the same.",
    "Mean over rows: each row counts once, over the seeds that all have; its interval is over images and seeds, for these rows.",
)
TUNED = (
    "Rates of fine-tuning that were searched were chosen on val; networks with rates chosen on test were never trained, so their "
    "inflation is not known."
)
NOTHING = "No run here is of a probe, so nothing is known of what choosing on test would have reported."


@dataclass(frozen=True)
class Inflation:
    """A row of probes in a column, or the mean over a column's rows: both values in [0, 1], and their paired difference."""

    number: int
    board: Board
    place: int
    row: Row | None
    """None for the mean over rows."""
    rows: int
    value: float
    on_test: float
    difference: Estimate
    records: tuple[Record, ...] = ()
    """The runs, of each of which both values are defined."""

    @property
    def changed(self) -> int:
        """How many runs the test split would have chosen otherwise for."""
        return sum(_is_other(record) for record in self.records)


FIELDS: Fields[Inflation] = {
    "board": ("the number of the board, from 1", lambda one: one.number),
    "row": ("the row's label; empty for the mean over rows", lambda one: one.row.label if one.row else ""),
    "column": ("the column's heading", lambda one: one.board.columns[one.place].head),
    "metric": ("the metric, with its version", lambda one: one.board.columns[one.place].metric),
    "value": ("mean over seeds, settings chosen without the test split", lambda one: one.value),
    "value_on_test": ("mean over seeds, settings chosen on the test split (a share of 1, not per cent)", lambda one: one.on_test),
    "delta": ("the second minus the first: the inflation", lambda one: one.difference.value),
    "delta_low": ("lower end of its 95 % interval, paired over images and seeds", lambda one: one.difference.low),
    "delta_high": ("upper end", lambda one: one.difference.high),
    "n_seeds": ("how many seeds", lambda one: one.difference.seeds),
    "n_rows": ("how many rows it is a mean over; 1 for a row", lambda one: one.rows),
    "changed": ("for how many runs the test split would have chosen otherwise", lambda one: one.changed),
    "chosen": ("what each run chose", lambda one: [chosen_by(record) for record in one.records] if one.row else ""),
    "on_test": ("what the test split would have chosen", lambda one: [best_on_test(r) for r in one.records] if one.row else ""),
}


def inflations(boards: Sequence[Board], read: Reader, on_test: Reader, cache: Cache) -> list[Inflation]:
    """Return the inflation of every row of probes in every column, and after those of a column the mean over its rows.

    `read` gives a run's predictions and `on_test` those with the settings that the test split would have chosen. Raises DataError
    where the two are not of the same images.
    """
    found: list[Inflation] = []
    for number, board in enumerate(boards, start=1):
        for place, column in enumerate(board.columns):
            runs = {record.id: record for row in board.rows for record in row.cells[place].records}
            if any(record.selection is None for record in runs.values()) or not runs:
                continue
            scores = Scores(column.metric, list(runs.values()), read, RESAMPLES, cache)
            for record in filter(_is_other, runs.values()):
                assert record.selection is not None
                scores.add(_name(record), ["on test", record.selection.predictions], partial(on_test, record))
            of_rows = [one for row in board.rows if (one := _of_row(number, board, place, row, scores)) is not None]
            found += [*of_rows, *_mean(of_rows, scores)]
    return found


def _is_other(record: Record) -> bool:
    """Whether the test split would have chosen otherwise, so that its predictions are kept."""
    return record.selection is not None and record.selection.predictions != ""


def _name(record: Record) -> str:
    """Return the name of the predictions that choosing on the test split would have kept."""
    return f"{record.id}, chosen on test" if _is_other(record) else record.id


def _of_row(number: int, board: Board, place: int, row: Row, scores: Scores) -> Inflation | None:
    values = scores.values
    records = tuple(one for one in row.cells[place].records if one.id in values and _name(one) in values)
    names, proper = [_name(record) for record in records], [record.id for record in records]
    difference = scores.estimate(names, proper)
    if difference is None:
        return None
    value, on_test = (sum(values[name] for name in some) / len(records) for some in (proper, names))
    return Inflation(number, board, place, row, 1, value, on_test, difference, records)


def _mean(of_rows: Sequence[Inflation], scores: Scores) -> Iterator[Inflation]:
    """Yield the mean over the rows of a column, over the seeds that they share; nothing for a single row, or no such seed.

    Rows of one shared trunk repeat runs of other rows, and are left out where there are others.
    """
    own = [one for one in of_rows if one.row is not None and one.row.trunk_seed is None] or of_rows
    by_seed = [{record.job.seed: record for record in one.records} for one in own]
    shared = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
    pairs = [[(_name(of_row[seed]), of_row[seed].id) for of_row in by_seed] for seed in shared]
    difference = scores.mean_difference(pairs) if len(own) > 1 else None
    if difference is not None:
        records = tuple(of_row[seed] for of_row in by_seed for seed in shared)
        value = sum(scores.values[record.id] for record in records) / len(records)
        first = own[0]
        on_test = value + difference.value
        yield Inflation(first.number, first.board, first.place, None, len(own), value, on_test, difference, records)


def table(boards: Sequence[Board], found: Sequence[Inflation]) -> Table:
    """Return the inflations of all boards, under a heading for each column; a note says where nothing is known."""
    lines: list[Line] = []
    head: tuple[int, int] | None = None
    for one in found:
        if (one.number, one.place) != head:
            head = one.number, one.place
            title = f"{one.board.columns[one.place].head}: {one.board.title}"
            lines.append(Line((title, *("" for _ in _HEADS[1:])), heading=True))
        lines.append(_line(one))
    tuned = any(record.tuning is not None for board in boards for record in board.records())
    notes = (*(NOTES if found else (NOTHING,)), *((TUNED,) if tuned else ()))
    return Table("Inflation by choosing on the test split", notes, _HEADS, tuple(lines))


_HEADS = ("Row", "Chosen properly", "Chosen on test", "Inflation, points", "95 % interval", "Seeds", "Chosen", "Best on test")


def _line(one: Inflation) -> Line:
    values = f"{100 * one.value:.2f}", f"{100 * one.on_test:.2f}", f"{100 * one.difference.value:+.2f}"
    shown = (*values, interval(one.difference, sign="+"), str(one.difference.seeds))
    if one.row is None:
        return Line((f"mean of {one.rows} rows", *shown, "", f"another one in {one.changed} of {len(one.records)} runs"))
    return Line((one.row.label, *shown, *(_once(one.records, words) for words in (chosen_by, best_on_test))))


def _once(records: Sequence[Record], words: Callable[[Record], str]) -> str:
    """Return the words of each run, in the order of seeds; once where they are the same for all."""
    said = [words(record) for record in records]
    return said[0] if len(set(said)) == 1 else "; ".join(said)
