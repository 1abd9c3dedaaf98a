"""Batch norm before fine-tuning: missing statistics are measured, and features that hardly differ between images are found.

A trunk that was never trained has batch norms with mean 0 and variance 1, which are not those of its activations. Frozen like
that, it maps all images to nearly the same features and is no control. Its statistics are therefore measured on the images that
it will be fine-tuned on, as Izmailov et al. 2018 do after averaging weights (https://arxiv.org/abs/1803.05407, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench import seeding
from bench.models.modes import inference

MEASURED = 2048
"""The most images that statistics are measured on."""
COMPARED = 64
"""The most images that are compared with each other."""

TOGETHER = 1 << 16
"""The number of an image's features whose products are added up at once."""

Batches = Iterable[Tensor]
"""Batches of uint8 images (N, 3, H, W) on the device."""
Forward = Callable[[Tensor], object]


def positions(count: int, batch_size: int, most: int = MEASURED) -> list[NDArray[np.int64]]:
    """Return batches of positions among `count` images: all of them, at most `most`, in batches of about equal size.

    The order is a permutation that is the same for every seed; in the data set's order, images sorted by class would give batches
    of one class. There is no batch for fewer than two images, which batch statistics need.
    """
    taken = min(count, most)
    batches = min(-(-taken // batch_size), taken // 2)
    chosen = seeding.permutation(count, seeding.key("calibration"), 0)[:taken]
    return np.array_split(chosen, batches) if batches else []


def norms_to_measure(trunk: nn.Module, which: str, forward: Forward, images: Tensor) -> list[_BatchNorm]:
    """Return the batch norms whose statistics are to be measured: those that no training batch went through (`new`), or `all`.

    Batch norms that `forward` does not run through are left out: a task may use the encoder and not the decoder.
    """
    with inference(trunk):
        found = _deviations(trunk, forward, [images])
    norms = [norm for name, norm in _norms(trunk) if name in found and norm.num_batches_tracked is not None]
    new = set(never_used(trunk))
    return [norm for norm in norms if which == "all" or norm in new]


def never_used(trunk: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms that no batch ever went through in training."""
    return [norm for _, norm in _norms(trunk) if norm.num_batches_tracked is not None and not int(norm.num_batches_tracked)]


def measure(trunk: nn.Module, norms: Sequence[_BatchNorm], forward: Forward, batches: Batches) -> None:
    """Set the running statistics of some batch norms of a trunk to the mean over batches; nothing else in the trunk changes.

    During the pass these batch norms normalise with the batch's statistics, and the others with their own; dropout is off.
    """
    momenta = [norm.momentum for norm in norms]
    with inference(trunk), torch.compiler.set_stance("force_eager"):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True  # None: the average of all batches, weighted alike
        try:
            for images in batches:
                forward(images)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


def spread(trunk: nn.Module, forward: Forward, batches: Sequence[Tensor]) -> dict[str, float]:
    """Return how much each batch norm's output differs between images, relative to the trunk with the batch's statistics.

    A layer's value is a standard deviation over images, averaged over channels and places: with the statistics that the trunk
    has, divided by the same with every batch norm on the batch's statistics. The value is 0 when images do not differ even with
    the latter; a layer whose weights are all zero, as timm initialises some, is then left out. Layers are keyed by name.
    """
    as_it_runs = _deviations(trunk, forward, batches)
    with _by_batch(trunk):
        by_batch = _deviations(trunk, forward, batches)
    begin_at_zero = {name for name, norm in _norms(trunk) if norm.weight is not None and not bool(norm.weight.any())}
    return {
        name: as_it_runs[name] / found if found > 0 else 0.0
        for name, found in by_batch.items()
        if found > 0 or name not in begin_at_zero
    }


def cosine(features: Tensor) -> float:
    """Return the median over pairs of images of the cosine between their features (N, ...); 1 between two zero vectors."""
    flat = features.flatten(1)
    products = torch.zeros(len(flat), len(flat), dtype=torch.float64, device=flat.device)
    for some in torch.split(flat, TOGETHER, dim=1):
        products += some.double() @ some.double().t()
    lengths = products.diagonal().sqrt()
    both = lengths[:, None] * lengths
    cosines = torch.where((lengths[:, None] == 0) & (lengths == 0), 1.0, products / both.clamp(min=torch.finfo(both.dtype).tiny))
    pairs = torch.triu_indices(len(cosines), len(cosines), offset=1)
    return float(cosines[pairs[0], pairs[1]].median())


def _norms(trunk: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    return ((name, part) for name, part in trunk.named_modules() if isinstance(part, _BatchNorm))


def _deviations(trunk: nn.Module, forward: Forward, batches: Iterable[Tensor]) -> dict[str, float]:
    """Return the standard deviation over images of each batch norm's output, by its name; the mean over batches."""
    found: dict[str, list[Tensor]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: object, output: Tensor) -> None:
            found.setdefault(name, []).append(output.float().std(dim=0).mean())

        return hook

    handles = [norm.register_forward_hook(note(name)) for name, norm in _norms(trunk)]
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # a compiled graph would skip the hooks
            for images in batches:
                forward(images)
    finally:
        for handle in handles:
            handle.remove()
    return {name: float(torch.stack(values).mean()) for name, values in found.items()}


@contextmanager
def _by_batch(trunk: nn.Module) -> Iterator[None]:
    """Let batch norms normalise with the batch's statistics inside the block, without changing their running statistics."""
    was = [(norm, norm.training, norm.track_running_stats) for _, norm in _norms(trunk)]
    for norm, _, _ in was:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, training, tracking in was:
            norm.training, norm.track_running_stats = training, tracking
