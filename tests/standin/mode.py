"""The mode that looks at every call of torch: it says where each result lies, and raises what CUDA would raise."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")
CpuGenerator = torch.Generator  # the stand-in puts its own in the place of `torch.Generator`

Function = Callable[..., Any]

PASSED: set[Function] = {torch.device, torch._C._nn._parse_to}  # they make no tensor
MOVES: set[Function] = {Tensor.to, Tensor.cpu, Tensor.cuda}
MIXED: set[Function] = {*MOVES, Tensor.copy_, Tensor.__getitem__, Tensor.__setitem__, torch._has_compatible_shallow_copy_type}
"""Functions that take tensors of both places; of `__getitem__` and `__setitem__`, see `_check_index`."""
MADE_FROM_HOST: set[Function] = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}
"""Functions that make a tensor of numbers in the processor's memory: on a GPU, by a blocking copy."""
WAITING: set[Function] = {
    *(Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__, Tensor.__complex__),
    *(Tensor.__format__, Tensor.__repr__, Tensor.__contains__, Tensor.is_nonzero, torch.is_nonzero),
    *(Tensor.nonzero, torch.nonzero, Tensor.argwhere, torch.argwhere, Tensor.masked_select, torch.masked_select),
    *(Tensor.unique, torch.unique, Tensor.unique_consecutive, torch.unique_consecutive, Tensor.bincount, torch.bincount),
    *(Tensor.equal, torch.equal, Tensor.allclose, torch.allclose, torch.nn.functional.one_hot),
}  # fmt: skip
"""Functions whose answer decides what the processor does next, so that it waits for the GPU."""
TO_NUMPY: set[Function] = {Tensor.numpy, Tensor.__array__}
DRAWN: set[Function] = {torch.rand, torch.randn, torch.randint, torch.randperm}
"""Functions whose numbers, without a generator, are others on a GPU than on the processor, whatever the seed."""
JOINING: set[Function] = {torch.cat, torch.concat, torch.stack}
"""Functions that take not even a single number from the processor; others do."""
FUSED: set[Function] = {
    getattr(torch, name) for name in ("_fused_adam_", "_fused_adamw_", "_fused_sgd_", "_fused_adagrad_") if hasattr(torch, name)
}
PROPERTIES = {"__get__", "__set__", "__delete__"}


class OnGpu(Tensor):
    """A tensor that says that it lies on a GPU; each GPU has a subclass (`on`)."""

    number = -1
    is_cuda, is_cpu = True, False

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", self.number)

    def get_device(self) -> int:
        return self.number


@cache
def on(number: int) -> type[OnGpu]:
    """Return the class of the tensors of a GPU."""
    return type(f"OnGpu{number}", (OnGpu,), {"number": number})


class Generator(CpuGenerator):
    """A generator that says which device it is for."""

    place: torch.device

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls, "cpu")
        made.place = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place


