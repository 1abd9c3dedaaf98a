"""Functions that give on a process's rows of a batch what they give on all rows: batch norm, dropout, random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from bench.models.shards import Span, Total

DROPOUTS: set[Any] = {
    functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d, functional.alpha_dropout,
    functional.feature_alpha_dropout,
}  # fmt: skip
IN_PLACE = (Tensor.bernoulli_, Tensor.uniform_, Tensor.normal_, Tensor.exponential_, Tensor.random_)
LIKE = (torch.rand_like, torch.randn_like, torch.randint_like)
SIZED = (torch.rand, torch.randn)


class OnRows(TorchFunctionMode):
    """Inside the block, functions work on a process's rows: batch norm over all processes, random numbers drawn for all rows."""

    def __init__(self, span: Span) -> None:
        super().__init__()
        self.span = span

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function, or what replaces it."""
        kwargs = kwargs or {}
        if func is functional.batch_norm:
            return _batch_norm(*args, **kwargs)
        if func in DROPOUTS:
            return self._dropout(func, *args, **kwargs)
        if func in IN_PLACE and self._factor(args[0].shape):
            numbers = func(self._all_rows(args[0]), *args[1:], **kwargs)
            return args[0].copy_(self._mine(numbers))
        if func in LIKE and self._factor(args[0].shape):
            return self._mine(func(self._all_rows(args[0]), *args[1:], **kwargs))
        if func in SIZED:
            size = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
            if size and self._factor(size):
                return self._mine(func(size[0] // self.span.rows * self.span.total, *size[1:], **kwargs))
        return func(*args, **kwargs)

    def _factor(self, shape: Any) -> int:
        """Return how many entries each of the process's rows has along the first axis; 0 where it is no axis of rows."""
        return shape[0] // self.span.rows if len(shape) and shape[0] % self.span.rows == 0 else 0

    def _all_rows(self, tensor: Tensor) -> Tensor:
        """Return a tensor for all rows, in the layout of one for the process's."""
        shape = (self._factor(tensor.shape) * self.span.total, *tensor.shape[1:])
        last = tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        return torch.empty(shape, dtype=tensor.dtype, device=tensor.device, memory_format=layout)

    def _mine(self, numbers: Tensor) -> Tensor:
        span = self.span.times(len(numbers) // self.span.total)
        return numbers[span.first : span.last]

    def _dropout(
        self, func: Callable[..., Tensor], input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        """Return what dropout makes of rows, with the mask that it draws for all of them."""
        if not training or not p or not self._factor(input.shape):
            return func(input, p, training, inplace)
        with torch.no_grad():
            numbers = self._all_rows(input)
            if func in (functional.alpha_dropout, functional.feature_alpha_dropout):  # linear in the input, given the mask
                state = torch.get_rng_state(), _gpu_state(input)
                zero = func(torch.zeros_like(numbers), p, True)
                torch.set_rng_state(state[0])
                _set_gpu_state(input, state[1])
                factor, added = self._mine(func(numbers.fill_(1), p, True) - zero), self._mine(zero)
            else:
                factor, added = self._mine(func(numbers.fill_(1), p, True)), None
        found = input.mul_(factor) if inplace else input * factor
        return found if added is None else found + added


def _gpu_state(tensor: Tensor) -> Tensor | None:
    return torch.cuda.get_rng_state(tensor.device) if tensor.device.type == "cuda" else None


def _set_gpu_state(tensor: Tensor, state: Tensor | None) -> None:
    if state is not None:
        torch.cuda.set_rng_state(state, tensor.device)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return `torch.nn.functional.batch_norm` of a process's rows, in training with the statistics of all processes' rows."""
    if not training:
        return torch.batch_norm(
            input, weight, bias, running_mean, running_var, False, momentum, eps, torch.backends.cudnn.enabled
        )
    with torch.no_grad():
        mean, variance, count = _statistics(input)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * (count / (count - 1))).to(running_var.dtype), momentum)
    return cast(Tensor, _BatchNorm.apply(input, weight, bias, mean, variance, count, eps))


def _statistics(input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean (C,), biased variance (C,) and number of each channel's values over all processes, in float32 at least."""
    wide = input if input.dtype == torch.float64 else input.float()
    axes = [axis for axis in range(input.dim()) if axis != 1]
    sums = torch.cat([wide.sum(axes), wide.new_full((1,), input.numel() / max(1, input.shape[1]))])
    sums = Total.apply(sums)
    count = sums[-1]
    mean = sums[:-1] / count
    squares = (wide - _channels(mean, input)).square().sum(axes)
    return mean, Total.apply(squares) / count, count


def _channels(values: Tensor, input: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (input.dim() - 2))


class _BatchNorm(torch.autograd.Function):
    """Batch norm with given statistics, which are those of all processes' rows of the input.

    The gradients are those of Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167, section 3, with sums over all processes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(input, weight, bias, mean, variance, count)
        ctx.eps = eps
        kind = mean.dtype
        scale, shift = (None if one is None else one.to(kind) for one in (weight, bias))
        found = torch.batch_norm(input.to(kind), scale, shift, mean, variance, False, 0.0, eps, torch.backends.cudnn.enabled)
        return found.to(input.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, bias, mean, variance, count = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of this gradient may be asked for, as for a gradient penalty
            return *_differentiable(input, weight, bias, ctx.eps, gradient), None, None, None, None
        wide = gradient.to(mean.dtype)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        inverse = (variance + ctx.eps).rsqrt()
        normal = (input.to(mean.dtype) - _channels(mean, input)) * _channels(inverse, input)
        of_bias, of_weight = wide.sum(axes), (wide * normal).sum(axes)
        sums = Total.apply(torch.stack([of_bias, of_weight])) / count
        scale = inverse if weight is None else inverse * weight.to(mean.dtype)
        of_input = (wide - _channels(sums[0], input) - normal * _channels(sums[1], input)) * _channels(scale, input)
        return (
            of_input.to(input.dtype),
            None if weight is None else of_weight.to(weight.dtype),
            None if bias is None else of_bias.to(bias.dtype),
            None, None, None, None,
        )  # fmt: skip


def _differentiable(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, gradient: Tensor
) -> tuple[Tensor | None, ...]:
    """Return the gradients by input, weight and bias in a form that has gradients itself."""
    mean, variance, _ = _statistics(input)
    found = (input.to(mean.dtype) - _channels(mean, input)) * _channels((variance + eps).rsqrt(), input)
    if weight is not None:
        found = found * _channels(weight, input)
    if bias is not None:
        found = found + _channels(bias, input)
    wanted = [one for one in (input, weight, bias) if one is not None and one.requires_grad]
    grads = iter(torch.autograd.grad(found.to(input.dtype), wanted, gradient, create_graph=True))
    return tuple(next(grads) if one is not None and one.requires_grad else None for one in (input, weight, bias))
