"""What the features of trunks look like without labels, by encoder level. These are no scores."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.record import Record
from bench.selection import LevelDiagnostics
from results.board import Board, Row
from results.rows import groups
from results.sheets import Fields
from results.tables import Line, Table

NO_SCORES = "These are no scores: a higher or lower number makes no trunk better at a task."
MEANING = (
    "RankMe and effective rank: how many directions features use. Alignment: squared distance between an image and its mirror "
    "image, at most 4. Uniformity: 0 where all features point in one direction, lower the more they spread.",
    "Dead: channels that are the same for every image. Features are averaged over places; means over seeds.",
)


@dataclass(frozen=True)
class Level:
    """An encoder level of a row's trunks, over images of a task: the diagnostics of each seed's trunk."""

    number: int
    board: Board
    row: Row
    record: Record
    level: int
    of_trunks: tuple[LevelDiagnostics, ...]

    def mean(self, name: str) -> float | None:
        """Return the mean of a measure over the trunks that have it; None where none has."""
        known = [value for one in self.of_trunks if (value := getattr(one, name)) is not None]
        return statistics.fmean(known) if known else None


FIELDS: Fields[Level] = {
    "board": ("the number of the board, from 1", lambda one: one.number),
    "row": ("the row's label", lambda one: one.row.label),
    "downstream": ("the task whose images these are", lambda one: one.record.downstream),
    "data": ("the labelled data", lambda one: one.record.data.name),
    "level": ("the encoder level, from 1, the finest", lambda one: one.level),
    "levels": ("how many levels there are", lambda one: len(one.record.diagnostics)),
    "channels": ("the level's channels", lambda one: one.of_trunks[0].channels),
    "images": ("how many images", lambda one: one.of_trunks[0].images),
    "rankme": ("RankMe, mean over seeds", lambda one: one.mean("rankme")),
    "effective_rank": ("effective rank, mean over seeds", lambda one: one.mean("effective_rank")),
    "alignment": ("squared distance between an image and its mirror image, mean over seeds", lambda one: one.mean("alignment")),
    "uniformity": ("uniformity, mean over seeds; lower is more uniform", lambda one: one.mean("uniformity")),
    "dead_channels": ("share of channels that are the same for every image", lambda one: one.mean("dead_channels")),
    "n_seeds": ("how many trunks, a seed each", lambda one: len(one.of_trunks)),
}


def levels(boards: Sequence[Board]) -> Iterator[Level]:
    """Yield every encoder level of every row that has diagnostics, each trunk once a task, however many probes it has."""
    for number, board in enumerate(boards, start=1):
        for row in board.rows:
            known = [record for record in row.records if record.diagnostics]
            for of_task in groups(known, lambda record: (record.downstream, record.data.fingerprint)).values():
                trunks = list({record.pretrain.id: record.diagnostics for record in reversed(of_task)}.values())
                for place in range(min(map(len, trunks))):
                    yield Level(number, board, row, of_task[0], place + 1, tuple(trunk[place] for trunk in reversed(trunks)))


def table(board: Board, found: Sequence[Level]) -> Table | None:
    """Return the diagnostics of a board's rows by level; None where there are none."""
    rows = []
    tasks = groups((one for one in found if one.board is board), lambda one: board.task_of(one.record))
    for title, of_task in tasks.items():
        rows += [Line((title, *("" for _ in _HEADS[1:])), heading=True)] if len(tasks) > 1 else []
        rows += [_line(one) for one in of_task]
    return Table(f"Representations: {board.title}", (NO_SCORES, *MEANING), _HEADS, tuple(rows)) if rows else None


_HEADS = ("Row", "Level", "Channels", "RankMe", "Effective rank", "Alignment", "Uniformity", "Dead, %", "Seeds")


def _line(one: Level) -> Line:
    dead = one.mean("dead_channels")
    measures = (one.mean("rankme"), ".1f"), (one.mean("effective_rank"), ".1f"), (one.mean("alignment"), ".3f")
    shown = [*measures, (one.mean("uniformity"), ".2f"), (None if dead is None else 100 * dead, ".1f")]
    values = ("-" if value is None else f"{value:{digits}}" for value, digits in shown)
    return Line((one.row.label, str(one.level), str(one.of_trunks[0].channels), *values, str(len(one.of_trunks))))
