"""What probes chose, in plain words."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from bench.record import Record
from bench.selection import Choice
from results.board import Board, Row
from results.rows import groups
from results.tables import Line, Table, by_column, label


def choices(board: Board) -> Table | None:
    """Return what each probe chose, a line for each row and each choice that seeds share; None where there are no probes."""

    def lines(row: Row, place: int) -> Iterator[Line]:
        chosen = [(chosen_by(record), record.job.seed) for record in row.cells[place].records if record.selection is not None]
        for words, seeds in groups(chosen, lambda one: one[0]).items():
            yield Line((label(row, place), ", ".join(str(seed) for _, seed in seeds), words))

    note = "Levels of the encoder are counted from 1, the finest. The test split has no part in these choices."
    return by_column("Choices of probes", board, lines, ("Row", "Seeds", "Chosen"), note)


def chosen_by(record: Record) -> str:
    """Return what a run's probe chose, in words; "" for fine-tuning."""
    return in_words(record.selection.chosen, len(record.diagnostics)) if record.selection is not None else ""


def best_on_test(record: Record) -> str:
    """Return what the test split would have chosen, in words; "" for fine-tuning."""
    return in_words(record.selection.on_test, len(record.diagnostics)) if record.selection is not None else ""


def in_words(choice: Choice, levels: int = 0) -> str:
    """Return a choice in words; `levels` is how many levels the encoder has, 0 where that is not known.

    >>> in_words({"k": 20, "level": 4}, 5), in_words({"level": 2, "levels": (2, 2, 1)})
    ('level 4 of 5, k 20', 'level 2 for 2 of 3 samples')
    >>> in_words({"level": 2, "costs": (1.0, 100.0, 1.0)}), in_words({"layers": 4, "rate": 0.001}), in_words({})
    ('level 2, costs 1 to 100 (median 1)', 'the last 4 levels, rate 0.001', 'nothing to choose')
    """
    said = []
    level, of_samples = choice.get("level"), choice.get("levels")
    if level is not None:
        said.append(f"level {level}" + (f" of {levels}" if levels else ""))
    if isinstance(of_samples, tuple) and len(set(of_samples)) > 1:
        said[-1:] = [f"{' '.join(said[-1:])} for {of_samples.count(level)} of {len(of_samples)} samples".strip()]
    if "layers" in choice:
        said.append("the last level" if choice["layers"] == 1 else f"the last {choice['layers']} levels")
    others = (item for item in choice.items() if item[0] not in ("level", "levels", "layers"))
    return ", ".join([*said, *(f"{name.replace('_', ' ')} {_said(value)}" for name, value in others)]) or "nothing to choose"


def _said(value: int | float | str | tuple[float, ...]) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        low, high = _said(min(value, default=0)), _said(max(value, default=0))
        return low if low == high else f"{low} to {high} (median {_said(statistics.median(value))})"
    return f"{float(f'{value:.3g}'):g}"
