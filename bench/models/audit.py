"""The audit of weights from elsewhere: whether real images look to the encoder as those it was trained on, and to each other.

A batch norm keeps the mean and the variance that each of its channels had in training. Under a wrong normalisation of the images,
or with tensors in wrong places, real images give others. Encoders without batch norms keep nothing to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.contract import Preprocessing, Trunk
from bench.feature_spread import MOST_COSINE
from bench.initialisation import USUAL
from bench.models.batch_norm import cosine
from bench.models.matching import is_trained
from bench.models.modes import inference

LARGE = 1e9
FIRST_SHIFT, FIRST_SCALE = 0.7, 1.35
"""How far the inputs of the first batch norm may be off: the means of nine channels in ten by this many standard deviations, the
median channel's standard deviation by this factor. Measured with EfficientNet-Lite0 on VOC's photographs at 64 to 384 px
(tests/benchmarks/audit.py): with its own normalisation they are off by up to 0.23 and 1.15; with ImageNet's by 1.75 to 2.1 in the
standard deviation, with CLIP's by 1.48 to 1.75, and with none by 1.0 in the mean."""
MOST_SHIFT, MOST_SCALE = 1.0, 2.0
"""How far those of any batch norm may be off: the medians over its channels. With its own normalisation up to 0.62 and 1.35; with
convolutions of equal shape in each other's places by a factor of 9.4."""


def measure(trunk: Trunk, batches: Sequence[Tensor]) -> dict[str, Any]:
    """Return how images uint8 (N, 3, H, W) fit an encoder, by the names of `bench.initialisation.Audit`.

    Without batch norms that were trained, only the `cosine` of two images' features is there.
    """
    moments: dict[str, list[Tensor]] = {}
    norms = {name: norm for name, norm in trunk.down.named_modules() if isinstance(norm, _BatchNorm) and is_trained(norm)}

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
    if off:  # in the order in which images go through them
        shift, scale = next(iter(off.values()))
        found |= {"first_shift": _quantile(shift, 0.9), "first_scale": _quantile(scale, 0.5)}
        medians = {name: (_quantile(shift, 0.5), _quantile(scale, 0.5)) for name, (shift, scale) in off.items()}
        layer = max(medians, key=lambda name: max(medians[name][0] / MOST_SHIFT, (medians[name][1] - 1) / (MOST_SCALE - 1)))
        found |= {"layer": layer, "shift": medians[layer][0], "scale": medians[layer][1]}
    return found


def problem(trunk: Trunk, batches: Sequence[Tensor], found: Mapping[str, Any], drawn: bool = False) -> str:
    """Return what a measurement says is wrong, and which usual normalisation would fit; "" when nothing is wrong.

    Drawn images differ from the photographs of a network's training, so only what a dead network shows is wrong with them.
    """
    if found["cosine"] is None and sum(map(len, batches)) > 1:
        return "its features are not finite numbers: tensors lie in wrong places, or the file is damaged"
    if (found["cosine"] or 0) > MOST_COSINE:
        return f"a dead network: the features of two images have a median cosine of {found['cosine']:.5f}"
    if "layer" not in found or drawn:
        return ""
    if found["first_shift"] > FIRST_SHIFT or found["first_scale"] > FIRST_SCALE:
        return (
            "the images are not normalised as in the weights' training, or of another kind: at the first batch norm means are "
            f"off by {found['first_shift']:.2g} standard deviations and standard deviations by a factor of "
            f"{found['first_scale']:.2g}{_better(trunk, batches)}"
        )
    if found["shift"] > MOST_SHIFT or found["scale"] > MOST_SCALE:
        return (
            f"images do not fit what the batch norm {found['layer']} expects: means are off by {found['shift']:.2g} standard "
            f"deviations and standard deviations by a factor of {found['scale']:.2g}; tensors may lie in wrong places"
        )
    return ""


def _better(trunk: Trunk, batches: Sequence[Tensor]) -> str:
    """Return the usual normalisation under which images fit the first batch norm best, as the end of a sentence."""
    own = trunk.preprocessing
    if own.name == "l":
        return ""
    misfits = {}
    for name, (mean, std) in USUAL.items():
        trunk.preprocessing = Preprocessing("rgb", mean, std).to(own.mean.device)
        found = measure(trunk, batches[:1])
        misfits[name] = max(found["first_shift"] / FIRST_SHIFT, math.log(found["first_scale"]) / math.log(FIRST_SCALE))
    trunk.preprocessing = own
    best = min(misfits, key=lambda name: misfits[name])
    return f"; normalize={best} fits" if misfits[best] < 1 else ""


def _off(norm: _BatchNorm, moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each channel how far its mean is off in standard deviations, and its standard deviation by a factor."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    expected = (norm.running_var.float() + norm.eps).sqrt()
    mean, square = moments
    deviation = (square - mean.square()).clamp(min=0).add(norm.eps).sqrt()
    return (mean - norm.running_mean.float()).abs() / expected, (deviation / expected).log().abs().exp()


def _quantile(values: Tensor, share: float) -> float:
    return min(float(values.nan_to_num(nan=LARGE, posinf=LARGE).quantile(share)), LARGE)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
