"""How others name the tensors of an encoder: timm's plain model, torchvision and the ways in which checkpoints are saved.

A trunk keeps its encoder as timm's `features_only` model, whose names are timm's own: `features_0.weight` for what VGG calls
`features.0.weight`, `model.blocks.0...` for a ViT. A naming scheme is a dictionary from a name elsewhere to the name kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

import torch

WRAPPERS = ("", "model.", "body.", "graph_module.")
"""What timm puts in front of a plain model's names when it wraps the model, as `FeatureGetterNet` and others do."""


def schemes(encoder: str, kept: Mapping[str, tuple[int, ...]], in_chans: int) -> dict[str, dict[str, str]]:
    """Return each naming scheme by its title: a dictionary from names elsewhere, without a prefix, to names in `kept`.

    `encoder` is a name of timm without a tag. `kept` has the names and shapes of its `features_only` model. ValueError when
    timm's two models of that name do not fit together.
    """
    plain_names = _plain_names(encoder, kept, in_chans)
    return {
        "timm features_only": {name: name for name in kept},
        "timm": {there: here for here, there in plain_names.items()},
    }


@lru_cache(maxsize=16)
def plain(encoder: str, in_chans: int) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of timm's plain model of that name, in its order; no weights are made."""
    return _shapes(encoder, in_chans, features_only=False)


@lru_cache(maxsize=16)
def _features(encoder: str, in_chans: int) -> dict[str, tuple[int, ...]]:
    return _shapes(encoder, in_chans, features_only=True)


def _shapes(encoder: str, in_chans: int, features_only: bool) -> dict[str, tuple[int, ...]]:
    import timm

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = timm.create_model(encoder, features_only=features_only, pretrained=False, in_chans=in_chans)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _plain_names(encoder: str, kept: Iterable[str], in_chans: int) -> dict[str, str]:
    """Return for each name in `kept` that of the same tensor in timm's plain model.

    timm renames only the beginning: it puts a wrapper's name there or turns `stages.0` into `stages_0`. So the names agree once
    dots and underscores are alike. Shapes are compared at timm's own image size: position embeddings depend on the size.
    """
    there = plain(encoder, in_chans)
    if set(kept) <= set(there):  # a plain vision transformer is kept whole
        return {name: name for name in kept}
    here = _features(encoder, in_chans)
    alike = {_alike(name): name for name in there}
    if len(alike) < len(there):
        raise ValueError(f"{encoder}: two tensors of timm's plain model have names that differ in dots and underscores alone.")
    for wrapper in WRAPPERS:
        found = {name: alike.get(_alike(name.removeprefix(wrapper))) for name in kept if name.startswith(wrapper)}
        names = {name: other for name, other in found.items() if other is not None and here.get(name) == there[other]}
        if set(names) == set(kept) and len(set(names.values())) == len(names):
            return names
    raise ValueError(f"{encoder}: timm's features_only model has tensors that its plain model lacks or shapes otherwise.")


def _alike(name: str) -> str:
    return name.replace("_", ".")
