"""Colour conversion and image scores against scikit-image."""

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from bench import colour


@pytest.fixture
def images() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 24, 32), dtype=np.uint8))


def as_rows(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def test_lab_agrees_with_scikit_image(images: torch.Tensor) -> None:
    ours = colour.rgb_to_lab(images)
    for place, image in enumerate(images):
        assert np.abs(as_rows(ours[place]) - rgb2lab(as_rows(image) / 255.0)).max() < 1e-4


def test_rgb_from_lab_agrees_with_scikit_image(images: torch.Tensor) -> None:
    lab = colour.rgb_to_lab(images)
    back = colour.lab_to_rgb(lab)
    for place in range(len(images)):
        assert np.abs(as_rows(back[place]) - lab2rgb(as_rows(lab[place]).astype(np.float64))).max() < 1e-3


def test_bytes_survive_the_way_through_lab(images: torch.Tensor) -> None:
    assert torch.equal(colour.join_lab(*colour.split_lab(images)), images)


def test_normalised_lab_is_the_papers() -> None:
    white = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    lightness, chroma = colour.split_lab(white)
    assert torch.allclose(lightness, torch.ones_like(lightness), atol=1e-4)
    assert torch.allclose(chroma, torch.zeros_like(chroma), atol=1e-3)


def test_psnr_and_ssim_agree_with_scikit_image(images: torch.Tensor) -> None:
    noise = torch.from_numpy(np.random.default_rng(1).integers(-20, 20, images.shape))
    worse = (images.long() + noise).clamp(0, 255).to(torch.uint8)
    psnr, ssim = colour.psnr(worse, images), colour.ssim(worse, images)
    for place in range(len(images)):
        ours, truth = as_rows(worse[place]), as_rows(images[place])
        assert psnr[place].item() == pytest.approx(peak_signal_noise_ratio(truth, ours), abs=1e-9)
        reference = structural_similarity(
            truth, ours, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )
        assert ssim[place].item() == pytest.approx(reference, abs=1e-6)


def test_colourfulness_is_zero_for_grey_and_follows_the_formula(images: torch.Tensor) -> None:
    grey = images[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(colour.colourfulness(grey), torch.zeros(4, dtype=torch.float64))
    red, green, blue = as_rows(images[0]).astype(float).transpose(2, 0, 1)
    rg, yb = red - green, (red + green) / 2 - blue
    by_hand = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    assert colour.colourfulness(images)[0].item() == pytest.approx(by_hand)


def test_lightness_alone_is_that_of_the_whole_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)).permute(0, 3, 1, 2)
    lightness, chroma = colour.split_lab(images)
    assert torch.equal(colour.lightness_of(images), lightness)
    monkeypatch.setattr(colour, "CHUNK", 2 * 32 * 48)
    assert torch.allclose(colour.split_lab(images)[1], chroma, rtol=0, atol=1e-6)
    assert torch.allclose(colour.lightness_of(images), lightness, rtol=0, atol=1e-6)


def test_lab_is_exact_where_networks_compute_in_bfloat16() -> None:
    images = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8))
    expected = colour.split_lab(images)
    with torch.autocast("cpu", torch.bfloat16):
        found = colour.split_lab(images)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_every_colour_of_a_fine_grid_agrees_with_scikit_image() -> None:
    steps = np.arange(0, 256, 5, dtype=np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(len(steps), -1, 3)
    ours = colour.rgb_to_lab(torch.from_numpy(grid).permute(2, 0, 1)[None])
    assert np.abs(as_rows(ours[0]) - rgb2lab(grid)).max() < 1e-4
