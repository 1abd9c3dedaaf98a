"""Permutations of the nine tiles of a jigsaw puzzle that differ at as many places as possible."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bench.seeding import key

TILES = 9
Permutations = NDArray[np.uint8]


def every_permutation(items: int) -> Permutations:
    """Return all permutations of 0 to `items` - 1 in lexicographic order, (items!, items)."""
    table: Permutations = np.zeros((1, 1), np.uint8)
    for count in range(2, items + 1):
        symbols = np.arange(count, dtype=np.uint8)
        rest = np.stack([np.delete(symbols, first)[table] for first in range(count)])
        first = np.broadcast_to(symbols[:, None, None], (count, len(table), 1))
        table = np.concatenate([first, rest], axis=2).reshape(-1, count)
    return table


@lru_cache
def permutations(count: int, seed: int = 0) -> Permutations:
    """Return `count` permutations of nine tiles, (count, 9), far from each other in Hamming distance.

    Greedy, as algorithm 1 of Noroozi and Favaro 2016 (https://arxiv.org/abs/1603.09246): the seed chooses the first, and each
    further one has the greatest distance to those before. That is here the least distance to any of them, and among equals the
    greatest sum, which the paper has alone: the mean is the same, but no two permutations are nearly equal. The first of equals
    in lexicographic order is taken, so every machine has the same.
    """
    candidates = np.ascontiguousarray(every_permutation(TILES).T)
    chosen = [key("jigsaw permutations", seed) % candidates.shape[1]]
    least = np.full(candidates.shape[1], TILES, np.int32)
    total = np.zeros(candidates.shape[1], np.int32)
    while len(chosen) < count:
        distance = np.zeros(candidates.shape[1], np.uint8)
        for row in candidates:
            distance += row != row[chosen[-1]]
        np.minimum(least, distance, out=least)
        total += distance
        chosen.append(int((least * (TILES * count + 1) + total).argmax()))
    found: Permutations = candidates[:, chosen].T.copy()
    found.setflags(write=False)
    return found


def digest(table: Permutations) -> str:
    """Return the first 16 digits of the SHA-256 of a table of permutations."""
    return hashlib.sha256(np.ascontiguousarray(table).tobytes()).hexdigest()[:16]
