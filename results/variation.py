"""Where does variation come from? Runs of a complete grid differ in several factors, among which their sum of squares is divided.

A grid is complete where every combination of the factors' levels has one run. The share of a factor is the sum of squares of its
levels' means around the grand mean over that of all N runs (eta squared); what is left is the share of factors that act together,
and of chance. A factor of L levels that does nothing has the share (L - 1) / (N - 1) on average, since its levels are then any
division of the same runs. Intervals are over the test images, for these levels as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
LEFT = "factors together, and chance"
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
    """A factor's share of a grid's sum of squares; `points` is the root mean square of its levels' effects, in [0, 1]."""

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


FIELDS: Fields[Share] = {
    "task": ("the downstream task and what is evaluated", lambda one: one.task),
    "metric": ("the metric's id and version", lambda one: one.metric),
    "factor": ("what the runs differ in", lambda one: one.factor),
    "levels": ("its levels", lambda one: list(one.levels)),
    "runs": ("the number of runs of the grid", lambda one: one.runs),
    "share": ("its share of the sum of squares of all runs", lambda one: one.share),
    "share_low": ("lower end of the share's 95 % interval, over images", lambda one: one.low),
    "share_high": ("upper end", lambda one: one.high),
    "by_chance": ("the share that a factor of so many levels has on average when it does nothing", lambda one: one.by_chance),
    "rms": ("root mean square of its levels' effects", lambda one: one.points),
}


def variation(records: Sequence[Record], read: Reader, cache: Cache) -> tuple[list[Share], list[str]]:
    """Return the shares of each task's factors, the largest first, and the reasons why a task has none."""
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
            found += _shares(task, varied, places, Scores(first.metric_ids[0], runs, read, RESAMPLES, cache))
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
    shares, ofs = decompose(values[None])[0], decompose(drawn)
    count, found = values.size, []
    for place, (factor, levels) in enumerate([*varied.items(), (LEFT, [])]):
        low, high = np.quantile(ofs[:, place], (0.025, 0.975))
        freedom = len(levels) - 1 if levels else count - 1 - sum(one - 1 for one in shape)
        squares = shares[place] * values.var()
        found.append(
            Share(
                task, places[(0,) * len(shape)].metric_ids[0], factor, tuple(map(str, levels)), count,
                float(shares[place]), float(low), float(high), freedom / (count - 1), float(np.sqrt(squares)),
            )
        )  # fmt: skip
    return sorted(found, key=lambda one: (one.factor == LEFT, -one.share))


def decompose(values: Values) -> Values:
    """Return the shares (B, F + 1) of F factors of B grids of values (B, L1, ..., LF), and in the last place what is left.

    All are nan for a grid whose values are all equal.
    """
    axes = range(1, values.ndim)
    grand = values.mean(axis=tuple(axes), keepdims=True)
    whole = ((values - grand) ** 2).mean(axis=tuple(axes))
    means = [values.mean(axis=tuple(other for other in axes if other != axis), keepdims=True) for axis in axes]
    parts = [((one - grand) ** 2).mean(axis=tuple(axes)) for one in means]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.stack(parts, axis=1) / whole[:, None]
    return np.concatenate([found, np.maximum(1 - found.sum(axis=1, keepdims=True), 0.0)], axis=1)


_HEADS = ("Factor", "Levels", "Share", "95 % interval", "By chance", "Points")
NOTES = (
    "Share: of the sum of squares of the runs' values, in per cent, with its interval over the test images. By chance: the share "
    "that a factor of so many levels has on average when it does nothing. Points: the root mean square of its levels' effects.",
)


def table(found: Sequence[Share], problems: Sequence[str]) -> Table:
    """Return the shares of all tasks, under a heading for each."""
    lines: list[Line] = []
    for (task, metric), members in rows.groups(found, lambda one: (one.task, one.metric)).items():
        lines.append(Line((f"{task} ({metric}), {members[0].runs} runs", *("" for _ in _HEADS[1:])), heading=True))
        lines += [
            Line(
                (
                    one.factor, ", ".join(one.levels) or "-", f"{100 * one.share:.1f}",
                    f"[{100 * one.low:.1f}, {100 * one.high:.1f}]", f"{100 * one.by_chance:.1f}", f"{100 * one.points:.2f}",
                )
            )
            for one in members
        ]  # fmt: skip
    return Table("Sources of variation", (*NOTES, *(f"Left out: {problem}." for problem in problems)), _HEADS, tuple(lines))
