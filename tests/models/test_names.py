"""Names of an encoder's tensors elsewhere: each naming is held against a network or a conversion that others wrote."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import timm
import torch
import torchvision
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from bench.models import names

ENCODERS = (
    "resnet18", "resnet50", "vgg16_bn", "densenet121", "efficientnet_b0", "tf_efficientnet_lite0", "mobilenetv3_small_100",
    "regnetx_002", "convnext_atto", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224", "vit_small_patch14_dinov2",
)  # fmt: skip
SIZE = 64


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def randomise(model: nn.Module) -> nn.Module:
    """Give each tensor values of its own, also those that a new network has at zero, at one or at 1e-6; return the model."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        values = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim == 1 and name.endswith(("weight", "running_var")):  # of a norm
            values = 0.8 + 0.2 * values.abs()
        elif tensor.ndim > 1 and tensor[0].numel() > 1:
            values *= tensor[0].numel() ** -0.5
        tensor.copy_(values)
    return model.eval()


def loaded(encoder: str, scheme: str, weights: dict[str, Tensor], **options: Any) -> nn.Module:
    """Return timm's features_only model with weights of other names; none may be missing."""
    model = timm.create_model(encoder, features_only=True, **options)
    kept = shapes(model)
    renamed = names.schemes(encoder, kept, 3)[scheme]
    model.load_state_dict({here: weights[there].reshape(kept[here]) for there, here in renamed.items()}, strict=True)
    return model.eval()


def small(encoder: str) -> dict[str, int]:
    """Return the options that make a small network of a ViT or a Swin; others take any size."""
    return {"img_size": 4 * 14 if "patch14" in encoder else SIZE} if re.match("vit|swin", encoder) else {}


def image(side: int = SIZE) -> Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))


def kept_by(encoder: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return shapes(timm.create_model(encoder, features_only=True))


@pytest.mark.integration
@pytest.mark.parametrize("encoder", ENCODERS)
@torch.no_grad()
def test_a_plain_models_weights_give_the_features_only_model_its_features(encoder: str) -> None:
    options = small(encoder)
    whole = randomise(timm.create_model(encoder, num_classes=0, **options))
    part = loaded(encoder, "timm", whole.state_dict(), **options)
    images = image(options.get("img_size", SIZE))
    features = part(images)
    expected = whole.forward_intermediates(images, indices=list(part.feature_info.out_indices), intermediates_only=True)
    for ours, theirs in zip(features, expected, strict=True):
        ours = ours.permute(0, 3, 1, 2) if ours.shape != theirs.shape else ours  # Swin's channels are last
        assert ours.std() > 0.1
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("encoder", ["vgg16_bn", "vit_tiny_patch16_224", "resnet18"])
def test_names_do_not_depend_on_the_order_in_which_tensors_are_listed_nor_on_torchs_random_state(encoder: str) -> None:
    kept, state = kept_by(encoder), torch.get_rng_state()
    backwards = dict(reversed(kept.items()))
    assert names.schemes(encoder, backwards, 3) == names.schemes(encoder, kept, 3)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_scheme_names_every_tensor_once_and_timms_names_are_the_plain_models(encoder: str) -> None:
    kept = kept_by(encoder)
    found = names.schemes(encoder, kept, 3)
    assert {"timm features_only", "timm"} <= set(found)
    for renamed in found.values():
        assert sorted(renamed.values()) == sorted(kept)
    assert {name: kept[here] for name, here in found["timm"].items()}.items() <= names.plain(encoder, 3).items()


def test_one_channel_gives_the_shapes_of_a_lightness_trunk() -> None:
    assert names.plain("resnet18", 1)["conv1.weight"] == (64, 1, 7, 7)


def test_a_vit_that_keeps_its_last_norm_has_names_for_it() -> None:
    with torch.device("meta"):
        whole = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    found = names.schemes("vit_tiny_patch16_224", shapes(FeatureGetterNet(whole, norm=True)), 3)
    last = {"timm": "norm.weight", "torchvision": "encoder.ln.weight", "OpenMMLab ViT": "ln1.weight"}
    assert {title: found[title][name] for title, name in last.items()} == dict.fromkeys(last, "model.norm.weight")


@pytest.mark.parametrize("encoder", ["mnasnet_small", "tf_efficientnet_lite0", "swinv2_tiny_window8_256", "convnextv2_atto"])
def test_an_encoder_that_torchvision_cannot_have_has_no_names_of_torchvision(encoder: str) -> None:
    assert "torchvision" not in names.schemes(encoder, kept_by(encoder), 3)


def test_two_models_of_one_name_that_do_not_fit_together_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = "resnet18: timm's features_only model does not have the names and shapes"
    with pytest.raises(ValueError, match=refusal):
        names.schemes("resnet18", kept_by("resnet34"), 3)
    changed = {**names.plain("resnet18", 3), "layer1.0.conv1.weight": (64, 64, 5, 5)}
    monkeypatch.setattr(names, "plain", lambda *_: changed)
    with pytest.raises(ValueError, match=refusal):
        names.schemes("resnet18", kept_by("resnet18"), 3)


def of(name: str) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None)


