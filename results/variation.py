"""Where does variation come from? Runs of a complete grid differ in several factors, among which their sum of squares is divided.

A grid is complete where every combination of the factors' levels has one run. The share of a factor is the sum of squares of its
levels' means around the grand mean over that of all N runs (eta squared). The share of two factors together is that of the means
of their levels' combinations, less what each does alone: it is large where what the one does differs between levels of the other.
A factor of L levels that does nothing has the share (L - 1) / (N - 1) on average, since its levels are then any division of the
same runs, and two of L and M levels have (L - 1) (M - 1) / (N - 1). Intervals are over the test images, for these levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bench.record import Record
from results import rows
from results.cache import Cache
from results.grouping import FINETUNE
from results.scores import Reader, Scores
from results.sheets import Fields
from results.tables import Line, Table

RESAMPLES = 1_000
LEFT = "all else together, and chance"
FACTORS: dict[str, Callable[[Record], str | int | float]] = {
    "initialisation": lambda record: record.pretext,
    "seed": lambda record: record.job.seed,
    "schedule": rows.schedule_of,
    "transfer": rows.transfer_of,
    "trials": lambda record: record.tuning.budget if record.tuning is not None else 0,
    "labels": lambda record: record.job.labels,
    "size": lambda record: record.job.size,
    "precision": rows.precision_of,
}
"""What runs may differ in. `trials` are those of a search for learning rates."""
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """The share of a factor, or of two together, in a grid's sum of squares.

    `points` is the root mean square of the effects of its levels, or of their combinations, in [0, 1]. `same` is the number of
    runs of the grid whose predictions are exactly those of an earlier one.
    """

    task: str
    metric: str
    factor: str
    levels: tuple[str, ...]
    runs: int
    share: float
    low: float
    high: float
    by_chance: float
    points: float
    same: int


FIELDS: Fields[Share] = {
    "task": ("the downstream task and what is evaluated", lambda one: one.task),
    "metric": ("the metric's id and version", lambda one: one.metric),
    "factor": ("what the runs differ in, alone or two factors together", lambda one: one.factor),
    "levels": ("the levels of a factor alone", lambda one: list(one.levels)),
    "runs": ("the number of runs of the grid", lambda one: one.runs),
    "runs_alike": ("how many of them have exactly the predictions of an earlier one", lambda one: one.same),
    "share": ("its share of the sum of squares of all runs", lambda one: one.share),
    "share_low": ("lower end of the share's 95 % interval, over images", lambda one: one.low),
    "share_high": ("upper end", lambda one: one.high),
    "by_chance": ("the share that it has on average when it does nothing", lambda one: one.by_chance),
    "rms": ("root mean square of the effects of its levels or combinations", lambda one: one.points),
}


def variation(records: Sequence[Record], read: Reader, cache: Cache) -> tuple[list[Share], list[str]]:
    """Return the shares of each task's factors and pairs of factors, the largest first, and the reasons why a task has none."""
    found: list[Share] = []
    problems: list[str] = []
    for runs in rows.groups(records, lambda one: (one.downstream, one.job.evaluation, one.data.fingerprint)).values():
        first = runs[0]
        task = first.title if first.job.evaluation == FINETUNE else f"{first.title}, {first.job.evaluation}"
        levels = {name: sorted({level(run) for run in runs}) for name, level in FACTORS.items()}
        varied = {name: values for name, values in levels.items() if len(values) > 1}
        places = {tuple(varied[name].index(FACTORS[name](run)) for name in varied): run for run in runs}
        if len(varied) < 2:
            problems.append(f"{task}: its runs differ in less than two factors")
        elif len(places) < len(runs) or len(places) < math.prod(map(len, varied.values())):
            problems.append(f"{task}: {len(runs)} runs are no complete grid of {_said(varied)}")
        else:
            made = _shares(task, varied, places, Scores(first.metric_ids[0], runs, read, RESAMPLES, cache))
            found += made
            if not made:
                problems.append(f"{task}: some of its runs have no value by {first.metric_ids[0]}, or all have the same")
    return found, problems


def _said(varied: dict[str, list[str | int | float]]) -> str:
    return " x ".join(f"{len(values)} {name}" for name, values in varied.items())


