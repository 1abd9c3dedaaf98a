"""Figures that stand alone, drawn from the lines of a report's CSV files and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment

from results import charts
from results.charts import Drawing, Whisker
from results.rows import groups
from results.significance import SIGNIFICANT

Line = Mapping[str, Any]
Panels = Iterator[tuple[str, Drawing]]


def figure(name: str, lines: Sequence[Line]) -> str:
    """Return the figure of the CSV file of a name, drawn from its lines, as the text of an SVG file; "" where it has none."""
    panels = list(_KINDS[name][1](lines)) if name in _KINDS else []
    return charts.sheet(_KINDS[name][0], panels, _style()) if panels else ""


def _style() -> str:
    text = resources.files("results").joinpath("charts.css.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(text).render()


def _differences(lines: Sequence[Line]) -> Panels:
    """Draw a leaderboard's differences, a panel for each column; a row has the same colour in all of them."""
    styles = {name: number for number, name in enumerate(dict.fromkeys(line["pretext"] for line in lines))}
    known = [line for line in lines if line["delta"] is not None]
    columns = groups(known, lambda line: (line["downstream"], line["evaluation"], line["metric"], line["trunk"], line["labels"]))
    for (task, evaluation, metric, *_), members in columns.items():
        varied = [field for field in ("schedule", "transfer", "pretrain_data") if len({line[field] for line in members}) > 1]
        baselines = {line["baseline"] for line in members}
        bars = [
            Whisker(
                ", ".join(line[field] for field in ("pretext", *varied))
                + (f" \u2212 {line['baseline']}" if len(baselines) > 1 else ""),
                styles[line["pretext"]],
                *_hundredfold(line, "delta", "delta_low", "delta_high"),
                filled=line["p_holm"] is not None and line["p_holm"] < SIGNIFICANT,
                dashed=line["n_seeds"] == 1,
            )
            for line in members
        ]
        head = f"{task}, {metric}" if evaluation == "finetune" else f"{task}, {evaluation}, {metric}"
        unit = f"points, from {baselines.pop()}" if len(baselines) == 1 else "points"
        yield head, charts.whiskers(f"Differences: {head}", bars, f"{unit}; filled: told apart")


def _confirmatory(lines: Sequence[Line]) -> Panels:
    """Draw a panel for each question, all on the same axis: how wide a null is says what the other differences are worth."""
    made = [line for line in lines if line["delta"] is not None and line["refused"] is None]
    ends = [value for line in made for value in _hundredfold(line, "delta", "delta_low", "delta_high")]
    for place, (question, members) in enumerate(groups(made, lambda line: line["question"]).items()):
        bars = [
            Whisker(
                f"{line['row']} \u2212 {line['baseline']}: {line['task']}, {line['metric']}",
                place + 1,
                *_hundredfold(line, "delta", "delta_low", "delta_high"),
                filled=bool(line["told_apart"]),
            )
            for line in members
        ]
        unit = "points; filled: told apart, all comparisons corrected together"
        yield question, charts.whiskers(f"Confirmatory: {question}", bars, unit, ends)


def _inflation(lines: Sequence[Line]) -> Panels:
    for head, members in groups(lines, lambda line: line["column"]).items():
        bars = [
            Whisker(
                line["row"] or "mean over rows",
                0 if line["row"] is None else 1,
                *_hundredfold(line, "delta", "delta_low", "delta_high"),
                filled=line["row"] is None,
            )
            for line in members
        ]
        yield head, charts.whiskers(f"Inflation: {head}", bars, "points that choosing on the test split would have added")


def _orders(lines: Sequence[Line]) -> Panels:
    """Draw a panel for each task and pair of boards, where a bar is named by how its two columns evaluate."""
    known = [line for line in lines if line["tau"] is not None]
    panels = groups(known, lambda line: (_heading(line["column"])[0], line["board"], line["other_board"]))
    for (task, board, other), members in panels.items():
        bars = [Whisker(_pair(line), 1, *_known(line, "tau", "tau_low", "tau_high"), filled=True) for line in members]
        head = f"{task}: are rows in the same order?" if board == other else f"{task}: boards {board} and {other}"
        yield head, charts.whiskers(head, bars, "Kendall's tau-b: 1 the same order, -1 the opposite")


def _pair(line: Line) -> str:
    """Return how the two columns of a line evaluate, with their metrics where these differ."""
    one, other = _heading(line["column"]), _heading(line["other_column"])
    return " / ".join(evaluation + (f" ({metric})" if one[2] != other[2] else "") for _, evaluation, metric in (one, other))


def _heading(text: str) -> tuple[str, str, str]:
    """Return the task, the evaluation and the metric of a column's heading: "Classification, kNN (map_voc@1, %)"."""
    title, _, metric = text.partition(" (")
    task, _, evaluation = title.partition(", ")
    return task, evaluation or "fine-tuning", metric.split(", ")[0]


def _shares(lines: Sequence[Line]) -> Panels:
    for (task, metric), members in groups(lines, lambda line: (line["task"], line["metric"])).items():
        bars = [
            Whisker(
                line["factor"],
                place,
                *_hundredfold(line, "share", "share_low", "share_high"),
                filled=False,
                by_chance=100 * line["by_chance"],
            )
            for place, line in enumerate(members)
        ]
        unit = "% of the variation; dotted: on average without effect"
        yield f"{task}, {metric}", charts.whiskers(f"Variation: {task}", bars, unit)


_KINDS: dict[str, tuple[str, Callable[[Sequence[Line]], Panels]]] = {
    "leaderboard": ("Differences from the baseline, with 95 % intervals", _differences),
    "confirmatory": ("Confirmatory comparisons, with 95 % intervals", _confirmatory),
    "selection": ("What choosing on the test split would have added, with 95 % intervals", _inflation),
    "sensitivity": ("How alike columns order the same rows, with 95 % intervals", _orders),
    "variation": ("Where the variation of the runs comes from, with 95 % intervals", _shares),
}
NAMES = tuple(_KINDS)
"""The CSV files that have a figure."""


def _hundredfold(line: Line, *names: str) -> tuple[float, float, float]:
    value, low, high = _known(line, *names)
    return 100 * value, 100 * low, 100 * high


def _known(line: Line, *names: str) -> tuple[float, float, float]:
    """Return a value and the ends of its interval, nan where there is none."""
    value, low, high = (math.nan if line[name] is None else line[name] for name in names)
    return value, low, high
