"""SimCLR: its loss beside a slow one and the papers' own numbers of negatives, its views, and what it learns."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.contract import Pretext
from bench.experiment.pretraining import make_pretext
from bench.models.modes import inference
from pretexts._contrastive import nt_xent, similarities
from tests.pretexts.test_contract import job, seeded


def by_loops(first: np.ndarray, second: np.ndarray, temperature: float) -> float:
    """Algorithm 1 of Chen et al. 2020, view by view."""
    views = np.empty((2 * len(first), first.shape[1]))
    views[0::2], views[1::2] = first, second
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    total = 0.0
    for one in range(len(views)):
        partner = one + 1 if one % 2 == 0 else one - 1
        others = [math.exp(views[one] @ views[k] / temperature) for k in range(len(views)) if k != one]
        total -= math.log(math.exp(views[one] @ views[partner] / temperature) / sum(others))
    return total / len(views)


def pairs(count: int = 7, noise: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    first = torch.randn(count, 5, generator=seeded())
    return first, first + noise * torch.randn(count, 5, generator=seeded().manual_seed(9))


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_the_loss_is_that_of_the_papers_algorithm(temperature: float) -> None:
    first, second = pairs()
    assert nt_xent(first, second, temperature).item() == pytest.approx(
        by_loops(first.numpy(), second.numpy(), temperature), rel=1e-5
    )


def test_the_loss_of_a_collapsed_network_is_the_logarithm_of_the_others() -> None:
    same = torch.ones(8, 5)
    assert nt_xent(same, same, 0.1).item() == pytest.approx(math.log(15), rel=1e-5)


def task(name: str = "simclr", size: int = 32, **settings: Any) -> Pretext:
    torch.manual_seed(0)
    changes = {"projector_width": 32, "projector_channels": 16, **settings}
    return make_pretext(job(name, "unet:depth=5,width=8,preprocessing=rgb", **changes).model_copy(update={"size": size})).train()


def test_views_are_cut_from_larger_images_and_have_the_trunks_size() -> None:
    made = task()
    assert type(made).reads(made.recipe, 64) == 74 and type(made).reads(made.recipe, 224) == 258
    batch = made.make_batch(torch.randint(0, 256, (4, 3, 37, 37), dtype=torch.uint8), seeded())
    assert {key: tuple(tensor.shape) for key, tensor in batch.items()} == {"first": (4, 3, 32, 32), "second": (4, 3, 32, 32)}
    assert not torch.allclose(batch["first"], batch["second"])


def coloured(count: int) -> torch.Tensor:
    """Images that differ in a pattern which no view changes much."""
    coarse = torch.randint(0, 2, (count, 3, 4, 4), generator=torch.Generator().manual_seed(2)) * 255
    return nn.functional.interpolate(coarse.float(), 37).byte()


def test_it_finds_the_other_view_and_its_shuffled_twin_does_not() -> None:
    gentle = {"crop_scale": 0.6, "colour_strength": 0.2, "blur": 0.0, "temperature": 0.2}
    found = {}
    for name in ("simclr", "simclr:shuffled"):
        made, generator = task(name, **gentle), seeded()
        optimizer = torch.optim.Adam(made.parameters(), lr=2e-3)
        for _ in range(60):
            for _, loss in made.training_step(made.make_batch(coloured(32), generator)):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with inference(made):
            found[name] = made.evaluate(coloured(32), seeded())["accuracy"].mean().item()
    assert found["simclr"] > 0.5 and found["simclr"] > found["simclr:shuffled"] + 0.2


def test_pixels_find_views_that_are_alike_before_anything_is_learned() -> None:
    def pixels(**changes: object) -> float:
        return task(**changes).baselines(coloured(32), coloured(2))["pixels"]["accuracy"].mean().item()

    assert pixels(crop_scale=1.0, colour_strength=0.0, blur=0.0) > 0.4, "those that are mirrored alike"
    assert pixels() < 0.3


def test_accuracy_is_one_for_equal_views_and_at_chance_for_strangers() -> None:
    first, _ = pairs(50)
    found, right = similarities(first, first)
    assert (found.argmax(1) == right).float().mean() == 1
    found, right = similarities(first, torch.randn(50, 5, generator=seeded().manual_seed(3)))
    assert (found.argmax(1) == right).float().mean() < 0.1
