"""A recipe's augmentation: mirrored and cut images, drawn for training alone, and nothing where it is none."""

from typing import Any

import numpy as np
import pytest
import torch

from bench.experiment.pretraining import make_pretext, pretraining_stage
from bench.views.augmentation import LEAST, augment
from tests.pretexts.test_contract import job, seeded


def images(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=seeded())


def test_flip_mirrors_half_of_the_images_and_changes_nothing_else() -> None:
    before = images(400)
    after = augment(before, "flip", seeded())
    mirrored = [torch.equal(one.flip(-1), other) for one, other in zip(before, after, strict=True)]
    same = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert all(np.logical_xor(mirrored, same)) and 0.4 < np.mean(mirrored) < 0.6


def test_crop_enlarges_a_part_of_at_least_half_of_the_area() -> None:
    """On an image whose pixels say where they are, the range of each axis tells the box."""
    ramp = torch.arange(32, dtype=torch.uint8) * 8
    before = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32), torch.zeros(32, 32, dtype=torch.uint8)])
    after = augment(before.expand(300, 3, 32, 32), "crop", seeded())
    assert after.shape == (300, 3, 32, 32) and after.dtype == torch.uint8
    spans = (after[:, :2].amax(dim=(2, 3)).float() - after[:, :2].amin(dim=(2, 3)).float()) / 8 + 1
    areas = spans.prod(dim=1) / 32**2
    assert areas.min() > LEAST - 0.06 and areas.max() <= 1 and 0.7 < areas.mean() < 0.8
    across = after[:, 0, 0].float()
    assert 0.4 < (across[:, -1] < across[:, 0]).float().mean() < 0.6


def test_none_draws_nothing() -> None:
    before, generator = images(4), seeded()
    assert augment(before, "none", generator) is before and torch.equal(generator.get_state(), seeded().get_state())


@pytest.mark.parametrize("name", ["l1_color", "rotation", "simclr"])
def test_training_sees_changed_images_and_a_tasks_scores_do_not(name: str) -> None:
    found: dict[str, Any] = {}
    scored: dict[str, Any] = {}
    for how in ("none", "crop"):
        asked = job(name, "unet:depth=5,width=8,preprocessing=rgb", augmentation=how)
        torch.manual_seed(0)
        pretext = make_pretext(asked).eval()
        found[how] = pretraining_stage(asked, pretext).make_batch({"images": images(4)}, seeded())
        scored[how] = pretext.evaluate(images(4), seeded())
    assert not any(torch.equal(one, found["crop"][key]) for key, one in found["none"].items() if one.ndim == 4)
    assert all(torch.equal(one, scored["crop"][key]) for key, one in scored["none"].items())
