"""How long a command still takes: the estimates of the work that is left, corrected by how long the finished work took."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

WEIGHT = 30.0
"""Seconds of finished work from which its speed counts more than the estimate's."""


@dataclass
class Remaining:
    """The seconds that a command still takes. `pieces` has the estimate of each piece of work that is left, by its id."""

    pieces: dict[str, float] = field(default_factory=dict)
    present: tuple[str, ...] = ()
    """The pieces that are worked on now."""
    began: float = 0.0
    expected: float = 0.0
    """The estimates of the finished pieces, and in `taken` the seconds that they took."""
    taken: float = 0.0

    def begin(self, pieces: Iterable[str]) -> None:
        """Note that some pieces are worked on from now on."""
        self.present, self.began = tuple(pieces), time.monotonic()

    def end(self, failed: bool = False) -> None:
        """Note that the present pieces are finished, or given up; how long failed ones took says nothing of the others."""
        found = sum(self.pieces.pop(name, 0.0) for name in self.present)
        if found and not failed:
            self.expected += found
            self.taken += time.monotonic() - self.began
        self.present = ()

    def leave(self) -> None:
        """Note that the present pieces are left for later, as while another process makes them."""
        self.present = ()

    def seconds(self, stage: float = 0.0) -> float:
        """Return the seconds that are left, given those of the present stage."""
        factor = (self.taken + WEIGHT) / (self.expected + WEIGHT)
        now = sum(self.pieces.get(name, 0.0) for name in set(self.present))
        later = sum(self.pieces.values()) - now
        spent = time.monotonic() - self.began if self.present else 0.0
        return max(stage, factor * now - spent) + factor * later
