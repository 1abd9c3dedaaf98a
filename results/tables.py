"""Tables of text: the paper's Table 4 and Table 3, paired differences, costs; as Markdown and LaTeX. Pure functions."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.config import as_space
from bench.record import Record, Tuning
from bench.text import printable
from results.board import DEAD, FLOOR, Board, Cell, Row
from results.cost import row_cost
from results.rows import groups, pretext_key, pretext_label, trained
from results.statistics import Estimate

SCORES = {
    "psnr": "psnr in dB and ssim (11x11 Gaussian, 1.5) in sRGB, a value an image",
    "colourfulness": "colourfulness after Hasler and Suesstrunk, of the result and of the truth",
}
READING = (
    "Value [95 % interval] (seeds, which vary pretraining, head and data order where the row does not say one trunk). "
    "With one seed the interval is over the test images alone, and nothing is called better. "
    "Bold: with 95 % confidence the best of the rows with several seeds is among these (of one trunk: among those of it). "
    "Bold shares its 5 % among the rows of a column, Holm among all differences of the table, so the two may disagree."
)


@dataclass(frozen=True)
class Line:
    """A row of texts; `bold` are the places of cells that stand out, a heading begins a group."""

    cells: tuple[str, ...]
    bold: frozenset[int] = frozenset()
    heading: bool = False


@dataclass(frozen=True)
class Table:
    """A table: what it is, what its columns are, and rows of texts."""

    title: str
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Line, ...]


def table4(board: Board) -> Table:
    """Return a board as the paper's Table 4, trivial predictors under a heading of their own."""
    rows = [
        Line(
            (row.label, *(_cell(cell) for cell in row.cells)),
            frozenset(place for place, cell in enumerate(row.cells, start=1) if cell.leading),
        )
        for row in board.rows
    ]
    if board.trivial:
        rows.append(Line(("Trivial predictors", *("" for _ in board.columns)), heading=True))
        rows += [Line((row.label, *(_cell(cell, trivial=True) for cell in row.cells))) for row in board.trivial]
    heads = ("Model Initialization", *(column.head for column in board.columns))
    return Table(f"Table 4: {board.title}", (*board.notes, READING), heads, tuple(rows))


def differences(board: Board) -> Table | None:
    """Return every difference over the baseline, paired over images and seeds; None when there is none."""
    rows: list[Line] = []
    for place, column in enumerate(board.columns):
        of_column: list[Line] = []
        for row in board.rows:
            difference = row.cells[place].difference
            if difference is None:
                continue
            found = difference.estimate
            of_column.append(
                Line(
                    (
                        label(row, place),
                        next((label(base, place) for base in board.rows if base.label == difference.against), difference.against),
                        f"{100 * found.value:+.2f}",
                        _interval(found, sign="+"),
                        _p(found.p),
                        _p(difference.corrected),
                        difference.verdict,
                        str(found.seeds),
                    ),
                    frozenset({2}) if difference.distinguishable else frozenset(),
                )
            )
        rows += under(column.head, of_column)
    if not rows:
        return None
    heads = ("Row", "Against", "Points", "95 % interval", "p", "Holm", "Told apart", "Seeds")
    note = "The same images and seeds on both sides; Holm: p corrected over all differences of this table that have one."
    return Table(f"Paired differences: {board.title}", (note, *marks(board)), heads, tuple(rows))


def searches(board: Board) -> Table | None:
    """Return what each row's search tried and chose, and how much depends on it; None when nothing was searched."""
    rows: list[Line] = []
    for place, column in enumerate(board.columns):
        of_column: list[Line] = []
        for row in board.rows:
            for tuning in {r.tuning.study: r.tuning for r in row.cells[place].records if r.tuning}.values():
                states = Counter(trial.state for trial in tuning.trials)
                own = tuning.trials[0].value
                of_column.append(
                    Line(
                        (
                            label(row, place),
                            ", ".join(
                                f"{states[state]} {state}" for state in ("complete", "pruned", "diverged") if states[state]
                            ),
                            ", ".join(f"{name} {rate:.2e}" for name, rate in tuning.best.items()),
                            f"{100 * tuning.best_value:.2f}",
                            "-" if own is None else f"{100 * own:.2f}",
                            "-" if tuning.sensitivity is None else f"{100 * tuning.sensitivity:.2f}",
                            _edge(row.cells[place].records, tuning),
                        )
                    )
                )
        rows += under(column.head, of_column)
    if not rows:
        return None
    heads = ("Row", "Trials", "Rates chosen", "Best", "First", "Sensitivity", "At the edge, so wider")
    notes = (
        "Best and first trial on the validation split, per cent. The first has the protocol's own rates where the ranges have "
        "them. Sensitivity: by how many points the median complete trial is below the best.",
        "At the edge: a rate was chosen in the outermost tenth of its range, so a better one may lie outside; with this option "
        "every row is searched wider.",
    )
    return Table(f"Searches: {board.title}", (*notes, *marks(board)), heads, tuple(rows))


