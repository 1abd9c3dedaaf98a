"""Trunks and the discriminator: the paper's sizes, what fits, what is frozen."""

import pytest
import torch
from torch import nn

from bench.errors import UsageError
from bench.models.discriminator import PatchDiscriminator
from bench.models.modes import frozen, random_inference, use_statistics
from bench.models.trunk import TrunkName, check_size, make_trunk

NAMES = (
    "unet:depth=5,width=8",
    "unet:depth=5,width=8,preprocessing=rgb",
    "timm:resnet18",
    "timm:mobilenetv3_small_050,preprocessing=rgb",
)


def test_the_papers_generator_has_54_million_parameters_and_a_bottleneck_of_one_place() -> None:
    trunk = make_trunk("unet:depth=8,width=64")
    whole = nn.ModuleList([trunk, trunk.output(2)])
    assert sum(parameter.numel() for parameter in whole.parameters()) == pytest.approx(54.4e6, rel=1e-3)
    trunk.eval()
    with torch.no_grad():
        features = trunk.encode(torch.zeros(1, 1, 256, 256))
    assert [tuple(feature.shape[1:]) for feature in features] == [
        (64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 16, 16), (512, 8, 8), (512, 4, 4), (512, 2, 2), (512, 1, 1),
    ]  # fmt: skip
    assert sum(isinstance(part, nn.Dropout) for part in trunk.modules()) == 3


def receptive_field(discriminator: PatchDiscriminator) -> int:
    """Return the side in pixels of the patch that one logit sees."""
    field, jump = 1, 1
    for layer in discriminator.layers:
        if isinstance(layer, nn.Conv2d):
            field += (layer.kernel_size[0] - 1) * jump
            jump *= layer.stride[0]
    return field


def test_the_discriminator_sees_70_pixels_and_the_released_code_more() -> None:
    text, code = PatchDiscriminator(3), PatchDiscriminator(3, code=True)
    assert receptive_field(text) == 70
    assert receptive_field(code) > 70
    with torch.no_grad():
        assert text(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)
        assert code(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 16, 16)


def test_one_logit_depends_on_its_patch_of_70_pixels_only() -> None:
    discriminator = PatchDiscriminator(1, width=4).eval()
    images = torch.zeros(1, 1, 128, 128, requires_grad=True)
    discriminator(images)[0, 0, 7, 7].backward()
    assert images.grad is not None
    rows = images.grad[0, 0].abs().sum(dim=1).nonzero().flatten()
    assert rows.max() - rows.min() + 1 == 70


@pytest.mark.parametrize("name", NAMES)
def test_every_trunk_keeps_its_contract(name: str) -> None:
    torch.manual_seed(0)
    trunk = make_trunk(name).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        seen = trunk.preprocessing(images)
        assert seen.shape == (2, trunk.preprocessing.channels, 64, 64) and seen.abs().max() <= 1.001
        features = trunk.encode(seen)
        activation = trunk.decode(features)
        assert features[-1].shape[1] == trunk.bottleneck_channels
        assert features[-1].shape[-1] == 64 // trunk.stride
        assert activation.shape[1] == trunk.channels
        assert trunk.output(5)(activation).shape == (2, 5, 64, 64)
        assert trunk.preprocessing.grey(torch.zeros(2, 1, 64, 64)).shape == seen.shape
    assert str(TrunkName.parse(name).fitted(64)) == str(TrunkName.parse(str(TrunkName.parse(name).fitted(64))))


def test_initialisation_is_normal_with_the_papers_deviation() -> None:
    torch.manual_seed(0)
    trunk = make_trunk("unet:depth=6,width=32")
    weights = torch.cat([part.weight.flatten() for part in trunk.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)])
    assert weights.mean().abs() < 1e-4
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)


