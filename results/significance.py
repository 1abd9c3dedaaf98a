"""How the rows of a column are compared: paired differences, Holm's correction of their p values, and which rows are bold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from results import statistics
from results.statistics import Estimate

K = TypeVar("K")
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Difference:
    """A paired difference to another row, over the same images and the same seeds.

    `corrected` is the p value at its interim look after Holm's correction. It is None with one seed, and where interim looks were
    declared at other numbers of seeds than this difference has.
    """

    against: str
    estimate: Estimate
    corrected: float | None = None
    from_pretrained: bool = False
    """Whether the other row is pretrained too."""

    @property
    def distinguishable(self) -> bool | None:
        """Whether the difference, to either side, is told from zero; None where the test may not be used."""
        return None if self.corrected is None else self.corrected < SIGNIFICANT

    @property
    def verdict(self) -> str:
        """Whether the difference is told from zero, in a word or two."""
        if self.estimate.seeds == 1:
            return "one seed"
        if self.estimate.p is None:
            return "no interval"
        return {True: "yes", False: "no", None: "exploratory"}[self.distinguishable]


def corrected(differences: Mapping[K, Difference], looks: Sequence[int]) -> dict[K, Difference]:
    """Return the differences with their p values corrected by Holm over all that have one at a declared interim look."""
    tested = {key: p for key, one in differences.items() if (p := _p_at_look(one.estimate, looks)) is not None}
    found = dict(zip(tested, statistics.holm(list(tested.values())), strict=True))
    return {key: replace(one, corrected=found.get(key)) for key, one in differences.items()}


def leaders(values: Mapping[int, float], difference: Callable[[int, int], Estimate | None], looks: Sequence[int]) -> set[int]:
    """Return the rows among which the best one is with 95 % confidence, of rows with their values by number.

    `difference` gives the paired difference of two rows, None where they have no seed in common. A row is left out when it is
    told from the highest of K rows at a level of 5 % / (K - 1): the truly best row is told so from any other row with a chance of
    5 % / (K - 1) at most, whichever of them happens to be the highest. A row that cannot be compared with the highest is not left
    out; where no row can be, nothing leads.
    """
    best = max(values, key=lambda row: (values[row], -row))
    others = [row for row in values if row != best]
    found = {row: estimate for row in others if (estimate := difference(best, row)) is not None}
    p_values = {row: p for row, estimate in found.items() if (p := _p_at_look(estimate, looks)) is not None}
    if not p_values:
        return set()
    return values.keys() - {row for row, p in p_values.items() if p * len(others) < SIGNIFICANT}


def _p_at_look(found: Estimate, looks: Sequence[int]) -> float | None:
    return None if found.p is None else statistics.at_look(found.p, found.seeds, looks)
