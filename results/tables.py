"""Tables from records: the paper's Table 4 and Table 3, and the leaderboard. Pure: records and values in, data out."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from bench.frozen import canonical
from bench.metrics import METRICS
from results.record import Record

K = TypeVar("K")
Value = Callable[[Record, str], float | None]
"""A record's value of a metric by its id; None where it cannot be told."""

SCORES = {
    "psnr": "psnr in dB and ssim (11x11 Gaussian, 1.5) in sRGB, a value a picture",
    "colourfulness": "colourfulness after Hasler and Suesstrunk, of the result and of the truth",
}
BASELINE_NOTE = "the paper's baseline"


@dataclass(frozen=True)
class Cell:
    """One metric of one row: its mean and standard deviation over `count` seeds; the mean is None when nothing is there."""

    mean: float | None = None
    deviation: float | None = None
    count: int = 0

    def text(self, scale: float = 100.0, digits: int = 2) -> str:
        """Write the cell: percent, +- the deviation over seeds, and how many seeds there are."""
        if self.mean is None:
            return "-" if not self.count else "undefined"
        value = f"{self.mean * scale:.{digits}f}"
        return f"{value} (n=1)" if self.deviation is None else f"{value} ± {self.deviation * scale:.{digits}f} (n={self.count})"


@dataclass(frozen=True)
class Table:
    """A table: what it is, what its columns are, and rows of texts."""

    title: str
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def table4(records: Sequence[Record], value: Value, chosen: Sequence[str] = ()) -> list[Table]:
    """Return one Table 4 for each combination of data, protocol, trunk and size; `chosen` metric ids replace the main ones."""
    tables = []
    for key, members in _groups(records, _combination).items():
        titles = {record.downstream: record.title for record in members}
        columns = []
        for variant, of_task in sorted(_groups(members, _variant).items()):
            available = of_task[0].metric_ids
            wanted = [m for m in chosen if m in _same_kind(available)] if chosen else available[:1]
            columns += [(variant, metric) for metric in wanted]
        rows = []
        for row in _rows(members):
            cells = []
            for variant, metric in columns:
                of_cell = [record for record in row if _variant(record) == variant]
                cells.append(_cell([value(record, metric) for record in of_cell]).text())
            rows.append((_label(row[0], members), *cells))
        data, protocol, trunk, size, part = key[:5]
        first = members[0].data
        title = f"Table 4: {data}, protocol {protocol}, trunk {trunk} at {size} px, scored on {part}"
        pretrained = sorted({(r.pretrain.data.title, r.pretrain.data.fingerprint[:12]) for r in members if r.pretrain.data})
        notes = [f"data {first.fingerprint[:12]}; pretrained on " + (", ".join(f"{t} {f}" for t, f in pretrained) or "-")]
        if first.synthetic:
            notes.append("Synthetic data: these figures say nothing about photographs.")
        several = {task for task, _ in {column[0] for column in columns} if len({c[0] for c in columns if c[0][0] == task}) > 1}
        heads = tuple(
            f"{titles[task]} ({metric}, %{'; variant ' + digest if task in several else ''})"
            for (task, digest), metric in columns
        )
        tables.append(Table(title, tuple(notes), ("Model Initialization", *heads), tuple(rows)))
    return tables


def table3(records: Sequence[Record]) -> list[Table]:
    """Return Table 3 for each pretraining data, trunk and size: what each pretext task says of itself on its test pictures."""
    tables = []
    with_report = [record for record in records if record.pretrain.report and record.pretrain.data]
    for members in _groups(with_report, _pretraining).values():
        rows = []
        for row in _groups(members, _recipe_key).values():
            unique = {record.pretrain.id: record.pretrain for record in row}
            reports = [pretrain.report for pretrain in unique.values()]
            for name in reports[0]:
                scores = [report[name] for report in reports]
                rows.append(
                    (
                        _label(row[0], members, schedule=False),
                        name,
                        _number(_mean(score["average"] for score in scores)),
                        _number(min((s["min"] for s in scores if s["min"] is not None), default=None)),
                        _number(max((s["max"] for s in scores if s["max"] is not None), default=None)),
                        str(len(unique)),
                    )
                )
        first = members[0]
        assert first.pretrain.data is not None
        title = f"Table 3: pretext tasks on {first.pretrain.data.title}, trunk {first.trunk} at {first.pretrain.job['size']} px"
        counts = sorted({record.pretrain.report_images for record in members})
        shown = {row[1] for row in rows}
        explained = [text for name, text in SCORES.items() if name in shown]
        notes = (f"data {first.pretrain.data.fingerprint[:12]}; {', '.join(map(str, counts))} test pictures", *explained)
        tables.append(Table(title, notes, ("Pretext", "Metric", "Average", "Min", "Max", "Seeds"), tuple(rows)))
    return tables


LEADERBOARD = (
    "data data_fingerprint synthetic scored_classes split_fingerprint part protocol trunk size pretrain_data "
    "pretrain_data_fingerprint recipe pretext schedule downstream variant metric mean std n_seeds seeds finetune_seconds "
    "pretrain_seconds run_ids"
).split()


