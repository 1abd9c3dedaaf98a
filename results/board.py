"""From records to a board: rows that may be compared, columns of one metric each, cells with intervals and paired differences.

A board holds runs of the same data, protocol, trunk, size, scored part and share of labels. A row is an initialisation: a pretext
task with its recipe, schedule and what is inherited. A column is a downstream task with all else that two runs must share, its
metric, and how its rates were found; nothing else is ever put beside it. Tables, CSV files and the page are drawn from boards.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench import metrics
from bench.errors import DataError, UsageError, unknown
from bench.frozen import canonical
from bench.metrics import Predictions
from results import resampling, statistics
from results.record import Record
from results.statistics import Estimate
from results.trivial import trivial

K = TypeVar("K")
T = TypeVar("T")
RESAMPLES = 10_000
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Answers:
    """What a run said of every picture of its part, by the pictures' ids."""

    ids: tuple[str, ...]
    predictions: Predictions


Reader = Callable[[Record], Answers]


@dataclass(frozen=True)
class Column:
    """A downstream task, a metric, how the rates were found, and a digest of everything else that its runs share."""

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
        if self.trials:
            parts.append(f"tuned, {self.trials} trials")
        return f"{self.title} ({'; '.join([*parts, self.tag] if self.tag else parts)})"


@dataclass(frozen=True)
class Gain:
    """A paired difference to another row: same pictures, same seeds. `p` and `corrected` are None with one seed."""

    against: str
    estimate: Estimate
    corrected: float | None = None

    @property
    def better(self) -> bool | None:
        """Whether the difference is distinguishable from zero; None where nothing may be said."""
        return None if self.corrected is None else self.corrected < SIGNIFICANT


@dataclass(frozen=True)
class Cell:
    """The runs of one row in one column: the mean over seeds with its interval, and the gain over the baseline."""

    records: tuple[Record, ...] = ()
    estimate: Estimate | None = None
    gain: Gain | None = None
    leading: bool = False
    """The best of its column, or not distinguishable from it."""


@dataclass(frozen=True)
class Row:
    """One initialisation. Trivial predictors are rows without records."""

    label: str
    pretext: str
    schedule: str
    transfer: str
    vary: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Board:
    """Rows that may be compared, and the facts that they share."""

    facts: Mapping[str, Any]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    trivial: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def title(self) -> str:
        """What all rows share, in one line."""
        f = self.facts
        labels = "" if f["labels"] == 1 else f", {100 * f['labels']:.3g} % of the labels"
        return f"{f['data']}, protocol {f['protocol']}, trunk {f['trunk']} at {f['size']} px{labels}, scored on {f['part']}"

    def records(self) -> list[Record]:
        """Return every run on the board."""
        return list({record.id: record for row in self.rows for cell in row.cells for record in cell.records}.values())


def boards(
    records: Sequence[Record],
    read: Reader,
    chosen: Sequence[str] = (),
    baseline: str = "",
    resamples: int = RESAMPLES,
) -> list[Board]:
    """Return a board for each combination of data, protocol, trunk, size, part and share of labels.

    `chosen` metric ids replace each protocol's main one. `baseline` is a row to measure gains from, `pretext` or
    `pretext:schedule`; when left out, random initialisation on each row's own schedule. Raises UsageError for a baseline that is
    nowhere, and DataError where runs that should have seen the same pictures did not.
    """
    made = [_board(members, read, chosen, baseline, resamples) for members in groups(records, _combination).values()]
    known = {f"{record.pretext}:{record.schedule}" for record in records}
    if baseline and not any(name == baseline or name.partition(":")[0] == baseline for name in known):
        raise unknown("row to compare with", baseline, known)
    facts = [board.facts for board in made]
    return [replace(board, notes=(*board.notes, *_apart(board.facts, facts[:place]))) for place, board in enumerate(made)]


