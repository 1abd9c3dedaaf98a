"""Probes of dense features: one linear layer, or the votes of the nearest training places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.metrics import PADDING, VOID
from bench.probe import DenseKnn, DenseLinear
from bench.probes.features import ELEMENTS, scaling
from bench.probes.logistic import multinomial
from bench.seeding import key
from bench.selection import Choice

Fitted = Callable[[Tensor], Tensor]
"""Dense features (N, C, g, g) -> class scores (A, N, K, g, g) of A candidates."""


@dataclass(frozen=True)
class Places:
    """Places of training images: features float32 (P, C), and the share of each class in a place's pixels (P, K)."""

    features: Tensor
    shares: Tensor


def shares_of(masks: Tensor, stride: int, classes: int, void_is_background: bool) -> Tensor:
    """Return the share of each class in the pixels of every place, float32 (N, g, g, classes + 1), from masks uint8 (N, H, W).

    Padding counts for no class, and void for none or for background; shares then sum to less than 1.
    """
    missing = -masks.shape[-1] % stride
    masks = torch.nn.functional.pad(masks, (0, missing, 0, missing), value=PADDING)
    side = masks.shape[-1] // stride
    pixels = masks.view(len(masks), side, stride, side, stride).permute(0, 1, 3, 2, 4).reshape(len(masks), side, side, -1)
    counts = torch.stack([(pixels == value).sum(dim=-1) for value in range(classes + 1)], dim=-1).float()
    if void_is_background:
        counts[..., 0] += (pixels == VOID).sum(dim=-1)
    return counts / stride**2


def sample(features: Tensor, shares: Tensor, count: int, seed: int, first: int) -> Places:
    """Return `count` places of each image, drawn by chance from those that show a class, all where there are fewer places.

    `features` are (N, C, g, g) and `shares` (N, g, g, K); `first` is the number of the first image, on which its draw depends.
    """
    chosen, every = [], features.flatten(2).transpose(1, 2)  # (N, g g, C)
    labelled = shares.flatten(1, 2)  # (N, g g, K)
    seen = (labelled.sum(dim=2) > 0).cpu().numpy()
    for image, shown in enumerate(seen):
        order = np.random.default_rng(key("places", seed, first + image)).permutation(len(shown))
        places = np.concatenate([order[shown[order]], order[~shown[order]]])[:count]  # void ones last, which weigh nothing
        chosen.append(torch.from_numpy(places).to(features.device))
    picked = torch.stack(chosen)[..., None]  # (N, P, 1)
    return Places(
        torch.gather(every, 1, picked.expand(-1, -1, every.shape[2])).flatten(0, 1),
        torch.gather(labelled, 1, picked.expand(-1, -1, labelled.shape[2])).flatten(0, 1),
    )


def dense_linear(probe: DenseLinear, places: Places) -> tuple[list[Choice], Fitted]:
    """Return the candidates, one a penalty, and the layers that were fitted to some places."""
    mean, scale = scaling(places.features)
    solution = multinomial((places.features - mean) * scale, places.shares, probe.penalties)
    weights = solution.weights.transpose(1, 2) * scale  # (A, K, C), for features as they are
    biases = solution.biases - weights @ mean

    def scores(features: Tensor) -> Tensor:
        logits = torch.einsum("akc,nchw->ankhw", weights, features)
        return logits + biases[:, None, :, None, None]

    return [{"penalty": penalty} for penalty in probe.penalties], scores


def dense_knn(probe: DenseKnn, places: Places) -> tuple[list[Choice], Fitted]:
    """Return the candidates, one a k, and the votes of some places as their scores; k is at most the number of places."""
    mean, scale = scaling(places.features)
    memory = normalize((places.features - mean) * scale, dim=1)
    most = min(max(probe.k), len(memory))
    rows = max(1, ELEMENTS // max(len(memory), most * places.shares.shape[1]))

    def scores(features: Tensor) -> Tensor:
        count, width, height, breadth = features.shape
        queries = normalize((features.permute(0, 2, 3, 1).reshape(-1, width) - mean) * scale, dim=1)
        found = [votes(some) for some in torch.split(queries, rows)]
        return torch.cat(found, dim=1).view(len(probe.k), count, height, breadth, -1).permute(0, 1, 4, 2, 3)

    def votes(queries: Tensor) -> Tensor:
        nearest, which = (queries @ memory.T).topk(most, dim=1)
        weights = torch.exp((nearest - nearest[:, :1]) / probe.temperature)
        added = torch.cumsum(weights[..., None] * places.shares[which], dim=1)  # (Q, k, K)
        return torch.stack([added[:, min(k, most) - 1] for k in probe.k])

    return [{"k": k} for k in probe.k], scores
