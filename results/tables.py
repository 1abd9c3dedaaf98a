"""Tables of text: the paper's Table 4 and Table 3, paired differences, searches, costs; as Markdown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.config import as_space
from bench.record import Record, Tuning
from bench.text import printable
from results.board import MARKS, Board, Cell, Row
from results.cost import row_cost
from results.pretext_scores import PretextScore, PretextScores, pretext_scores
from results.statistics import Estimate

SCORES = {
    "psnr": "psnr in dB and ssim (11x11 Gaussian, 1.5) in sRGB, a value an image",
    "psnr_hidden": "psnr_hidden in dB: hidden pixels of the network's input, with each patch's mean and deviation given where it "
    "predicts normalised ones; comparable with no other psnr",
    "accuracy": "accuracy: the share of a task's own questions that are answered right; not comparable between tasks",
    "loss": "loss, error: the task's own on held-out images, lower is better; not comparable between tasks",
    "spread": "spread: how far outputs are from their mean; 0 where all images have one, 1 where they point everywhere alike",
    "information": "information: nats that an answer tells about which image of a batch was asked; 0 for a collapsed network",
    "psnr_skips_alone": "psnr_skips_alone: the same with the bottleneck hidden from the decoder, so what skip connections carry",
    "colourfulness": "colourfulness after Hasler and Suesstrunk, of the result and of the truth",
}
READING = (
    "Value [95 % interval] (number of seeds). With one seed the interval is over the images alone, and nothing is called better.",
    "Bold: with 95 % confidence the best of the rows with several seeds is one of these. Where nothing is bold, no row is told "
    "from the highest.",
)


@dataclass(frozen=True)
class Line:
    """A row of texts. `bold` holds the numbers of the cells that are printed bold; a heading begins a group."""

    cells: tuple[str, ...]
    bold: frozenset[int] = frozenset()
    heading: bool = False


@dataclass(frozen=True)
class Table:
    """A table of texts with a title, notes below it, and the names of its columns."""

    title: str
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Line, ...]


def table4(board: Board) -> Table:
    """Return a board laid out as the paper's Table 4, with trivial predictors under a heading of their own."""
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
    return Table(f"Table 4: {board.title}", (*board.notes, *READING), heads, tuple(rows))


def differences(board: Board) -> Table | None:
    """Return every paired difference from the baseline; None when there is none."""

    def lines(row: Row, place: int) -> Iterator[Line]:
        difference = row.cells[place].difference
        if difference is None:
            return
        found = difference.estimate
        base = next((label(one, place) for one in board.rows if one.label == difference.against), difference.against)
        points = f"{100 * found.value:+.2f}", interval(found, sign="+")
        p_values = p_text(found.p), p_text(difference.corrected), difference.verdict
        bold = frozenset({2}) if difference.distinguishable else frozenset[int]()
        yield Line((label(row, place), base, *points, *p_values, str(found.seeds)), bold)

    note = (
        "A difference is over the test images and the seeds that both rows share. Holm: the p value after Holm's correction over "
        "all differences of this table that have one."
    )
    heads = ("Row", "Against", "Points", "95 % interval", "p", "Holm", "Told apart", "Seeds")
    return by_column("Paired differences", board, lines, heads, note)


def searches(board: Board) -> Table | None:
    """Return what each row's search tried and chose, and how much depends on the rates; None when nothing was searched."""

    def lines(row: Row, place: int) -> Iterator[Line]:
        for record, tuning in searches_of(row.cells[place]):
            states = Counter(trial.state for trial in tuning.trials)
            tried = ", ".join(f"{states[state]} {state}" for state in ("complete", "pruned", "diverged") if states[state])
            rates = ", ".join(f"{name} {rate:.2e}" for name, rate in tuning.best.items())
            values = (tuning.best_value, tuning.trials[0].value, tuning.sensitivity)
            wider = tuning.wider(record.job.trains)
            option = f"--space {as_space(wider)}" if wider else "-"
            name = label(row, place) if tuning.seeds == "first" else f"{label(row, place)}, seed {tuning.seed}"
            yield Line((name, tried, rates, *("-" if v is None else f"{100 * v:.2f}" for v in values), option))

    notes = (
        "Best, First: the best and the first trial on the validation split, in per cent. The first trial has the protocol's own "
        "rates where the searched ranges hold them. Sensitivity: by how many points the median complete trial is below the best.",
        "At the edge: a rate was chosen in the outermost tenth of its range, so a better one may lie outside; with this option "
        "every row is searched over wider ranges.",
    )
    heads = ("Row", "Trials", "Rates chosen", "Best", "First", "Sensitivity", "At the edge, so wider")
    return by_column("Searches", board, lines, heads, *notes)


def searches_of(cell: Cell) -> list[tuple[Record, Tuning]]:
    """Return each search of a cell's runs once, with the last run that has it."""
    return list({record.tuning.study: (record, record.tuning) for record in cell.records if record.tuning}.values())


