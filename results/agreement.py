"""Do two metrics order the rows of a column alike? A pretext task that wins by one name only has not won."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from results.board import Board, Cell


def agreement(boards: Sequence[Board]) -> Iterator[dict[str, Any]]:
    """Yield a line for each board, column of runs and pair of metrics that two rows or more have, by means over their seeds."""
    for board in boards:
        seen = set()
        for place, column in enumerate(board.columns):
            if (column.downstream, column.variant, column.tuning) in seen:  # the same runs by another metric
                continue
            seen.add((column.downstream, column.variant, column.tuning))
            cells = [row.cells[place] for row in board.rows if row.cells[place].records]
            for first, second in combinations(cells[0].records[0].metric_ids if cells else (), 2):
                pairs = [pair for cell in cells if (pair := _means(cell, first, second)) is not None]
                if len(pairs) < 2:
                    continue
                yield {
                    "downstream": column.downstream,
                    "metric": first,
                    "other": second,
                    "rows": len(pairs),
                    **orders(pairs),
                    "data": cells[0].records[0].data.name,
                    **{name: board.facts[name] for name in ("labels", "split")},
                    "protocol": cells[0].records[0].job.protocol,
                    **{name: board.facts[name] for name in ("trunk", "size")},
                    "data_fingerprint": board.facts["data fingerprint"],
                    "variant": column.variant,
                }


def _means(cell: Cell, first: str, second: str) -> tuple[float, float] | None:
    values = [(record.metrics.get(first), record.metrics.get(second)) for record in cell.records]
    known = [(one, other) for one, other in values if one is not None and other is not None]
    return (statistics.fmean(one for one, _ in known), statistics.fmean(other for _, other in known)) if known else None


def orders(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Count the pairs of rows that two metrics order alike and differently, with Kendall's tau-b (Kendall 1945).

    >>> orders([(0.1, 0.5), (0.2, 0.6), (0.3, 0.4)])
    {'alike': 1, 'differently': 2, 'tau': -0.3333333333333333}
    """
    signs = [(_sign(a[0] - b[0]), _sign(a[1] - b[1])) for a, b in combinations(pairs, 2)]
    products = [one * other for one, other in signs]
    alike, differently = products.count(1), products.count(-1)
    untied = math.sqrt(sum(one != 0 for one, _ in signs) * sum(other != 0 for _, other in signs))
    return {"alike": alike, "differently": differently, "tau": (alike - differently) / untied if untied else None}


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)
