"""Who looked at which seeds, and when: seeds that are added because of what a table shows make its p values too small.

An output folder keeps a list of looks, appended to by every report that shows other seeds of a row than the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.frozen import Frozen
from results import rows
from results.board import Board, Cell

FILE = "looks.json"
LEAST = 2
"""Seeds of a row that make a look: with one, nothing is called better."""


class Row(Frozen):
    """A row in a column, as it was looked at."""

    row: str
    task: str
    seeds: tuple[int, ...]


class Look(Frozen):
    """A table that was shown, and when (UTC); its rows by what they are, whatever rows stand beside them."""

    time: str
    table: str
    rows: dict[str, Row]


class Looks(Frozen):
    """All looks at an output folder, from the first."""

    looks: tuple[Look, ...] = ()

    def seen(self) -> dict[str, Row]:
        """Return each row as it was last looked at."""
        return {key: row for look in self.looks for key, row in look.rows.items()}

    def with_boards(self, boards: Sequence[Board], time: str) -> Looks:
        """Return the looks with those at some boards, as far as they show other seeds than were seen last."""
        added, seen = [], self.seen()
        for board in boards:
            new = {key: row for key, row in _rows(board).items() if key not in seen or seen[key].seeds != row.seeds}
            if new:
                added.append(Look(time=time, table=board.title, rows=new))
        return Looks(looks=(*self.looks, *added)) if added else self

    def note(self, board: Board, declared: Sequence[int] = ()) -> Board:
        """Return a board that says which seeds were added after a look that was not declared."""
        said = []
        for key, now in _rows(board).items():
            for look in self.looks:
                before = look.rows.get(key)
                if before is None or len(before.seeds) < LEAST or len(before.seeds) in declared:
                    continue
                if set(before.seeds) < set(now.seeds):
                    said.append(f"{now.row}, {now.task} ({len(before.seeds)} seeds on {look.time[:10]}, now {len(now.seeds)})")
                    break
        if not said:
            return board
        return replace(
            board,
            notes=(
                *board.notes,
                f"Seeds were added after a look: {'; '.join(said)}. The p values do not count that look; a study can declare its "
                "looks before it is run.",
            ),
        )


def _rows(board: Board) -> dict[str, Row]:
    """Return the rows of a board with the seeds of each column, by a digest of what they are."""
    found = {}
    for row in board.rows:
        for place, column in enumerate(board.columns):
            cell: Cell = row.cells[place]
            if cell.records:
                first = cell.records[0]
                what = [rows.board_facts(first), rows.row_key(first), row.trunk_seed, column.downstream, column.variant]
                seeds = tuple(sorted(record.seed for record in cell.records))
                found[rows.digest(what)] = Row(row=row.label, task=column.title, seeds=seeds)
    return found
