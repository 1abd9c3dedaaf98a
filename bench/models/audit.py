"""The audit of weights from elsewhere: whether real images look to the encoder as those it was trained on, and to each other.

A batch norm keeps the mean and the variance that each of its channels had in training. Under a wrong normalisation of the images,
or with tensors in wrong places, real images give others. Encoders without batch norms keep nothing to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.contract import Trunk
from bench.models.batch_norm import cosine
from bench.models.modes import inference

MOST_SHIFT, MOST_SCALE = 1.0, 2.0
MOST_COSINE = 0.999
"""Beyond these an encoder does not fit its images: means off by this many standard deviations, standard deviations off by this
factor (medians over the channels of one batch norm), features of two images as alike as this (`bench.record.MOST_COSINE`)."""


def measure(trunk: Trunk, batches: Sequence[Tensor]) -> dict[str, Any]:
    """Return how images uint8 (N, 3, H, W) fit an encoder: `layer`, `shift` and `scale` of the batch norm that is farthest off,
    and the median `cosine` of two images' bottlenecks. Without batch norms that were trained, only `cosine` is there.
    """
    moments: dict[str, list[Tensor]] = {}
    norms = {name: norm for name, norm in trunk.down.named_modules() if isinstance(norm, _BatchNorm) and _is_trained(norm)}

    def note(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].float().transpose(0, 1).flatten(1)
            moments.setdefault(name, []).append(torch.stack([values.mean(dim=1), values.square().mean(dim=1)]))

        return hook

    handles = [norm.register_forward_pre_hook(note(name)) for name, norm in norms.items()]
    try:
        with inference(trunk):
            features = [trunk.encode(trunk.preprocessing(images))[-1].float().mean(dim=(2, 3)) for images in batches]
    finally:
        for handle in handles:
            handle.remove()
    found: dict[str, Any] = {"cosine": _finite(cosine(torch.cat(features)))}
    off = {name: _off(norms[name], torch.stack(values).mean(dim=0)) for name, values in moments.items()}
    if off:
        layer = max(off, key=lambda name: max(off[name][0] / MOST_SHIFT, (off[name][1] - 1) / (MOST_SCALE - 1)))
        found |= {"layer": layer, "shift": off[layer][0], "scale": off[layer][1]}
    return found


def problem(found: dict[str, Any]) -> str:
    """Return what a measurement says is wrong; "" when nothing is."""
    if found["cosine"] is None:
        return "its features are not finite numbers"
    if found["cosine"] > MOST_COSINE:
        return f"a dead network: the features of two images have a median cosine of {found['cosine']:.5f}"
    shift, scale = found.get("shift"), found.get("scale")
    if shift is None or (shift <= MOST_SHIFT and scale <= MOST_SCALE):
        return ""
    return (
        f"real images do not fit what the batch norm {found['layer']} expects (means off by {shift:.2g} standard deviations, "
        f"deviations by a factor of {scale:.2g}): the normalisation is not the weights' own, or tensors lie in wrong places"
    )


def _is_trained(norm: _BatchNorm) -> bool:
    mean, variance = norm.running_mean, norm.running_var
    return mean is not None and variance is not None and (bool(mean.any()) or not bool((variance == 1).all()))


def _off(norm: _BatchNorm, moments: Tensor) -> tuple[float, float]:
    """Return how far the channels' means are off in standard deviations, and their deviations as a factor: medians."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    expected = (norm.running_var.float() + norm.eps).sqrt()
    mean, square = moments
    deviation = (square - mean.square()).clamp(min=0).add(norm.eps).sqrt()
    shift = (mean - norm.running_mean.float()).abs() / expected
    ratio = (deviation / expected).log().abs().exp()
    return _large(shift), _large(ratio)


def _large(values: Tensor) -> float:
    found = float(values.nan_to_num(nan=1e9, posinf=1e9).median())
    return min(found, 1e9)


def _finite(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None
