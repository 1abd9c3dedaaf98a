"""Names in checkpoints of self-supervised learning: each naming is held against a conversion or modules of others."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from bench.models import names
from tests.models.test_names import kept_by, randomise


def behind(prefix: str) -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
    return lambda weights: {prefix + name: tensor for name, tensor in weights.items()}


def vissl(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    model = {"trunk": behind("_feature_blocks.")(weights), "heads": {}}
    return {"classy_state_dict": {"base_model": {"model": model}}}


def clip(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the weights as OpenAI's files have them, whose class token and positions have fewer axes."""
    flat = {"class_embedding": weights["class_embedding"].flatten(), "positional_embedding": weights["positional_embedding"][0]}
    return behind("visual.")({**weights, **flat})


CONVERTED = [
    ("convnext_atto", "facebookresearch ConvNeXt", dict, "stages.0.0.dwconv.weight"),
    ("convnextv2_atto", "facebookresearch ConvNeXt", dict, "stages.3.1.grn.gamma"),
    ("swin_tiny_patch4_window7_224", "Microsoft Swin", dict, "layers.0.downsample.reduction.weight"),
    ("swinv2_tiny_window8_256", "Microsoft Swin", dict, "layers.2.downsample.norm.bias"),
    ("vit_small_patch16_dinov3", "DINOv3 ViT", dict, "storage_tokens"),
    ("vit_base_patch32_clip_quickgelu_224", "OpenAI CLIP ViT", clip, "class_embedding"),
    ("regnety_002", "VISSL RegNet", vissl, "res1.block1-0.f.final_bn.weight"),
]


@pytest.mark.integration
@pytest.mark.parametrize(("encoder", "title", "wrapped", "example"), CONVERTED, ids=[encoder for encoder, *_ in CONVERTED])
@torch.no_grad()
def test_timms_own_conversion_turns_these_names_into_timms(
    encoder: str, title: str, wrapped: Callable[..., dict[str, Any]], example: str
) -> None:
    weights = randomise(timm.create_model(encoder)).state_dict()
    found = names.schemes(encoder, kept_by(encoder), 3)
    assert example in found[title]
    plain_names = {here: name for name, here in found["timm"].items()}
    theirs = wrapped({there: weights[plain_names[here]] for there, here in found[title].items()})
    converted = timm.create_model(
        encoder, pretrained=True, pretrained_cfg_overlay={"state_dict": theirs}, pretrained_strict=False
    ).state_dict()
    for name in found["timm"]:
        assert torch.equal(converted[name], weights[name]), name


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg11_bn", "densenet121"])
def test_children_are_numbered_as_torch_does_with_torchvisions_model(name: str) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    saved = nn.Sequential(*list(model.children())[:-1]).state_dict(keep_vars=True)
    whole = model.state_dict(keep_vars=True)
    found = names.schemes(name, kept_by(name), 3)
    kept_names = {here: there for there, here in found["torchvision"].items()}
    for there, here in found["children of nn.Sequential"].items():
        assert saved[there] is whole[kept_names[here]]


@pytest.mark.parametrize("name", ["efficientnet_b0", "vgg11_bn", "densenet121", "convnext_tiny", "mobilenet_v2"])
def test_torchvisions_features_are_named_as_torch_does_when_they_are_saved_by_themselves(name: str) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    saved, whole = model.features.state_dict(keep_vars=True), model.state_dict(keep_vars=True)
    encoder = {"mobilenet_v2": "mobilenetv2_100"}.get(name, name)
    found = names.schemes(encoder, kept_by(encoder), 3)
    kept_names = {here: there for there, here in found["torchvision"].items()}
    for there, here in found["torchvision's features"].items():
        assert saved[there] is whole[kept_names[here]]


@pytest.mark.parametrize(("chunks", "title"), [(1, "DINOv2 ViT in one chunk"), (4, "DINOv2 ViT in 4 chunks")])
def test_blocks_in_chunks_are_named_as_torch_does_with_identities_before_a_chunks_own(chunks: int, title: str) -> None:
    """DINOv2 keeps a block's number in its chunk by putting identities before the chunk's blocks."""
    encoder = "vit_small_patch14_dinov2"
    with torch.device("meta"):
        model = timm.create_model(encoder)
    whole, blocks = model.state_dict(keep_vars=True), list(model.blocks)
    size = len(blocks) // chunks
    starts = range(0, len(blocks), size)
    model.blocks = nn.ModuleList(
        nn.ModuleList([nn.Identity() for _ in range(start)] + blocks[start : start + size]) for start in starts
    )
    saved = model.state_dict(keep_vars=True)
    found = names.schemes(encoder, kept_by(encoder), 3)
    plain_names = {here: name for name, here in found["timm"].items()}
    for there, here in found[title].items():
        assert saved[there] is whole[plain_names[here]]


def test_a_vit_that_has_no_equal_number_of_blocks_in_its_chunks_has_no_names_in_chunks() -> None:
    assert "DINOv2 ViT in 4 chunks" not in names.schemes(
        "vit_wee_patch16_reg1_gap_256", kept_by("vit_wee_patch16_reg1_gap_256"), 3
    )


OPENMMLAB = {
    "cls_token": "cls_token",
    "pos_embed": "pos_embed",
    "patch_embed.projection.weight": "patch_embed.proj.weight",
    "layers.0.ln1.weight": "blocks.0.norm1.weight",
    "layers.0.attn.qkv.bias": "blocks.0.attn.qkv.bias",
    "layers.0.attn.proj.weight": "blocks.0.attn.proj.weight",
    "layers.0.attn.gamma1.weight": "blocks.0.ls1.gamma",
    "layers.0.ln2.bias": "blocks.0.norm2.bias",
    "layers.0.ffn.layers.0.0.weight": "blocks.0.mlp.fc1.weight",
    "layers.0.ffn.layers.1.bias": "blocks.0.mlp.fc2.bias",
    "layers.11.ffn.gamma2.weight": "blocks.11.ls2.gamma",
}
"""As the modules of mmpretrain 1.2 are called in backbones/vision_transformer.py, utils/attention.py and mmcv's FFN."""


def test_openmmlabs_vit_has_the_names_of_its_modules() -> None:
    encoder = "vit_small_patch14_dinov2"
    found = names.schemes(encoder, kept_by(encoder), 3)
    assert {there: f"model.{name}" for there, name in OPENMMLAB.items()}.items() <= found["OpenMMLab ViT"].items()


def test_names_that_fit_weights_of_another_activation_are_said_to_do_so() -> None:
    assert "QuickGELU" in names.caveat("vit_base_patch16_224", "OpenAI CLIP ViT")
    assert not names.caveat("vit_base_patch32_clip_quickgelu_224", "OpenAI CLIP ViT")
    assert not names.caveat("resnet18", "torchvision")