class StandIn(TorchFunctionMode):
    """Some GPUs that are not there. While the mode is entered, what is made on `cuda` lies on them."""

    def __init__(self, count: int = 1) -> None:
        super().__init__()
        self.count, self.current = count, 0
        self.opened: set[int] = set()
        """The GPUs that were used, as far as tensors and the functions of `torch.cuda` tell."""
        self.waits: list[str] = []
        """The names of the functions that waited for a GPU."""
        self.forbidding = 0
        """What a wait does: 0 nothing, 1 warns, 2 raises, as `torch.cuda.set_sync_debug_mode` has it."""
        self.process = os.getpid()

    def __torch_function__(
        self, func: Function, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in PASSED:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        tensors = [leaf for leaf in _leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        numbers = {tensor.number for tensor in tensors if isinstance(tensor, OnGpu)}
        target = self._target(func, args, kwargs, numbers)
        if numbers and name not in PROPERTIES:
            _check_places(func, name, tensors, numbers)
            if func in TO_NUMPY:
                raise TypeError(
                    f"can't convert cuda:{min(numbers)} device type tensor to numpy. "
                    "Use Tensor.cpu() to copy the tensor to host memory first."
                )
        _check_generators(args, kwargs, target)
        if func in FUSED:
            _check_layout(args)
        if _waits(func, args, kwargs, numbers, target):
            self.wait(name)
        if func is Tensor.__deepcopy__ and numbers:
            return _copied(*args)
        with torch._C.DisableTorchFunctionSubclass():
            if func in DRAWN and target is not None and "generator" not in kwargs:
                _computed(func, args, kwargs, numbers, target)
            found = _computed(func, args, kwargs, numbers, target)
            kind = Tensor if target is None else on(target)
            return _mapped(lambda leaf: _labelled(leaf, kind, tensors), found)

    def wait(self, name: str) -> None:
        """Note that a function waits for the GPU; RuntimeError where that is forbidden."""
        self.waits.append(name)
        if self.forbidding == 2:
            raise RuntimeError(f"called a synchronizing CUDA operation ({name})")
        if self.forbidding == 1:
            warnings.warn(f"called a synchronizing CUDA operation ({name})", stacklevel=3)

    def open(self, device: Any = None) -> int:
        """Return the number of a GPU, of the current one for None, and note that it is used."""
        place = torch.device("cuda", device) if isinstance(device, int) else torch.device(device or "cuda")
        number = self.current if place.index is None else place.index
        if number >= self.count:
            raise RuntimeError("CUDA error: invalid device ordinal")
        if os.getpid() != self.process:
            raise RuntimeError("Cannot re-initialize CUDA in forked subprocess.")
        self.opened.add(number)
        return number

    def _target(self, func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], numbers: set[int]) -> int | None:
        """Return the number of the GPU that a result lies on; None for the processor."""
        if func is Tensor.cpu:
            return None
        named = [leaf for leaf in _leaves((args, kwargs)) if isinstance(leaf, torch.device)]
        named += [torch.device(word) for word in (kwargs.get("device"), *(args[1:2] if func in MOVES else ())) if _names(word)]
        if func is Tensor.cuda:
            return self.open(named[0] if named else None)
        if named:
            return self.open(named[-1]) if named[-1].type == "cuda" else None
        if func is Tensor.to and len(args) > 1 and isinstance(args[1], Tensor):
            return args[1].number if isinstance(args[1], OnGpu) else None
        if func in (Tensor.to, Tensor.__getitem__):
            numbers = {args[0].number} if isinstance(args[0], OnGpu) else set()
        return self.open(min(numbers)) if numbers else None


def _leaves(value: Any) -> Iterator[Any]:
    """Yield what is in tuples, lists and dictionaries; torch's own walk through them takes most of a call's time."""
    if isinstance(value, tuple | list):
        for part in value:
            yield from _leaves(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _leaves(part)
    else:
        yield value


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Return tuples, lists and dictionaries with each leaf changed."""
    if isinstance(value, dict):
        return type(value)((name, _mapped(change, part)) for name, part in value.items())
    if isinstance(value, tuple | list):
        parts = [_mapped(change, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return change(value)


def _names(word: Any) -> bool:
    """Tell whether an argument names a device by a word, as `x.to("cuda")` does."""
    return isinstance(word, str) and word.partition(":")[0] in ("cpu", "cuda")


def _check_places(func: Function, name: str, tensors: Sequence[Tensor], numbers: set[int]) -> None:
    """Raise RuntimeError when tensors of different places meet where CUDA does not allow it."""
    if func is Tensor.__getitem__ or func is Tensor.__setitem__:
        _check_index(func, tensors)
    if func in MIXED:
        return
    strangers = [tensor for tensor in tensors if not isinstance(tensor, OnGpu) and (tensor.dim() or func in JOINING)]
    if strangers or len(numbers) > 1:
        there = " and ".join([*(f"cuda:{number}" for number in sorted(numbers)), *(["cpu"] if strangers else [])])
        raise RuntimeError(f"Expected all tensors to be on the same device, but found at least two devices, {there}! ({name})")


def _check_index(func: Function, tensors: Sequence[Tensor]) -> None:
    """An index may lie on the processor, and so may a single number that is written; nothing else may."""
    given, indices = tensors[0], tensors[1 : len(tensors) - 1 if func is Tensor.__setitem__ else len(tensors)]
    for index in indices:
        if isinstance(index, OnGpu) and not (isinstance(given, OnGpu) and index.number == given.number):
            raise RuntimeError(
                f"indices should be either on cpu or on the same device as the indexed tensor ({given.device}), "
                f"but one is on {index.device}"
            )


def _check_generators(args: tuple[Any, ...], kwargs: dict[str, Any], target: int | None) -> None:
    expected = "cpu" if target is None else "cuda"
    for leaf in _leaves((args, kwargs)):
        if isinstance(leaf, CpuGenerator) and leaf.device.type != expected:
            raise RuntimeError(f"Expected a '{expected}' device type for generator but found '{leaf.device.type}'")


def _check_layout(lists: tuple[Any, ...]) -> None:
    """Raise RuntimeError when gradients or moments lie in memory otherwise than their parameters."""
    parameters, *others = (part for part in lists if isinstance(part, list | tuple))
    for part in others:
        for parameter, value in zip(parameters, part, strict=False):
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                raise RuntimeError("params, grads, exp_avgs, and exp_avg_sqs must have same dtype, device, and layout")


def _waits(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], numbers: set[int], target: int | None) -> bool:
    """Tell whether the processor waits for the GPU in a call."""
    if func in MOVES:
        crosses = isinstance(args[0], OnGpu) != (target is not None)
        return crosses and not (kwargs.get("non_blocking") or True in [arg for arg in args[2:] if isinstance(arg, bool)])
    if func is Tensor.copy_:
        crosses = isinstance(args[0], OnGpu) != isinstance(args[1], OnGpu)
        return crosses and not (kwargs.get("non_blocking") or args[2:3] == (True,))
    if func in MADE_FROM_HOST:
        return target is not None and not (args and isinstance(args[0], OnGpu) and func is not Tensor.new_tensor)
    if not numbers:
        return False
    if func is Tensor.__getitem__ or func is Tensor.__setitem__:
        return isinstance(args[0], OnGpu) and _index_waits(func, args)
    if func is torch.where or func is Tensor.where:
        return len(args) == 1 and not kwargs
    if func is torch.repeat_interleave or func is Tensor.repeat_interleave:
        return len(args) > 1 and isinstance(args[1], Tensor) and kwargs.get("output_size") is None
    return func in WAITING


def _index_waits(func: Function, args: tuple[Any, ...]) -> bool:
    """Tell whether an index waits: one on the processor, one of booleans, and a single number that is read from the GPU."""
    writes = func is Tensor.__setitem__
    if writes and isinstance(args[2], Tensor) and not isinstance(args[2], OnGpu) and args[2].dim():
        return True
    for index in _leaves(args[1]):
        if not isinstance(index, Tensor):
            continue
        if index.dtype in (torch.bool, torch.uint8):
            return not writes or (isinstance(args[2], Tensor) and args[2].numel() > 1)
        if not isinstance(index, OnGpu) or not index.dim():
            return True
    return False


def _copied(tensor: OnGpu, memo: dict[int, Any]) -> OnGpu:
    """Return a deep copy of a tensor or parameter."""
    if id(tensor) not in memo:
        copy = tensor.detach().clone().requires_grad_(tensor.requires_grad)
        if isinstance(tensor, torch.nn.Parameter):
            cast(Any, copy)._is_param = True
        memo[id(tensor)] = copy
    return cast(OnGpu, memo[id(tensor)])


def _computed(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], numbers: set[int], target: int | None) -> Any:
    """Return what a function computes in the processor's memory; what moves to another place is copied, as it would be."""
    moved = (func in MOVES or func in MADE_FROM_HOST) and (target is None or numbers != {target})
    if func in (Tensor.__format__, Tensor.__repr__):  # torch writes a tensor of a class of its own otherwise
        args = (args[0].as_subclass(Tensor), *args[1:])
    if func is Tensor.cuda:
        func, args, kwargs = Tensor.to, (args[0], CPU), {}

    def without(leaf: Any) -> Any:
        return CPU if isinstance(leaf, torch.device) or (isinstance(leaf, str) and leaf.startswith("cuda")) else leaf

    found = func(*_mapped(without, args), **_mapped(without, kwargs))
    if moved and (numbers or target is not None):
        return _mapped(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, found)
    return found


def _labelled(leaf: Any, kind: type[Tensor], given: Sequence[Tensor]) -> Any:
    """Return a result as a tensor of its place; what a function only passes on stays what it was."""
    if not isinstance(leaf, Tensor) or any(leaf is one for one in given):
        return leaf
    return leaf if type(leaf) is kind or (kind is Tensor and not isinstance(leaf, OnGpu)) else leaf.as_subclass(kind)
