"""The kNN probe: images are labelled by the weighted votes of the training images whose features are nearest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bench.probe import Knn
from bench.probes.features import ELEMENTS, Features, Images, Judge, Labels, Outcome, Scores, best, by_validation
from bench.selection import Choice


def knn(probe: Knn, features: Features, judge: Judge) -> Outcome:
    """Return the outcome of the kNN probe, whose definition and source `bench.probe.Knn` gives.

    Candidates are every level with every k. On val the training images vote; on test train and val vote together. A k that is
    larger than the number of images takes all of them. Of several k that take all of train and val, the first is a candidate.
    """
    levels, k = features.numbers(probe.level), _distinct(probe.k, len(features.fit))
    on_val = _scores(probe, levels, k, features.train, features.val)
    on_test = _scores(probe, levels, k, features.fit, features.test)
    return by_validation(
        [(choice, judge(val, features.val.labels), test) for (choice, val), (_, test) in zip(on_val, on_test, strict=True)],
        features.test,
        judge,
    )


def validation_score(probe: Knn, train: Images, val: Images, judge: Judge) -> tuple[Choice, float]:
    """Return the level and k that are best on val when the images of train vote, and their score; it needs no test images.

    The score is the judge's value in [0, 1], nan where it is not defined for any candidate.
    """
    levels = Features(train, val, test=val).numbers(probe.level)
    candidates = _scores(probe, levels, _distinct(probe.k, len(train)), train, val)
    values = [judge(scores, val.labels) for _, scores in candidates]
    chosen = best(values)
    return candidates[chosen][0], values[chosen]


def votes(bank: Tensor, labels: Labels, queries: Tensor, k: Sequence[int], temperature: float) -> list[Scores]:
    """Return for each k the scores (M, C) in [0, 1] of queries (M, D) from the labels (N, C) of a bank (N, D) of features.

    The score of a class is sum_i w_i [label_i = 1] / sum_i w_i [label_i != -1] over the k images of the bank that are nearest by
    cosine similarity s_i, with w_i = exp(s_i / temperature); it is 0 where the class is judged in none of them. A feature of
    length 0 has similarity 0 to every other. Features are float32 and the bank has at least one image. Which of equally near
    images are among the k is not defined, but always the same on the same machine.
    """
    bank, queries = functional.normalize(bank), functional.normalize(queries)
    known = torch.from_numpy(labels).to(bank.device)
    most = min(max(k), len(bank))
    rows = max(1, ELEMENTS // max(len(bank), most * labels.shape[1]))
    parts = [_votes_at_once(bank, known, some, k, temperature) for some in torch.split(queries, rows)]
    return [torch.cat(scores).cpu().numpy() for scores in zip(*parts, strict=True)]


def _votes_at_once(bank: Tensor, labels: Tensor, queries: Tensor, k: Sequence[int], temperature: float) -> list[Tensor]:
    similarity, neighbours = (queries @ bank.T).topk(min(max(k), len(bank)), dim=1)  # the nearest first
    of_neighbours = labels[neighbours]  # (M, K, C)
    judged = similarity[:, :, None].masked_fill(of_neighbours == -1, -torch.inf)
    # A factor that all weights of a class share changes no score: the nearest judged neighbour weighs 1, and no sum vanishes.
    highest = judged.amax(dim=1, keepdim=True).clamp(min=-2)
    weights = ((judged - highest) / temperature).exp()
    for_class = weights * (of_neighbours == 1)
    return [for_class[:, :n].sum(dim=1) / weights[:, :n].sum(dim=1).clamp(min=1) for n in k]


def _distinct(k: Sequence[int], images: int) -> list[int]:
    """Return the first of those k that take the same number of images from a bank of this size."""
    taken = [min(number, images) for number in k]
    return [number for place, number in enumerate(k) if taken.index(taken[place]) == place]


def _scores(probe: Knn, levels: Sequence[int], k: Sequence[int], bank: Images, queries: Images) -> list[tuple[Choice, Scores]]:
    """Return the scores (M, C) of the queries for every level and every k, each with its choice."""
    found: list[tuple[Choice, Scores]] = []
    for level in levels:
        scores = votes(bank.levels[level - 1], bank.labels, queries.levels[level - 1], k, probe.temperature)
        found += [({"level": level, "k": number}, some) for number, some in zip(k, scores, strict=True)]
    return found
