"""From records to a board: rows that may be compared, columns of one metric each, cells with intervals and paired differences.

A board holds runs of the same data, protocol (its changes may be one task's own), trunk, size, scored split and share of labels.
A row is an initialisation: a pretext task with its recipe, schedule and what is inherited. A column is a downstream task with
everything else that two runs must share, its metric, and how its rates were found. Tables, CSV files and the page are drawn from
boards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench import metrics
from bench.errors import DataError, UsageError, unknown
from bench.record import Record
from results import baselines, data_notes, leaks, origins, protocols, rows, searches
from results.cache import Cache
from results.grouping import FINETUNE, Column, columns
from results.scores import Reader, Scores
from results.significance import Difference, corrected, leaders
from results.statistics import Estimate

RESAMPLES = 10_000
FLOOR, DEAD, SAME = "†", "‡", "§"
"""Marks of a cell whose interval does not lie above a trivial predictor's value, of one whose network was dead, and of one with a
seed that scores just what a trivial predictor scores."""
MARKS = (FLOOR, SAME, DEAD, leaks.MARK)
"""All marks of a cell. A note that begins with a mark and a colon explains it."""


@dataclass(frozen=True)
class Cell:
    """The runs of one row in one column: the mean over seeds with its interval, and the paired difference from the baseline."""

    records: tuple[Record, ...] = ()
    estimate: Estimate | None = None
    difference: Difference | None = None
    leading: bool = False
    """Whether it is one of the rows among which, with 95 % confidence, the best of the column is, and another is not."""
    floor: str = ""
    """The best trivial predictor, where the interval does not lie above its value; "" where it does."""
    same: tuple[str, int] = ("", 0)
    """A trivial predictor, and how many seeds score just what it scores, on every resample of the images."""
    dead: str = ""
    """Why a network of these runs was dead before it was fine-tuned; "" where none was."""

    @property
    def marks(self) -> str:
        """The marks that a table sets behind the value: those of MARKS."""
        are_set = (self.floor, self.same[1], self.dead, leaks.seen(self.records))
        return "".join(mark for mark, is_set in zip(MARKS, are_set, strict=True) if is_set)


@dataclass(frozen=True)
class Row:
    """One initialisation with a cell for each column; a trivial predictor is a row without records."""

    label: str
    pretext: str
    schedule: str
    transfer: str
    vary: str
    cells: tuple[Cell, ...]
    trunk_seed: int | None = None
    """The seed of the trunk that all seeds of the row share; None where each has its own."""

    @property
    def records(self) -> list[Record]:
        """The runs of all its cells; a run is there once for each column that it is in."""
        return [record for cell in self.cells for record in cell.records]


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
        """What all rows share, in one short line; notes say what a changed protocol changes, and which classes are scored."""
        f = self.facts
        labels = "" if f["labels"] == 1 else f", {100 * f['labels']:.3g} % of the labels"
        return f"{f['data']}, protocol {f['protocol']}, trunk {f['trunk']} at {f['size']} px{labels}, scored on {f['split']}"

    def distinct_columns(self) -> list[tuple[int, Column]]:
        """Return a column for each set of runs, with its number: columns that differ by the metric alone have the same runs."""
        found: dict[tuple[str, ...], tuple[int, Column]] = {}
        for place, column in enumerate(self.columns):
            found.setdefault(column.runs, (place, column))
        return list(found.values())

    def task_of(self, record: Record) -> str:
        """Return the title of a run's task, and its data where there are several on the board."""
        same = (one for one in self.columns if (one.downstream, one.data) == (record.downstream, record.data.fingerprint))
        return next((one.task for one in same), record.title)

    def records(self) -> list[Record]:
        """Return every run on the board once."""
        return list({record.id: record for row in self.rows for record in row.records}.values())


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

    `chosen` metric ids replace each protocol's main one. `baseline` is the row to measure differences from: `pretext`,
    `pretext:schedule`, or a row's label where that says more; when left out, random initialisation on each row's own schedule.
    `looks` are the numbers of seeds at which interim looks were declared beforehand.
    Raises UsageError for a baseline that does not exist, and DataError where runs that must have seen the same images did not.
    """
    known = Cache() if cache is None else cache
    members = rows.boards(records)
    made = []
    for runs in members:
        parts = columns(runs, chosen)
        scores = [Scores(column.metric, of_column, read, resamples, known) for column, of_column in parts]
        made.append(_board(runs, parts, scores, baseline, looks))
    pretexts = {record.pretext for record in records}
    names = {f"{record.pretext}:{rows.schedule_of(record)}" for record in records}
    labels = {row.label for board in made for row in board.rows}
    if baseline and baseline not in names | labels | pretexts:
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
    """Return the one board of some runs; DataError says which fields keep two of them from sharing a table or a column."""
    for other in records[1:]:
        if len(rows.boards([records[0], other])) > 1:
            different = rows.difference(rows.board_facts(records[0]), rows.board_facts(other))
            raise DataError(f"{records[0].id} and {other.id} cannot share a table: {'; '.join(different)}.")
    for members in rows.groups(records, lambda record: (record.downstream, record.job.evaluation)).values():
        for other in members[1:]:
            different = rows.difference(rows.column_facts(members[0]), rows.column_facts(other))
            if different:
                raise DataError(f"{members[0].id} and {other.id} cannot share a column: {'; '.join(different)}.")
    (board,) = boards(records, read, chosen, baseline, resamples, cache)
    return board


def select(records: Sequence[Record], wanted: Sequence[str]) -> list[Record]:
    """Return the runs whose ids begin with one of `wanted`; UsageError for a beginning that fits none."""
    for start in wanted:
        if not any(record.id.startswith(start) for record in records):
            raise unknown("run", start, [record.id for record in records])
    chosen = [record for record in records if record.id.startswith(tuple(wanted))]
    if not chosen:
        raise UsageError("name at least one run.")
    return chosen


def _board(
    records: Sequence[Record],
    parts: Sequence[tuple[Column, list[Record]]],
    scores: Sequence[Scores],
    baseline: str,
    looks: Sequence[int],
) -> Board:
    """Return the board of runs that may share one, from its columns with their runs, and each column's scores."""
    members = rows.rows(records)
    plain = []
    for label, one in zip(rows.labels(members, records), members, strict=True):
        first, cells = one.first, tuple(_cell(one.records, of_column) for of_column in scores)
        transfer = rows.transfer_of(first)
        plain.append(Row(label, first.pretext, rows.schedule_of(first), transfer, one.vary, cells, one.trunk_seed))
    heads = tuple(column for column, _ in parts)
    bases = [baselines.baselines(row, plain, heads, baseline) for row in plain]
    differences = corrected(_differences(plain, bases, scores), looks)
    leading = {(place, column) for column, one in enumerate(scores) for place in _leading(plain, column, one, looks)}
    made = []
    for place, row in enumerate(plain):
        cells = tuple(
            replace(cell, difference=differences.get((place, column)), leading=(place, column) in leading)
            for column, cell in enumerate(row.cells)
        )
        made.append(replace(row, cells=cells))
    notes = _notes(records, parts)
    alone = ", ".join(
        row.label for row, of_row in zip(plain, bases, strict=True) if baselines.alone(row, plain, of_row, baseline)
    )
    if alone:
        wanted = baseline or "random_init on the same schedule and with the same seeds varied"
        notes.append(f"No row to compare with ({wanted}): {alone}.")
    data = ", ".join(sorted({record.data.short for record in records}))
    facts = {**rows.board_facts(records[0]), "data": data, "protocol": protocols.of_board(records)}
    return Board(facts, heads, tuple(made), tuple(_trivial_rows(scores)), (*notes, *_warnings(made, heads, looks)))