def _edge(records: Sequence[Record], tuning: Tuning) -> str:
    """Return the option that searches wider where a search ended at the edge of its range."""
    (record, *_) = [record for record in records if record.tuning and record.tuning.study == tuning.study]
    wider = tuning.wider(trained(record))
    return f"--space {as_space(wider)}" if wider else "-"


def costs(board: Board) -> Table:
    """Return what each row cost a seed, and the points over the baseline that an hour of its pretraining bought."""
    rows: list[Line] = []
    for place, column in enumerate(board.columns):
        of_column: list[Line] = []
        for row in board.rows:
            cell = row.cells[place]
            if not cell.records:
                continue
            cost = row_cost(cell)
            of_column.append(
                Line(
                    (
                        label(row, place),
                        f"{cost.pretrain_seconds:,.0f}",
                        f"{cost.tune_seconds:,.0f}",
                        f"{cost.finetune_seconds:,.0f}",
                        f"{cost.images:,}",
                        f"{cost.peak_memory / 2**20:,.0f}",
                        "-" if cost.joules is None else f"{cost.joules / 1000:,.1f}",
                        "-" if cost.points_per_hour is None else f"{cost.points_per_hour:+.2f} per {cost.unit}",
                    )
                )
            )
        rows += under(column.head, of_column)
    notes = (
        "Seconds on one device, of one seed: pretraining and fine-tuning are means over seeds, tuning is done once for all. "
        "Memory in MiB at most; energy in kJ where the device tells; points over the baseline for an hour of pretraining.",
    )
    return Table(
        f"Cost: {board.title}",
        (*notes, *marks(board)),
        ("Row", "Pretraining", "Tuning", "Fine-tuning", "Images", "Memory", "Energy", "Points"),
        tuple(rows),
    )


def under(head: str, lines: list[Line]) -> list[Line]:
    """Return lines under a heading; nothing when there are none."""
    return [Line((head, *("" for _ in lines[0].cells[1:])), heading=True), *lines] if lines else []


def table3(records: Sequence[Record]) -> list[Table]:
    """Return Table 3 for each pretraining data, trunk and size: what each pretext task says of itself on its test images."""
    tables = []
    with_report = [record for record in records if record.pretrain.evaluation and record.pretrain.data]
    for members in groups(with_report, _pretraining).values():
        rows = []
        for row in groups(members, pretext_key).values():
            unique = {record.pretrain.id: record.pretrain for record in row}
            reports = [pretrain.evaluation for pretrain in unique.values()]
            for name in reports[0]:
                rows.append(Line((pretext_label(row[0], members), name, *_summary([r[name] for r in reports]), str(len(unique)))))
        answers = {name: scores for record in members for name, scores in record.pretrain.baselines.items()}
        if answers:
            rows.append(Line(("Trivial predictors", "", "", "", "", ""), heading=True))
        for name, scores in answers.items():
            rows += [Line((name, score, *_summary([summary]), "-")) for score, summary in scores.items()]
        first = members[0]
        assert first.pretrain.data is not None
        title = f"Table 3: pretext tasks on {first.pretrain.data.title}, trunk {first.job.pretrain.trunk} at {first.pretrain.job.size} px"
        counts = sorted({record.pretrain.evaluation_images for record in members})
        shown = {row.cells[1] for row in rows}
        explained = [text for name, text in SCORES.items() if name in shown]
        notes = (f"data {first.pretrain.data.fingerprint[:12]}; {', '.join(map(str, counts))} test images", *explained)
        tables.append(Table(title, notes, ("Pretext", "Metric", "Average", "Min", "Max", "Seeds"), tuple(rows)))
    return tables


