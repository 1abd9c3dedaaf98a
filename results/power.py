"""How many seeds it takes to show a difference, from the deviations of the runs in an output folder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from results.board import Board, Row
from results.significance import SIGNIFICANT
from results.statistics import Estimate, half_width
from results.tables import Line, Table, by_column, label

POWER = 0.8
MOST = 1000
"""The largest number of seeds that is tried; beyond, the answer is that more are needed."""
STEPS = 2000
"""How many quantiles of the distribution of the seeds' variance are averaged over."""


def power(difference: float, seeds: int, found: Estimate, alpha: float = SIGNIFICANT) -> float:
    """Return the chance, in [0, 1], that a true difference is told from zero with so many seeds.

    Seeds and images vary as in `found`, a paired difference with two seeds at least, whose variances are taken for the true ones.
    The mean is normal around the difference; the variance over seeds is chi-squared and independent of the mean.
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


def seeds_needed(difference: float, found: Estimate, share: float = POWER, alpha: float = SIGNIFICANT) -> float:
    """Return the least number of seeds whose `power` is at least `share`; inf where the test images do not allow any number.

    nan for more than 1000 seeds, and where the deviation over seeds is zero or unknown.
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


def table(board: Board, points: Sequence[float], comparisons: int = 1) -> Table | None:
    """Return how many seeds would show a difference of some points at 80 %, for each paired difference of a board.

    With several `comparisons` that Holm corrects together, each is tested at 5 % divided by their number, the level that the one
    with the smallest p value has to meet. None where no difference has two seeds.
    """
    alpha = SIGNIFICANT / comparisons
    level = "5 % in a single comparison" if comparisons == 1 else f"5 % divided by {comparisons} comparisons"

    def lines(row: Row, place: int) -> Iterator[Line]:
        difference = row.cells[place].difference
        if difference is None or difference.estimate.deviation is None:
            return
        found, deviation = difference.estimate, difference.estimate.deviation
        needed = [_written(seeds_needed(one / 100, found, alpha=alpha)) if deviation > 0 else "-" for one in points]
        deviations = f"{100 * deviation:.2f}", f"{100 * math.sqrt(found.common):.2f}"
        yield Line((label(row, place), difference.against, str(found.seeds), *deviations, *needed))

    notes = (
        "How many seeds tell a true difference of so many points from zero with a chance of 80 %, at "
        f"{level}, if the deviation is the one seen here.",
        "Few seeds show the deviation badly: the true one is between half and six times the one that three seeds show (95 %), "
        "and the chance is then less on average.",
        "Deviations are in points. Over seeds: of the paired difference. Over images: the part that all seeds share, being "
        "scored on the same images. never: the test images limit what can be shown, whatever the seeds.",
    )
    heads = ("Row", "Against", "Seeds now", "Over seeds", "Over images", *(f"{one:g} points" for one in points))
    return by_column("Seeds needed", board, lines, heads, *notes)


def _written(seeds: float) -> str:
    return "never" if math.isinf(seeds) else f"over {MOST}" if math.isnan(seeds) else f"{seeds:.0f}"