def _cell(records: Sequence[Record], scores: Scores) -> Cell:
    own = scores.own(records)
    found = scores.mean(own)
    dead = next((reason for record in own if (reason := rows.dead(record))), "")
    return Cell(own, found, floor=scores.floor(found), same=scores.same(own), dead=dead)


def _trivial_rows(scores: Sequence[Scores]) -> list[Row]:
    made = []
    for name in dict.fromkeys(name for one in scores for name in one.trivial):
        cells = tuple(Cell((), one.estimate([name])) if name in one.values else Cell() for one in scores)
        made.append(Row(name, name, "", "", "", cells))
    return made


def _differences(
    made: Sequence[Row], bases: Sequence[Sequence[Row | None]], scores: Sequence[Scores]
) -> dict[tuple[int, int], Difference]:
    """Return the paired differences of rows from their baselines in each column, by the numbers of row and column."""
    found = {}
    for place, (row, of_row) in enumerate(zip(made, bases, strict=True)):
        for column, (one, base) in enumerate(zip(scores, of_row, strict=True)):
            if base is None or base is row:
                continue
            estimate = one.difference(row.cells[column].records, base.cells[column].records)
            if estimate is not None:
                found[place, column] = Difference(base.label, estimate, from_pretrained=base.pretext != "random_init")
    return found


