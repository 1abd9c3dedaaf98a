"""Data parallelism: on several processes the calls of networks are split by images, and all else is computed by each of them.

A training step is written, and means, what it does on one device. Inside `Shards.step` a network gets its process's share of the
images that it is called with, and what it returns is gathered from all processes where the step reads it. Losses, contrastive
ones too, are therefore of the whole batch on every process. Batch norm takes its statistics from all processes
(`bench.models.shared_batch_norm`), and numbers that a network draws, as for dropout, are drawn for the whole batch. A network
whose outputs for a share are not those for the batch compares images with each other: it is found at its first call, and computed
whole by every process.

Of a tensor that all processes have, each holds the whole gradient; of rows that one process has, it holds `count` times their
gradient. The average over the processes is then the gradient of one device, for weights that a network uses on its rows and for
weights that the loss uses on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils._pytree import tree_leaves, tree_map

BUCKET_BYTES = 25 << 20
"""How many bytes of gradients are averaged at a time, as in torch's DistributedDataParallel."""
ALIKE = {torch.float64: 1e-6, torch.float32: 1e-2}
"""How far outputs for shares of a batch may be from those for all of it, as a share of the largest, by type; else 0.1. Rounding
is far below, and what comparing images with each other changes is far above."""


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

    def span_of(self, total: int, rank: int | None = None) -> Span:
        """Return the rows of a process, by default this one, of `total`, as `torch.tensor_split` divides them."""
        share, more = divmod(total, self.count)
        rank = self.rank if rank is None else rank
        first = rank * share + min(rank, more)
        return Span(total, first, first + share + (rank < more))

    @contextmanager
    def step(self, networks: Sequence[nn.Module]) -> Iterator[None]:
        """Split the calls of networks by images inside the block; modules without weights are called as they are."""
        global _current
        before, _current = _current, self
        entered = [(module, name) for network in networks for module, name in _entries(network)]
        for module, name in entered:
            module.__dict__[name] = _Entry(self, module, name, getattr(module, name))
        try:
            yield
        finally:
            _current = before
            for module, name in entered:
                module.__dict__.pop(name, None)

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
        parts = flat.div_(self.count).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def gathered(self, local: Tensor, total: int) -> Tensor:
        """Return the rows of all processes, `total` of them, in the order of the processes, without gradients."""
        if local.dim() == 4 and not local.is_contiguous() and local.permute(0, 2, 3, 1).is_contiguous():
            return self.gathered(local.permute(0, 2, 3, 1), total).permute(0, 3, 1, 2)
        raw = local.detach().contiguous()
        if raw.dtype in (torch.bfloat16, torch.bool):  # gloo does not know them
            kind = torch.int16 if raw.dtype == torch.bfloat16 else torch.uint8
            return self.gathered(raw.view(kind), total).view(raw.dtype)
        rows = [self.span_of(total, rank).rows for rank in range(self.count)]
        if len(raw) < rows[0]:
            raw = torch.cat([raw, raw.new_zeros(rows[0] - len(raw), *raw.shape[1:])])
        found = [torch.empty_like(raw) for _ in rows]
        dist.all_gather(found, raw)
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
    return cast(Tensor, _Split.apply(tensor, shards))  # type: ignore[no-untyped-call]


def whole(value: Any) -> Any:
    """Return a value of a training step with plain tensors of the whole batch in the place of gathered ones."""
    return tree_map(lambda leaf: leaf.gathered() if isinstance(leaf, Sharded) else leaf, value)


