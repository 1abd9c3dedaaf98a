"""Masked image modelling: what is hidden stays hidden at every level, and what statistics and scores are of."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from bench.contract import Pretext
from bench.errors import UsageError
from bench.experiment.pretraining import make_pretext
from bench.models.modes import inference
from pretexts._masking import Mask, draw_mask, masked, visible_cells
from tests.pretexts.test_contract import job, seeded

TRUNKS = ("unet:depth=5,width=8", "timm:resnet10t", "timm:convnext_atto", "timm:vit_tiny_patch16_224,img_size=64")


def task(trunk: str, size: int = 64, **settings: Any) -> Pretext:
    torch.manual_seed(0)
    return make_pretext(job("masked", trunk, **settings).model_copy(update={"size": size})).train()


def pictures(count: int, size: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("trunk", TRUNKS)
def test_a_prediction_depends_on_no_hidden_pixel(trunk: str) -> None:
    made = task(trunk)
    batch = made.make_batch(pictures(4), seeded())
    hidden = ~Mask(batch["visible"], 1).at(64)
    other = {**batch, "inputs": torch.where(hidden, torch.randn_like(batch["inputs"]), batch["inputs"])}
    shown = {**batch, "inputs": torch.where(hidden, batch["inputs"], torch.randn_like(batch["inputs"]))}
    with inference(made):
        first, second, third = (made.predict(one)[0] for one in (batch, other, shown))
    assert torch.equal(first, second) and not torch.allclose(first, third)


def test_each_image_has_the_same_share_of_hidden_cells_at_places_of_its_own() -> None:
    visible = draw_mask(50, 8, 0.6, seeded())
    assert visible.flatten(1).sum(1).tolist() == [visible_cells(8, 0.6)] * 50 == [26] * 50
    assert len({tuple(one.flatten().tolist()) for one in visible}) == 50
    assert visible.float().mean(0).min() > 0.15, "every cell is visible in some image"


def test_hidden_places_are_empty_at_every_level_of_a_convolutional_encoder() -> None:
    made = task("timm:resnet10t")
    batch = made.make_batch(pictures(4), seeded())
    mask = Mask(batch["visible"], visible_cells(made.cells, 0.6))
    with masked(made.trunk, mask, None):
        levels = made.trunk.encode(batch["inputs"] * mask.at(64))
    finer = [level for level in levels if mask.hides(level.shape[-1])]
    assert len(finer) >= 3
    assert all(level.abs().sum(1)[~mask.at(level.shape[-1])[:, 0]].max() == 0 for level in finer)
    dense = made.trunk.encode(batch["inputs"] * mask.at(64))
    assert dense[2].abs().sum(1)[~mask.at(dense[2].shape[-1])[:, 0]].max() > 0, "without the mask they fill up"


def test_batch_norm_takes_its_statistics_from_visible_places_alone() -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))

    net = Small().train()
    visible = draw_mask(6, 4, 0.5, seeded())
    mask = Mask(visible, 8)
    inputs = torch.randn(6, 3, 16, 16, generator=seeded()) * 3 + 1
    with masked(net, mask, None):  # type: ignore[arg-type]
        found = net.down(inputs * mask.at(16))
    seen = conv2d(inputs * mask.at(16), net.down[0].weight, net.down[0].bias, padding=1).detach().numpy()
    places = np.stack([seen[:, channel][mask.at(16)[:, 0].numpy()] for channel in range(4)])
    assert places.shape == (4, 6 * 128)
    assert np.allclose(net.down[1].running_mean.numpy(), 0.1 * places.mean(1), atol=1e-5)
    assert np.allclose(net.down[1].running_var.numpy(), 0.9 + 0.1 * places.var(1, ddof=1), atol=1e-4)
    normal = (seen - places.mean(1)[:, None, None]) / np.sqrt(places.var(1)[:, None, None] + 1e-5)
    assert np.allclose(found.detach().numpy(), normal * mask.at(16).numpy(), atol=1e-4)
    assert "forward" not in vars(net.down[1]), "the layer is as it was"


def test_the_loss_is_the_squared_error_of_hidden_pixels_by_their_patchs_own_moments() -> None:
    made = task("unet:depth=5,width=8")
    batch = made.make_batch(pictures(3), seeded())
    torch.manual_seed(5)
    (_, loss), *_ = made.training_step(batch)
    torch.manual_seed(5)
    predicted, inputs = made.predict(batch)[0].detach().numpy(), batch["inputs"].numpy()
    side, errors = 64 // made.cells, []
    for image in range(3):
        for row in range(made.cells):
            for column in range(made.cells):
                if not batch["visible"][image, 0, row, column]:
                    where = np.s_[image, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
                    patch = inputs[where]
                    errors.append((predicted[where] - (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)) ** 2)
    assert loss.item() == pytest.approx(np.mean(errors), rel=1e-4)


def test_a_transformers_hidden_patches_are_the_learned_token() -> None:
    made = task("timm:vit_tiny_patch16_224,img_size=64")
    assert made.cells == 4 and not len(made.tokens)
    (_, loss), *_ = made.training_step(made.make_batch(pictures(4), seeded()))
    loss.backward()
    assert made.token is not None and made.token.grad is not None and made.token.grad.abs().sum() > 0


def test_the_patchs_mean_is_the_trivial_answer_beside_a_dead_networks_score() -> None:
    made = task("unet:depth=5,width=8")
    with torch.no_grad():
        for weight in made.output.parameters():
            weight.zero_()
    with inference(made):
        dead = made.evaluate(pictures(16), seeded())["psnr_hidden"].mean().item()
    trivial = made.baselines(pictures(16), pictures(2))["mean of the patch"]["psnr_hidden"].mean().item()
    assert dead == pytest.approx(trivial, abs=1e-4)


def test_images_without_a_level_of_cells_are_refused() -> None:
    with pytest.raises(UsageError, match="4 x 4 cells"):
        task("timm:resnet10t", 64, cells=7)


def test_visible_patches_tell_which_way_an_image_goes_and_shuffled_answers_do_not() -> None:
    ramp = torch.linspace(0, 255, 64)[None, None, None].expand(32, 3, 64, 64)
    ways = torch.where((torch.arange(32) % 2 == 0)[:, None, None, None], ramp, ramp.flip(3)).byte()
    found = {}
    for name in ("masked", "masked:shuffled"):
        torch.manual_seed(0)
        made = make_pretext(job(name, "unet:depth=5,width=8").model_copy(update={"size": 64})).train()
        optimizer, generator = torch.optim.Adam(made.parameters(), lr=3e-3), seeded()
        for _ in range(40):
            for _, loss in made.training_step(made.make_batch(ways, generator)):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with inference(made):
            score = made.evaluate(ways, seeded())["psnr_hidden"].mean()
        found[name] = (score - made.baselines(ways, ways)["mean of the patch"]["psnr_hidden"].mean()).item()
    assert found["masked"] > 3 and found["masked:shuffled"] < 1
