"""The tables that a report prints and no CSV file holds, as plain values: for JSON documents and data frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.record import Record, Tuning
from results.board import Board, Row
from results.csv_files import SCHEMAS, leaderboard_line
from results.grouping import Column
from results.published import beside_paper, published
from results.sheets import UNITS, Fields, Sheet, sheet, texts
from results.statistics import Estimate
from results.tables import searches_of


@dataclass(frozen=True)
class _Place:
    """A cell of Table 4: the board by its number from 1, the number of its column, and the row."""

    number: int
    board: Board
    place: int
    row: Row

    @property
    def column(self) -> Column:
        return self.board.columns[self.place]

    @property
    def told_apart(self) -> str:
        difference = self.row.cells[self.place].difference
        return "" if difference is None else difference.verdict


@dataclass(frozen=True)
class _Searched:
    """A search of the runs in a cell of Table 4."""

    at: _Place
    record: Record
    tuning: Tuning

    def count(self, state: str) -> int:
        return Counter(trial.state for trial in self.tuning.trials)[state]


def _places(boards: Sequence[Board]) -> Iterator[_Place]:
    for number, board in enumerate(boards, start=1):
        for place in range(len(board.columns)):
            yield from (_Place(number, board, place, row) for row in (*board.rows, *board.trivial))


def _of_place(value: Callable[[_Place], Any]) -> Callable[[_Searched], Any]:
    return lambda searched: value(searched.at)


_AT: Fields[_Place] = {
    "board": ("the number of the board, from 1: rows of one board may be compared", lambda p: p.number),
    "row": ("the row's label", lambda p: p.row.label),
    "column": ("the column's heading", lambda p: p.column.head),
}
_TABLE4: Fields[_Place] = {
    **_AT,
    "trivial": ("whether it is a trivial predictor, which looks at no image and has no runs", lambda p: not p.row.schedule),
    "marks": ("the marks behind the value, which the board's notes explain", lambda p: p.row.cells[p.place].marks),
    "told_apart": (
        "whether the difference from the baseline is told from zero: yes, no, one seed, no interval or exploratory",
        lambda p: p.told_apart,
    ),
}
_SEARCHES: Fields[_Searched] = {
    **{name: (text, _of_place(value)) for name, (text, value) in _AT.items()},
    "complete": ("complete trials", lambda s: s.count("complete")),
    "pruned": ("pruned trials", lambda s: s.count("pruned")),
    "diverged": ("trials that diverged", lambda s: s.count("diverged")),
    "rates": ("the rates that were chosen, by phase", lambda s: dict(s.tuning.best)),
    "best": ("the best trial on the validation split", lambda s: s.tuning.best_value),
    "first": ("the first trial, which has the protocol's rates where they are searched", lambda s: s.tuning.trials[0].value),
    "sensitivity": ("how far the median complete trial is below the best", lambda s: s.tuning.sensitivity),
    "wider": (
        "wider ranges, where a rate was chosen at the edge of its range; else an empty object",
        lambda s: {name: list(limits) for name, limits in s.tuning.wider(s.record.job.trains).items()},
    ),
}
_BESIDE_PAPER = {
    "row": "the paper's name of the row, or the label of ours",
    "is_papers": "whether it is the paper's number",
    "metric": "the metric, with its version",
    "value": f"the value ({UNITS['value']})",
    "low": f"lower end of the 95 % interval ({UNITS['low']})",
    "high": f"upper end ({UNITS['high']})",
    "n_seeds": "how many seeds",
    "deviations": "the settings in which a row of ours deviates from the paper",
}
_PUBLISHED = {
    "source": "the paper",
    "url": "where it is",
    "printed_in": "the table in it",
    "method": "the method's name there",
    "backbone": "the network",
    "input": "what the network sees",
    "pretraining_data": "the data of pretraining",
    "layers_tuned": "what was trained downstream",
    "task": "the downstream task",
    "split": "the images that were scored",
    "metric": "the metric: an id of ours only where the definition is the same",
    "printed": "the number as it is printed",
    "unit": "its unit",
    "verified": "yes: found in the source's text; as cited: in the citing table only; no: copied",
    "note": "what else there is to say",
}
TABLES = {
    "table4": {**texts(_TABLE4), **SCHEMAS["leaderboard.csv"]},
    "searches": texts(_SEARCHES),
    "beside_paper": _BESIDE_PAPER,
    "published": _PUBLISHED,
}
"""What the columns of each table mean, in order, by the table's name."""


def table4(boards: Sequence[Board]) -> Sheet:
    """Return a line for each cell of each board that has runs or is a trivial predictor's, with the leaderboard's columns."""
    lines = []
    for at in _places(boards):
        cell = at.row.cells[at.place]
        if cell.records:
            line = leaderboard_line(at.column, cell, at.row.vary)
        elif cell.estimate is not None:
            found = {"downstream": at.column.downstream, "metric": at.column.metric}
            line = {**dict.fromkeys(SCHEMAS["leaderboard.csv"]), **found, **_interval(cell.estimate)}
        else:
            continue
        lines.append({**{name: value(at) for name, (_, value) in _TABLE4.items()}, **line})
    return Sheet(TABLES["table4"], lines)


def searches(boards: Sequence[Board]) -> Sheet:
    """Return a line for each search of the runs in each cell."""
    found = ((at, searches_of(at.row.cells[at.place])) for at in _places(boards))
    return sheet(_SEARCHES, (_Searched(at, *one) for at, several in found for one in several))


def beside(boards: Sequence[Board]) -> Sheet:
    """Return a line for each number of the paper's Table 4, and below it one for each row of ours."""
    lines: list[dict[str, Any]] = []
    for one, several in beside_paper(boards).items():
        papers = {"row": one.method, "is_papers": True, "value": float(one.value) / 100, "n_seeds": 1}
        lines.append({**dict.fromkeys(_BESIDE_PAPER), **papers, "metric": one.metric})
        for ours in several:
            facts = {"row": ours.row.label, "is_papers": False, "metric": one.metric, "n_seeds": ours.estimate.seeds}
            lines.append({**facts, **_interval(ours.estimate), "deviations": ours.deviations})
    return Sheet(_BESIDE_PAPER, lines)


def published_numbers() -> Sheet:
    """Return a line for each published number, as `published.csv` has it; the unit stands beside the value."""
    return Sheet(TABLES["published"], [{**asdict(one), "printed": float(one.value)} for one in published()])


def _interval(found: Estimate) -> dict[str, float]:
    return {"value": found.value, "low": found.low, "high": found.high}
