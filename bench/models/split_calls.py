"""Calls of networks that several processes share: each gets its rows of what a network is called with (`bench.models.shards`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils._pytree import tree_leaves, tree_map

from bench.models.sharded_functions import OnRows
from bench.models.shards import Sharded, Shards, Span, Split, whole

ALIKE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""How far outputs for shares of a batch may be from those for all of it, as a share of the largest, by type; else 0.1. Rounding
is far below, and what comparing images with each other changes is far above."""


@contextmanager
def full_precision(kind: str) -> Iterator[None]:
    """Compute float32 in float32 inside the block, without autocast and without TF32."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(kind, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def split(shards: Shards, networks: Sequence[nn.Module]) -> Iterator[None]:
    """Split the calls of networks by images inside the block; modules without weights are called as they are."""
    entered = [(module, name) for network in networks for module, name in _entries(network)]
    for module, name in entered:
        module.__dict__[name] = _Call(shards, module, name, getattr(module, name))
    try:
        with shards:
            yield
    finally:
        for module, name in entered:
            module.__dict__.pop(name, None)


def _entries(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield a network's methods that take images, or what was made of them; for a list or dictionary of networks, theirs."""
    if next(module.parameters(), None) is None:
        return
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        for part in module.children():
            yield from _entries(part)
        return
    for name in getattr(module, "by_image", ("forward",)):
        if name not in module.__dict__:
            yield module, name


@dataclass
class _Call:
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
        shards, span = self.shards, self.shards.span_of(total)

        def rows(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or not leaf.dim() or len(leaf) != total:
                return leaf
            if isinstance(leaf, Sharded) and leaf.local is not None:
                return leaf.local
            return Split.apply(whole(leaf), shards)

        with OnRows(span):
            return self._call(tree_map(rows, given), span)

    @torch.no_grad()
    def _is_split_alike(self, given: Any, total: int) -> bool:
        """Tell whether the method returns tensors with a row for each image, the same for shares of the batch as for all of it.

        Neither the state of the network nor the next random numbers are changed.
        """
        shards, kind = self.shards, next(self.module.parameters()).dtype  # what autocast made of a tensor before does not fit

        def copy(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            return leaf.clone().to(kind) if leaf.is_floating_point() else leaf.clone()

        given = tree_map(copy, whole(given))
        rows, devices = shards.span_of(total).rows, sorted({leaf.device.index for leaf in tree_leaves(given) if _on_gpu(leaf)})
        found: list[list[Any]] = []
        calls: tuple[Callable[[], Any], ...] = (lambda: self._call_split(given, total), lambda: self._call(given))
        for call in calls:
            buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
            with torch.random.fork_rng(devices=devices), full_precision(_device_of(tree_leaves(given)).type):
                try:
                    found.append(tree_leaves(call()))
                except Exception:  # on a share of the batch alone; on all of it the call that follows fails too
                    found.append([])
            for name, buffer in self.module.named_buffers():
                buffer.copy_(buffers[name])
        split, one = found
        is_alike = len(split) == len(one) > 0 and all(
            isinstance(part, Tensor) and isinstance(all_, Tensor) and part.dim() > 0 and (len(part), len(all_)) == (rows, total)
            for part, all_ in zip(split, one, strict=True)
        )
        verdict = torch.tensor(float(is_alike and all(map(self._are_close, split, one))), device=_device_of(one))
        dist.all_reduce(verdict, dist.ReduceOp.MIN)
        return bool(verdict.item())

    def _are_close(self, part: Tensor, one: Tensor) -> bool:
        span = self.shards.span_of(len(one))
        expected = one[span.first : span.last].double()
        most = ALIKE.get(one.dtype, 0.1) * max(float(one.double().abs().max()), 1e-30)
        return part.shape == expected.shape and bool(((part.double() - expected).abs() <= most).all())


def _on_gpu(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.device.type == "cuda"


def _device_of(leaves: Sequence[Any]) -> torch.device:
    """Return the device of the first tensor, else the processor's."""
    return next((leaf.device for leaf in leaves if isinstance(leaf, Tensor)), torch.device("cpu"))
