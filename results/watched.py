"""What a probe saw of trunks while they were pretrained (`--watch`): a curve of their features on validation, and no score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.probe import PROBES
from bench.record import PretrainRecord
from bench.selection import Watched
from results.board import Board, Row
from results.choices import in_words
from results.sheets import Fields
from results.tables import Line, Table

NOTE = (
    "On the validation split, with the level and k that are best there after this epoch, so optimistic. Nothing else was chosen "
    "or stopped by it: the trunk of the last epoch is the one that is evaluated."
)


@dataclass(frozen=True)
class Seen:
    """What a probe saw of one trunk of a row after an epoch."""

    number: int
    board: Board
    row: Row
    pretrain: PretrainRecord
    watched: Watched


FIELDS: Fields[Seen] = {
    "board": ("the number of the board, from 1", lambda one: one.number),
    "row": ("the row's label", lambda one: one.row.label),
    "seed": ("the seed of pretraining", lambda one: one.pretrain.job.seed),
    "pretrain_id": ("the trunk", lambda one: one.pretrain.id),
    "epoch": ("epochs of pretraining so far", lambda one: one.watched.epoch),
    "probe": ("the probe", lambda one: one.watched.probe),
    "downstream": ("the task whose validation labels were used", lambda one: one.watched.task),
    "metric": ("the metric, with its version", lambda one: one.watched.metric),
    "value": ("its value on the validation split", lambda one: one.watched.value),
    "chosen": ("the settings that were best there, JSON", lambda one: dict(one.watched.choice)),
}


def seen(boards: Sequence[Board]) -> Iterator[Seen]:
    """Yield what was seen of each trunk of each board, a trunk once, by epoch."""
    for number, board in enumerate(boards, start=1):
        known: set[str] = set()
        for row in board.rows:
            for pretrain in {record.pretrain.id: record.pretrain for record in row.records}.values():
                if pretrain.id not in known:
                    known.add(pretrain.id)
                    yield from (Seen(number, board, row, pretrain, one) for one in pretrain.watched)


def table(board: Board, found: Sequence[Seen]) -> Table | None:
    """Return the curves of a board's trunks as lines; None where nothing was watched."""
    lines = [_line(one) for one in found if one.board is board]
    heads = ("Row", "Seed", "Epoch", "Probe", "Validation, %", "Best with")
    return Table(f"While trunks were pretrained: {board.title}", (NOTE,), heads, tuple(lines)) if lines else None


def _line(one: Seen) -> Line:
    watched = one.watched
    value = "undefined" if watched.value is None else f"{100 * watched.value:.2f}"
    probe = f"{PROBES[watched.probe].title}, {watched.metric}" if watched.probe in PROBES else watched.probe
    return Line((one.row.label, str(one.pretrain.job.seed), str(watched.epoch), probe, value, in_words(watched.choice)))
