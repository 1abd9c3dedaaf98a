"""From records to a board: rows that may be compared, columns of one metric each, cells with intervals and paired differences.

A board holds runs of the same data, protocol (its changes may be one task's own), trunk, size, scored split and share of labels.
A row is an initialisation: a pretext task with its recipe, schedule and what is inherited. A column is a downstream task with all
else that two runs must share, its metric, and how its rates were found; nothing else is ever put beside it. Tables, CSV files and
the page are drawn from boards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench import metrics
from bench.errors import DataError, UsageError, unknown
from bench.record import Record
from results import rows, statistics
from results.cache import Cache
from results.scores import Reader, Scores
from results.statistics import Estimate

RESAMPLES = 10_000
SIGNIFICANT = 0.05
FLOOR, DEAD = "†", "‡"
"""Marks of a cell whose interval does not lie above a trivial predictor's value, and of one whose network was dead."""


@dataclass(frozen=True)
class Column:
    """A downstream task, a metric, how the rates were found, and a digest of everything that its runs share."""

    downstream: str
    title: str
    metric: str
    tuning: str
    variant: str
    trials: int = 0
    tag: str = ""

    @property
    def head(self) -> str:
        """The column's name: task, metric id with its version, unit, trials, and a digest where there are several such."""
        parts = [f"{self.metric}, %"]
        if self.tuning:
            parts.append(f"tuned, {self.trials} trials" if self.trials else self.tuning)
        return f"{self.title} ({'; '.join([*parts, self.tag] if self.tag else parts)})"


@dataclass(frozen=True)
class Difference:
    """A paired difference to another row: same images, same seeds.

    `corrected` is its p value at the look that it belongs to, after Holm; None with one seed, and for a number of seeds that is
    none of the looks that were declared.
    """

    against: str
    estimate: Estimate
    corrected: float | None = None

    @property
    def distinguishable(self) -> bool | None:
        """Whether the difference, to either side, is told from zero; None where nothing may be said."""
        return None if self.corrected is None else self.corrected < SIGNIFICANT

    @property
    def verdict(self) -> str:
        """Whether the difference is told from zero, in a word or two."""
        if self.estimate.seeds == 1:
            return "one seed"
        if self.estimate.p is None:
            return "no interval"
        return {True: "yes", False: "no", None: "exploratory"}[self.distinguishable]


@dataclass(frozen=True)
class Cell:
    """The runs of one row in one column: the mean over seeds with its interval, and the difference over the baseline."""

    records: tuple[Record, ...] = ()
    estimate: Estimate | None = None
    difference: Difference | None = None
    leading: bool = False
    """One of the rows among which, with 95 % confidence, the best of the column is."""
    floor: str = ""
    """The best trivial predictor, where the interval does not lie above its value; "" where it does."""
    dead: str = ""
    """Why a network of these runs was dead before it was fine-tuned; "" where none was."""

    @property
    def marks(self) -> str:
        """What a table sets behind the value: FLOOR and DEAD."""
        return (FLOOR if self.floor else "") + (DEAD if self.dead else "")


@dataclass(frozen=True)
class Row:
    """One initialisation. Trivial predictors are rows without records."""

    label: str
    pretext: str
    schedule: str
    transfer: str
    vary: str
    cells: tuple[Cell, ...]
    trunk_seed: int | None = None
    """The seed of the trunk that all seeds of the row share; None where each has its own."""


