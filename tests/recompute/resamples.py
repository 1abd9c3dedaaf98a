"""The values of a metric on resampled test sets: images drawn with replacement, the same ones for all runs on the same images."""

from __future__ import annotations

import hashlib

import numpy as np

from tests.recompute.measured import Floats, measure
from tests.recompute.runs import Array, Run

DRAWS = 10_000
CHUNK = 1000


class Resamples:
    """Resamples of the images, from a seed of this program's own or the very ones of the program that is checked."""

    def __init__(self, seed: int, same_draws: bool) -> None:
        self.seed, self.same_draws = seed, same_draws
        self._weights: dict[str, Array] = {}
        self._values: dict[tuple[str, str], Floats] = {}

    def replicates(self, run: Run, metric: str) -> Floats:
        """Return the metric (DRAWS,) of a run on each resample of its images."""
        key = run.id, metric
        if key not in self._values:
            weights = self._of(run)
            parts = [measure(metric, run, weights[first : first + CHUNK].astype(np.float32)) for first in range(0, DRAWS, CHUNK)]
            self._values[key] = np.concatenate(parts)
        return self._values[key]

    def _of(self, run: Run) -> Array:
        digest = hashlib.sha256("\n".join(map(str, run.arrays["ids"])).encode()).hexdigest()
        if digest not in self._weights:
            draw = self._drawn_as_the_program if self.same_draws else self._drawn
            self._weights[digest] = draw(run.images, digest).astype(np.uint16)
        return self._weights[digest]

    def _drawn(self, images: int, digest: str) -> Array:
        random = np.random.default_rng([self.seed, int(digest[:8], 16)])
        return random.multinomial(images, np.full(images, 1 / images), size=DRAWS)

    def _drawn_as_the_program(self, images: int, digest: str) -> Array:
        """Draw indices in chunks, from a generator that is seeded by the images' ids, as results/resampling.py says."""
        random = np.random.default_rng(int.from_bytes(hashlib.sha256(digest.encode()).digest()[:8], "big"))
        indices = np.concatenate([random.integers(0, images, size=(CHUNK, images)) for _ in range(DRAWS // CHUNK)])
        return np.stack([np.bincount(row, minlength=images) for row in indices])
