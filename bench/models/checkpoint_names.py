"""Names in published self-supervised checkpoints that are neither timm's nor torchvision's.

Only pure renamings are here. ResNets of MoCo, SimCLR, SwAV, BYOL, Barlow Twins, VICReg, DINO, solo-learn, VISSL and OpenMMLab
have torchvision's names behind a prefix; ViTs of DINO, MAE, MoCo v3, iBOT, I-JEPA and DINOv2's hub have timm's. Three known ones
need more than a renaming and are left out: DINOv2 with registers (a position is added to the class token), OpenMMLab's Swin (it
merges patches in another order of channels) and Hugging Face's ViTs (query, key and value apart).
"""

from __future__ import annotations

from collections.abc import Iterable

from bench.models.name_paths import Nameless, Naming, inside, join, one_by_one
from bench.models.torchvision_names import regnet_block


@one_by_one
def _openmmlab_vit(parts: list[str]) -> str:
    """ViT of mmpretrain, mmselfsup and mmcls (https://github.com/open-mmlab/mmpretrain, backbones/vision_transformer.py)."""
    block_parts = {
        "norm1": "ln1",
        "norm2": "ln2",
        "attn.qkv": "attn.qkv",
        "attn.proj": "attn.proj",
        "mlp.fc1": "ffn.layers.0.0",
        "mlp.fc2": "ffn.layers.1",
        "ls1.gamma": "attn.gamma1.weight",
        "ls2.gamma": "ffn.gamma2.weight",
    }
    match parts:
        case ["blocks", block, *rest]:
            return join("layers", block, inside(rest, block_parts))
    stem = {"cls_token": "cls_token", "pos_embed": "pos_embed", "patch_embed.proj": "patch_embed.projection"}
    return inside(parts, stem | {"norm_pre": "pre_norm", "norm": "ln1"})


@one_by_one
def _clip_vit(parts: list[str]) -> str:
    """ViT of OpenAI's CLIP behind `visual.` (https://github.com/openai/CLIP, clip/model.py)."""
    block_parts = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.qkv.weight": "attn.in_proj_weight",
        "attn.qkv.bias": "attn.in_proj_bias",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    match parts:
        case ["blocks", block, *rest]:
            return join("transformer.resblocks", block, inside(rest, block_parts))
    stem = {"cls_token": "class_embedding", "pos_embed": "positional_embedding", "patch_embed.proj": "conv1"}
    return inside(parts, stem | {"norm_pre": "ln_pre", "norm": "ln_post"})


def _dinov2(chunks: int) -> Naming:
    """DINOv2's training code with `block_chunks`: `blocks.1.7.` is the eighth block, in the second chunk of blocks.

    https://github.com/facebookresearch/dinov2, dinov2/models/vision_transformer.py. The hub's files have no chunks.
    """

    def naming(names: Iterable[str]) -> dict[str, str] | None:
        depth = 1 + max((int(name.split(".")[1]) for name in names if name.startswith("blocks.")), default=0)

        @one_by_one
        def translate(parts: list[str]) -> str:
            match parts:
                case ["blocks", block, *rest]:
                    return join("blocks", int(block) // (depth // chunks), block, *rest)
            return join(*parts)

        return translate(names) if depth >= chunks and depth % chunks == 0 else None

    return naming


@one_by_one
def _dinov3_vit(parts: list[str]) -> str:
    """ViT of DINOv3's hub, without biases of queries, keys and values (https://github.com/facebookresearch/dinov3)."""
    block_parts = {name: name for name in ("norm1", "norm2", "attn", "mlp")} | {"gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
    match parts:
        case ["blocks", block, *rest]:
            return join("blocks", block, inside(rest, block_parts))
    stem = {name: name for name in ("cls_token", "patch_embed.proj", "norm")}
    return inside(parts, stem | {"reg_token": "storage_tokens"})


@one_by_one
def _facebook_convnext(parts: list[str]) -> str:
    """ConvNeXt of its authors, V2 and DINOv3 (https://github.com/facebookresearch/ConvNeXt, models/convnext.py)."""
    block_parts = {
        "gamma": "gamma",
        "conv_dw": "dwconv",
        "norm": "norm",
        "mlp.fc1": "pwconv1",
        "mlp.fc2": "pwconv2",
        "mlp.grn.weight": "grn.gamma",
        "mlp.grn.bias": "grn.beta",
    }
    match parts:
        case ["stem", *rest]:
            return join("downsample_layers.0", *rest)
        case ["stages", stage, "downsample", *rest]:
            return join("downsample_layers", stage, *rest)
        case ["stages", stage, "blocks", block, *rest]:
            return join("stages", stage, block, inside(rest, block_parts))
    raise Nameless(parts)


@one_by_one
def _microsoft_swin(parts: list[str]) -> str:
    """Swin of its authors, SimMIM and EsViT: a stage ends with the downsampling that timm begins the next one with."""
    match parts:
        case ["layers", stage, "downsample", *rest]:
            return join("layers", int(stage) - 1, "downsample", *rest)
    return join(*parts)


@one_by_one
def _vissl_regnet(parts: list[str]) -> str:
    """RegNet of VISSL, such as SEER, behind `trunk._feature_blocks.` (https://github.com/facebookresearch/vissl)."""
    unit = {"conv": "0", "bn": "1"}
    match parts:
        case ["stem", *rest]:
            return join("conv1.stem", inside(rest, unit))
        case [stage, block, *rest] if stage[0] == "s" and stage[1:].isdecimal():
            block_parts = {
                "downsample.conv": "proj",
                "downsample.bn": "bn",
                "conv3.conv": "f.c",
                "conv3.bn": "f.final_bn",
                "se.fc1": "f.se.excitation.0",
                "se.fc2": "f.se.excitation.2",
            }
            block_parts |= {f"conv{n}.{here}": f"f.{'ab'[n - 1]}.{there}" for n in (1, 2) for here, there in unit.items()}
            return join(regnet_block("res", stage, block), inside(rest, block_parts))
    raise Nameless(parts)


CLIP = "OpenAI CLIP ViT"
NAMINGS: dict[str, tuple[str, Naming]] = {
    "OpenMMLab ViT": (r"(vit|deit3?)_\w+", _openmmlab_vit),
    CLIP: (r"vit_\w+", _clip_vit),
    "DINOv2 ViT in one chunk": (r"vit_\w+", _dinov2(1)),
    "DINOv2 ViT in 4 chunks": (r"vit_\w+", _dinov2(4)),
    "DINOv3 ViT": (r"vit_\w+dinov3\w*", _dinov3_vit),
    "facebookresearch ConvNeXt": (r"convnext\w+", _facebook_convnext),
    "Microsoft Swin": (r"swin(v2)?_\w+", _microsoft_swin),
    "VISSL RegNet": (r"regnety_\w+", _vissl_regnet),
}
"""By title: a pattern of timm's name of an encoder, and the naming."""
