"""Super-resolution: its input beside Pillow's, bicubic as the trivial answer, what skips carry, the adversary on and off."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from bench.contract import Pretext
from bench.models.modes import inference
from tests.pretexts.test_contract import images, make, seeded

TRUNK = "unet:depth=5,width=8,preprocessing=rgb"


def task(**settings: Any) -> Pretext:
    return make("super_resolution", TRUNK, **{"discriminator_width": 8, **settings}).train()


def smooth(count: int = 4, seed: int = 0) -> torch.Tensor:
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return (interpolate(coarse, 32, mode="bicubic").clamp(0, 1) * 255).byte()


def test_the_input_is_pillows_bicubic_reduction_enlarged_again() -> None:
    made, pictures = task(), smooth()
    shown = made.trunk.preprocessing.shown(made.make_batch(pictures, seeded())["enlarged"])
    for picture, found in zip(pictures, shown, strict=True):
        one = Image.fromarray(picture.permute(1, 2, 0).numpy())
        small = one.resize((8, 8), Image.Resampling.BICUBIC)
        expected = np.asarray(small.resize((32, 32), Image.Resampling.BICUBIC)).astype(float)
        error = np.abs(found.permute(1, 2, 0).numpy() - expected)
        assert error.mean() < 3, "Pillow's cubic has a = -0.5, torch's without antialiasing -0.75"


def test_the_input_has_no_more_than_the_small_image() -> None:
    made = task()
    pictures = images()
    small = interpolate(made.trunk.preprocessing(pictures), (8, 8), mode="bicubic", antialias=True)
    batch = made.make_batch(pictures, seeded())
    assert torch.allclose(batch["enlarged"], interpolate(small, (32, 32), mode="bicubic"), atol=1e-6)


def test_an_untrained_answer_that_adds_nothing_is_bicubic() -> None:
    made = task()
    for weight in made.output.parameters():
        torch.nn.init.zeros_(weight)
    with inference(made):
        own, usual = made.evaluate(smooth(), seeded()), made.baselines(smooth(), smooth())["bicubic"]
    assert torch.equal(own["psnr"], usual["psnr"]) and torch.equal(own["ssim"], usual["ssim"])
    assert torch.equal(own["psnr_skips_alone"], own["psnr"])


def trained(made: Pretext, steps: int = 60) -> Pretext:
    optimizers = made.optimizers()
    for number in range(steps):
        for name, loss in made.training_step(made.make_batch(smooth(8, number), seeded())):
            optimizers[name].zero_grad()
            loss.backward()
            optimizers[name].step()
    return made


def test_it_gets_details_back_and_says_what_skips_carry() -> None:
    made = trained(task(lr=2e-3, adversarial_weight=0))
    with inference(made):
        own, usual = made.evaluate(smooth(8, 999), seeded()), made.baselines(smooth(8, 999), smooth())["bicubic"]
    assert own["psnr"].mean() > usual["psnr"].mean() + 0.3
    assert not torch.equal(own["psnr_skips_alone"], own["psnr"])


def test_without_an_adversary_there_is_no_discriminator() -> None:
    alone, both = task(adversarial_weight=0), task()
    assert alone.optimizers().keys() == {"generator"} and both.optimizers().keys() == {"discriminator", "generator"}
    assert not any("discriminator" in name for name in alone.state_dict())
    names = [name for name, _ in alone.training_step(alone.make_batch(images(), seeded()))]
    assert names == ["generator"]


def test_losses_are_srgans_on_pixels() -> None:
    made = task(adversarial_weight=0.5)
    batch = made.make_batch(images(), seeded())
    torch.manual_seed(1)
    steps = made.training_step(batch)
    _, judged = next(steps)
    state = {name: tensor.clone() for name, tensor in made.discriminator.state_dict().items()}
    torch.manual_seed(1)
    fake = made.answer(batch["enlarged"])
    real, unreal = made.discriminator(batch["truth"]), made.discriminator(fake)
    by_hand = -real.sigmoid().log().mean() - (1 - unreal.sigmoid()).log().mean()
    assert judged.item() == pytest.approx(by_hand.item(), rel=1e-4)
    made.discriminator.load_state_dict(state)
    _, loss = next(steps)
    fooled = -made.discriminator(fake).sigmoid().log().mean()
    assert loss.item() == pytest.approx(((fake - batch["truth"]).pow(2).mean() + 0.5 * fooled).item(), rel=1e-4)
