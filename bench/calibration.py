"""Batch norm before fine-tuning: statistics that nothing gave are measured, and features that are all alike are found.

A trunk that no pretext task ran through has batch norms with mean 0 and variance 1, which its activations have not. Frozen like
that, it maps all images to nearly the same features and is no control. Its statistics are therefore measured on the images that
it will be fine-tuned on, as Izmailov et al. 2018 do after averaging weights (https://arxiv.org/abs/1803.05407, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench import order
from bench.modes import inference

MEASURED = 2048
"""Images at most that statistics are measured on."""
LOOKED_AT = 64
"""Images at most that are compared with each other."""

Batches = Iterable[Tensor]
"""uint8 images (N, 3, H, W) on the device, some at a time."""
Forward = Callable[[Tensor], object]


def positions(count: int, batch_size: int, most: int = MEASURED) -> list[NDArray[np.int64]]:
    """Return which of `count` images are looked at together: whole batches of at most `most` images, the same for every seed.

    A permutation of its own, since images that are sorted by class would make batches that are all alike.
    """
    size = min(batch_size, count)
    whole = min(count, most) // size if size > 1 else 0
    chosen = order.permutation(count, order.key("calibration"), 0)[: whole * size]
    return np.split(chosen, whole) if whole else []


def norms_to_measure(network: nn.Module, which: str) -> list[_BatchNorm]:
    """Return the batch norms whose statistics are to be measured: those that no batch ever went through (`new`), or `all`."""
    kept = ((norm, norm.num_batches_tracked) for norm in _norms(network))
    return [norm for norm, batches in kept if batches is not None and (which == "all" or not int(batches))]


def measure(network: nn.Module, norms: Iterable[_BatchNorm], forward: Forward, batches: Batches) -> None:
    """Give some batch norms of a network the mean over batches of the batches' statistics; nothing else of it changes.

    Each sees what comes out of the others as they normalise in this pass; dropout is off.
    """
    norms = list(norms)
    momenta = [norm.momentum for norm in norms]
    with inference(network):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True  # None: the average of all batches, weighted alike
        try:
            for images in batches:
                forward(images)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


def spread(network: nn.Module, forward: Forward, batches: Iterable[Tensor]) -> dict[str, float]:
    """Return how far images differ in each batch norm's output, as the network runs, against the batch's own statistics.

    By the layer's name: the standard deviation over images of each channel and place, averaged, as a share of what it is when
    every batch norm takes mean and variance of the batch. Layers that tell no two images apart even then are left out.
    """
    known = list(batches)
    as_it_runs, by_batch = _deviations(network, forward, known), {}
    with _by_batch(network):
        by_batch = _deviations(network, forward, known)
    return {name: as_it_runs[name] / found for name, found in by_batch.items() if found > 0}


def cosine(features: Tensor) -> float:
    """Return the median cosine between the features (N, ...) of two different images."""
    flat = nn.functional.normalize(features.flatten(1).double(), dim=1)
    pairs = torch.triu_indices(len(flat), len(flat), offset=1)
    return float((flat @ flat.t())[pairs[0], pairs[1]].median())


def _norms(network: nn.Module) -> Iterator[_BatchNorm]:
    return (part for part in network.modules() if isinstance(part, _BatchNorm))


def _deviations(network: nn.Module, forward: Forward, batches: Iterable[Tensor]) -> dict[str, float]:
    """Return the standard deviation over images of each batch norm's output, by its name; the mean over batches."""
    found: dict[str, list[Tensor]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: object, output: Tensor) -> None:
            found.setdefault(name, []).append(output.float().std(dim=0).mean())

        return hook

    named = ((name, part) for name, part in network.named_modules() if isinstance(part, _BatchNorm))
    handles = [part.register_forward_hook(note(name)) for name, part in named]
    try:
        with torch.no_grad():
            for images in batches:
                forward(images)
    finally:
        for handle in handles:
            handle.remove()
    return {name: float(torch.stack(values).mean()) for name, values in found.items()}


@contextmanager
def _by_batch(network: nn.Module) -> Iterator[None]:
    """Let batch norms take the batch's statistics inside the block, and keep their own."""
    was = [(norm, norm.training, norm.track_running_stats) for norm in _norms(network)]
    for norm, _, _ in was:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, training, tracking in was:
            norm.training, norm.track_running_stats = training, tracking
