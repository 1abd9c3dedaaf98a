"""Logistic regressions with an L2 penalty, for all penalties and classes at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from bench.probe import Linear
from bench.probes.features import Features, Judge, Labels, Outcome, Scores, by_validation, standardised
from bench.probes.lbfgs import minimise
from bench.selection import Choice

LEAST_EIGENVALUE = 1e-9
"""Directions in which features vary less than this share of the most are left out: no regression uses them."""

ITERATIONS = 100
"""The most iterations over the places of many images, after which scores hardly change."""
LEAST_CURVATURE = 0.02
"""The least that p (1 - p) is taken for where steps are scaled: that of a rare class grows as it is learned."""


@dataclass(frozen=True)
class Solution:
    """The weights (P, C_in, K) and biases (P, K) of regressions at P penalties, for standardised features (N, C_in)."""

    weights: Tensor
    biases: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits (P, N, K) of features (N, C_in)."""
        return torch.baddbmm(self.biases[:, None], features.expand(len(self.weights), -1, -1), self.weights)


def linear(probe: Linear, features: Features, judge: Judge) -> Outcome:
    """Return the outcome of the probe `linear` (`bench.probe.Linear`)."""
    candidates = []
    for level in features.numbers(probe.level):
        train, val = standardised(features.train.levels[level - 1], features.val.levels[level - 1])
        on_val = _scores(binary(train, features.train.labels, probe.penalties), val)
        fit, test = standardised(features.fit.levels[level - 1], features.test.levels[level - 1])
        on_test = _scores(binary(fit, features.fit.labels, probe.penalties), test)
        for penalty, known, unknown in zip(probe.penalties, on_val, on_test, strict=True):
            choice: Choice = {"level": level, "penalty": penalty}
            candidates.append((choice, judge(known, features.val.labels), unknown))
    return by_validation(candidates, features.test, judge)


