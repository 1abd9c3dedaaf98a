"""The page of `bench report --html`: boards as one HTML file that loads nothing and can be put beside a paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from bench.errors import DataError
from bench.metrics import METRICS
from bench.painting import CONFIDENT
from bench.record import Record, Trial, Tuning
from bench.storage import seal
from bench.text import printable_lines
from results import charts
from results.board import Board, Cell, Row
from results.charts import Dot, Series, Whisker
from results.cost import row_cost
from results.grouping import title_of
from results.overlays import overlays
from results.statistics import Estimate
from results.strips import strips
from results.tables import Table


def page(boards: Sequence[Board], tables: Sequence[Table], out: Path, command: str, problems: list[str] | None = None) -> str:
    """Return the page as HTML, with the images that lie below `out`; a missing image is left out.

    A damaged image is left out too, and named on the page and in `problems`.
    """
    views = [_view(board, out) for board in boards]
    if problems is not None:
        problems += dict.fromkeys(problem for view in views for problem in view["problems"])
    return printable_lines(_template().render(boards=views, tables=tables, command=command))


def _template() -> Template:
    files = FunctionLoader(lambda name: resources.files("results").joinpath(name).read_text(encoding="utf-8"))
    made = Environment(loader=files, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters.update(percent=_percent, p=_p)
    made.globals.update(charts=charts, interval=_interval)
    return made.get_template("page.html.j2")


def _view(board: Board, out: Path) -> dict[str, Any]:
    """Return all that the template shows of a board; the template leaves out what is empty."""
    problems: list[str] = []
    return {
        "board": board,
        "meanings": _meanings(board),
        "curves": _curves(board),
        "grids": _grids(board, out, problems),
        "overlays": overlays(board, _tasks(board), out, problems),
        "painted": CONFIDENT if any(METRICS[one.metric.partition("@")[0]].needs == "boxes" for one in board.columns) else None,
        "heat": _heat(board),
        "searches": _searches(board),
        "differences": _differences(board),
        "costs": _costs(board),
        "origin": _origin(board),
        "problems": problems,
    }


def _percent(value: float, sign: str = "", digits: int = 2) -> str:
    return f"{100 * value:{sign}.{digits}f}".replace("-", "−")


def _interval(low: float, high: float, sign: str = "") -> str:
    if math.isnan(low) or math.isnan(high):
        return "[no interval]"
    return f"[{_percent(low, sign, 1)}, {_percent(high, sign, 1)}]"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "<\N{NO-BREAK SPACE}0.001" if value < 0.001 else f"{value:.3f}"


def _meanings(board: Board) -> dict[str, str]:
    """Return the title of each metric of the board, by its id with the version."""
    ids = dict.fromkeys(column.metric for column in board.columns)
    return {key: METRICS[name].title for key in ids if (name := key.partition("@")[0]) in METRICS and METRICS[name].key == key}


def _tasks(board: Board) -> list[tuple[int, str]]:
    """Return the number and name of one column for each set of runs."""
    return [(place, ", ".join(part for part in (c.title, c.rates, c.tag) if part)) for place, c in board.distinct_columns()]


def _curves(board: Board) -> list[dict[str, Any]]:
    """Draw each task's training loss by epoch, a line for each row."""
    found = []
    for place, task in _tasks(board):
        made = [_series(style, row, row.cells[place]) for style, row in enumerate(board.rows)]
        series = [one for one in made if one is not None]
        if series:
            title = f"Training loss by epoch of {len(series)} initialisations: {task}"
            found.append(
                {"task": task, "chart": charts.lines(title, series, "epoch", "training loss, log scale"), "series": series}
            )
    return found


def _series(style: int, row: Row, cell: Cell) -> Series | None:
    """Return the mean over seeds of the losses of a cell's runs, as far as all have them."""
    losses = [[loss for phase in record.losses for loss in phase] for record in cell.records]
    values = tuple(fmean(at_epoch) for at_epoch in zip(*losses, strict=False))
    if not values:
        return None
    epochs = 0
    for phase, following in pairwise(cell.records[0].job.phases):
        epochs += phase.epochs
        if (phase.train, following.train) == ("head", "all"):
            return Series(row.label, style, values, epochs)
    return Series(row.label, style, values)


