"""Whether tensors of a file fit an encoder: each by its shape, and all of them by how deep the file's network is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn


def fitting(own: str, tensor: Tensor, wanted: Tensor, down: nn.Module) -> Tensor | None:
    """Return a tensor in the shape that the encoder wants, None when it does not fit.

    Axes of size 1 may be missing or added. Position embeddings and tables of relative positions are resized, as timm does it.
    """
    if tensor.is_floating_point() != wanted.is_floating_point():  # quantized or complex numbers are no weights
        return None
    if tensor.shape == wanted.shape:
        return tensor
    if not tensor.is_floating_point():
        return None
    if [side for side in tensor.shape if side > 1] == [side for side in wanted.shape if side > 1]:
        return tensor.reshape(wanted.shape)
    return _resized(own, tensor, wanted, down)


def _resized(own: str, tensor: Tensor, wanted: Tensor, down: nn.Module) -> Tensor | None:
    from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table

    path, _, last = own.rpartition(".")
    owner: Any = down.get_submodule(path)
    found: Tensor | None = None
    if last == "pos_embed" and tensor.ndim == 2:  # CLIP's
        tensor = tensor[None]
    if last == "pos_embed" and tensor.ndim == 3 and tensor.shape[::2] == wanted.shape[::2] and hasattr(owner, "patch_embed"):
        prefix = 0 if getattr(owner, "no_embed_class", False) else int(getattr(owner, "num_prefix_tokens", 0))
        if round((tensor.shape[1] - prefix) ** 0.5) ** 2 == tensor.shape[1] - prefix:
            found = resample_abs_pos_embed(tensor.float(), list(owner.patch_embed.grid_size), num_prefix_tokens=prefix)
    elif last == "relative_position_bias_table" and tensor.ndim == 2 and tensor.shape[1] == wanted.shape[1]:
        found = resize_rel_pos_bias_table(tensor.float(), owner.window_size, tuple(wanted.shape))
    return found


def beyond(tensors: Mapping[str, Tensor], used: Iterable[str], left_over: Iterable[str]) -> tuple[str, ...]:
    """Return numbered modules of a file that were not loaded and have all names and shapes of the module before, which was."""
    whole, loaded, left = (_numbered(tensors, some) for some in (tensors, used, left_over))
    found = []
    for (path, number), lacking in left.items():
        before = loaded.get((path, number - 1), {})
        if before.keys() & lacking.keys() and before.items() <= whole[path, number].items():
            found.append(f"{path}{number}")
    return tuple(found)


def _numbered(tensors: Mapping[str, Tensor], full: Iterable[str]) -> dict[tuple[str, int], dict[str, tuple[int, ...]]]:
    """Return the shapes of tensors by the path and number of each module that has a number, and the name inside it."""
    found: dict[tuple[str, int], dict[str, tuple[int, ...]]] = {}
    for name in full:
        for number in re.finditer(r"(?<![^.])[0-9]{1,4}\.", name):
            key = name[: number.start()], int(number[0][:-1])
            found.setdefault(key, {})[name[number.end() :]] = tuple(tensors[name].shape)
    return found
