"""Colorization from hypercolumns: the layer beside whole hypercolumns, the histograms and losses beside slow ones."""

import colorsys
import math
from typing import Any

import numpy as np
import pytest
import torch
from skimage.color import lab2lch
from torch.nn.functional import grid_sample, interpolate

from bench import colour
from bench.contract import Pretext
from bench.models.modes import inference
from pretexts._hue_chroma import MOST_CHROMA, colours, divergence, histograms
from pretexts._hypercolumn import Hypercolumn
from tests.pretexts.test_contract import images, make, seeded


def levels() -> list[torch.Tensor]:
    return [torch.randn(2, count, side, side, generator=seeded()) for count, side in ((3, 16), (5, 8), (7, 2), (4, 1))]


def test_the_layer_is_that_of_whole_hypercolumns() -> None:
    layer, features = Hypercolumn([3, 5, 7, 4], 6), levels()
    whole = torch.cat([interpolate(one, (8, 8), mode="bilinear") for one in features], dim=1)
    weight = torch.cat([part.weight for part in layer.parts], dim=1)
    expected = torch.nn.functional.conv2d(whole, weight, layer.parts[0].bias)
    assert torch.allclose(layer(features, 8), expected, atol=1e-5)
    centres = (2 * torch.arange(8) + 1) / 8 - 1
    places = torch.cartesian_prod(centres, centres).flip(1).expand(2, -1, -1)
    assert torch.allclose(layer.at(features, places).transpose(1, 2).view(2, 6, 8, 8), expected, atol=1e-4)


def test_every_level_of_the_encoder_is_in_the_hypercolumn() -> None:
    made = make("hypercolumn_color").train()
    ((_, loss),) = made.training_step(made.make_batch(images(), seeded()))
    loss.backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in made.trunk.down.parameters())
    assert all(weight.grad is None for weight in made.trunk.up.parameters())


def test_histograms_are_those_of_windows_pixel_by_pixel() -> None:
    lightness, chroma = colour.split_lab(images(2))
    pixels = torch.tensor([[[0, 0], [31, 5], [12, 20]]]).expand(2, -1, -1)
    hues, chromas, own = histograms(chroma, pixels, 7, 16)
    lab = torch.cat([(lightness + 1) * 50, chroma * 128], dim=1).permute(0, 2, 3, 1).numpy()
    lch = lab2lch(lab)
    for image in range(2):
        for place, (x, y) in enumerate(pixels[0].tolist()):
            expected = np.zeros((2, 16))
            for down in range(-3, 4):
                for right in range(-3, 4):
                    _, length, angle = lch[image, min(max(y + down, 0), 31), min(max(x + right, 0), 31)]
                    expected[0, min(int(angle / (2 * math.pi) * 16), 15)] += 1 / 49
                    expected[1, min(int(length / 128 / MOST_CHROMA * 16), 15)] += 1 / 49
            assert np.abs(hues[image, place].numpy() - expected[0]).sum() < 0.1, "a value at a border may fall to either side"
            assert np.abs(chromas[image, place].numpy() - expected[1]).sum() < 0.1
            assert own[image, place].item() == pytest.approx(lch[image, y, x, 1] / 128 / MOST_CHROMA, abs=1e-4)


def test_no_srgb_colour_is_beyond_the_last_bin() -> None:
    corners = torch.cartesian_prod(*[torch.arange(0, 256, 15, dtype=torch.uint8)] * 3)[:, :, None, None]
    longest = colour.split_lab(corners)[1].norm(dim=1).max().item()
    assert longest < MOST_CHROMA < longest + 0.01


def test_divergence_is_kullback_leibler() -> None:
    truth = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    told = torch.tensor([[0.2, 0.7, 0.1], [0.9, 0.05, 0.05]])
    expected = [0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.7), math.log(1 / 0.9)]
    assert divergence(truth, told.log()).tolist() == pytest.approx(expected)
    assert divergence(told, told.log()).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_certain_histograms_give_their_colours_back() -> None:
    for red, green, blue in ((200, 30, 40), (20, 160, 60), (30, 40, 210), (220, 210, 40)):
        _, chroma = colour.split_lab(torch.tensor([red, green, blue], dtype=torch.uint8).view(1, 3, 1, 1).expand(-1, -1, 9, 9))
        hues, chromas, _ = histograms(chroma, torch.tensor([[[4, 4]]]), 7, 64)
        found = colours(hues, chromas)[0, 0]
        assert (found - chroma[0, :, 4, 4]).norm() < 0.06, colorsys.rgb_to_hsv(red, green, blue)


def task(name: str = "hypercolumn_color", **settings: Any) -> Pretext:
    return make(name, **{"width": 32, "samples": 64, "lr": 3e-3, **settings}).train()


def halves(count: int = 8) -> torch.Tensor:
    """Light red and dark blue stripes of random places: the lightness tells the colour."""
    stripes = torch.randint(0, 2, (count, 1, 1, 8), generator=torch.Generator().manual_seed(0)).float()
    chosen = interpolate(stripes.expand(-1, -1, 8, -1), 32, mode="nearest") == 1
    return torch.where(chosen, torch.tensor([230, 120, 100])[:, None, None], torch.tensor([30, 40, 110])[:, None, None]).byte()


def test_it_learns_colours_that_lightness_tells_and_its_shuffled_twin_does_not() -> None:
    found = {}
    for name in ("hypercolumn_color", "hypercolumn_color:shuffled"):
        made, generator = task(name), seeded()
        optimizer = made.optimizers()["loss"]
        for _ in range(80):
            for _, loss in made.training_step(made.make_batch(halves(), generator)):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with inference(made):
            found[name] = made.evaluate(halves(), seeded())
            usual = made.baselines(halves(), halves())
    own, control = found["hypercolumn_color"], found["hypercolumn_color:shuffled"]
    assert own["loss"].mean() < 0.6 * usual["mean histogram"]["loss"].mean() < control["loss"].mean()
    assert own["psnr"].mean() > usual["mean colour"]["psnr"].mean() + 2


def test_the_loss_is_the_papers_sum() -> None:
    made = task(hue_weight=5.0)
    batch = made.make_batch(images(2), seeded())
    with inference(made):
        loss = made.loss(batch, *made.told(batch))
        hues, chromas = (part.exp().double() for part in made.told(batch))
    for image in range(2):
        total = 0.0
        for place in range(64):
            for told, true, weight in (
                (chromas, batch["chromas"], 1.0),
                (hues, batch["hues"], 5.0 * batch["strength"][image, place].item()),
            ):
                shares = true[image, place].double()
                total += weight * sum(
                    share * math.log(share / guess)
                    for share, guess in zip(shares.tolist(), told[image, place].tolist(), strict=True)
                    if share > 0
                )
        assert loss[image].item() == pytest.approx(total / 64, rel=1e-3)


def test_places_are_the_centres_of_the_pixels_that_are_asked_about() -> None:
    made = task()
    batch = made.make_batch(images(2), seeded())
    sampled = grid_sample(batch["lightness"], batch["places"][:, None], mode="bilinear", align_corners=False)[:, 0, 0]
    side = 32
    pixels = ((batch["places"] + 1) * side / 2 - 0.5).round().long()
    for image in range(2):
        exact = batch["lightness"][image, 0, pixels[image, :, 1], pixels[image, :, 0]]
        assert torch.allclose(sampled[image], exact, atol=1e-4)