def leaderboard(records: Sequence[Record]) -> pd.DataFrame:
    """Return one row for each (row of Table 4, downstream task, metric): plain numbers in [0, 1], columns `LEADERBOARD`."""
    lines: list[dict[str, Any]] = []
    for members in _groups(records, _combination).values():
        for row in _rows(members):
            for (downstream, variant), runs in _groups(row, _variant).items():
                first = runs[0]
                for metric in first.metric_ids:
                    cell = _cell([record.metrics.get(metric) for record in runs])
                    lines.append(
                        {
                            "data": first.data.name,
                            "data_fingerprint": first.data.fingerprint,
                            "synthetic": first.data.synthetic,
                            "scored_classes": len(first.data.scored),
                            "split_fingerprint": first.data.split,
                            "part": first.part,
                            "protocol": first.protocol,
                            "trunk": first.trunk,
                            "size": first.size,
                            "pretrain_data": first.pretrain.data.name if first.pretrain.data else "none",
                            "pretrain_data_fingerprint": first.pretrain.data.fingerprint if first.pretrain.data else "none",
                            "recipe": canonical(first.pretrain.job["recipe"]),
                            "pretext": first.pretext,
                            "schedule": first.schedule,
                            "downstream": downstream,
                            "variant": variant,
                            "metric": metric,
                            "mean": cell.mean,
                            "std": cell.deviation,
                            "n_seeds": cell.count,
                            "seeds": " ".join(str(record.seed) for record in runs),
                            "finetune_seconds": round(sum(record.cost.seconds for record in runs), 3),
                            "pretrain_seconds": round(sum(record.pretrain.cost.seconds for record in runs), 3),
                            "run_ids": " ".join(record.id for record in runs),
                        }
                    )
    return pd.DataFrame(lines, columns=LEADERBOARD)


def markdown(tables: Iterable[Table]) -> str:
    """Write tables as Markdown."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    blocks = []
    for table in tables:
        head = [line(table.columns), line("---" for _ in table.columns)]
        blocks.append("\n".join([f"**{table.title}**", "", *head, *(line(row) for row in table.rows), "", *table.notes]))
    return "\n\n".join(blocks) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def latex(tables: Iterable[Table]) -> str:
    """Write tables as LaTeX (booktabs)."""

    def escape(text: str) -> str:
        return "".join(_LATEX.get(character, character) for character in text)

    def line(cells: Iterable[str]) -> str:
        return " & ".join(escape(cell) for cell in cells) + r" \\"

    blocks = []
    for table in tables:
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape('; '.join([table.title, *table.notes]))}}}"]
        lines += [
            rf"\begin{{tabular}}{{l{'c' * (len(table.columns) - 1)}}}",
            r"\toprule",
            line(table.columns),
            r"\midrule",
        ]
        lines += [*(line(row) for row in table.rows), r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _groups(records: Iterable[Record], key: Callable[[Record], K]) -> dict[K, list[Record]]:
    groups: dict[K, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


def _combination(record: Record) -> tuple[str, str, str, int, str, str]:
    """Return what rows must share to stand in one table; the task's split differs by column and is in the run."""
    return (
        record.data.title,
        record.protocol,
        record.trunk,
        record.pretrain.job["size"],
        record.part,
        record.data.fingerprint,
    )


def _variant(record: Record) -> tuple[str, str]:
    """Return the downstream task and a digest of everything else that two runs must share to stand in one column."""
    job = record.job
    facts = {name: job[name] for name in ("version", "source", "settings", "size", "split")}
    return record.downstream, hashlib.sha256(canonical(facts).encode()).hexdigest()[:8]


def _rows(members: Sequence[Record]) -> list[list[Record]]:
    """Group the runs of a table into rows: same initialisation, same recipe, same schedule; seeds differ."""
    rows = _groups(members, lambda r: (*_recipe_key(r), r.schedule))
    order = sorted(rows.items(), key=lambda item: (item[0][0] != "random_init", *map(str, item[0])))
    return [sorted(row, key=lambda record: (record.downstream, record.seed)) for _, row in order]


def _recipe_key(record: Record) -> tuple[str, str, str, str]:
    job = record.pretrain.job
    return record.pretext, canonical(job["recipe"]), f"{job['data']} {job['split']}", f"{job['version']} {job['source']}"


def _pretraining(record: Record) -> tuple[str, str, int]:
    assert record.pretrain.data is not None
    return record.pretrain.data.fingerprint, record.trunk, record.pretrain.job["size"]


def _label(record: Record, members: Sequence[Record], schedule: bool = True) -> str:
    """Name a row: the pretext task, its schedule, and what tells it from rows of the same task."""
    parts = []
    if schedule and (record.schedule == "one-phase" or record.pretext == "random_init"):
        parts.append(
            record.schedule + (f", {BASELINE_NOTE}" if (record.pretext, record.schedule) == ("random_init", "one-phase") else "")
        )
    others = [other for other in members if other.pretext == record.pretext]
    recipe = record.pretrain.job["recipe"]
    for name in recipe:
        if len({canonical(other.pretrain.job["recipe"].get(name)) for other in others}) > 1:
            parts.append(f"{name}={recipe[name]}")
    if len({other.pretrain.job["data"] for other in others}) > 1 and record.pretrain.data is not None:
        parts.append(f"on {record.pretrain.data.name} {record.pretrain.data.fingerprint[:6]}")
    if len({other.pretrain.job["source"] for other in others}) > 1:
        parts.append(f"source {record.pretrain.job['source'][:6]}")
    return f"{record.pretext} ({'; '.join(parts)})" if parts else record.pretext


def _cell(values: Sequence[float | None]) -> Cell:
    known = [value for value in values if value is not None]
    if not known:
        return Cell(count=len(values))
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return Cell(statistics.fmean(known), deviation, len(known))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _same_kind(metrics: Sequence[str]) -> set[str]:
    needs = METRICS[metrics[0]].needs
    return {name for name, metric in METRICS.items() if metric.needs == needs}
