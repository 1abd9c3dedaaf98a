"""What an update of weights is made of: the parts of a batch, the losses of all parts, the learning rate, and clipping."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from bench.contract import Batch
from bench.errors import BenchError
from bench.protocol import Optimization

Losses = Iterator[tuple[str, Tensor]]
REFERENCE_BATCH = 256
"""The batch size at which a scaled learning rate is its base (Goyal et al. 2017, https://arxiv.org/abs/1706.02677)."""


def parts_of(batch: Batch, count: int) -> tuple[list[Batch], list[float]]:
    """Return a batch in up to `count` parts of at least two images each, and each part's share of the images."""
    images = len(next(iter(batch.values()))) if batch else 0
    count = max(1, min(count, images // 2))
    if count == 1:
        return [batch], [1.0]
    split = {name: torch.tensor_split(tensor, count) for name, tensor in batch.items()}
    parts = [{name: tensors[place] for name, tensors in split.items()} for place in range(count)]
    return parts, [len(next(iter(part.values()))) / images for part in parts]


def next_loss(losses: Losses, name: str, stage: str) -> Tensor:
    """Return the next loss of a further part of a batch; BenchError where it is not for the optimizer of the first part's."""
    found, loss = next(losses, ("no optimizer", torch.empty(0)))
    if found != name:
        raise BenchError(f"{stage} yields a loss for {name} for one part of a batch, and for {found} for another; accumulate=1.")
    return loss


def clip(optimizer: Optimizer, norm: float | None) -> None:
    """Scale the gradients of an optimizer's weights so that their norm, all taken as one vector, is at most `norm`.

    What torch's `clip_grad_norm_` computes, for weights that are all on one device.
    """
    weights = (weight for group in optimizer.param_groups for weight in group["params"])
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if norm is not None and gradients:
        total = torch.nn.utils.get_total_norm(gradients)
        torch._foreach_mul_(gradients, (norm / (total + 1e-6)).clamp(max=1.0))


def lay_out_gradients(optimizer: Optimizer) -> None:
    """Give each gradient the strides of its parameter where a hook or a compiler left others.

    On a CPU `Adam(fused=True)` ignores strides: it pairs elements of parameter, gradient and moments by their order in memory.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.stride() != parameter.stride() and not gradient.is_sparse:
                parameter.grad = torch.empty_like(parameter).copy_(gradient)


def rate_of(settings: Optimization, batch_size: int, step: int, per_epoch: int, epochs: int, most: int | None = None) -> float:
    """Return what the base rates are multiplied by in training step `step`, counted from 0; training ends after `most` steps.

    In the warm-up of w steps it is (step + 1) / w. After it `cosine` is half a cosine that would reach 0 at the step after the
    last (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983, equation 5), and `step` falls at shares of all steps.

    >>> [rate_of(Optimization(warmup_epochs=0.5), 32, step, per_epoch=4, epochs=1) for step in range(4)]
    [0.5, 1.0, 1.0, 1.0]
    """
    scales = {"none": 1.0, "linear": batch_size / REFERENCE_BATCH, "sqrt": math.sqrt(batch_size / REFERENCE_BATCH)}
    scale, warmup = scales[settings.lr_scaling], round(settings.warmup_epochs * per_epoch)
    steps = min(per_epoch * epochs, most or per_epoch * epochs)
    if step < warmup:
        return scale * (step + 1) / warmup
    if settings.lr_schedule == "cosine":
        return scale * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2
    if settings.lr_schedule == "step":
        return scale * settings.lr_drop_factor ** sum(step >= round(share * steps) for share in settings.lr_drops)
    return scale


class Rates:
    """Sets the learning rates of optimizers from step to step; their rates when it is made are the base rates."""

    def __init__(self, optimizers: Mapping[str, Optimizer], settings: Optimization, *steps: int, most: int | None = None) -> None:
        """`steps` are those of `rate_of`: batch size, training steps in an epoch, and epochs; training ends after `most`."""
        self.settings, self.steps, self.most = settings, steps, most
        groups: Sequence[dict[str, object]] = [group for one in optimizers.values() for group in one.param_groups]
        self.groups = [(group, float(group["lr"])) for group in groups]  # type: ignore[arg-type]
        self.factor = 1.0

    def set(self, step: int) -> None:
        """Set the rates for training step `step`, counted from 0."""
        batch_size, per_epoch, epochs = self.steps
        factor = rate_of(self.settings, batch_size, step, per_epoch, epochs, self.most)
        if factor != self.factor:
            for group, base in self.groups:
                group["lr"] = base * factor
            self.factor = factor
