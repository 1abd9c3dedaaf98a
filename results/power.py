"""How many seeds a difference needs to be shown, from the deviations that runs of an output folder have."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from results.board import Board
from results.statistics import Estimate, half_width
from results.tables import Line, Table, label, marks, under

POWER, LEVEL = 0.8, 0.05
MOST = 1000
"""Seeds that are looked at before it is said that more would be needed."""
STEPS = 2000
"""Points at which the distribution of the seeds' variance is read."""


def power(difference: float, seeds: int, found: Estimate, alpha: float = LEVEL) -> float:
    """Return how often a true difference is told from zero with so many seeds, when seeds and images vary as they did.

    The mean is normal around the difference, the variance over seeds chi-squared and independent of it. `found` is a paired
    difference with two seeds at least; what its few seeds say of their variance is taken as it is.
    """
    from scipy import special

    assert found.deviation is not None, "one seed has no deviation"
    variance = max(found.deviation**2, found.own - found.common)
    chances = (np.arange(STEPS) + 0.5) / STEPS
    spread = variance * special.chdtri(seeds - 1, chances) / (seeds - 1)
    half = half_width(alpha, spread, found.common, found.own, seeds, found.images)
    deviation = math.sqrt(found.common + variance / seeds)
    if deviation == 0:
        return float(difference != 0)
    above, below = special.ndtr((difference - half) / deviation), special.ndtr((-difference - half) / deviation)
    return float(np.mean(above + below))


def seeds_needed(difference: float, found: Estimate, share: float = POWER, alpha: float = LEVEL) -> float:
    """Return the least number of seeds whose `power` is at least `share`; inf where the test images limit it, whatever the seeds.

    nan where it is more than 1000 seeds, and where a deviation of zero says nothing.
    """
    from scipy import special

    limit = -special.stdtrit(found.images - 1, alpha / 2) + special.ndtri(share)
    if abs(difference) <= limit * math.sqrt(found.common):
        return math.inf
    if not found.deviation or not math.isfinite(found.deviation) or found.images < 2:
        return math.nan
    low, high = 1, 2
    while power(difference, high, found, alpha) < share:
        low, high = high, 2 * high
        if low > MOST:
            return math.nan
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(difference, middle, found, alpha) >= share else (middle, high)
    return high


def table(board: Board, points: Sequence[float]) -> Table | None:
    """Return how many seeds would show a difference of some points at 80 %, for each paired difference of a board.

    None where no difference has two seeds.
    """
    rows: list[Line] = []
    for place, column in enumerate(board.columns):
        lines = []
        for row in board.rows:
            difference = row.cells[place].difference
            deviation = difference.estimate.deviation if difference is not None else None
            if difference is None or deviation is None:
                continue
            found = difference.estimate
            needed = [_written(seeds_needed(one / 100, found)) if deviation > 0 else "-" for one in points]
            deviations = f"{100 * deviation:.2f}", f"{100 * math.sqrt(found.common):.2f}"
            lines.append(Line((label(row, place), difference.against, str(found.seeds), *deviations, *needed)))
        rows += under(column.head, lines)
    if not rows:
        return None
    notes = (
        "Seeds that tell a true difference of so many points from zero with a chance of 80 %, at 5 % in a single comparison, if "
        "the deviation is the one that is seen; few seeds know it badly, and the chance is then less on average. "
        "Deviations in points: of the paired difference over seeds, and of what all seeds share, being scored on the same test "
        "images. never: the images limit it, whatever the seeds. The true deviation is between half and six times the one that "
        "three seeds show (95 %).",
    )
    heads = ("Row", "Against", "Seeds now", "Over seeds", "Over images", *(f"{one:g} points" for one in points))
    return Table(f"Seeds needed: {board.title}", (*notes, *marks(board)), heads, tuple(rows))


def _written(seeds: float) -> str:
    return "never" if math.isinf(seeds) else f"over {MOST}" if math.isnan(seeds) else f"{seeds:.0f}"
