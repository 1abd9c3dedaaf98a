"""torchvision's names for the tensors of timm's models.

ResNet, ResNeXt, Wide ResNet, VGG, DenseNet and Inception v3 have the same names in both.
Two have no names here: timm's EfficientNets that begin with `tf_`, which pad as TensorFlow does, and Swin V2, whose query, key
and value have one bias in torchvision and biases apart in timm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from bench.models.name_paths import Nameless, Naming, inside, join, one_by_one


@one_by_one
def _same(parts: list[str]) -> str:
    return join(*parts)


@one_by_one
def _regnet(parts: list[str]) -> str:
    unit = {"conv": "0", "bn": "1"}
    match parts:
        case ["stem", *rest]:
            return join("stem", inside(rest, unit))
        case [stage, block, "downsample", *rest] if stage[1:].isdecimal():
            return join(regnet_block("trunk_output.block", stage, block), "proj", inside(rest, unit))
        case [stage, block, "se", *rest] if stage[1:].isdecimal():
            return join(regnet_block("trunk_output.block", stage, block), "f.se", *rest)
        case [stage, block, convolution, *rest] if stage[1:].isdecimal():
            letter = inside([convolution], {"conv1": "a", "conv2": "b", "conv3": "c"})
            return join(regnet_block("trunk_output.block", stage, block), "f", letter, inside(rest, unit))
    raise Nameless(parts)


def regnet_block(before: str, stage: str, block: str) -> str:
    """Return the path of timm's block `s1.b2`, which is `block1-1` elsewhere."""
    return f"{before}{stage[1:]}.block{stage[1:]}-{int(block[1:]) - 1}"


@one_by_one
def _convnext(parts: list[str]) -> str:
    block_parts = {"gamma": "layer_scale", "conv_dw": "block.0", "norm": "block.2", "mlp.fc1": "block.3", "mlp.fc2": "block.5"}
    match parts:
        case ["stem", *rest]:
            return join("features.0", *rest)
        case ["stages", stage, "downsample", *rest]:
            return join("features", 2 * int(stage), *rest)
        case ["stages", stage, "blocks", block, *rest]:
            return join("features", 2 * int(stage) + 1, block, inside(rest, block_parts))
    raise Nameless(parts)


@one_by_one
def _swin(parts: list[str]) -> str:
    block_parts = {name: name for name in ("norm1", "attn", "norm2")} | {"mlp.fc1": "mlp.0", "mlp.fc2": "mlp.3"}
    match parts:
        case ["patch_embed", *rest]:
            return join("features.0", inside(rest, {"proj": "0", "norm": "2"}))
        case ["layers", stage, "downsample", *rest]:
            return join("features", 2 * int(stage), *rest)
        case ["layers", stage, "blocks", block, *rest]:
            return join("features", 2 * int(stage) + 1, block, inside(rest, block_parts))
        case ["norm", *rest]:
            return join("norm", *rest)
    raise Nameless(parts)


@one_by_one
def _vit(parts: list[str]) -> str:
    block_parts = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.qkv.weight": "self_attention.in_proj_weight",
        "attn.qkv.bias": "self_attention.in_proj_bias",
        "attn.proj": "self_attention.out_proj",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.3",
    }
    match parts:
        case ["blocks", block, *rest]:
            return join("encoder.layers", f"encoder_layer_{block}", inside(rest, block_parts))
    stem = {"cls_token": "class_token", "pos_embed": "encoder.pos_embedding", "patch_embed.proj": "conv_proj"}
    return inside(parts, stem | {"norm": "encoder.ln"})


class _Unit(NamedTuple):
    """A convolution with its batch norm, or a squeeze-and-excitation: where it is in an inverted-residual network."""

    stage: int
    block: int
    before: int
    """How many blocks come before it, in all stages."""
    place: int
    """Its number in the block."""
    of: int
    """How many units the block has."""


KINDS = {"conv": "0", "bn": "1"}