def _entries(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield a network's methods that take images, or what was made of them; those of its parts for a list or dictionary of them."""
    if next(module.parameters(), None) is None:
        return
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        for part in module.children():
            yield from _entries(part)
        return
    for name in getattr(module, "by_image", ("forward",)):
        if name not in module.__dict__:
            yield module, name


class _Split(torch.autograd.Function):
    """A process's rows of a tensor that all have."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, shards: Shards) -> Tensor:
        ctx.shards, ctx.total = shards, len(tensor)
        span = shards.span_of(ctx.total)
        return tensor[span.first : span.last].clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Gather.apply(gradient, ctx.shards, ctx.total) / ctx.shards.count, None  # type: ignore[no-untyped-call]


class _Gather(torch.autograd.Function):
    """The rows of all processes."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, shards: Shards, total: int) -> Tensor:
        ctx.shards = shards
        return shards.gathered(local, total)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Split.apply(gradient, ctx.shards) * ctx.shards.count, None, None  # type: ignore[no-untyped-call]


class Total(torch.autograd.Function):
    """The sum over the processes, for use on each one's rows."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        found = local.contiguous().clone()
        dist.all_reduce(found)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return cast(Tensor, Total.apply(gradient))  # type: ignore[no-untyped-call]


class Sharded(Tensor):
    """What a network returned, of which each process has its rows: they are gathered when anything but a network reads it."""

    local: Tensor | None
    """This process's rows; None after the gathered tensor was changed in place."""
    shards: Shards

    @staticmethod
    def __new__(cls, local: Tensor, shards: Shards, total: int) -> Sharded:
        """Return a stand-in for (total, ...) of which `local` are this process's rows."""
        made = torch.Tensor._make_wrapper_subclass(cls, (total, *local.shape[1:]), dtype=local.dtype, device=local.device)
        made.local, made.shards, made.found = local, shards, None
        return cast(Sharded, made)

    def __init__(self, local: Tensor, shards: Shards, total: int) -> None:
        """Everything is set by `__new__`."""

    def gathered(self) -> Tensor:
        """Return the rows of all processes, gathered once."""
        found = cast("Tensor | None", self.found)
        if found is None or (torch.is_grad_enabled() and not found.requires_grad and self.needs_gradient):
            assert self.local is not None, "rows that were changed have been gathered before"
            with torch._C.DisableTorchFunctionSubclass():
                found = _Gather.apply(self.local, self.shards, self.total)  # type: ignore[no-untyped-call]
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
        if (name == "__setitem__" or name.endswith("_") and not name.endswith("__")) and isinstance(args[0], Sharded):
            args[0].local = None
        return found

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Gather the rows for an operator that was reached past `__torch_function__`."""
        return func(*whole(args), **whole(kwargs or {}))


_KNOWN: frozenset[Any] = frozenset(
    [getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "is_cuda", "layout")]
    + [Tensor.size, Tensor.dim, Tensor.numel, Tensor.__len__, Tensor.is_floating_point, Tensor.get_device]
)


@dataclass
class _Entry:
    """A network's method, split by images where that changes nothing."""

    shards: Shards
    module: nn.Module
    name: str
    raw: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method: inside of another network as it is, else on this process's rows."""
        shards = self.shards
        if shards.inside:
            return self.raw(*args, **kwargs)
        given = (args, kwargs)
        leaves = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor) and leaf.dim()]
        total = len(leaves[0]) if leaves else 0
        place = id(self.module), self.name
        if total < shards.count or shards.whole.get(place):
            return self._call(whole(given))
        if place not in shards.whole:
            shards.whole[place] = not self._is_split_alike(given, total)
            return self(*args, **kwargs)
        found = self._call_split(given, total)
        return tree_map(lambda leaf: Sharded(leaf, shards, total) if isinstance(leaf, Tensor) else leaf, found)

    def _call(self, given: Any, span: Span | None = None) -> Any:
        shards = self.shards
        shards.inside, shards.span = True, span
        try:
            return self.raw(*given[0], **given[1])
        finally:
            shards.inside, shards.span = False, None

    def _call_split(self, given: Any, total: int) -> Any:
        from bench.models.sharded_functions import OnRows

        shards, span = self.shards, self.shards.span_of(total)

        def rows(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or not leaf.dim() or len(leaf) != total:
                return leaf
            if isinstance(leaf, Sharded) and leaf.local is not None:
                return leaf.local
            return _Split.apply(whole(leaf), shards)  # type: ignore[no-untyped-call]

        with OnRows(span):
            return self._call(tree_map(rows, given), span)

    @torch.no_grad()
    def _is_split_alike(self, given: Any, total: int) -> bool:
        """Tell whether the method returns tensors with a row for each image, the same for shares of the batch as for all of it.

        Neither the state of the network nor the next random numbers are changed.
        """
        shards, given = self.shards, tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, whole(given))
        rows, devices = shards.span_of(total).rows, sorted({leaf.device.index for leaf in tree_leaves(given) if _on_gpu(leaf)})
        found: list[list[Any]] = []
        for call in (lambda: self._call_split(given, total), lambda: self._call(given)):
            buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
            with torch.random.fork_rng(devices=devices):
                found.append(tree_leaves(call()))
            for name, buffer in self.module.named_buffers():
                buffer.copy_(buffers[name])
        split, one = found
        is_alike = len(split) == len(one) > 0 and all(
            isinstance(part, Tensor) and isinstance(all_, Tensor) and part.dim() > 0 and (len(part), len(all_)) == (rows, total)
            for part, all_ in zip(split, one, strict=True)
        )
        verdict = torch.tensor(float(is_alike and all(map(self._are_close, split, one))), device=given_device(one))
        dist.all_reduce(verdict, dist.ReduceOp.MIN)
        return bool(verdict.item())

    def _are_close(self, part: Tensor, one: Tensor) -> bool:
        span = self.shards.span_of(len(one))
        expected = one[span.first : span.last].double()
        most = ALIKE.get(one.dtype, 0.1) * max(float(one.double().abs().max()), 1e-30)
        return part.shape == expected.shape and bool(((part.double() - expected).abs() <= most).all())


def _on_gpu(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.device.type == "cuda"


def given_device(leaves: Sequence[Any]) -> torch.device:
    """Return the device of the first tensor, else the processor's."""
    return next((leaf.device for leaf in leaves if isinstance(leaf, Tensor)), torch.device("cpu"))