@dataclass(frozen=True)
class Board:
    """Rows that may be compared, and the facts that they share."""

    facts: Mapping[str, Any]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    trivial: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What all rows share, in one line."""
        f = self.facts
        labels = "" if f["labels"] == 1 else f", {100 * f['labels']:.3g} % of the labels"
        return f"{f['data']}, protocol {f['protocol']}, trunk {f['trunk']} at {f['size']} px{labels}, scored on {f['split']}"

    def records(self) -> list[Record]:
        """Return every run on the board."""
        return list({record.id: record for row in self.rows for cell in row.cells for record in cell.records}.values())


def boards(
    records: Sequence[Record],
    read: Reader,
    chosen: Sequence[str] = (),
    baseline: str = "",
    resamples: int = RESAMPLES,
    cache: Cache | None = None,
    looks: Sequence[int] = (),
) -> list[Board]:
    """Return a board for each combination of data, protocol, trunk, size, split and share of labels (`rows.boards`).

    `chosen` metric ids replace each protocol's main one. `baseline` is a row to measure differences from: `pretext`,
    `pretext:schedule`, or a row's label where that says more; when left out, random initialisation on each row's own schedule.
    `looks` are the numbers of seeds at which it was declared beforehand that one would look.
    Raises UsageError for a baseline that is nowhere, and DataError where runs that should have seen the same images did not.
    """
    known = Cache() if cache is None else cache
    members = rows.boards(records)
    made = [_board(runs, read, chosen, baseline, resamples, known, looks) for runs in members]
    names = {f"{record.pretext}:{record.job.schedule}" for record in records}
    labels = {row.label for board in made for row in board.rows}
    if baseline and baseline not in labels and not any(baseline in (name, name.partition(":")[0]) for name in names):
        raise unknown("row to compare with", baseline, names | labels)
    return [replace(board, notes=(*board.notes, *_apart(members[place], members[:place]))) for place, board in enumerate(made)]


def one_board(
    records: Sequence[Record],
    read: Reader,
    chosen: Sequence[str] = (),
    baseline: str = "",
    resamples: int = RESAMPLES,
    cache: Cache | None = None,
) -> Board:
    """Return the board of runs that someone wants beside each other; DataError says which field keeps them apart."""
    for other in records[1:]:
        if len(rows.boards([records[0], other])) > 1:
            different = rows.difference(rows.board_facts(records[0]), rows.board_facts(other))
            raise DataError(f"{records[0].id} and {other.id} cannot share a table: {'; '.join(different)}.")
    for members in rows.groups(records, lambda record: record.downstream).values():
        for other in members[1:]:
            different = rows.difference(rows.column_facts(members[0]), rows.column_facts(other))
            if different:
                raise DataError(f"{members[0].id} and {other.id} cannot share a column: {'; '.join(different)}.")
    (board,) = boards(records, read, chosen, baseline, resamples, cache)
    return board


def _apart(records: Sequence[Record], before: Sequence[Sequence[Record]]) -> list[str]:
    """Say which fields keep a board apart from the nearest one above it."""
    if not before:
        return []
    differences = sorted((rows.apart(other, records) for other in before), key=len)
    return [f"Not beside the rows above: {'; '.join(differences[0])}."]


def _board(
    records: Sequence[Record],
    read: Reader,
    chosen: Sequence[str],
    baseline: str,
    resamples: int,
    cache: Cache,
    looks: Sequence[int],
) -> Board:
    columns, by_column = _columns(records, chosen)
    computed = [
        _Computed(column, members, Scores(column.metric, members, read, resamples, cache))
        for column, members in zip(columns, by_column, strict=True)
    ]
    members = rows.rows(records)
    made = []
    for name, one in zip(rows.labels(members, records), members, strict=True):
        first = one.records[0]
        cells = tuple(column.cell(one.records) for column in computed)
        made.append(Row(name, first.pretext, first.job.schedule, first.job.transfer, one.vary, cells, one.trunk_seed))
    made, unpaired = _with_differences(made, computed, baseline, looks)
    made = _with_leaders(made, computed, looks)
    notes = (*_notes(records, columns, by_column), *unpaired, *_warnings(made, columns, looks))
    facts = {**rows.board_facts(records[0]), "protocol": rows.protocol_of(records)}
    return Board(facts, tuple(columns), tuple(made), tuple(_trivial_rows(computed)), notes)


def _columns(records: Sequence[Record], chosen: Sequence[str]) -> tuple[list[Column], list[list[Record]]]:
    """Return the columns of some runs, and the runs of each."""
    columns, by_column = [], []
    keyed = rows.groups(records, lambda r: (r.downstream, rows.rates_of(r), rows.digest(rows.column_facts(r))))
    for (downstream, tuning, variant), members in sorted(keyed.items(), key=lambda item: item[0]):
        first = members[0]
        trials = first.tuning.budget if first.tuning else 0
        for metric in [metrics.get(name).key for name in chosen if _fits(name, first)] if chosen else first.metric_ids[:1]:
            columns.append(Column(downstream, first.title, metric, tuning, variant, trials))
            by_column.append(members)
    heads = [column.head for column in columns]
    named = [c if heads.count(c.head) == 1 else replace(c, tag=f"variant {c.variant}") for c in columns]
    return named, by_column


def _fits(metric: str, record: Record) -> bool:
    return metrics.get(metric).needs == metrics.METRICS[record.metric_ids[0].partition("@")[0]].needs


class _Computed:
    """A column with its runs and their scores."""

    def __init__(self, column: Column, records: Sequence[Record], scores: Scores) -> None:
        self.column, self.records, self.scores = column, list(records), scores

    def cell(self, records: Sequence[Record]) -> Cell:
        """Return the cell of some runs, those of other columns left out; DataError when a seed is there twice."""
        known = {record.id for record in self.records}
        own = tuple(record for record in records if record.id in known)
        seeds = {record.job.seed: record.id for record in own}
        twice = next((record for record in own if seeds[record.job.seed] != record.id), None)
        if twice is not None:
            raise DataError(
                f"{twice.id} and {seeds[twice.job.seed]} would be the same seed of one row, and are not the same run."
            )
        found = self.scores.estimate([record.id for record in own if record.id in self.scores.values])
        dead = next((reason for record in own if (reason := rows.dead(record))), "")
        return Cell(own, found, floor=self._floor(found), dead=dead)

    def _floor(self, found: Estimate | None) -> str:
        """Return the best trivial predictor when the interval does not lie above its value."""
        known = [name for name in self.scores.trivial if name in self.scores.values]
        best = max(known, key=lambda name: self.scores.values[name], default="")
        return best if best and found is not None and found.low <= self.scores.values[best] else ""

    def difference(self, cell: Cell, other: Cell) -> Estimate | None:
        """Return the paired difference of two cells over the seeds that both have; None when there is none."""
        ours = {record.job.seed: record.id for record in cell.records if record.id in self.scores.values}
        theirs = {record.job.seed: record.id for record in other.records if record.id in self.scores.values}
        shared = sorted(ours.keys() & theirs.keys())
        return self.scores.estimate([ours[seed] for seed in shared], [theirs[seed] for seed in shared]) if shared else None


def _with_differences(
    made: list[Row], computed: Sequence[_Computed], baseline: str, looks: Sequence[int]
) -> tuple[list[Row], list[str]]:
    """Add the paired difference of every cell to its baseline, corrected by Holm over the board; say which rows have none."""
    differences: dict[tuple[int, int], Difference] = {}
    alone = []
    for place, row in enumerate(made):
        base = _baseline_of(row, made, baseline)
        if base is None:
            alone.append(row.label)
        if base is None or base is row:
            continue
        for column, one in enumerate(computed):
            found = one.difference(row.cells[column], base.cells[column])
            if found is not None:
                differences[place, column] = Difference(base.label, found)
    tested = {key: p for key, difference in differences.items() if (p := _p_at_look(difference.estimate, looks)) is not None}
    for key, p in zip(tested, statistics.holm(list(tested.values())), strict=True):
        differences[key] = replace(differences[key], corrected=p)
    with_gains = [
        replace(
            row, cells=tuple(replace(cell, difference=differences.get((place, column))) for column, cell in enumerate(row.cells))
        )
        for place, row in enumerate(made)
    ]
    wanted = baseline or "random_init on the same schedule and with the same seeds varied"
    return with_gains, [f"No row to compare with ({wanted}): {', '.join(alone)}."] if alone else []


def _p_at_look(found: Estimate, looks: Sequence[int]) -> float | None:
    return None if found.p is None else statistics.at_look(found.p, found.seeds, looks)


def _baseline_of(row: Row, made: Sequence[Row], baseline: str) -> Row | None:
    """Return the row that another is measured from: the named one, or random initialisation on the same schedule.

    Of several of that name a row is its own baseline, but one that inherits less than all is measured from the row of the same
    pretrained trunks that inherits all.
    """
    pretext, _, schedule = (baseline or "random_init").partition(":")
    fitting = [r for r in made if r.trunk_seed == row.trunk_seed]
    named = [r for r in fitting if r.label == baseline != r.pretext]
    if named:
        return named[0]
    fitting = [r for r in fitting if r.pretext == pretext and r.schedule == (schedule or row.schedule)]
    fitting = sorted(fitting, key=_by_life)  # an earlier control was dead
    if all(r is not row for r in fitting):
        return min(fitting, key=lambda r: r.transfer != "all", default=None)
    whole = (r for r in fitting if r.transfer == "all" and _trunks(r) == _trunks(row))
    return row if row.transfer == "all" else next(whole, row)


def _by_life(row: Row) -> tuple[bool, int]:
    """Return what puts rows that are alive before others, and the newest version of a pretext task first."""
    versions = [record.pretrain.job.version for cell in row.cells for record in cell.records]
    return any(cell.dead for cell in row.cells), -max(versions, default=0)


def _trunks(row: Row) -> set[tuple[str, ...]]:
    """Return what the pretrained trunks of a row are, but for their seeds."""
    return {rows.pretext_key(record) for cell in row.cells for record in cell.records}


def _with_leaders(made: list[Row], computed: Sequence[_Computed], looks: Sequence[int]) -> list[Row]:
    """Mark the cells of each column among which the best is with 95 % confidence; with one seed nothing is marked.

    Left out is who is told from the highest of K rows at a level of 5 % / (K - 1). The truly best one is told from any of the
    others so with a chance of 5 % / (K - 1) at most, whichever of them happens to be the highest. Who cannot be compared with
    it is not left out, and where nobody can, nothing is marked. Rows that share one trunk are among themselves.
    """
    leading: set[tuple[int, int]] = set()
    for column, one in enumerate(computed):
        ranked = [
            (cell.estimate.value, place)
            for place, row in enumerate(made)
            if (cell := row.cells[column]).estimate is not None and cell.estimate.seeds > 1
        ]
        for comparable in rows.groups(ranked, lambda item: made[item[1]].trunk_seed).values():
            best = max(comparable, key=lambda item: (item[0], -item[1]))[1]
            others = [place for _, place in comparable if place != best]
            found = {place: one.difference(made[best].cells[column], made[place].cells[column]) for place in others}
            p_values = {place: _p_at_look(estimate, looks) for place, estimate in found.items() if estimate is not None}
            if all(p is None for p in p_values.values()):
                continue
            told = {place for place, p in p_values.items() if p is not None and p * len(others) < SIGNIFICANT}
            leading |= {(place, column) for _, place in comparable if place not in told}
    return [
        replace(row, cells=tuple(replace(cell, leading=(place, column) in leading) for column, cell in enumerate(row.cells)))
        for place, row in enumerate(made)
    ]


def _trivial_rows(computed: Sequence[_Computed]) -> list[Row]:
    names = dict.fromkeys(name for one in computed for name in one.scores.trivial)
    made = []
    for name in names:
        cells = tuple(Cell((), one.scores.estimate([name])) if name in one.scores.values else Cell() for one in computed)
        made.append(Row(name, name, "", "", "", cells))
    return made


def _notes(records: Sequence[Record], columns: Sequence[Column], by_column: Sequence[Sequence[Record]]) -> list[str]:
    first = records[0].data
    pretrained = sorted({(r.pretrain.data.title, r.pretrain.data.fingerprint[:12]) for r in records if r.pretrain.data})
    precisions = sorted({rows.precision_of(record) for record in records})
    notes = [
        f"data {first.fingerprint[:12]}; pretrained on {', '.join(f'{title} {found}' for title, found in pretrained) or '-'}; "
        f"computed in {' and '.join(precisions)}"
    ]
    if first.synthetic:
        notes.append("Synthetic data: these figures say nothing about photographs.")
    searched = list(dict.fromkeys(column.tuning for column in columns if column.trials))
    for text in searched:
        tags = sorted({column.tag for column in columns if column.tuning == text and column.tag})
        where = f" ({', '.join(tags)})" if tags and len(searched) > 1 else ""
        notes.append(f"Tuned{where}: {text}.")
    if any(column.tuning for column in columns) and any(not column.tuning for column in columns):
        notes.append("Columns that name no trials and no rates have the protocol's rates.")
    told: set[str] = set()
    for place, column in enumerate(columns):
        if column.tag and column.tag not in told:
            told.add(column.tag)
            alike = [p for p, c in enumerate(columns) if c.downstream == column.downstream and c.variant != column.variant]
            facts = rows.column_facts(by_column[alike[0]][0]), rows.column_facts(by_column[place][0])
            notes.append(f"{column.tag}: {'; '.join(rows.difference(*facts))}.")
    return notes


def _warnings(made: Sequence[Row], columns: Sequence[Column], looks: Sequence[int]) -> list[str]:
    """Say what the marks mean where there are some, which networks were dead, and which seeds can show little."""
    notes = []
    if any(cell.floor for row in made for cell in row.cells):
        notes.append(f"{FLOOR}: the interval does not lie above the value of a trivial predictor, which looks at no image.")
    by_reason: dict[str, dict[str, None]] = {}
    for row in made:
        for cell, column in zip(row.cells, columns, strict=True):
            if cell.dead:
                by_reason.setdefault(cell.dead, {})[f"{row.label} in {column.title}"] = None
    for reason, dead in by_reason.items():
        notes.append(f"{DEAD}: dead before fine-tuning, so neither a control nor a method: {', '.join(dead)} ({reason}).")
    cells = [cell for row in made for cell in row.cells]
    estimates = [cell.estimate for cell in cells if cell.estimate] + [
        cell.difference.estimate for cell in cells if cell.difference
    ]
    if any(row.trunk_seed is not None for row in made):
        notes.append("Rows of one trunk say nothing of other trunks of the same pretext task, however many seeds they have.")
    if any(found.seeds == 2 for found in estimates):
        notes.append("n=2: both values are given; two seeds, or two that rows have in common, hardly ever tell anything apart.")
    if looks:
        declared = ", ".join(map(str, looks))
        notes.append(f"Looks were declared at {declared} seeds: p values count their share, and any other number is exploratory.")
    return list(dict.fromkeys(notes))


def select(records: Sequence[Record], wanted: Sequence[str]) -> list[Record]:
    """Return the runs whose ids begin with one of `wanted`; UsageError for a beginning that fits none."""
    for start in wanted:
        if not any(record.id.startswith(start) for record in records):
            raise unknown("run", start, [record.id for record in records])
    chosen = [record for record in records if any(record.id.startswith(start) for start in wanted)]
    if not chosen:
        raise UsageError("name at least one run.")
    return chosen