def _shares(
    task: str, varied: dict[str, list[str | int | float]], places: dict[tuple[int, ...], Record], scores: Scores
) -> list[Share]:
    shape = tuple(map(len, varied.values()))
    names = [places[place].id for place in np.ndindex(shape)]
    if not set(names) <= scores.values.keys():
        return []
    values = np.array([scores.values[name] for name in names]).reshape(shape)
    drawn = scores.replicates(names).T.reshape(-1, *shape)
    drawn = drawn[np.isfinite(drawn).reshape(len(drawn), -1).all(axis=1)]
    if not len(drawn) or np.ptp(values) == 0:
        return []
    shares, ofs = decompose(values[None])[0], decompose(drawn)
    free = {name: len(levels) - 1 for name, levels in varied.items()}
    factors = list(free)
    free |= {f"{factors[a]} x {factors[b]}": free[factors[a]] * free[factors[b]] for a, b in pairs(len(factors))}
    count, found = values.size, []
    for place, (factor, freedom) in enumerate({**free, LEFT: values.size - 1 - sum(free.values())}.items()):
        low, high = np.quantile(ofs[:, place], (0.025, 0.975))
        squares = shares[place] * values.var()
        found.append(
            Share(
                task, places[(0,) * len(shape)].metric_ids[0], factor, tuple(map(str, varied.get(factor, ()))), count,
                float(shares[place]), float(low), float(high), freedom / (count - 1), float(np.sqrt(squares)),
                count - len({run.predictions for run in places.values()}),
            )
        )  # fmt: skip
    return sorted(found, key=lambda one: (one.factor == LEFT, -one.share))


def pairs(factors: int) -> list[tuple[int, int]]:
    """Return the pairs of factors with a share of their own: of two factors alone, what they do together is all that is left."""
    return list(combinations(range(factors), 2)) if factors > 2 else []


def decompose(values: Values) -> Values:
    """Return the shares (B, F + P + 1) of F factors, of their P pairs and of what is left, in B grids of values (B, L1, ..., LF).

    All are nan for a grid whose values are all equal.
    """
    axes = tuple(range(1, values.ndim))

    def mean(*kept: int) -> Values:
        return np.asarray(values.mean(axis=tuple(axis for axis in axes if axis not in kept), keepdims=True))

    effects = [mean(axis) - mean() for axis in axes]
    for one, other in pairs(len(axes)):
        effects.append(mean(axes[one], axes[other]) - mean(axes[one]) - mean(axes[other]) + mean())
    whole = ((values - mean()) ** 2).mean(axis=axes)
    parts = [(effect**2).mean(axis=axes) for effect in effects]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.stack(parts, axis=1) / whole[:, None]
    return np.concatenate([found, np.maximum(1 - found.sum(axis=1, keepdims=True), 0.0)], axis=1)


_HEADS = ("Factor", "Levels", "Share", "95 % interval", "By chance", "Points")
NOTES = (
    "Share: of the sum of squares of the runs' values, in per cent, with its interval over the test images; no share is below "
    "zero, so an interval above zero says nothing. By chance: the share that it has on average when it does nothing.",
    "A x B: how much what the one does differs between levels of the other. A factor's own share is what it does to all runs "
    "alike. Points: the root mean square of the effects.",
)


def table(found: Sequence[Share], problems: Sequence[str]) -> Table:
    """Return the shares of all tasks, under a heading for each."""
    lines: list[Line] = []
    notes = list(NOTES)
    for (task, metric), members in rows.groups(found, lambda one: (one.task, one.metric)).items():
        lines.append(Line((f"{task} ({metric}), {members[0].runs} runs", *("" for _ in _HEADS[1:])), heading=True))
        if members[0].same:
            notes.append(
                f"{task}: {members[0].same} of {members[0].runs} runs have exactly the predictions of another, as where a search "
                "chose the protocol's rates; the shares by chance are approximate."
            )
        lines += [
            Line(
                (
                    one.factor, ", ".join(one.levels) or "-", f"{100 * one.share:.1f}",
                    f"[{100 * one.low:.1f}, {100 * one.high:.1f}]", f"{100 * one.by_chance:.1f}", f"{100 * one.points:.2f}",
                )
            )
            for one in members
        ]  # fmt: skip
    return Table("Sources of variation", (*notes, *(f"Left out: {problem}." for problem in problems)), _HEADS, tuple(lines))