def _inverted_residuals(stem: tuple[str, str], path: Callable[[_Unit, str], str]) -> Naming:
    """Return the naming of what timm builds as an EfficientNet, from the paths of the stem's two parts and of a unit's parts.

    timm names a block's parts for what they do. torchvision numbers them in the order in which they run, which is timm's order.
    """

    def naming(names: Iterable[str]) -> dict[str, str] | None:
        units = _units(names)

        @one_by_one
        def translate(parts: list[str]) -> str:
            match parts:
                case ["conv_stem", *rest]:
                    return join(stem[0], *rest)
                case ["bn1", *rest]:
                    return join(stem[1], *rest)
                case ["blocks", _, _, "se", part, *rest]:
                    return join(path(units[join(*parts)], inside([part], {"conv_reduce": "fc1", "conv_expand": "fc2"})), *rest)
                case ["blocks", _, _, part, *rest]:
                    return join(path(units[join(*parts)], inside([part.rstrip("123").partition("_")[0]], KINDS)), *rest)
            raise Nameless(parts)

        return translate(names)

    return naming


def _units(names: Iterable[str]) -> dict[str, _Unit]:
    """Return the unit of each name in a block: a unit begins with each convolution that is not in a squeeze-and-excitation."""
    blocks: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name in names:
        match name.split("."):
            case ["blocks", stage, block, part, *_]:
                units = blocks.setdefault((stage, block), {})
                first = part if part.startswith(("conv", "se")) else list(units)[-1]
                units.setdefault(first, []).append(name)
    return {
        name: _Unit(int(stage), int(block), before, place, len(units))
        for before, ((stage, block), units) in enumerate(blocks.items())
        for place, inside_unit in enumerate(units.values())
        for name in inside_unit
    }


def _efficientnet(unit: _Unit, part: str) -> str:
    return join("features", unit.stage + 1, unit.block, "block", unit.place, part)


def _mobilenetv3(unit: _Unit, part: str) -> str:
    return join("features", unit.before + 1, *(("block", unit.place) if unit.of > 1 else ()), part)


def _number(part: str) -> int:
    if part not in KINDS.values():  # of a squeeze-and-excitation
        raise Nameless(part)
    return int(part)


def _mobilenetv2(unit: _Unit, part: str) -> str:
    if unit.place + 1 == unit.of:  # the convolution and the batch norm at the end have no module around them
        return join("features", unit.before + 1, "conv", unit.place + _number(part))
    return join("features", unit.before + 1, "conv", unit.place, part)


def _mnasnet(unit: _Unit, part: str) -> str:
    number = 3 * unit.place + _number(part)  # an activation is the third
    return join("layers", 3 + number) if unit.stage == 0 else join("layers", unit.stage + 7, unit.block, "layers", number)


FEATURES = ("features.0.0", "features.0.1")
NAMINGS: dict[str, Naming] = {
    r"resnet\d+|resnext\d+_\d+x\d+d|wide_resnet\d+_2|vgg\d+(_bn)?|densenet\d+|inception_v3": _same,
    r"regnet[xy]_\d+(_tv)?": _regnet,
    r"convnext_\w+": _convnext,
    r"swin_\w+": _swin,
    r"vit_\w+": _vit,
    r"efficientnet(v2)?_\w+": _inverted_residuals(FEATURES, _efficientnet),
    r"mobilenetv3_\w+": _inverted_residuals(FEATURES, _mobilenetv3),
    r"mobilenetv2_\w+": _inverted_residuals(FEATURES, _mobilenetv2),
    r"mnasnet_\w+": _inverted_residuals(("layers.0", "layers.1"), _mnasnet),
}
"""By a pattern of timm's name of an encoder."""

OTHER_EPSILON = r"mobilenetv3_\w+|efficientnetv2_\w+|efficientnet_b[5-7]"
"""Encoders whose batch norms have an epsilon of 0.001 in torchvision and of 0.00001 in timm, unless `bn_eps` is given."""