def one_board(records: Sequence[Record], read: Reader, chosen: Sequence[str] = (), baseline: str = "") -> Board:
    """Return the board of runs that someone wants beside each other; DataError says which field keeps them apart."""
    first = _combination(records[0])
    for other in records[1:]:
        different = _difference(dict(first), dict(_combination(other)))
        if different:
            raise DataError(f"{records[0].id} and {other.id} cannot share a table: {'; '.join(different)}.")
    by_task = groups(records, lambda record: record.downstream)
    for members in by_task.values():
        for other in members[1:]:
            ours, theirs = _column_facts(members[0]), _column_facts(other)
            if ours != theirs:
                text = "; ".join(_difference(ours, theirs))
                raise DataError(f"{members[0].id} and {other.id} cannot share a column: {text}.")
    (board,) = boards(records, read, chosen, baseline)
    return board


def groups(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Return the items by their key, in order of appearance."""
    found: dict[K, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def _combination(record: Record) -> tuple[tuple[str, Any], ...]:
    """Return what runs must share to stand on one board; a task's split differs by column."""
    return (
        ("data", record.data.title),
        ("protocol", record.protocol),
        ("trunk", record.trunk),
        ("size", record.pretrain.job["size"]),
        ("part", record.part),
        ("labels", record.labels),
        ("data fingerprint", record.data.fingerprint),
        ("synthetic", record.data.synthetic),
    )


def _column_facts(record: Record) -> dict[str, Any]:
    """Return what two runs of one task must share, beside the board's facts, to stand in one column."""
    names = ("version", "source", "settings", "size", "split")
    return {**{name: record.job[name] for name in names}, "metrics": sorted(record.metrics)}


def variant(record: Record) -> str:
    """Return a digest of what two runs of one task must share to stand in one column."""
    return _digest(_column_facts(record))


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:8]


def tuning_of(record: Record) -> str:
    """Say how a run's rates were found, as runs must share it to stand in one column; "" where they are the protocol's."""
    tuning = record.tuning
    if tuning is None:
        return ""
    phases = record.job["settings"]["schedules"][record.schedule]
    searched = {phase["train"]: tuning.space[f"phase-{number}"] for number, phase in enumerate(phases, start=1)}
    ranges = tuning.ranges or {**record.job["settings"]["space"], **searched}
    text = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in sorted(ranges.items()))
    how = f"{tuning.sampler}, pruned: {tuning.pruner}, by the main metric on val, seed {tuning.seed}"
    return f"{tuning.budget} trials of rates ({text}), {how}"


def _difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    found = []
    for name in ours:
        one, other = ours[name], theirs.get(name)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            found += _difference(one, other)
        else:
            found.append(f"{name} differs ({_short(one)} and {_short(other)})")
    return found


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else canonical(value)
    return text[:12] if len(text) == 64 else text


