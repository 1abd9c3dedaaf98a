"""The linear probe by SGD: heads at many learning rates, trained at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bench import seeding
from bench.probe import LinearSgd
from bench.probes.features import Features, Images, Judge, Labels, Outcome, Scores, by_validation, standardised
from bench.selection import Choice

RATE_FOR = 256
"""The batch size that rates are given for."""
INITIAL = 0.01
"""The standard deviation of the initial weights."""


def linear_sgd(probe: LinearSgd, features: Features, judge: Judge, seed: int) -> Outcome:
    """Return the outcome of the linear probe by SGD, whose definition and source `bench.probe.LinearSgd` gives.

    Candidates are each number of last levels, side by side, or with `probe.level` that level alone, with each rate. More levels
    than there are means all of them, and of two numbers that mean the same only the first is a candidate. All heads are trained
    on train, and again on train and val, with the same initial weights and order of images. A head that diverges on train is
    undefined on val; one that diverges on train and val has the score 0 everywhere.
    """
    candidates: list[tuple[Choice, float, Scores]] = []
    for name, number, levels in _feature_sets(probe, len(features.train.levels)):
        on_val = _scores(probe, levels, features.train, features.val, seed)
        on_test = _scores(probe, levels, features.fit, features.test, seed)
        for rate, val, test in zip(probe.rates, on_val, on_test, strict=True):
            value = math.nan if np.isnan(val).any() else judge(val, features.val.labels)
            candidates.append(({name: number, "rate": rate}, value, np.nan_to_num(test)))
    return by_validation(candidates, features.test, judge)


def heads(probe: LinearSgd, inputs: Tensor, labels: Labels, seed: int) -> tuple[Tensor, Tensor]:
    """Return the weights (D, R, C) and biases (R, C) of heads trained at R rates on inputs (N, D) with labels (N, C).

    Each head minimises the binary cross-entropy, summed over the classes that are judged and averaged over the images of a batch,
    by the steps of `torch.optim.SGD` with momentum. The learning rate is rate * batch size / 256, and falls to 0 as in
    `torch.optim.lr_scheduler.CosineAnnealingLR` with a step for each batch. The last batch of an epoch may be smaller. Initial
    weights are normal with standard deviation 0.01 and are the same for every rate; biases begin at 0. Values that are not finite
    mean that a head diverged.
    """
    (count, width), classes, device = inputs.shape, labels.shape[1], inputs.device
    number = seeding.key("probe", "linear-sgd", seed)
    drawn = torch.randn((width, classes), generator=torch.Generator().manual_seed(number)) * INITIAL
    weights = drawn.to(device).repeat(1, len(probe.rates))  # (D, R C): one layer, of which each head has C columns
    biases = torch.zeros_like(weights[0])
    velocities = torch.zeros_like(weights), torch.zeros_like(biases)
    rates = torch.tensor(probe.rates, dtype=torch.float64).repeat_interleave(classes) * (probe.batch_size / RATE_FOR)
    known = torch.from_numpy(labels).to(device)
    steps = probe.epochs * math.ceil(count / probe.batch_size)
    step = 0
    for epoch in range(probe.epochs):
        order = torch.from_numpy(seeding.permutation(count, number, epoch)).to(device)
        for batch in torch.split(order, probe.batch_size):
            logits = torch.addmm(biases, inputs[batch], weights)
            slopes = _slopes(logits.view(len(batch), -1, classes), known[batch]).flatten(1)
            now = (rates * (0.5 * (1 + math.cos(math.pi * step / steps)))).float().to(device)
            gradients = inputs[batch].T @ slopes, slopes.sum(dim=0)
            for values, velocity, gradient in zip((weights, biases), velocities, gradients, strict=True):
                velocity.mul_(probe.momentum).add_(gradient)
                values.sub_(now * velocity)
            step += 1
    return weights.view(width, -1, classes), biases.view(-1, classes)


def _slopes(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the derivatives (B, R, C) by the logits of each head's loss over a batch with labels (B, C)."""
    judged = labels != -1
    errors = logits.sigmoid() - (labels == 1)[:, None].float()
    return errors * judged[:, None] / len(labels)


def _feature_sets(probe: LinearSgd, count: int) -> list[tuple[str, int, tuple[int, ...]]]:
    """Return the name and value of each choice of levels, and the levels, counted from 1, of `count`."""
    if probe.level is not None:
        return [("level", probe.level, (probe.level,))]
    found: dict[int, int] = {}
    for number in probe.layers:
        found.setdefault(min(number, count), number)
    return [("layers", number, tuple(range(count - last + 1, count + 1))) for last, number in found.items()]


def _scores(probe: LinearSgd, levels: Sequence[int], fitted: Images, images: Images, seed: int) -> list[Scores]:
    """Return each rate's scores (N, C) in [0, 1] of images by heads that are trained on others; nan for one that diverged."""
    inputs, others = standardised(*(torch.cat([some.levels[n - 1] for n in levels], dim=1) for some in (fitted, images)))
    weights, biases = heads(probe, inputs, fitted.labels, seed)
    logits = torch.einsum("nd,drc->rnc", others, weights) + biases[:, None]
    diverged = ~torch.isfinite(logits).all(dim=(1, 2))
    return list(logits.sigmoid().masked_fill(diverged[:, None, None], torch.nan).cpu().numpy())
