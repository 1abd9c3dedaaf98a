"""Data parallelism: on several processes the calls of networks are split by images, and all else is computed by each of them.

A training step is written, and means, what it does on one device. Inside `split_calls.split` a network gets its process's
share of the images that it is called with, and what it returns is gathered from all processes where the step reads it. Losses,
contrastive ones too, are therefore of the whole batch on every process. Batch norm takes its statistics from all processes, and
numbers that a network draws, as for dropout, are drawn for the whole batch (`bench.models.sharded_functions`). A network whose
outputs for a share are not those for the batch compares images with each other: it is found at its first call, and computed
whole by every process.

Of a tensor that all processes have, each holds the whole gradient; of rows that one process has, it holds `count` times their
gradient. The average over the processes is then the gradient of one device, for weights that a network uses on its rows and for
weights that the loss uses on all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch import distributed as dist
from torch.utils._pytree import tree_map

BUCKET_BYTES = 25 << 20
"""How many bytes of gradients are averaged at a time, as in torch's DistributedDataParallel."""


@dataclass(frozen=True)
class Span:
    """The rows of one process, from `first` to before `last`, of `total`."""

    total: int
    first: int
    last: int

    @property
    def rows(self) -> int:
        """How many rows the process has."""
        return self.last - self.first

    def times(self, factor: int) -> Span:
        """Return the span where each row is `factor` rows."""
        return Span(self.total * factor, self.first * factor, self.last * factor)


@dataclass
class Shards:
    """How the processes of one run share the images of a batch: this one is number `rank` of `count`."""

    rank: int
    count: int
    span: Span | None = None
    """The rows that a network works on now; None outside of a split call."""
    inside: bool = False
    """Whether a network is working now."""
    whole: dict[tuple[int, str], bool] = field(default_factory=dict)
    """By module and method, whether the call is computed whole by every process; known after the first call."""

    def __enter__(self) -> None:
        """Let networks and hooks know of these shards inside the block."""
        global _current
        _current = self

    def __exit__(self, *_: object) -> None:
        """Forget them."""
        global _current
        _current = None

    def span_of(self, total: int, rank: int | None = None) -> Span:
        """Return the rows of a process, by default this one, of `total`, as `torch.tensor_split` divides them."""
        share, more = divmod(total, self.count)
        rank = self.rank if rank is None else rank
        first = rank * share + min(rank, more)
        return Span(total, first, first + share + (rank < more))

    def reduce(self, optimizer: torch.optim.Optimizer) -> None:
        """Average the gradients of an optimizer's weights over the processes, in buckets."""
        weights = (weight for group in optimizer.param_groups for weight in group["params"])
        bucket: list[Tensor] = []
        for gradient in (weight.grad for weight in weights if weight.grad is not None):
            if bucket and (bucket[0].dtype != gradient.dtype or sum(one.nbytes for one in bucket) >= BUCKET_BYTES):
                self._average(bucket)
                bucket = []
            bucket.append(gradient)
        if bucket:
            self._average(bucket)

    def _average(self, gradients: list[Tensor]) -> None:
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = flat.div_(self.count).split([gradient.numel() for gradient in gradients])  # type: ignore[no-untyped-call]
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def gathered(self, local: Tensor, total: int) -> Tensor:
        """Return the rows of all processes, `total` of them, in the order of the processes, without gradients."""
        if local.dim() == 4 and not local.is_contiguous() and local.permute(0, 2, 3, 1).is_contiguous():
            return self.gathered(local.permute(0, 2, 3, 1), total).permute(0, 3, 1, 2)
        raw = local.detach().contiguous()
        kind = {torch.bfloat16: torch.float16, torch.bool: torch.uint8}.get(raw.dtype)
        if kind is not None and raw.device.type == "cpu":  # gloo does not know them, and the bits are those of another type
            return self.gathered(raw.view(kind), total).view(raw.dtype)
        rows = [self.span_of(total, rank).rows for rank in range(self.count)]
        if len(raw) < rows[0]:
            raw = torch.cat([raw, raw.new_zeros(rows[0] - len(raw), *raw.shape[1:])])
        found = [torch.empty_like(raw) for _ in rows]
        dist.all_gather(found, raw)
        with torch.autocast(raw.device.type, enabled=False):
            return torch.cat([part[:count] for part, count in zip(found, rows, strict=True)])