def _apart(facts: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which fields keep a board apart from the nearest one above it."""
    if not before:
        return []
    differences = sorted((_difference(other, facts) for other in before), key=len)
    return [f"Not beside the rows above: {'; '.join(differences[0])}."]


def _board(members: Sequence[Record], read: Reader, chosen: Sequence[str], baseline: str, resamples: int) -> Board:
    columns = _columns(members, chosen)
    by_row = _rows(members)
    computed = [_Computed(column, [r for r in members if _in_column(r, column)], read, resamples) for column in columns]
    rows = []
    for row in by_row:
        first = row[0][1]
        cells = tuple(one.cell([record for _, record in row]) for one in computed)
        vary = row[0][0]
        rows.append(Row(_label(first, members, vary), first.pretext, first.schedule, first.transfer, vary, cells))
    rows = _with_gains(rows, computed, baseline)
    rows = _with_leaders(rows, computed)
    facts = dict(_combination(members[0]))
    heads = [column.head for column in columns]
    columns = [c if heads.count(c.head) == 1 else replace(c, tag=f"variant {_digest((c.variant, c.tuning))}") for c in columns]
    return Board(facts, tuple(columns), tuple(rows), tuple(_trivial_rows(computed)), tuple(_notes(members, columns)))


def _columns(members: Sequence[Record], chosen: Sequence[str]) -> list[Column]:
    columns = []
    keyed = groups(members, lambda r: (r.downstream, variant(r), tuning_of(r)))
    for (downstream, digest, tuning), of_column in sorted(keyed.items(), key=lambda item: item[0]):
        first = of_column[0]
        wanted = [metrics.get(name).key for name in chosen if _fits(name, first)] if chosen else first.metric_ids[:1]
        trials = first.tuning.budget if first.tuning else 0
        columns += [Column(downstream, first.title, metric, tuning, digest, trials) for metric in wanted]
    return columns


def _fits(metric: str, record: Record) -> bool:
    return metrics.get(metric).needs == metrics.METRICS[record.metric_ids[0].partition("@")[0]].needs


def _in_column(record: Record, column: Column) -> bool:
    return (record.downstream, variant(record), tuning_of(record)) == (column.downstream, column.variant, column.tuning)


class _Computed:
    """A column's runs on the same resamples of the same pictures."""

    def __init__(self, column: Column, records: Sequence[Record], read: Reader, resamples: int) -> None:
        self.column, self.records = column, list(records)
        self.values: dict[str, float] = {}
        answers = {record.id: read(record) for record in records}
        first = answers[records[0].id]
        for record in records:
            if answers[record.id].ids != first.ids:
                raise DataError(f"{records[0].id} and {record.id} were not scored on the same pictures in the same order.")
        judged = records[0].data.classes, records[0].data.scored
        functions: dict[str, resampling.Resampled] = {}
        for record in records:
            self._add(record.id, answers[record.id].predictions, judged, functions)
        self.trivial = trivial(records[0], first.predictions)
        for name, predictions in self.trivial.items():
            self._add(name, predictions, judged, functions)
        seed = hashlib.sha256("\n".join(first.ids).encode()).hexdigest()
        chunks: dict[str, list[NDArray[np.float64]]] = {name: [] for name in functions}
        for weights in resampling.counts(len(first.ids), resamples, seed):
            for name, function in functions.items():
                chunks[name].append(function(weights))
        self.replicates = {name: np.concatenate(found) for name, found in chunks.items()}

    def _add(
        self,
        name: str,
        predictions: Predictions,
        judged: tuple[tuple[str, ...], tuple[str, ...]],
        functions: dict[str, resampling.Resampled],
    ) -> None:
        value = metrics.compute(self.column.metric, predictions, *judged)
        if not math.isnan(value):
            self.values[name] = value
            functions[name] = resampling.resampler(self.column.metric, predictions, *judged)

    def cell(self, records: Sequence[Record]) -> Cell:
        """Return the cell of some runs, those of other columns left out."""
        own = tuple(record for record in records if record in self.records)
        return Cell(own, self.estimate([record.id for record in own if record.id in self.values]))

    def estimate(self, names: Sequence[str], minus: Sequence[str] = ()) -> Estimate | None:
        """Return the mean of some runs, or of their differences to as many others, with its interval."""
        if not names:
            return None
        values = [self.values[name] for name in names]
        replicates = np.stack([self.replicates[name] for name in names])
        if minus:
            values = [value - self.values[name] for value, name in zip(values, minus, strict=True)]
            replicates = replicates - np.stack([self.replicates[name] for name in minus])
            return statistics.estimate(values, replicates)
        found = statistics.estimate(values, replicates)
        return replace(found, low=max(0.0, found.low), high=min(1.0, found.high), p=None)

    def difference(self, cell: Cell, other: Cell) -> Estimate | None:
        """Return the paired difference of two cells over the seeds that both have; None when there is none."""
        ours = {record.seed: record.id for record in cell.records if record.id in self.values}
        theirs = {record.seed: record.id for record in other.records if record.id in self.values}
        shared = sorted(ours.keys() & theirs.keys())
        return self.estimate([ours[seed] for seed in shared], [theirs[seed] for seed in shared]) if shared else None


def _with_gains(rows: list[Row], computed: Sequence[_Computed], baseline: str) -> list[Row]:
    """Add the paired difference of every cell to its baseline, corrected by Holm over the board."""
    gains: dict[tuple[int, int], Gain] = {}
    for place, row in enumerate(rows):
        base = _baseline_of(row, rows, baseline)
        if base is None or base is row:
            continue
        for column, one in enumerate(computed):
            found = one.difference(row.cells[column], base.cells[column])
            if found is not None:
                gains[place, column] = Gain(base.label, found)
    tested = [key for key, gain in gains.items() if gain.estimate.p is not None]
    corrected = statistics.holm([gains[key].estimate.p or 0.0 for key in tested])
    for key, p in zip(tested, corrected, strict=True):
        gains[key] = replace(gains[key], corrected=p)
    return [
        replace(row, cells=tuple(replace(cell, gain=gains.get((place, column))) for column, cell in enumerate(row.cells)))
        for place, row in enumerate(rows)
    ]


def _baseline_of(row: Row, rows: Sequence[Row], baseline: str) -> Row | None:
    """Return the row that another is measured from: the named one, or random initialisation on the same schedule."""
    pretext, _, schedule = (baseline or "random_init").partition(":")
    candidates = [r for r in rows if r.pretext == pretext and r.schedule == (schedule or row.schedule) and r.vary == row.vary]
    return candidates[0] if candidates else None


def _with_leaders(rows: list[Row], computed: Sequence[_Computed]) -> list[Row]:
    """Mark the best cell of each column, and those not distinguishable from it; with one seed nothing is marked."""
    leading: set[tuple[int, int]] = set()
    for column, one in enumerate(computed):
        ranked = [
            (cell.estimate.value, place)
            for place, row in enumerate(rows)
            if (cell := row.cells[column]).estimate is not None and cell.estimate.seeds > 1
        ]
        if len(ranked) < 2:
            continue
        best = max(ranked, key=lambda item: (item[0], -item[1]))[1]
        others = [place for _, place in ranked if place != best]
        found = [one.difference(rows[best].cells[column], rows[place].cells[column]) for place in others]
        p_values = [f.p if f is not None and f.p is not None else 1.0 for f in found]
        leading.add((best, column))
        corrected = zip(others, statistics.holm(p_values), strict=True)
        leading |= {(place, column) for place, p in corrected if p >= SIGNIFICANT}
    return [
        replace(row, cells=tuple(replace(cell, leading=(place, column) in leading) for column, cell in enumerate(row.cells)))
        for place, row in enumerate(rows)
    ]


def _trivial_rows(computed: Sequence[_Computed]) -> list[Row]:
    names = dict.fromkeys(name for one in computed for name in one.trivial)
    rows = []
    for name in names:
        cells = tuple(Cell((), one.estimate([name])) if name in one.values else Cell() for one in computed)
        rows.append(Row(name, name, "", "", "", cells))
    return rows


def _rows(members: Sequence[Record]) -> list[list[tuple[str, Record]]]:
    """Group runs into rows, each run with what its seed varies; only seeds and columns differ within a row.

    A run whose trunk has the seed of its own belongs to the row in which everything varies; runs that share another seed's
    trunk are a row in which only fine-tuning varies, and the trunk's own run is in both.
    """
    rows: dict[tuple[Any, ...], list[tuple[str, Record]]] = {}
    shared = {(*row_key(r), r.pretrain.job["seed"]) for r in members if r.pretrain.job["seed"] != r.seed}
    for record in members:
        trunk_seed = record.pretrain.job["seed"]
        if trunk_seed == record.seed:
            rows.setdefault((*row_key(record), "all"), []).append(("all", record))
        if (*row_key(record), trunk_seed) in shared:
            rows.setdefault((*row_key(record), f"finetune {trunk_seed}"), []).append(("finetune", record))
    # A lone run that was made only to share its trunk is no row of its own.
    kept = {k: v for k, v in rows.items() if not (k[-1] == "all" and len({r.seed for _, r in v}) == 1 and _is_shared(k, shared))}
    order = sorted(kept.items(), key=lambda item: (item[0][0] != "random_init", *map(str, item[0])))
    return [sorted(row, key=lambda pair: (pair[1].downstream, pair[1].seed)) for _, row in order]


def _is_shared(key: tuple[Any, ...], shared: set[tuple[Any, ...]]) -> bool:
    return any(one[:-1] == key[:-1] for one in shared)


def row_key(record: Record) -> tuple[str, ...]:
    """Return what the runs of a row share: pretext, recipe, pretraining data, version, schedule and what is inherited."""
    job = record.pretrain.job
    return (
        record.pretext,
        canonical(recipe_of(record)),
        f"{job['data']} {job['split']}",
        f"{job['version']} {job['source']}",
        record.schedule,
        record.transfer,
    )


def recipe_of(record: Record) -> dict[str, Any]:
    """Return the pretext's recipe, its rate left open where the search chose it."""
    recipe = dict(record.pretrain.job["recipe"])
    if record.tuning and "pretext" in record.tuning.best:
        recipe["lr"] = "searched"
    return recipe


BASELINE_NOTE = "the paper's baseline"


def _label(record: Record, members: Sequence[Record], vary: str = "all") -> str:
    """Name a row: the pretext task, its schedule, what it inherits, and what tells it from rows of the same task."""
    parts = []
    if record.schedule != "two-phase" or record.pretext == "random_init":
        is_papers = (record.pretext, record.schedule) == ("random_init", "one-phase")
        parts.append(record.schedule + (f", {BASELINE_NOTE}" if is_papers else ""))
    if record.transfer != "all":
        parts.append(f"{record.transfer} only" if record.transfer == "encoder" else "batch-norm statistics only")
    if vary == "finetune":
        parts.append(f"one trunk, seed {record.pretrain.job['seed']}")
    return label(record, members, parts)


def label(record: Record, members: Sequence[Record], parts: Sequence[str] = ()) -> str:
    """Name a pretext task among others: its name, and the recipe's settings that differ."""
    parts = list(parts)
    others = [other for other in members if other.pretext == record.pretext]
    recipe = recipe_of(record)
    for name in recipe:
        if len({canonical(recipe_of(other).get(name)) for other in others}) > 1:
            parts.append(f"{name}={recipe[name]}")
    if len({other.pretrain.job["data"] for other in others}) > 1 and record.pretrain.data is not None:
        parts.append(f"on {record.pretrain.data.name} {record.pretrain.data.fingerprint[:6]}")
    if len({other.pretrain.job["source"] for other in others}) > 1:
        parts.append(f"source {record.pretrain.job['source'][:6]}")
    return f"{record.pretext} ({'; '.join(parts)})" if parts else record.pretext


def _notes(members: Sequence[Record], columns: Sequence[Column]) -> list[str]:
    first = members[0].data
    pretrained = sorted({(r.pretrain.data.title, r.pretrain.data.fingerprint[:12]) for r in members if r.pretrain.data})
    notes = [f"data {first.fingerprint[:12]}; pretrained on " + (", ".join(f"{t} {f}" for t, f in pretrained) or "-")]
    if first.synthetic:
        notes.append("Synthetic data: these figures say nothing about photographs.")
    notes += dict.fromkeys(f"Tuned: {column.tuning}." for column in columns if column.tuning)
    if any(column.tuning for column in columns) and any(not column.tuning for column in columns):
        notes.append("Columns that do not say tuned have the protocol's rates.")
    return notes


def select(records: Sequence[Record], wanted: Sequence[str]) -> list[Record]:
    """Return the runs whose ids begin with one of `wanted`; UsageError for a beginning that fits none."""
    for start in wanted:
        if not any(record.id.startswith(start) for record in records):
            raise unknown("run", start, [record.id for record in records])
    chosen = [record for record in records if any(record.id.startswith(start) for start in wanted)]
    if not chosen:
        raise UsageError("name at least one run.")
    return chosen
