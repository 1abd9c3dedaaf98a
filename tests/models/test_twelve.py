"""Encoders of twelve architectures: each is built as a trunk, trains a step under both tasks, scores, and freezes as it must."""

import pytest
import torch

from bench import metrics, registry
from bench.errors import UsageError
from bench.models.network import Model
from bench.models.trunk import PlainTrunk, TrunkName, check_size, make_trunk

TWELVE = {
    "resnet18": 64, "resnet50": 32, "vgg16_bn": 32, "densenet121": 32, "efficientnet_b0": 64, "tf_efficientnet_lite0": 64,
    "mobilenetv3_small_100": 64, "regnetx_002": 64, "convnext_atto": 32, "swin_tiny_patch4_window7_224": 32,
    "vit_tiny_patch16_224": 32, "vit_small_patch14_dinov2": 28,
}  # fmt: skip
CLASSES = ("a", "b", "c")


def model_of(name: str, size: int, task: str, inherited: str = "trunk") -> tuple[Model, dict[str, torch.Tensor]]:
    """Return the network of a task on a trunk, with a batch of four images."""
    torch.manual_seed(0)
    plugin = registry.load("downstreams", task)
    made = plugin(
        plugin.protocols["demo"].with_changes({"head_width": 0, "pool": "average", "batch_size": 4}, "demo"), len(CLASSES)
    )
    trunk = make_trunk(name)
    images = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8)
    target = (
        torch.randint(0, 4, (4, size, size)).to(torch.uint8) if task == "voc_seg" else torch.randint(0, 2, (4, 3)).to(torch.int8)
    )
    return Model(trunk, made.head(trunk, size), made, inherited), {"images": images, "target": target}  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["voc_cls", "voc_seg"])
@pytest.mark.parametrize("encoder", TWELVE)
def test_an_encoder_is_built_trains_a_step_and_scores(encoder: str, task: str) -> None:
    size = TWELVE[encoder]
    name = str(TrunkName.parse(f"timm:{encoder},preprocessing=rgb").fitted(size))
    check_size(name, size)
    model, batch = model_of(name, size, task)
    model.set_mode("all")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    loss = model.downstream.loss(model(batch), batch["target"])
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    changed = {key.split(".")[1] for key, tensor in model.state_dict().items() if not torch.equal(before[key], tensor)}
    assert changed >= ({"down", "up"} if task == "voc_seg" else {"down"})
    model.set_mode("nothing")
    with torch.no_grad():
        kept = {key: value.numpy() for key, value in model.downstream.predictions(model(batch), batch).items()}
    for metric in model.downstream.protocol.metrics:
        assert 0 <= metrics.compute(metric, kept, CLASSES, CLASSES) <= 1


@pytest.mark.parametrize(
    "name", ["unet:depth=5,width=8", "timm:resnet10t", "timm:convnext_atto", "timm:vit_tiny_patch16_224,img_size=32"]
)
def test_a_new_decoder_trains_in_the_frozen_phase_and_the_encoder_does_not(name: str) -> None:
    model, batch = model_of(name, 32, "voc_seg", "encoder")
    model.set_mode("head")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    module = model.trained("head")
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-2)
    model.downstream.loss(model(batch), batch["target"]).backward()
    optimizer.step()
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(before[key], tensor)}
    assert changed and not any(key.startswith("trunk.down") for key in changed)
    assert any(key.startswith("trunk.up") for key in changed) and any(key.startswith("head") for key in changed)


@pytest.mark.parametrize("name", ["unet:depth=5,width=8", "timm:resnet10t", "timm:vit_tiny_patch16_224,img_size=32"])
def test_features_of_a_frozen_encoder_give_what_its_images_give(name: str) -> None:
    model, batch = model_of(name, 32, "voc_seg", "encoder")
    model.set_mode("head")
    model.set_mode("nothing")
    flat = model.frozen_features(batch["images"])
    assert flat.ndim == 2 and len(flat) == 4
    with torch.no_grad():
        by_features = model({"features": flat, "target": batch["target"]})
        by_images = model({"images": batch["images"], "target": batch["target"]})
        by_hand = model.head(model.trunk(model.trunk.preprocessing(batch["images"])))
        swapped = model({"features": flat.flip(0), "target": batch["target"]})
    assert torch.equal(by_features, by_images) and torch.equal(by_features, by_hand)
    assert not torch.equal(swapped, by_features) and torch.equal(swapped, by_features.flip(0))


def test_a_plain_transformer_gives_its_tokens_after_the_norm_as_one_feature() -> None:
    trunk = make_trunk("timm:vit_tiny_patch16_224,img_size=48,preprocessing=rgb").eval()
    assert isinstance(trunk, PlainTrunk)
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        (feature,) = trunk.encode(images)
        tokens = trunk.down.forward_features(images)[:, 1:]  # without the class token
    assert feature.shape == (2, 192, 3, 3)
    assert torch.allclose(feature.flatten(2).transpose(1, 2), tokens, atol=1e-6)
    assert trunk.decode([feature]).shape == (2, trunk.channels, 12, 12)


def test_a_transformer_takes_other_sizes_than_its_own_by_resizing_positions() -> None:
    trunk = make_trunk("timm:vit_small_patch14_dinov2,img_size=28").eval()
    assert [f.shape for f in trunk.encode(torch.zeros(1, 1, 42, 42))] == [(1, 384, 3, 3)]
    check_size("timm:vit_small_patch14_dinov2,img_size=28", 42)
    with pytest.raises(UsageError, match=r"multiples of 14 \(the nearest are 28 and 42\), but got 32"):
        check_size("timm:vit_small_patch14_dinov2,img_size=28", 32)


def test_a_trunk_name_says_the_size_where_the_encoder_is_made_for_one() -> None:
    assert str(TrunkName.parse("timm:vit_tiny_patch16_224").fitted(224)) == "timm:vit_tiny_patch16_224"
    assert str(TrunkName.parse("timm:vit_tiny_patch16_224").fitted(160)) == "timm:vit_tiny_patch16_224,img_size=160"
    assert str(TrunkName.parse("timm:resnet18").fitted(160)) == "timm:resnet18"
    with pytest.raises(UsageError, match="takes images of any size"):
        TrunkName.parse("timm:resnet18,img_size=64").fitted(64)


def test_a_tag_of_weights_on_a_trunk_is_refused_with_the_way_that_works() -> None:
    with pytest.raises(UsageError, match=r"give --trunk timm:resnet18, and the weights .* --init LABEL=timm:resnet18.a1_in1k"):
        TrunkName.parse("timm:resnet18.a1_in1k").fitted(64)


def test_an_encoder_that_cuts_off_borders_is_refused_before_it_trains() -> None:
    """Its features are smaller than the image divided by their strides, so masks and a flattened head would not fit."""
    with pytest.raises(UsageError, match="features have 7 and its outputs 282 places a side, where 9 and 288 are needed"):
        check_size("timm:inception_v3,preprocessing=rgb", 288)
