"""The confirmatory comparisons of a preregistered study, corrected together; what the preregistration lacks is exploratory.

A comparison counts only as it was registered: every planned seed on both sides and no other, and each run and each trunk that
was trained for it made under this very preregistration, whose SHA-256 is in its record. Otherwise it is refused, with the reason.
It still counts in Holm's correction then, as one with p = 1, so that the number of comparisons is the registered one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench import metrics
from bench.errors import DataError
from bench.preregistration import KEY, SHOWN, Comparison, Preregistration
from bench.record import Record
from bench.schema import canonical
from results import rows, statistics
from results.board import RESAMPLES
from results.cache import Cache
from results.scores import Reader, Scores
from results.sheets import Fields, Sheet, sheet
from results.significance import SIGNIFICANT
from results.statistics import Estimate
from results.tables import Line, Table, interval, p_text

TITLE = "Confirmatory comparisons"


@dataclass(frozen=True)
class Result:
    """What became of a confirmatory comparison: its difference and p values, or the `problem` for which it is refused."""

    comparison: Comparison
    estimate: Estimate | None = None
    corrected: float | None = None
    problem: str = ""

    @property
    def told_apart(self) -> bool | None:
        """Whether the rows are told apart after Holm's correction; None where the comparison is refused."""
        return None if self.corrected is None else self.corrected < SIGNIFICANT

    @property
    def verdict(self) -> str:
        """What the comparison shows, in a few words."""
        if self.told_apart is None:
            return f"refused: {self.problem}"
        if self.comparison.null:
            return "yes, a false alarm" if self.told_apart else "no, as it must be"
        return "yes" if self.told_apart else "no"


def compare(
    registered: Preregistration,
    runs: Mapping[str, Sequence[Record]],
    seeds: Mapping[str, Sequence[int]],
    read: Reader,
    cache: Cache,
) -> list[Result]:
    """Return the results of all registered comparisons, in their order.

    `runs` holds the records of each finished part, and `seeds` each part's planned seeds. DataError for damaged predictions.
    """
    found = [_one(registered, one, runs, seeds, read, cache) for one in registered.comparisons]
    p_values = [1.0 if one.estimate is None or one.estimate.p is None else one.estimate.p for one in found]
    corrected = statistics.holm(p_values)
    return [one if one.problem else Result(one.comparison, one.estimate, p) for one, p in zip(found, corrected, strict=True)]


def _one(
    registered: Preregistration,
    asked: Comparison,
    runs: Mapping[str, Sequence[Record]],
    seeds: Mapping[str, Sequence[int]],
    read: Reader,
    cache: Cache,
) -> Result:
    waits = [part for part in asked.parts if part not in runs]
    if waits:
        return Result(asked, problem=f"{', '.join(waits)} is not finished")
    known = {record.id: record for part in asked.parts for record in runs[part]}.values()
    fits = [one for one in known if (one.downstream, one.job.evaluation) == (asked.task, asked.evaluation)]
    sides = [[one for one in fits if name in _names(one)] for name in (asked.row, asked.against)]
    planned = sorted({seed for part in asked.parts for seed in seeds[part]})
    problem = _problem(registered, asked, sides, planned)
    if problem:
        return Result(asked, problem=problem)
    try:
        difference = Scores(asked.metric, [*sides[0], *sides[1]], read, RESAMPLES, cache).difference(*sides)
    except DataError as error:
        return Result(asked, problem=str(error).rstrip("."))
    if difference is not None and difference.seeds < len(planned):
        return Result(asked, problem=f"only {difference.seeds} seeds have a value")
    if difference is None or difference.p is None:
        return Result(asked, difference, problem="there is no test of it")
    return Result(asked, difference)


