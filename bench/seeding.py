"""Data order and randomness as pure functions of keys.

Nothing here has a state, so nothing has to be saved: a run that resumes in the middle of an epoch needs only the number of its
training step. The number of data workers changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

PRETRAINING = "pretrain {pretext}"
"""The key that seeds the training steps of pretraining. Keys are constants: another text would give other random numbers, and so
other scores."""
PHASE = {"head": "{downstream} phase {number} (frozen trunk)", "all": "{downstream} phase {number} (everything)"}
"""The key that seeds the training steps of a fine-tuning phase, by what the phase trains."""


def key(*parts: int | str) -> int:
    """Return a 63-bit seed for `parts`; different parts give unrelated seeds.

    >>> key("order", 0, 1) == key("order", 0, 1), key("order", 0, 1) == key("order", 1, 0)
    (True, False)
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def permutation(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order in which `count` images are seen in one epoch: int64 (count,)."""
    return np.random.default_rng(key("order", seed, epoch)).permutation(count)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return the number of batches in an epoch; a last batch of one image is left out (batch norm needs two)."""
    whole, rest = divmod(count, batch_size)
    return whole + (rest > 1) if count > 1 else 0


def batches(count: int, batch_size: int, seed: int, epochs: int, start: int = 0) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield (epoch, indices) for every training step from global step `start` on."""
    per_epoch = steps_per_epoch(count, batch_size)
    for epoch in range(start // per_epoch if per_epoch else epochs, epochs):
        order = permutation(count, seed, epoch)
        first = start - epoch * per_epoch if epoch == start // per_epoch else 0
        for step in range(first, per_epoch):
            yield epoch, order[step * batch_size : (step + 1) * batch_size]