def _pretraining(record: Record) -> tuple[str, str, int]:
    assert record.pretrain.data is not None
    return record.pretrain.data.fingerprint, record.job.pretrain.trunk, record.pretrain.job.size


def _summary(summaries: Sequence[dict[str, float | None]]) -> tuple[str, str, str]:
    averages = [summary["average"] for summary in summaries if summary["average"] is not None]
    lowest = [summary["min"] for summary in summaries if summary["min"] is not None]
    highest = [summary["max"] for summary in summaries if summary["max"] is not None]
    return (
        _number(statistics.fmean(averages) if averages else None),
        _number(min(lowest, default=None)),
        _number(max(highest, default=None)),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def label(row: Row, place: int) -> str:
    """Return a row's label with the marks that it has in a column."""
    marks = row.cells[place].marks
    return f"{row.label} {marks}" if marks else row.label


def marks(board: Board) -> list[str]:
    """Return what the marks of a board's rows mean, as its own table says it."""
    return [note for note in board.notes if note.startswith((f"{FLOOR}:", f"{DEAD}:"))]


def _cell(cell: Cell, trivial: bool = False) -> str:
    found = cell.estimate
    if found is None:
        return f"undefined {cell.marks}".strip() if cell.records else "-"
    values = ", ".join(f"{100 * value:.2f}" for value in found.values)
    more = {1: ": images only", 2: f": {values}"}.get(found.seeds, "")
    count = "" if trivial else f" (n={found.seeds}{more})"
    return f"{100 * found.value:.2f} {_interval(found)}{count} {cell.marks}".strip()


def _interval(found: Estimate, sign: str = "") -> str:
    return f"[{100 * found.low:{sign}.1f}, {100 * found.high:{sign}.1f}]"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


_MARKDOWN = re.compile(r"[\\|<*`~]|&(?=#|\w+;)|(?<=\])\(|(?<!\w)_|_(?!\w)")
"""What Markdown would read: also an entity, a link, emphasis at a word's edge."""


def markdown(tables: Iterable[Table]) -> str:
    """Write tables as Markdown."""

    def escape(cell: str) -> str:
        return _MARKDOWN.sub(r"\\\g<0>", printable(cell))

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def marked(row: Line) -> Iterable[str]:
        for place, cell in enumerate(row.cells):
            text = escape(cell)
            yield f"*{text}*" if row.heading and text else f"**{text}**" if place in row.bold else text

    blocks = []
    for table in tables:
        head = [line(map(escape, table.columns)), line("---" for _ in table.columns)]
        body = [line(marked(row)) for row in table.rows]
        blocks.append("\n".join([f"**{escape(table.title)}**", "", *head, *body, "", *map(escape, table.notes)]))
    return "\n\n".join(blocks) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}",
    "[": "{[}", "]": "{]}", "|": r"\textbar{}", "`": r"\`{}", FLOOR: r"\textdagger{}", DEAD: r"\textdaggerdbl{}",
}  # fmt: skip


def latex(tables: Iterable[Table]) -> str:
    """Write tables as LaTeX (booktabs)."""

    def escape(text: str) -> str:
        return "".join(_LATEX.get(character, character) for character in printable(text))

    def line(row: Line) -> str:
        cells = [rf"\textbf{{{escape(c)}}}" if place in row.bold else escape(c) for place, c in enumerate(row.cells)]
        if row.heading:
            return rf"\midrule \multicolumn{{{len(row.cells)}}}{{l}}{{\emph{{{escape(row.cells[0])}}}}} \\"
        return " & ".join(cells) + r" \\"

    blocks = []
    for table in tables:
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape(' '.join([table.title + '.', *table.notes]))}}}"]
        lines += [
            rf"\begin{{tabular}}{{l{'c' * (len(table.columns) - 1)}}}",
            r"\toprule",
            line(Line(table.columns)),
            r"\midrule",
        ]
        lines += [*(line(row) for row in table.rows), r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"