def test_depth_follows_from_the_size() -> None:
    assert str(TrunkName.parse("unet").fitted(256)) == "unet:depth=8,width=64"
    assert str(TrunkName.parse("unet:width=16").fitted(96)) == "unet:depth=5,width=16"
    assert str(TrunkName.parse("unet,preprocessing=rgb").fitted(64)) == "unet:depth=6,width=64,preprocessing=rgb"


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("unet:depth=8", 96, r"multiples of 256 \(the nearest is 256\), but got 96"),
        ("unet", 100, "multiples of 8"),
        ("unet:depth=x", 64, "depth"),
        ("unet:colour=rgb", 64, "cannot read"),
        ("unit", 64, "did you mean 'unet'"),
        ("timm", 64, "needs an encoder"),
    ],
)
def test_a_trunk_that_does_not_fit_is_refused(name: str, size: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrunkName.parse(name).fitted(size)


def test_a_timm_encoder_that_does_not_exist_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'resnet18'"):
        make_trunk("timm:resnet18x")


def test_a_timm_trunk_says_which_sizes_it_takes() -> None:
    with pytest.raises(UsageError, match=r"multiples of 32 \(the nearest are 32 and 64\), but got 40"):
        check_size("timm:resnet18", 40)
    with pytest.raises(UsageError, match=r"cannot be used as a trunk: .* Sizes that fit: 224"):
        check_size("timm:mixer_b16_224", 64)


def test_an_encoder_with_channels_last_is_a_trunk_like_others() -> None:
    trunk = make_trunk("timm:swin_tiny_patch4_window7_224").eval()
    with torch.no_grad():
        features = trunk.encode(torch.randn(1, trunk.preprocessing.channels, 224, 224))
        assert [tuple(x.shape[1:]) for x in features] == [(96, 56, 56), (192, 28, 28), (384, 14, 14), (768, 7, 7)]
        own = trunk.down(torch.zeros(1, trunk.preprocessing.channels, 224, 224))[1]
        assert torch.equal(trunk.encode(torch.zeros(1, trunk.preprocessing.channels, 224, 224))[1][0, :, 3, 5], own[0, 3, 5])
        assert trunk.decode(features).shape == (1, trunk.channels, 56, 56)


def test_dropout_stays_on_while_batch_norm_does_not() -> None:
    trunk = make_trunk("unet:depth=5,width=8").train()
    before = {name: buffer.clone() for name, buffer in trunk.named_buffers()}
    with random_inference(trunk, "running", torch.Generator().manual_seed(0)):
        first, second = trunk(torch.ones(2, 1, 32, 32)), trunk(torch.ones(2, 1, 32, 32))
    assert not torch.equal(first, second)
    assert all(torch.equal(buffer, before[name]) for name, buffer in trunk.named_buffers())
    assert trunk.training


def test_batch_statistics_are_used_and_running_ones_left_alone() -> None:
    trunk = make_trunk("unet:depth=5,width=8").eval()
    before = {name: buffer.clone() for name, buffer in trunk.named_buffers()}
    images = torch.randn(4, 1, 32, 32)
    with torch.no_grad():
        alone = trunk.encode(images[:2])[2]
        use_statistics(trunk, "batch")
        together = trunk.encode(images)[2][:2]
        assert not torch.allclose(together, trunk.encode(images[:2])[2])
        use_statistics(trunk.eval(), "running")
        assert torch.equal(trunk.encode(images[:2])[2], alone)
    assert all(torch.equal(buffer, before[name]) for name, buffer in trunk.named_buffers())


def test_nothing_reaches_a_frozen_discriminator() -> None:
    discriminator = PatchDiscriminator(1, width=4)
    images = torch.randn(1, 1, 64, 64, requires_grad=True)
    with frozen(discriminator):
        verdict = discriminator(images)
    verdict.sum().backward()
    assert images.grad is not None
    assert all(parameter.grad is None and parameter.requires_grad for parameter in discriminator.parameters())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet18", "unknown trunk 'resnet18'; did you mean 'timm:resnet18'?"),
        ("resnet18,preprocessing=rgb", "did you mean 'timm:resnet18'?"),
        ("resnet81", "did you mean 'timm:resnet18'?"),
        ("unett", "unknown trunk 'unett'; did you mean 'unet'?"),
        ("unet:depth=0", "trunk 'unet:depth=0': depth takes 3 to 12, but got 0; leave it out, and it follows from the size."),
        ("unet:depth=2", "depth takes 3 to 12, but got 2"),
        ("unet:depth=13", "trunk 'unet:depth=13': depth takes at most 12, but got '13'."),
        ("unet:depth=x", "depth takes a whole number, but got 'x'."),
    ],
)
def test_a_wrong_name_of_a_trunk_says_what_would_be_right(name: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        TrunkName.parse(name)
    assert said in str(raised.value)