def binary(features: Tensor, labels: Labels, penalties: Sequence[float]) -> Solution:
    """Return the regressions of each class (K of them) at each penalty, from features (N, C_in) and labels (N, K).

    Each minimises sum_i log(1 + exp(-y_i (w x_i + b))) + penalty |w|^2 / 2 over the images where the class is judged; the bias
    has no penalty. A class without positives or negatives has the weights 0.
    """
    known = torch.from_numpy(labels).to(features.device)
    judged, truth = (known != -1).double(), (known == 1).double()
    share = (truth.sum(dim=0) / judged.sum(dim=0).clamp(min=1)).clamp(1e-6, 1 - 1e-6)  # (K,)
    basis, rotated, energy = _principal(features.double())
    penalty = torch.tensor(penalties, dtype=torch.float64, device=features.device)
    count, classes = len(penalties), known.shape[1]

    def evaluate(points: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        weights, biases, of_class = points[:, :-1], points[:, -1], numbers % classes
        counted, positive = judged[:, of_class], truth[:, of_class]  # (N, A)
        logits = rotated @ weights.T + biases
        errors = counted * (torch.sigmoid(logits) - positive)
        strength = penalty[numbers // classes]
        values = (counted * (softplus(logits) - positive * logits)).sum(dim=0) + strength / 2 * weights.square().sum(dim=1)
        of_weights = (rotated.T @ errors).T + strength[:, None] * weights
        return values, torch.cat([of_weights, errors.sum(dim=0)[:, None]], dim=1)

    curvature = (share * (1 - share)).clamp(min=LEAST_CURVATURE)[None, :, None]
    of_weights = 1 / (curvature * energy + penalty[:, None, None])  # (P, K, W)
    of_bias = 1 / (curvature * judged.sum(dim=0)[:, None].clamp(min=1)).expand(count, -1, -1)
    inverse = torch.cat([of_weights, of_bias], dim=2).view(count * classes, -1)
    start = torch.zeros_like(inverse)
    start[:, -1] = torch.logit(share).repeat(count)
    constant = ((truth.sum(dim=0) == 0) | (truth.sum(dim=0) == judged.sum(dim=0))).repeat(count)
    inverse = torch.where(constant[:, None], 0, inverse)  # a class that does not vary: its bias alone, as it is
    weights, biases = _parts(minimise(evaluate, start, inverse, 1e-8), count, classes)
    return Solution((weights @ basis.T).transpose(1, 2).to(features.dtype), biases.to(features.dtype))


def multinomial(features: Tensor, shares: Tensor, penalties: Sequence[float], tolerance: float = 1e-5) -> Solution:
    """Return the regressions over K classes at each penalty, from features (N, C_in) and each one's shares of classes (N, K).

    Each minimises sum_i sum_k -shares_ik log softmax_k(W x_i + b) + penalty |W|^2 / 2. Shares need not sum to 1: a place with
    void pixels counts less. A regression ends as `minimise` says, or after `ITERATIONS`.
    """
    basis, rotated, energy = _principal(features)
    penalty = torch.tensor(penalties, dtype=features.dtype, device=features.device)
    count, classes, width = len(penalties), shares.shape[1], rotated.shape[1]
    weight = shares.sum(dim=1)
    total = weight.sum().clamp(min=1e-6)
    frequency = (shares.sum(dim=0) / total).clamp(1e-6, 1 - 1e-6)

    def evaluate(points: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        weights, biases = _parts(points, len(numbers), classes)
        logits = (rotated @ weights.reshape(len(numbers) * classes, width).T).view(-1, len(numbers), classes) + biases
        normaliser = torch.logsumexp(logits, dim=2, keepdim=True)
        losses = (weight[:, None] * normaliser[..., 0] - (shares[:, None] * logits).sum(dim=2)).sum(dim=0, dtype=torch.float64)
        errors = weight[:, None, None] * torch.exp(logits - normaliser) - shares[:, None]
        values = losses + penalty[numbers] / 2 * weights.square().sum(dim=(1, 2), dtype=torch.float64)
        of_weights = (rotated.T @ errors.reshape(len(rotated), -1)).T.view(len(numbers), classes, width)
        of_weights = of_weights + penalty[numbers][:, None, None] * weights
        return values, torch.cat([of_weights, errors.sum(dim=0)[..., None]], dim=2).view(len(numbers), -1)

    curvature = (frequency * (1 - frequency)).clamp(min=LEAST_CURVATURE)[None, :, None]
    of_weights = 1 / (curvature * energy * total / len(features) + penalty[:, None, None])
    of_bias = 1 / (curvature * total).expand(count, -1, -1)
    inverse = torch.cat([of_weights, of_bias], dim=2)
    start = torch.zeros_like(inverse)
    start[..., -1] = torch.log(frequency)
    found = minimise(evaluate, start.view(count, -1), inverse.view(count, -1), tolerance, ITERATIONS)
    weights, biases = _parts(found, count, classes)
    return Solution((weights @ basis.T).transpose(1, 2), biases)


def _parts(points: Tensor, count: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return weights (P, K, W) and biases (P, K) from the points of the problems."""
    whole = points.view(count, classes, -1)
    return whole[..., :-1], whole[..., -1]


def _principal(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a basis (C_in, W) of principal directions, features in it (N, W), and the sum of squares along each (W,).

    The penalty does not depend on the basis, and in this one the Hessian is nearly diagonal.
    """
    values, vectors = torch.linalg.eigh((features.T @ features).double())
    kept = values > LEAST_EIGENVALUE * values.max().clamp(min=1e-30)
    basis = vectors[:, kept].to(features.dtype)
    return basis, features @ basis, values[kept].to(features.dtype)


def _scores(solution: Solution, features: Tensor) -> list[Scores]:
    """Return the probabilities (N, K) at each penalty."""
    return list(torch.sigmoid(solution.logits(features)).float().cpu().numpy())