def _is_of(trunk: Path, weights: str) -> bool:
    """Whether a folder may hold the trunk with these weights: the id alone is the same for every training of a job."""
    path = trunk / "pretrain.json"
    try:
        return not weights or not path.exists() or seal.load(path, "a pretrained trunk", "train it again")["weights"] == weights
    except (DataError, KeyError, TypeError):
        return False


def _grids(board: Board, out: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Return each row's image of its pretraining by epoch (Figure 7), from the lowest seed that has one."""
    found = []
    shown: set[str] = set()
    for row in board.rows:
        trunks = {record.pretrain.id: record.pretrain for cell in row.cells for record in cell.records}
        for trunk in sorted(trunks.values(), key=lambda one: (one.job.seed, one.id)):
            path = out / "pretrained" / trunk.id / "figure7.png"
            if not path.is_file() or trunk.id in shown:
                continue
            shown.add(trunk.id)
            if not _is_of(path.parent, trunk.weights):
                damage = "is of another training, or its record is damaged, and left out"
                problems.append(f"The image pretrained/{trunk.id}/figure7.png {damage}.")
                continue
            try:
                shown_rows = strips(path.read_bytes())
            except Exception:  # Pillow has no common base for what a damaged file raises
                problems.append(f"The image pretrained/{trunk.id}/figure7.png is damaged and left out.")
                continue
            found.append({"title": f"{row.label}, seed {trunk.job.seed}", "strips": shown_rows})
            break
    return found


def _heat(board: Board) -> list[dict[str, Any]]:
    """Return values by class for each column, of its metric or, where that has none, of the first that has.

    Shades are shares of the highest object class.
    """
    found = []
    for place, column in enumerate(board.columns):
        rows = []
        shown = [record for row in board.rows for record in row.cells[place].records]
        by_class = (metric for record in shown for metric in record.metric_ids if metric in record.per_class)
        metric = column.metric if any(column.metric in record.per_class for record in shown) else next(by_class, "")
        for row in board.rows:
            values = [record.per_class.get(metric, {}) for record in row.cells[place].records]
            means = {name: _mean([v[name] for v in values if name in v]) for name in dict.fromkeys(n for v in values for n in v)}
            if means:
                rows.append((row.label, means))
        if not rows:
            continue
        order = ("background", *shown[0].data.classes)
        names = [name for name in order if any(name in means for _, means in rows)]
        known = [v for _, means in rows for name, v in means.items() if v is not None and name != "background"]
        highest = max(known, default=0.0) or 1.0
        shaded = [(label, [_shade(means.get(name), highest) for name in names]) for label, means in rows]
        head = replace(column, metric=metric).head
        found.append({"head": head, "classes": names, "rows": shaded, "highest": highest})
    return found


def _shade(value: float | None, highest: float) -> tuple[float, str] | None:
    return None if value is None else (value, f"{min(1.0, value / highest):.2f}")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _searches(board: Board) -> list[dict[str, Any]]:
    """Draw, for each task, every row's search for rates: a chart for each rate, with the same vertical axis within a task."""
    found = []
    for place, task in _tasks(board):
        runs = [(row.label, record, record.tuning) for row in board.rows for record in row.cells[place].records]
        searches = list({(label, t.study): (label, record, t) for label, record, t in runs if t}.values())
        reached = [_reached(trial) for _, _, tuning in searches for trial in tuning.trials]
        heights = [100 * value for value in reached if value is not None]
        if searches:
            studies = [{"label": label, "tuning": t, "charts": _rates(label, r, t, heights)} for label, r, t in searches]
            found.append({"task": task, "studies": studies})
    return found


def _rates(label: str, record: Record, tuning: Tuning, heights: Sequence[float]) -> list[Markup]:
    """Draw a search's trials against each of its rates."""
    drawn = []
    for name in tuning.space:
        dots = [_trial(trial, name, tuning) for trial in tuning.trials if trial.rates.get(name, 0) > 0]
        if dots:
            rate = _rate(name, record)
            title = f"{label}: {len(dots)} trials, {tuning.metric} on the validation split against the {rate}"
            drawn.append(charts.scatter(title, dots, rate, f"{tuning.metric}, %", heights))
    return drawn


def _trial(trial: Trial, name: str, tuning: Tuning) -> Dot:
    value = _reached(trial)
    label = f"trial {trial.number}, rate {trial.rates[name]:.3g}, {trial.state}"
    shape = {"complete": charts.CIRCLE, "pruned": charts.PRUNED}.get(trial.state, charts.DIVERGED)
    chosen = trial.state == "complete" and trial.rates == tuning.best
    height = None if value is None else 100 * value
    return Dot(trial.rates[name], height, label, 1, shape, filled=trial.state == "complete", ring=chosen)


def _reached(trial: Trial) -> float | None:
    """Return the last value of a trial that ended or was pruned; None for one that diverged."""
    if trial.state == "diverged":
        return None
    return trial.value if trial.value is not None else trial.epochs[max(trial.epochs)] if trial.epochs else None


def _rate(name: str, record: Record) -> str:
    """Return a searched rate's name with what is trained at it."""
    start, _, number = name.partition("-")
    if start == "phase" and number.isdecimal() and 0 < int(number) <= len(record.job.phases):
        return f"rate of phase {number} ({record.job.phases[int(number) - 1].train})"
    return f"rate of the {name} task" if name == "pretext" else f"rate {name}"


def _differences(board: Board) -> list[dict[str, Any]]:
    """Draw, for each column, every difference from the baseline with its interval."""
    found = []
    for place, column in enumerate(board.columns):
        differences = [
            (style, row, difference) for style, row in enumerate(board.rows) if (difference := row.cells[place].difference)
        ]
        against = {difference.against for _, _, difference in differences}
        bars = [
            Whisker(
                row.label if len(against) == 1 else f"{row.label} − {difference.against}",
                style,
                *_points(difference.estimate),
                filled=bool(difference.distinguishable),
                dashed=difference.estimate.seeds == 1,
            )
            for style, row, difference in differences
        ]
        if bars:
            title = f"Differences from the baseline with 95 % intervals: {column.head}"
            unit = f"points, from {against.pop()}" if len(against) == 1 else "difference, points"
            found.append({"head": column.head, "chart": charts.whiskers(title, bars, unit)})
    return found


def _points(difference: Estimate) -> tuple[float, float, float]:
    return 100 * difference.value, 100 * difference.low, 100 * difference.high


def _costs(board: Board) -> list[dict[str, Any]]:
    """Draw, for each column, each row's difference from its baseline against the seconds that one of its seeds took."""
    found = []
    for place, column in enumerate(board.columns):
        cells = [(style, row.label, row.cells[place]) for style, row in enumerate(board.rows)]
        priced = [(style, label, cell.difference, row_cost(cell)) for style, label, cell in cells if cell.difference]
        devices = sorted({cost.device for *_, cost in priced})
        dots = []
        for style, label, difference, cost in priced:
            if cost.seconds > 0:
                y, low, high = _points(difference.estimate)
                text = f"{label}: {cost.seconds:,.0f} s on {cost.device}, {_percent(difference.estimate.value, '+')} points"
                tag, filled = cost.device if len(devices) > 1 else "", bool(difference.distinguishable)
                dots.append(Dot(cost.seconds, y, text, style, low=low, high=high, filled=filled, tag=tag))
        if dots:
            title = f"Seconds for a seed and difference in points: {column.head}"
            across = f"seconds for a seed, all stages, on {' or '.join(devices)}"
            chart = charts.scatter(title, dots, across, "difference, points", [0.0], wide=True)
            found.append({"head": column.head, "chart": chart})
    return found


def _origin(board: Board) -> dict[str, Any]:
    """Return each run with its row and commit, the different sets of software, and the fingerprints of data and splits."""
    labels = {record.id: row.label for row in reversed(board.rows) for cell in row.cells for record in cell.records}
    records = board.records()
    software = [{"python": r.provenance.get("python", "?"), **r.provenance.get("versions", {})} for r in records]
    data = [("data", r.data) for r in records] + [("pretraining", r.pretrain.data) for r in records if r.pretrain.data]
    return {
        "runs": [(labels[record.id], record, _task(record, board), _commit(record)) for record in records],
        "software": list(dict.fromkeys(", ".join(f"{name} {version}" for name, version in one.items()) for one in software)),
        "data": list(
            dict.fromkeys((kind, facts.title, facts.fingerprint, facts.splits_fingerprint) for kind, facts in data if facts)
        ),
    }


def _task(record: Record, board: Board) -> str:
    where = board.task_of(record).removeprefix(record.title)
    return (record.title if record.job.probe is None else title_of(record)) + where


def _commit(record: Record) -> str:
    commit = str(record.provenance.get("commit") or "unknown")[:12]
    return f"{commit} with changed files" if record.provenance.get("dirty") else commit
