"""DINO: its loss beside the paper's pseudo-code, its crops, its teacher and centre, and both ways to collapse."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench import registry
from bench.contract import Pretext
from bench.models.modes import inference
from pretexts._contrastive import TwoViews
from tests.pretexts.test_contract import make, seeded
from tests.pretexts.test_simclr import coloured

TRUNK = "unet:depth=5,width=8,preprocessing=rgb"


def task(name: str = "dino", trunk: str = TRUNK, **settings: Any) -> Pretext:
    changes = {"head_width": 32, "head_channels": 16, "prototypes": 40, "small_crops": 3, **settings}
    return make(name, trunk, **changes).train()


def cosines(trunk: Any, head: Any, views: Tensor) -> Tensor:
    embedded = head.embed(trunk.encode(views)[-1].mean(dim=(2, 3)))
    return normalize(embedded, dim=1) @ normalize(head.prototypes.weight, dim=1).T


def test_the_loss_is_that_of_the_papers_pseudo_code() -> None:
    made = task()
    made.centre.normal_(0, 0.05)
    batch = made.make_batch(coloured(6), seeded())
    _, loss = next(made.training_step(batch))
    with torch.no_grad():
        large = torch.cat([batch["first"], batch["second"]])
        small = torch.cat([batch[f"crop_{place}"] for place in range(3)])
        students = [*cosines(made.trunk, made.head, large).split(6), *cosines(made.trunk, made.head, small).split(6)]
        teachers = cosines(made.teacher.network, made.teacher_head.network, large).split(6)
    total, pairs = 0.0, 0
    for place, teacher in enumerate(teachers):
        for other, student in enumerate(students):
            if place == other:
                continue
            for image in range(6):
                answer = ((teacher[image] - made.centre) / 0.04).softmax(dim=0)
                total -= (answer * (student[image] / 0.1).softmax(dim=0).log()).sum().item() / 6
            pairs += 1
    assert pairs == 2 * 4
    assert loss.item() == pytest.approx(total / pairs, rel=1e-4)


def step(made: Pretext, seed: int = 1) -> None:
    optimizer = made.optimizers()["loss"]
    for _, loss in made.training_step(made.make_batch(coloured(8), torch.Generator().manual_seed(seed))):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize(("progress", "momentum"), [(0.0, 0.9), (0.5, 0.95), (1.0, 1.0)])
def test_the_teachers_momentum_rises_to_one_by_half_a_cosine(progress: float, momentum: float) -> None:
    made = task(momentum=0.9, lr=0.1)
    made.progress = progress
    before = {name: weight.clone() for name, weight in made.teacher.network.down.named_parameters()}
    step(made)
    for name, weight in made.teacher.network.down.named_parameters():
        student = dict(made.trunk.down.named_parameters())[name]
        assert torch.allclose(weight, momentum * before[name] + (1 - momentum) * student, atol=1e-6)


def test_prototypes_stay_as_drawn_in_the_first_epoch() -> None:
    made = task(epochs=4, frozen_epochs=1.0, lr=0.1)
    drawn = made.head.prototypes.weight.clone()
    made.progress = 0.2
    step(made)
    assert torch.equal(made.head.prototypes.weight, drawn)
    made.progress = 0.25
    step(made)
    assert not torch.equal(made.head.prototypes.weight, drawn)


def test_the_centre_is_the_moving_average_of_what_the_teacher_says() -> None:
    made = task()
    batch = made.make_batch(coloured(8), seeded())
    with torch.no_grad():
        said = cosines(made.teacher.network, made.teacher_head.network, torch.cat([batch["first"], batch["second"]]))
    for _, loss in made.training_step(batch):
        loss.backward()
    assert torch.allclose(made.centre, 0.1 * said.mean(dim=0), atol=1e-5)


@pytest.mark.parametrize(
    ("size", "smallest", "side"), [(224, 32, 96), (96, 32, 32), (64, 32, 32), (64, 64, 64), (256, 32, 96), (128, 16, 48)]
)
def test_small_crops_are_three_sevenths_of_the_side(size: int, smallest: int, side: int) -> None:
    plugin = registry.load("pretexts", "dino")
    assert plugin.feeds(plugin.Recipe(), size, smallest) == {"small crops": side}
    assert plugin.feeds(plugin.Recipe(small_crops=0), size, smallest) == {}


def test_views_are_the_papers() -> None:
    made = task(trunk="timm:resnet10t")
    first, second = made.large
    assert (first.blur, first.solarize, second.blur, second.solarize) == (1.0, 0.0, 0.1, 0.2)
    assert (first.scale, made.small.scale, made.small.blur) == ((0.4, 1.0), (0.05, 0.4), 0.5)
    assert (first.brightness, first.contrast, first.saturation, first.hue) == (0.4, 0.4, 0.2, 0.1)


def informed(made: Pretext) -> dict[str, float]:
    with inference(made):
        return {name: values.mean().item() for name, values in made.evaluate(coloured(32), seeded()).items()}


def test_both_ways_to_collapse_are_said() -> None:
    made = task()
    with torch.no_grad():  # as different as embeddings can be
        made.head.embed[-1].weight.normal_(0, 3)
        made.head.prototypes.weight.normal_()
    healthy = informed(made)
    assert 0.05 < healthy["information"] <= math.log(32)
    with torch.no_grad():  # one answer for all
        made.head.embed[-1].weight.zero_()
        made.head.embed[-1].bias.normal_()
    one = informed(made)
    assert one["information"] == pytest.approx(0, abs=1e-5) and len(made.caveats(one)) == 2
    uniform = task(teacher_temperature=1e6)
    with torch.no_grad():
        uniform.head.embed[-1].weight.normal_(0, 3)
    spread = informed(uniform)
    assert spread["information"] == pytest.approx(0, abs=1e-5)
    assert any("answers tell" in said for said in uniform.caveats(spread))


def test_information_is_the_mutual_information_of_images_and_answers() -> None:
    made = task()
    with inference(made):
        found = made.evaluate(coloured(16), seeded())["information"].double()
        generator = seeded()
        TwoViews.make_batch(made, coloured(16), generator)  # those of the other scores
        views = made.trunk.preprocessing(made.view(coloured(16), generator))
        answers = ((cosines(made.trunk, made.head, views) - made.centre) / 0.04).softmax(dim=1).double()
    entropy = torch.distributions.Categorical(probs=answers).entropy()
    mean = torch.distributions.Categorical(probs=answers.mean(dim=0)).entropy()
    assert found.mean().item() == pytest.approx((mean - entropy.mean()).item(), rel=1e-4)


def test_it_learns_to_tell_images_apart_and_its_shuffled_twin_falls_silent() -> None:
    quick = {
        "crop_scale": 0.6, "colour_strength": 0.2, "blur": 0.0, "solarize": 0.0, "momentum": 0.9, "centre_momentum": 0.5,
        "optimizer": "adam", "lr": 1e-3, "lr_scaling": "none", "frozen_epochs": 0.0, "clip": None,
    }  # fmt: skip
    losses, found = {}, {}
    for name in ("dino", "dino:shuffled"):
        made, generator = task(name, **quick), seeded()
        optimizer = made.optimizers()["loss"]
        for number in range(150):
            made.progress = number / 150
            for _, loss in made.training_step(made.make_batch(coloured(32), generator)):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            losses[name] = loss.item()
        found[name] = informed(made)["information"]
    guess = math.log(40)
    assert losses["dino"] < guess - 0.15 and losses["dino:shuffled"] > guess - 0.05, losses
    assert found["dino"] > 0.2 > 0.05 > found["dino:shuffled"], found