def upto(path: str) -> Callable[[nn.Module, Tensor], Tensor]:
    """Return the function that gives what the module at `path` returns."""

    def last(network: nn.Module, images: Tensor) -> Tensor:
        seen: list[Tensor] = []
        network.get_submodule(path).register_forward_hook(lambda _, __, output: seen.append(output))
        network(images)
        return seen[-1]

    return last


def convnext_atto() -> nn.Module:
    return ConvNeXt([CNBlockConfig(40 * 2**n, 80 * 2**n if n < 3 else None, (2, 2, 6, 2)[n]) for n in range(4)])


def swin_tiny() -> nn.Module:
    return SwinTransformer([4, 4], 96, [2, 2, 6, 2], [3, 6, 12, 24], window_size=[2, 2])


def vit_tiny() -> nn.Module:
    return VisionTransformer(image_size=SIZE, patch_size=16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768)


def vit_features(network: nn.Module, images: Tensor) -> Tensor:
    """Return the last block's tokens, without the class token, in their places."""
    tokens = upto("encoder.layers")(network, images)[:, 1:]
    return tokens.transpose(1, 2).unflatten(2, (SIZE // 16, SIZE // 16))


class Twin(NamedTuple):
    """An encoder of timm, torchvision's network of the same architecture and the function that gives its last feature map."""

    encoder: str
    network: Callable[[], nn.Module]
    last: Callable[[nn.Module, Tensor], Tensor]
    options: dict[str, Any] = {}


TWINS = (
    Twin("resnet18", of("resnet18"), upto("layer4")),
    Twin("densenet121", of("densenet121"), upto("features")),
    Twin("regnetx_004_tv", of("regnet_x_400mf"), upto("trunk_output")),
    Twin("regnety_004", of("regnet_y_400mf"), upto("trunk_output")),
    Twin("efficientnet_b0", of("efficientnet_b0"), upto("features.7")),
    Twin("efficientnetv2_s", of("efficientnet_v2_s"), upto("features.6"), {"bn_eps": 1e-3}),
    Twin("mobilenetv3_small_100", of("mobilenet_v3_small"), upto("features"), {"bn_eps": 1e-3}),
    Twin("mobilenetv2_100", of("mobilenet_v2"), upto("features.17")),
    Twin("mnasnet_050", of("mnasnet0_5"), upto("layers.13")),
    Twin("convnext_atto", convnext_atto, upto("features")),
    Twin("swin_tiny_patch4_window7_224", swin_tiny, upto("features"), {"img_size": SIZE, "window_size": 2}),
    Twin("vit_tiny_patch16_224", vit_tiny, vit_features, {"img_size": SIZE}),
)


@pytest.mark.integration
@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.encoder)
@torch.no_grad()
def test_torchvisions_weights_give_torchvisions_features(twin: Twin) -> None:
    theirs = randomise(twin.network())
    ours = loaded(twin.encoder, "torchvision", theirs.state_dict(), **twin.options)
    expected = twin.last(theirs, image())
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(image())[-1], expected, rtol=1e-4, atol=1e-4)
    assert bool(names.caveat(twin.encoder, "torchvision")) == ("bn_eps" in twin.options)