def _problem(registered: Preregistration, asked: Comparison, sides: Sequence[Sequence[Record]], planned: Sequence[int]) -> str:
    """Return why a comparison is not the registered one; "" where it is."""
    for name, side in zip((asked.row, asked.against), sides, strict=True):
        if not side:
            return f"there are no runs of {name}"
        if len({rows.row_key(one) for one in side}) > 1:
            return f"{name} names several rows"
        made = sorted(one.job.seed for one in side)
        if made != list(planned):
            return f"{name} has the seeds {', '.join(map(str, made))}, and {', '.join(map(str, planned))} were planned"
        for one in side:
            foreign = registered.foreign(one.job)
            if foreign:
                return foreign
            for what, origin in ((one.id, one.provenance), (one.pretrain.id, one.pretrain.provenance)):
                if origin.get(KEY) != registered.sha256:
                    under = f"under another, {origin[KEY][:SHOWN]}" if origin.get(KEY) else "under none"
                    return f"{what} was not made under this preregistration, but {under}"
    every = [one for side in sides for one in side]
    if {one.id for one in sides[0]} & {one.id for one in sides[1]}:
        return "both sides are the same runs"
    if len({(rows.digest(rows.board_facts(one)), rows.column_key(one), rows.precision_of(one)) for one in every}) > 1:
        return "the rows were not evaluated alike"
    if (
        asked.null
        and len({(rows.schedule_of(one), rows.transfer_of(one), canonical(one.job.pretrain.recipe)) for one in every}) > 1
    ):
        return "it is no null, since the rows differ in schedule, transfer or recipe"
    if metrics.get(asked.metric).key not in every[0].metric_ids:
        return f"{asked.metric} is no metric of the runs' protocol"
    return ""


def _names(record: Record) -> tuple[str, str]:
    """Return the names by which a comparison may name a run's row."""
    return record.pretext, f"{record.pretext}:{rows.schedule_of(record)}"


def table(registered: Preregistration, results: Sequence[Result]) -> Table:
    """Return the confirmatory comparisons as a table, under a heading for each question."""
    lines: list[Line] = []
    for question, text in registered.questions.items():
        of_question = [one for one in results if one.comparison.question == question]
        if of_question:
            lines += [Line((text, *("" for _ in _HEADS[1:])), heading=True), *map(_line, of_question)]
    notes = (
        f"These {len(results)} comparisons were registered before the first run (SHA-256 {registered.sha256[:SHOWN]}) and are "
        "corrected together (Holm). All else is exploratory.",
        f"Power: {registered.power}",
        f"A negative result: {registered.negative}",
    )
    return Table(TITLE, notes, _HEADS, tuple(lines))


_HEADS = ("Row", "Against", "Task", "Metric", "Points", "95 % interval", "p", "Holm", "Told apart", "Seeds")


def _line(one: Result) -> Line:
    asked, found = one.comparison, one.estimate
    where = asked.task if asked.evaluation == "finetune" else f"{asked.task}, {asked.evaluation}"
    names = (asked.row, asked.against, where, asked.metric)
    if found is None or one.problem:
        return Line((*names, "-", "-", "-", "-", one.verdict, "-"))
    points = f"{100 * found.value:+.2f}", interval(found, sign="+")
    bold = frozenset({4}) if one.told_apart else frozenset[int]()
    return Line((*names, *points, p_text(found.p), p_text(one.corrected), one.verdict, str(found.seeds)), bold)


_FIELDS: Fields[Result] = {
    "question": ("the question that the comparison answers", lambda one: one.comparison.question),
    "task": ("the downstream task", lambda one: one.comparison.task),
    "evaluation": ("finetune or a probe", lambda one: one.comparison.evaluation),
    "metric": ("the metric's id and version", lambda one: metrics.get(one.comparison.metric).key),
    "row": ("the row", lambda one: one.comparison.row),
    "baseline": ("the row it is compared with", lambda one: one.comparison.against),
    "null": ("whether the two differ by their names alone", lambda one: one.comparison.null),
    "seeds": ("the number of seeds", lambda one: one.estimate and one.estimate.seeds),
    "delta": ("difference, paired over images and seeds", lambda one: one.estimate and one.estimate.value),
    "delta_low": ("lower end of its 95 % interval", lambda one: one.estimate and one.estimate.low),
    "delta_high": ("upper end", lambda one: one.estimate and one.estimate.high),
    "std": ("standard deviation of the differences over seeds", lambda one: one.estimate and one.estimate.deviation),
    "p": ("two-sided p value", lambda one: one.estimate and one.estimate.p),
    "p_holm": ("p value after Holm's correction over all lines of this file", lambda one: one.corrected),
    "told_apart": ("whether p_holm is below 0.05; empty where the comparison is refused", lambda one: one.told_apart),
    "refused": ("why it is not the registered comparison", lambda one: one.problem),
}


def lines(results: Sequence[Result]) -> Sheet:
    """Return a line for each confirmatory comparison."""
    return sheet(_FIELDS, results)