def _leading(made: Sequence[Row], column: int, scores: Scores, looks: Sequence[int]) -> set[int]:
    """Return the rows that lead a column, of those with several seeds; rows of one shared trunk are compared with each other.

    Where no row is told from the best, the highest or where lower is better the lowest, none leads.
    """

    def difference(one: int, other: int) -> Estimate | None:
        return scores.difference(made[one].cells[column].records, made[other].cells[column].records)

    estimates = [(place, row.cells[column].estimate) for place, row in enumerate(made)]
    values = {place: scores.sign * one.value for place, one in estimates if one is not None and one.seeds > 1}
    groups = rows.groups(values, lambda place: made[place].trunk_seed).values()
    found = [(group, leaders({place: values[place] for place in group}, difference, looks)) for group in groups]
    return set().union(*(leading for group, leading in found if len(leading) < len(group)))


def _apart(records: Sequence[Record], before: Sequence[Sequence[Record]]) -> list[str]:
    """Return a note with the fields that keep a board apart from the nearest one above it; none for the first board."""
    differences = sorted((rows.apart(other, records) for other in before), key=len)
    return [f"Not in one table with the rows above: {'; '.join(differences[0])}."] if differences else []


def _notes(records: Sequence[Record], parts: Sequence[tuple[Column, list[Record]]]) -> list[str]:
    """Return notes on the data, on how the rates of each column were found, and on how similar columns differ."""
    first = records[0].data
    pretrained = sorted({(r.pretrain.data.short, r.pretrain.data.fingerprint[:12]) for r in records if r.pretrain.data})
    precisions = sorted({rows.precision_of(record) for record in records})
    sets = dict.fromkeys((record.data.name, record.data.fingerprint[:12]) for record in records)
    named = ", ".join(f"{name} {found}" if len(sets) > 1 else found for name, found in sets)
    notes = [
        f"data {named}; pretrained on {', '.join(f'{title} {found}' for title, found in pretrained) or '-'}; "
        f"computed in {' and '.join(precisions)}"
    ]
    notes += data_notes.titles(records)
    notes += [f"{text}." for text in protocols.explanations(record.job.protocol for record in records)]
    if first.synthetic:
        notes.append("Synthetic data: these figures say nothing about photographs.")
    notes += data_notes.notes(records) + origins.notes(records) + origins.caveats(records)
    heads = [column for column, _ in parts if column.evaluation == FINETUNE]
    notes += searches.notes(heads, records)
    if 0 < sum(bool(column.tuning) for column in heads) < len(heads):
        notes.append("Columns whose headings name neither trials nor rates use the protocol's learning rates.")
    tagged: dict[str, tuple[Column, Record]] = {}
    for column, runs in parts:
        if column.tag:
            tagged.setdefault(column.tag, (column, runs[0]))
    for tag, (column, run) in tagged.items():
        others = [runs[0] for c, runs in parts if c.downstream == column.downstream and c.variant != column.variant]
        other = next((one for one in others if one.job.evaluation == column.evaluation), others[0])
        notes.append(f"{tag}: {'; '.join(rows.difference(rows.column_facts(other), rows.column_facts(run)))}.")
    return notes + _on_probes(parts)


