"""Adversarial losses beside their papers' formulas, the penalty beside finite differences, and what a setting switches."""

from typing import Any

import pytest
import torch
from torch import nn

from bench.models.discriminator import PatchDiscriminator
from pretexts._adversarial import gradient_penalty, loss_of_fakes, loss_of_generator, loss_of_real
from tests.pretexts.test_contract import images, make, seeded

REAL, FAKE = torch.tensor([2.0, -0.5, 0.3]), torch.tensor([-3.0, 0.7, 0.1])
FORMULAS: dict[str, tuple[Any, Any, Any]] = {
    "bce": (
        lambda real: -real.sigmoid().log().mean(),
        lambda fake: -(1 - fake.sigmoid()).log().mean(),
        lambda fake: -fake.sigmoid().log().mean(),
    ),
    "lsgan": (lambda real: ((real - 1) ** 2).mean(), lambda fake: (fake**2).mean(), lambda fake: ((fake - 1) ** 2).mean()),
    "hinge": (
        lambda real: -torch.min(torch.zeros(3), real - 1).mean(),
        lambda fake: -torch.min(torch.zeros(3), -fake - 1).mean(),
        lambda fake: -fake.mean(),
    ),
    "wgan-gp": (lambda real: -real.mean(), lambda fake: fake.mean(), lambda fake: -fake.mean()),
}


@pytest.mark.parametrize("kind", FORMULAS)
def test_losses_are_those_of_the_papers(kind: Any) -> None:
    of_real, of_fakes, of_generator = FORMULAS[kind]
    assert loss_of_real(kind, REAL) == pytest.approx(of_real(REAL).item())
    assert loss_of_fakes(kind, FAKE) == pytest.approx(of_fakes(FAKE).item())
    assert loss_of_generator(kind, FAKE) == pytest.approx(of_generator(FAKE).item())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_penalty_is_that_of_the_slope_by_finite_differences(precision: torch.dtype) -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator(2, 4, norm="none").requires_grad_(False)
    for part in judge.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, 0, 0.2)
    real, fake = torch.randn(2, 2, 24, 24), torch.randn(2, 2, 24, 24)
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        found = gradient_penalty(judge, real, fake).item()
    torch.manual_seed(3)
    share = torch.rand(2, 1, 1, 1)
    between, judge = (fake + share * (real - fake)).double(), judge.double()
    slopes = torch.zeros_like(between)
    for place in range(between[0].numel()):
        step = torch.zeros_like(between).view(2, -1)
        step[:, place] = 1e-5
        step = step.view_as(between)
        rise = (judge(between + step) - judge(between - step)).sum(dim=(1, 2, 3)) / 2e-5
        slopes.view(2, -1)[:, place] = rise
    expected = ((slopes.flatten(1).norm(dim=1) - 1) ** 2).mean().item()
    assert found == pytest.approx(expected, rel=1e-3)


def test_the_penalty_trains_the_discriminator_and_not_the_generator() -> None:
    judge = PatchDiscriminator(2, 4, norm="none")
    fake = torch.randn(2, 2, 24, 24, requires_grad=True)
    gradient_penalty(judge, torch.randn(2, 2, 24, 24), fake).backward()  # type: ignore[no-untyped-call]
    assert fake.grad is None and all(part.weight.grad.any() for part in judge.modules() if isinstance(part, nn.Conv2d))


@pytest.mark.parametrize(("setting", "norms"), [({}, 3), ({"adversarial_loss": "wgan-gp"}, 0), ({"spectral_norm": True}, 0)])
def test_batch_norm_gives_way_to_what_replaces_it(setting: dict[str, Any], norms: int) -> None:
    made = make("cgan_color", **setting)
    assert sum(isinstance(part, nn.BatchNorm2d) for part in made.discriminator.modules()) == norms


def test_spectral_norm_makes_the_largest_singular_value_one() -> None:
    judge = make("cgan_color", spectral_norm=True).discriminator
    for _ in range(60):  # power iterations, one a forward pass
        judge(torch.rand(2, 3, 32, 32))
    layers = [part for part in judge.modules() if isinstance(part, nn.Conv2d)]
    assert len(layers) == 5
    for layer in layers:
        assert torch.linalg.svdvals(layer.weight.flatten(1))[0].item() == pytest.approx(1, abs=0.02)


def losses(**settings: Any) -> list[tuple[str, float]]:
    torch.manual_seed(0)
    made = make("cgan_color", **settings).train()
    optimizers, found = made.optimizers(), []
    for name, loss in made.training_step(made.make_batch(images(), seeded())):
        optimizers[name].zero_grad()
        loss.backward()
        optimizers[name].step()
        found.append((name, loss.item()))
    return found


def test_more_updates_are_made_on_the_same_batch_before_the_generators() -> None:
    names = [name for name, _ in losses(discriminator_updates=3)]
    assert names == ["discriminator"] * 3 + ["generator"]
    first, second, *_ = [value for _, value in losses(discriminator_updates=3, lr=1e-5)]
    assert second < first, "the second loss is that of the updated discriminator"


def test_feature_matching_is_the_distance_of_the_discriminators_features() -> None:
    made = make("cgan_color", feature_matching=10, l1_weight=0).train()
    plain = make("cgan_color", l1_weight=0).train()
    batch = made.make_batch(images(), seeded())

    def last(task: Any) -> float:
        torch.manual_seed(1)
        return [loss.item() for _, loss in task.training_step(batch)][-1]

    torch.manual_seed(1)
    fake = plain.generate(batch["lightness"])
    pairs = zip(
        made.discriminator.features(made.conditioned(batch, fake)),
        made.discriminator.features(made.conditioned(batch, batch["chroma"])),
        strict=True,
    )
    distances = [(one - other).abs().mean() for one, other in pairs][:-1]
    assert last(made) - last(plain) == pytest.approx(10 * torch.stack(distances).sum().item(), rel=1e-4)
