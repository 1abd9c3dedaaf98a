"""How others name the tensors of an encoder: timm's plain model, torchvision, and the ways in which checkpoints are saved.

A trunk keeps its encoder as timm's `features_only` model, whose names are its own: `features_0.weight` for what VGG calls
`features.0.weight`, `model.blocks.0...` for a ViT. A naming scheme is a dictionary from a name elsewhere to the name kept.
Equal names are not always equal features: `caveat` says where they differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import torch

from bench.models import checkpoint_names, torchvision_names
from bench.models.name_paths import join

WRAPPERS = ("", "model.", "body.", "graph_module.")
"""What timm puts in front of a plain model's names when it wraps the model, as `FeatureGetterNet` and others do."""
FEATURES = "features."


def schemes(encoder: str, kept: Mapping[str, tuple[int, ...]], in_chans: int) -> dict[str, dict[str, str]]:
    """Return each naming scheme by its title: a dictionary from names elsewhere, without a prefix, to names in `kept`.

    `encoder` is a name of timm without a tag. `kept` has the names and shapes of its `features_only` model. Every scheme names
    every tensor in `kept`; where another model lacks one, its scheme is not there. Shapes may differ by axes of size 1.
    ValueError when timm's two models of that name do not fit together.
    """
    here = _kept_names(encoder, kept, in_chans)
    namings = {title: naming for title, (encoders, naming) in checkpoint_names.NAMINGS.items() if re.fullmatch(encoders, encoder)}
    for encoders, naming in torchvision_names.NAMINGS.items():
        if re.fullmatch(encoders, encoder):
            namings["torchvision"] = naming
    found = {title: naming(here) for title, naming in namings.items()}
    torchvision = found.get("torchvision")
    if torchvision and all(name.startswith(FEATURES) for name in torchvision.values()):
        found["torchvision's features"] = {name: there.removeprefix(FEATURES) for name, there in torchvision.items()}
    found["children of nn.Sequential"] = _children(encoder, here, in_chans)
    complete = {"timm": {name: name for name in here}} | {title: names for title, names in found.items() if names is not None}
    for title, names in complete.items():
        if len(set(names.values())) < len(here):
            raise ValueError(f"{encoder}: two tensors have one name in the naming scheme {title!r}.")
    of_others = {title: {names[name]: here[name] for name in here} for title, names in complete.items()}
    return {"timm features_only": {name: name for name in kept}} | of_others


def caveat(encoder: str, scheme: str) -> str:
    """Return one sentence on why the features differ from the other network's although every name fits; empty when they agree."""
    if scheme.startswith("torchvision") and re.fullmatch(torchvision_names.OTHER_EPSILON, encoder):
        return "torchvision's batch norms have an epsilon of 0.001 in this network and timm's have 0.00001."
    if scheme == checkpoint_names.CLIP and "quickgelu" not in encoder:
        return "OpenAI's networks have QuickGELU as activation and timm's have it only where the name says quickgelu."
    return ""


def plain(encoder: str, in_chans: int) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of timm's plain model of that name, in its order; no weights are made."""
    return dict(_outline(encoder, in_chans)[0])


@lru_cache(maxsize=16)
def _outline(encoder: str, in_chans: int, features_only: bool = False) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """Return the shapes of a timm model's tensors by name, and its children's names."""
    import timm

    with torch.device("meta"):
        model = timm.create_model(encoder, features_only=features_only, pretrained=False, in_chans=in_chans)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return shapes, tuple(name for name, _ in model.named_children())


def _kept_names(encoder: str, kept: Iterable[str], in_chans: int) -> dict[str, str]:
    """Return the name in `kept` for each name of timm's plain model that is kept, in the plain model's order.

    timm changes only the beginning: it puts a wrapper's name there or turns `stages.0` into `stages_0`. So the names agree once
    dots and underscores are alike. Shapes are compared at timm's own image size, since position embeddings depend on the size.
    `kept` may have a tensor more than timm's features_only model: the last norm of a ViT.
    """
    shapes, (features, _) = plain(encoder, in_chans), _outline(encoder, in_chans, features_only=True)
    for wrapper in WRAPPERS:
        here = {_alike(name.removeprefix(wrapper)): name for name in kept if name.startswith(wrapper)}
        found = {name: here[_alike(name)] for name in shapes if _alike(name) in here}
        found = {name: kept_name for name, kept_name in found.items() if features.get(kept_name, shapes[name]) == shapes[name]}
        if set(kept) == set(found.values()) and len(set(kept)) == len(found):
            return found
    raise ValueError(f"{encoder}: timm's features_only model does not have the names and shapes of its plain model.")


def _alike(name: str) -> str:
    return name.replace("_", ".")


def _children(encoder: str, names: Iterable[str], in_chans: int) -> dict[str, str] | None:
    """Name tensors as `nn.Sequential(*list(model.children())[:-1])` does: the child's number is the first part of the name.

    Lightly's documentation makes backbones of torchvision's models in this way. A tensor of the model itself has no such name.
    """
    numbers = {name: number for number, name in enumerate(_outline(encoder, in_chans)[1])}
    parts = {name: name.split(".") for name in names}
    if not all(first in numbers for first, *_ in parts.values()):
        return None
    return {name: join(numbers[first], *rest) for name, (first, *rest) in parts.items()}
