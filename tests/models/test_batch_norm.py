"""Batch-norm statistics: measured as a formula says, where they are missing; a trunk without them is seen to be dead."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench import feature_spread, registry
from bench.models import batch_norm
from bench.models.modes import inference
from bench.models.network import Model
from bench.models.trunk import inherit_encoder, make_trunk
from tests.models.networks import spread


def images(count: int, side: int, seed: int = 0) -> Tensor:
    """Draw smooth coloured noise, uint8 (N, 3, S, S)."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)
    return (255 * smooth).to(torch.uint8)


def network(task: str, trunk: str, size: int) -> Model:
    torch.manual_seed(0)
    plugin = registry.load("downstreams", task)
    downstream = plugin(plugin.protocols["paper"].with_changes({"head_width": 16}, "paper"), 20)
    made = make_trunk(trunk)
    return Model(made, downstream.head(made, size), downstream).eval()


WHOLE = pytest.param("unet:depth=8,width=64", 256, marks=pytest.mark.integration)


@pytest.mark.parametrize(("trunk", "size"), [("unet:depth=6,width=16", 64), WHOLE, ("timm:resnet18", 64)])
@pytest.mark.parametrize("task", ["voc_cls", "voc_seg"])
def test_the_alarm_rings_on_unmeasured_trunks_in_both_tasks_and_is_silent_once_they_are_measured(
    task: str, trunk: str, size: int
) -> None:
    model, seen = network(task, trunk, size), [images(4, size, seed) for seed in range(3)]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert spread(model, seen) < feature_spread.LEAST_RATIO / 3
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())
    chosen = batch_norm.norms_to_measure(model.trunk, "new", model.features, seen[0])
    assert chosen == batch_norm.norms_to_measure(model.trunk, "all", model.features, seen[0])
    decoder = {part for part in model.trunk.up.modules() if isinstance(part, nn.BatchNorm2d)}
    assert decoder & set(chosen) == (decoder if task == "voc_seg" else set()), "what the task runs through, and nothing else"
    batch_norm.measure(model.trunk, chosen, model.features, seen)
    assert spread(model, seen) > 5 * feature_spread.LEAST_RATIO
    assert not model.training and all(norm.momentum == 0.1 and not norm.training for norm in chosen)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_parameters())
    assert batch_norm.norms_to_measure(model.trunk, "new", model.features, seen[0]) == []
    assert batch_norm.norms_to_measure(model.trunk, "all", model.features, seen[0]) == chosen


def test_the_heads_input_alone_would_miss_a_dead_decoder() -> None:
    """The first skip has no batch norm: half of what the segmentation's head gets differs between images, come what may."""
    model, seen = network("voc_seg", "unet:depth=6,width=16", 64), images(8, 64)
    with torch.no_grad():
        features = model.downstream.features(model.trunk, model.trunk.preprocessing(seen))
    width = features.shape[1] // 2
    assert features[:, width:].std(dim=0).mean() > 10 * features[:, :width].std(dim=0).mean()
    assert batch_norm.cosine(features) < feature_spread.MOST_COSINE
    assert spread(model, [seen]) < feature_spread.LEAST_RATIO / 3


def test_measured_statistics_are_those_of_a_formula_written_out() -> None:
    """Two convolutions with batch norm by hand: the mean over batches of each batch's mean and unbiased variance."""
    torch.manual_seed(1)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2)
    )
    seen = [torch.rand(5, 3, 9, 9) for _ in range(3)]
    batch_norm.measure(layers, batch_norm.norms_to_measure(layers, "new", layers, seen[0]), layers, seen)

    def statistics(activation: Tensor) -> tuple[Tensor, Tensor]:
        return activation.mean(dim=(0, 2, 3)), activation.var(dim=(0, 2, 3), unbiased=True)

    first, second = [], []
    with torch.no_grad():
        for some in seen:
            one = layers[0](some)
            first.append(statistics(one))
            mean, variance = one.mean(dim=(0, 2, 3), keepdim=True), one.var(dim=(0, 2, 3), unbiased=False, keepdim=True)
            second.append(statistics(layers[4](torch.relu((one - mean) / (variance + 1e-5).sqrt()))))
    for norm, expected in ((layers[1], first), (layers[5], second)):
        assert torch.allclose(norm.running_mean, torch.stack([mean for mean, _ in expected]).mean(dim=0), atol=1e-5)
        assert torch.allclose(norm.running_var, torch.stack([variance for _, variance in expected]).mean(dim=0), atol=1e-5)
    assert layers.training, "it is given back in the mode that it had"