_current: Shards | None = None


def working() -> Shards | None:
    """Return the shards of the split call that is computed now; None outside of one."""
    return _current if _current is not None and _current.span is not None else None


def own(tensor: Tensor) -> Tensor:
    """Return this process's rows of a tensor of the whole batch, inside a split call; elsewhere the tensor itself.

    For a hook that a training step sets inside a network, and that reads a tensor of the step.
    """
    shards = working()
    if shards is None or shards.span is None or len(tensor) != shards.span.total:
        return tensor
    return cast(Tensor, Split.apply(tensor, shards))


def whole(value: Any) -> Any:
    """Return a value of a training step with plain tensors of the whole batch in the place of gathered ones."""
    return tree_map(lambda leaf: leaf.gathered() if isinstance(leaf, Sharded) else leaf, value)


class Split(torch.autograd.Function):
    """A process's rows of a tensor that all have."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, shards: Shards) -> Tensor:
        """Return the process's rows."""
        ctx.shards, ctx.total = shards, len(tensor)
        span = shards.span_of(ctx.total)
        return tensor[span.first : span.last].clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of all rows."""
        return Gather.apply(gradient, ctx.shards, ctx.total) / ctx.shards.count, None


class Gather(torch.autograd.Function):
    """The rows of all processes."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, shards: Shards, total: int) -> Tensor:
        """Return `total` rows."""
        ctx.shards = shards
        return shards.gathered(local, total)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the process's rows."""
        return Split.apply(gradient, ctx.shards) * ctx.shards.count, None, None


class Total(torch.autograd.Function):
    """The sum over the processes, for use on each one's rows."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        """Return the sum of what the processes have."""
        found = local.contiguous().clone()
        dist.all_reduce(found)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the sum of the processes' gradients."""
        return cast(Tensor, Total.apply(gradient))


class Sharded(Tensor):
    """What a network returned, of which each process has its rows: they are gathered when anything but a network reads it."""

    local: Tensor | None
    """This process's rows; None after the gathered tensor was changed in place."""
    shards: Shards
    found: Tensor | None
    """The rows of all processes, once they were gathered."""

    @staticmethod
    def __new__(cls, local: Tensor, shards: Shards, total: int) -> Sharded:
        """Return a stand-in for (total, ...) of which `local` are this process's rows."""
        made = torch.Tensor._make_wrapper_subclass(cls, (total, *local.shape[1:]), dtype=local.dtype, device=local.device)
        made.local, made.shards, made.found = local, shards, None
        return made

    def __init__(self, local: Tensor, shards: Shards, total: int) -> None:
        """Everything is set by `__new__`."""

    def gathered(self) -> Tensor:
        """Return the rows of all processes, gathered once."""
        found = self.found
        if found is None or (torch.is_grad_enabled() and not found.requires_grad and self.needs_gradient):
            assert self.local is not None, "rows that were changed have been gathered before"
            with torch._C.DisableTorchFunctionSubclass():
                found = Gather.apply(self.local, self.shards, self.total)
            self.found = found
        return cast(Tensor, found)

    @property
    def total(self) -> int:
        """How many rows there are."""
        with torch._C.DisableTorchFunctionSubclass():
            return self.size(0)

    @property
    def needs_gradient(self) -> bool:
        """Whether the rows have a gradient."""
        return self.local is not None and self.local.requires_grad

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer what is known of all rows without them; gather them for anything else."""
        if func is Tensor.requires_grad.__get__:  # type: ignore[attr-defined]
            return bool(args[0].needs_gradient)
        if func in _KNOWN:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        found = func(*whole(args), **whole(kwargs or {}))
        if (name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))) and isinstance(args[0], Sharded):
            args[0].local = None
        return found

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Gather the rows for an operator that was reached past `__torch_function__`."""
        return func(*whole(args), **whole(kwargs or {}))


_KNOWN: frozenset[Any] = frozenset(
    [getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "is_cuda", "layout")]
    + [Tensor.size, Tensor.dim, Tensor.numel, Tensor.__len__, Tensor.is_floating_point, Tensor.get_device]
)