def costs(board: Board) -> Table | None:
    """Return what each row cost a seed, and the points over the baseline that an hour of its pretraining bought."""

    def lines(row: Row, place: int) -> Iterator[Line]:
        if not row.cells[place].records:
            return
        cost = row_cost(row.cells[place])
        seconds = (cost.pretrain_seconds, cost.tune_seconds, cost.finetune_seconds)
        yield Line(
            (
                label(row, place),
                *(f"{one:,.0f}" for one in seconds),
                f"{cost.images:,}",
                f"{cost.peak_memory / 2**20:,.0f}",
                "-" if cost.joules is None else f"{cost.joules / 1000:,.1f}",
                "-" if cost.points_per_hour is None else f"{cost.points_per_hour:+.2f} per {cost.unit}",
            )
        )

    notes = (
        "Seconds of one seed on one device: pretraining and fine-tuning are means over seeds; the search is once for all seeds, "
        "or a mean too where each has its own.",
        "Memory: the most that was held, in MiB. Energy: in kJ, where the device tells. Points: the difference from the baseline "
        "for an hour of pretraining; none where the baseline is pretrained too.",
    )
    probed = any(record.job.probe is not None for record in board.records())
    of_probes = ("Of a probe, Fine-tuning is what the probe itself took.",) if probed else ()
    heads = ("Row", "Pretraining", "Tuning", "Fine-tuning", "Images", "Memory", "Energy", "Points")
    return by_column("Cost", board, lines, heads, *notes, *of_probes)


def by_column(
    title: str, board: Board, lines: Callable[[Row, int], Iterable[Line]], heads: Sequence[str], *notes: str
) -> Table | None:
    """Return a table with the lines of every row under a heading for each column; None when there are no lines.

    `lines` gives the lines of a row in the column of a number.
    """
    rows: list[Line] = []
    for place, column in enumerate(board.columns):
        of_column = [line for row in board.rows for line in lines(row, place)]
        rows += [Line((column.head, *("" for _ in heads[1:])), heading=True), *of_column] if of_column else []
    marks = (note for note in board.notes if note.startswith(tuple(f"{mark}:" for mark in MARKS)))
    return Table(f"{title}: {board.title}", (*notes, *marks), tuple(heads), tuple(rows)) if rows else None


def table3(records: Sequence[Record]) -> list[Table]:
    """Return Table 3 for each pretraining data, trunk and size: each pretext task's scores at its own task on test images."""
    return [_table3(found) for found in pretext_scores(records)]


def _table3(found: PretextScores) -> Table:
    data, trunk = found.data, found.job
    lines = {
        is_trained: [_score(one) for one in found.scores if (one.trunks is not None) == is_trained]
        for is_trained in (True, False)
    }
    rows = lines[True]
    if lines[False]:
        rows += [Line(("Baselines, which learn nothing", "", "", "", "", ""), heading=True), *lines[False]]
    explained = [text for name, text in SCORES.items() if name in {one.name for one in found.scores}]
    return Table(
        f"Table 3: pretext tasks on {data.short}, trunk {trunk.trunk} at {trunk.size} px",
        (f"data {data.fingerprint[:12]}; {', '.join(map(str, found.images))} test images", *explained),
        ("Pretext", "Metric", "Average", "Min", "Max", "Seeds"),
        tuple(rows),
    )


def _score(one: PretextScore) -> Line:
    values = ("-" if value is None else f"{value:.3f}" for value in (one.average, one.least, one.most))
    return Line((one.label, one.name, *values, "-" if one.trunks is None else str(one.trunks)))


def label(row: Row, place: int) -> str:
    """Return a row's label with its marks in the column of a number."""
    return f"{row.label} {row.cells[place].marks}".rstrip()


def _cell(cell: Cell, trivial: bool = False) -> str:
    found = cell.estimate
    if found is None:
        return f"undefined {cell.marks}".strip() if cell.records else "-"
    values = ", ".join(f"{100 * value:.2f}" for value in found.values)
    more = {1: ": images only", 2: f": {values}"}.get(found.seeds, "")
    count = "" if trivial else f" (n={found.seeds}{more})"
    return f"{100 * found.value:.2f} {interval(found)}{count} {cell.marks}".strip()


def interval(found: Estimate, sign: str = "") -> str:
    """Return an interval in per cent, with a sign where it is one of a difference."""
    return f"[{100 * found.low:{sign}.1f}, {100 * found.high:{sign}.1f}]"


def p_text(value: float | None) -> str:
    """Return a p value with three decimals; "-" where there is none."""
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


_MARKDOWN = re.compile(r"[\\|<*`~]|&(?=#|\w+;)|(?<=\])\(|(?<!\w)_|_(?!\w)")
"""What Markdown would take for markup: also an entity, a link, emphasis at a word's edge."""


def markdown(tables: Iterable[Table]) -> str:
    """Return tables as Markdown; no text of theirs is markup."""

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
        notes = [f"- {escape(note)}" for note in table.notes]
        blocks.append("\n".join([f"**{escape(table.title)}**", "", *head, *body, "", *notes]))
    return "\n\n".join(blocks) + "\n"
