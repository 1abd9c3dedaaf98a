"""Colorization on a frozen encoder: bit-equal through training, alive when random, and a decoder that learns."""

import pytest
import torch
from torch import nn

from bench.contract import Pretext
from bench.models.modes import inference
from bench.models.trunk import make_trunk
from tests.pretexts.test_contract import images, make, seeded
from tests.pretexts.test_hypercolumn_color import halves


def trained(pretext: Pretext, steps: int) -> Pretext:
    optimizer, generator = pretext.optimizers()["generator"], seeded()
    for _ in range(steps):
        for _, loss in pretext.training_step(pretext.make_batch(halves(), generator)):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return pretext


@pytest.mark.parametrize("trunk", ["unet:depth=5,width=8", "timm:resnet10t"])
@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_the_encoder_is_bit_equal_through_training_and_scoring(trunk: str, statistics: str) -> None:
    made = make("frozen_color", trunk, statistics=statistics)
    made.prepare(iter([images(16)]))
    made.train()
    before = {name: tensor.clone() for name, tensor in made.trunk.down.state_dict().items()}
    trained(made, 3)
    with inference(made):
        made.evaluate(images(), seeded())
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.trunk.down.state_dict().items())
    assert not any(part.training for part in made.trunk.down.modules()) and made.trunk.up.training


def test_the_loss_is_the_mean_squared_error_of_ab() -> None:
    made = make("frozen_color").train()
    batch = made.make_batch(images(), seeded())
    torch.manual_seed(0)
    ((_, loss),) = made.training_step(batch)
    torch.manual_seed(0)
    expected = (made.generate(batch["lightness"]) - batch["chroma"]).pow(2).mean()
    assert loss.item() == pytest.approx(expected.item())


def test_statistics_of_a_random_encoder_are_measured_and_those_of_a_trained_one_are_kept() -> None:
    made = make("frozen_color", "timm:resnet10t")
    made.prepare(iter([images(16)]))
    norms = [part for part in made.trunk.down.modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms and all(norm.running_mean is not None and norm.running_mean.any() for norm in norms)
    for norm in norms:
        norm.running_mean.fill_(0.25)  # type: ignore[union-attr]
    made.prepare(iter([images(16)]))
    assert all((norm.running_mean == 0.25).all() for norm in norms)  # type: ignore[union-attr]


def test_a_random_encoder_that_was_not_measured_would_be_dead() -> None:
    """What `prepare` is for: without it the features of two images hardly differ."""

    def differ(prepared: bool) -> float:
        made = make("frozen_color", "timm:resnet18")
        if prepared:
            made.prepare(iter([images(16)]))
        made.train()
        features = made.encode(made.make_batch(images(8), seeded())["lightness"])[-1].flatten(1)
        return float((features.std(dim=0).mean() / features.abs().mean().clamp(min=1e-12)).item())

    assert differ(True) > 2 * differ(False)


def test_the_decoder_learns_what_lightness_tells() -> None:
    made = make("frozen_color", lr=3e-3)
    made.prepare(iter([halves()]))
    trained(made.train(), 60)
    with inference(made):
        own, usual = made.evaluate(halves(), seeded()), made.baselines(halves(), halves())
    assert own["psnr"].mean() > max(usual[name]["psnr"].mean() for name in ("grey image", "mean colour")) + 2


def test_grey_is_normalised_as_the_weights_need() -> None:
    from bench.contract import Preprocessing

    greys = torch.arange(0, 256, 5, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    lightness = make_trunk("unet:depth=5,width=8").preprocessing(greys)
    for mean, std in (((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5,) * 3, (0.5,) * 3)):
        made = Preprocessing("rgb", mean, std)
        error = (made.grey(lightness) - made(greys)).abs() * made.std
        assert error.max() < 0.04, "L / 100 is within 0.04 of sRGB's grey"
    assert torch.equal(Preprocessing("rgb").grey(lightness), lightness.expand(-1, 3, -1, -1)), "the usual one to the bit"