def test_what_was_inherited_keeps_its_statistics_and_only_the_new_decoder_is_measured() -> None:
    torch.manual_seed(0)
    trained, fresh = make_trunk("unet:depth=5,width=8"), make_trunk("unet:depth=5,width=8")
    trained.train()
    for seed in range(3):
        trained(trained.preprocessing(images(4, 32, seed)))
    heir = inherit_encoder(fresh, trained)
    names = {part: name for name, part in heir.named_modules()}

    def forward(some: Tensor) -> Tensor:
        return heir(heir.preprocessing(some))

    heir.eval()
    chosen = batch_norm.norms_to_measure(heir, "new", forward, images(4, 32))
    assert chosen and all(names[norm].startswith("up.") for norm in chosen) and batch_norm.never_used(heir) == chosen
    kept = {name: buffer.clone() for name, buffer in heir.down.named_buffers()}
    batch_norm.measure(heir, chosen, forward, [images(4, 32, 9)])
    assert all(torch.equal(buffer, kept[name]) for name, buffer in heir.down.named_buffers())
    assert len(batch_norm.norms_to_measure(heir, "all", forward, images(4, 32))) > len(chosen)


def test_all_images_are_taken_up_to_a_number_in_an_order_of_their_own() -> None:
    chosen = batch_norm.positions(5000, 16)
    assert len(chosen) == 128 and {len(some) for some in chosen} == {16} and len(np.unique(np.concatenate(chosen))) == 2048
    assert abs(np.corrcoef(np.concatenate(chosen), np.arange(2048))[0, 1]) < 0.1, "images sorted by class are mixed"
    again = batch_norm.positions(5000, 16)
    assert all(np.array_equal(one, other) for one, other in zip(chosen, again, strict=True))
    for count, batch_size, most, sizes in (
        (70, 32, 2048, [24, 23, 23]), (24, 16, 2048, [12, 12]), (7, 32, 2048, [7]), (3, 2, 2048, [3]), (2, 2, 2048, [2]),
        (3000, 4096, 2048, [2048]), (300, 65, 64, [64]), (300, 128, 64, [64]), (300, 33, 64, [32, 32]),
    ):  # fmt: skip
        found = batch_norm.positions(count, batch_size, most)
        assert [len(some) for some in found] == sizes
        assert len(np.unique(np.concatenate(found))) == min(count, most)
    assert batch_norm.positions(1, 32) == [] == batch_norm.positions(0, 32)


def test_without_batch_norm_features_that_are_all_alike_are_found() -> None:
    alike = torch.ones(6, 40) + 0.001 * torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    assert batch_norm.cosine(alike) > feature_spread.MOST_COSINE
    assert feature_spread.FeatureSpread(images=6, cosine=batch_norm.cosine(alike)).problem
    other = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0))
    assert abs(batch_norm.cosine(other)) < 0.5
    by_hand = [
        float(nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)) for i, a in enumerate(other) for b in other[:i]
    ]
    assert batch_norm.cosine(other) == pytest.approx(float(torch.tensor(by_hand).median()), abs=1e-6)
    assert batch_norm.cosine(torch.zeros(4, 9)) == 1.0


def test_looking_at_a_network_changes_nothing_of_it() -> None:
    model, seen = network("voc_seg", "unet:depth=5,width=8", 32), [images(4, 32)]
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with inference(model):
        spread(model, seen)
    assert model.training and all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())
    assert all(norm.track_running_stats for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))
    assert not any(part._forward_hooks for part in model.modules())