def _on_probes(parts: Sequence[tuple[Column, list[Record]]]) -> list[str]:
    """Return notes on what probes evaluate and on what their settings are chosen; none where there are none."""
    probes = [runs[0].job.probe for _, runs in parts if runs[0].job.probe is not None]
    chosen = rows.groups(probes, lambda probe: probe.by)
    said = [f"{by} ({', '.join(dict.fromkeys(probe.title for probe in those))})" for by, those in chosen.items()]
    found = f"Settings of probes are chosen on: {'; '.join(said)}."
    return ["Probes evaluate the frozen trunk, so the schedule of a row does not matter to them.", found] if probes else []


def _where(cells: Sequence[tuple[Row, Column, Cell]]) -> str:
    """Return the rows and columns of some cells as a note names them; the columns of a task with probes are counted."""
    if all(column.evaluation == FINETUNE for _, column, _ in cells):
        return ", ".join(f"{row.label} in {column.title}" for row, column, _ in cells)
    found = rows.groups(cells, lambda one: (one[0].label, one[1].task))
    return "; ".join(
        f"{label} in {some[0][1].title}" if len(some) == 1 else f"{label} in {len(some)} columns of {title}"
        for (label, title), some in found.items()
    )


def _task(column: Column, cell: Cell) -> str:
    """Return a column's title without its probe, since a trunk's pretraining images are the same for all probes of a task."""
    return column.title if column.evaluation == FINETUNE or not cell.records else column.task


def _warnings(made: Sequence[Row], heads: Sequence[Column], looks: Sequence[int]) -> list[str]:
    """Return notes on what the marks mean where there are some, which networks were dead, and which seeds can show little."""
    notes = [
        f"{name}: lower is better, so bold, {FLOOR} and the signs of differences read the other way round."
        for name in dict.fromkeys(column.metric for column in heads if metrics.get(column.metric).lower)
    ]
    cells = [(row, column, cell) for row in made for column, cell in zip(heads, row.cells, strict=True)]
    if any(cell.floor for *_, cell in cells):
        notes.append(f"{FLOOR}: the interval does not lie above the value of a trivial predictor, which looks at no image.")
    for (predictor, count), same in rows.groups((one for one in cells if one[2].same[1]), lambda one: one[2].same).items():
        names = _where(same)
        notes.append(f"{SAME}: {count} seed{'s' if count > 1 else ''} of a row score just what {predictor} scores: {names}.")
    for reason, dead in rows.groups((one for one in cells if one[2].dead), lambda one: one[2].dead).items():
        names = _where(list({(row.label, column.title): (row, column, cell) for row, column, cell in dead}.values()))
        before = "fine-tuning" if all(column.evaluation == FINETUNE for _, column, _ in dead) else "fine-tuning or probing"
        notes.append(f"{DEAD}: dead before {before}, so neither a control nor a method: {names} ({reason}).")
    if any(row.transfer != "all" and cell.records and column.evaluation != FINETUNE for row, column, cell in cells):
        notes.append("Probes have the whole trunk, also in rows where fine-tuning inherits the encoder only.")
    notes += leaks.notes([(row.label, _task(column, cell), cell.records) for row, column, cell in cells])
    if any(row.trunk_seed is not None for row in made):
        notes.append("Rows of one trunk say nothing about other trunks of the same pretext task, however many seeds they have.")
    estimates = [found for *_, cell in cells for found in (cell.estimate, cell.difference and cell.difference.estimate) if found]
    if any(found.seeds == 2 for found in estimates):
        notes.append("n=2: both values are given; a comparison over two seeds hardly ever tells two rows apart.")
    if looks:
        notes.append(
            f"Looks were declared at {', '.join(map(str, looks))} seeds: each of these interim looks has its share of the 5 %, "
            "and a comparison at any other number of seeds is exploratory."
        )
    return notes
