"""Diagnostics of features against closed forms and against slow formulas."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.probes import diagnostics as module
from bench.probes.diagnostics import diagnostics
from bench.probes.features import standardised


def drawn(seed: int, images: int = 40, channels: int = 6) -> Tensor:
    """Features whose channels differ in scale and are not centred."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy((rng.normal(size=(images, channels)) * rng.uniform(0.1, 3, channels) + 1).astype(np.float32))


def rank(matrix: np.ndarray, epsilon: float) -> float:
    values = np.linalg.svd(matrix, compute_uv=False)
    return math.exp(-sum((p + epsilon) * math.log(p + epsilon) for p in values / values.sum()))


def test_the_identity_has_as_many_ranks_as_channels() -> None:
    found = diagnostics(torch.eye(8), torch.eye(8))
    assert (found.channels, found.images) == (8, 8)
    assert found.rankme == pytest.approx(8, rel=1e-5)
    assert found.effective_rank == pytest.approx(7, rel=1e-6)  # centred, it has seven equal singular values and a zero
    assert found.uniformity == pytest.approx(-4)  # the square of each distance is 2


def test_a_matrix_of_rank_one_has_rank_one() -> None:
    outer = torch.linspace(1, 2, 30)[:, None] * torch.tensor([1.0, -2.0, 0.5])
    found = diagnostics(outer, outer)
    assert found.rankme == pytest.approx(1, abs=1e-4)
    assert found.effective_rank == pytest.approx(1, abs=1e-4)
    assert found.uniformity == pytest.approx(0, abs=1e-6)


def test_ranks_are_those_of_numpys_singular_values() -> None:
    features = drawn(0)
    found, matrix = diagnostics(features, features), features.numpy().astype(np.float64)
    assert found.rankme == pytest.approx(rank(matrix, 1e-7), rel=1e-9)
    assert found.effective_rank == pytest.approx(rank(matrix - matrix.mean(axis=0), 1e-300), rel=1e-9)
    assert found.effective_rank != pytest.approx(found.rankme, rel=0.01)  # which is not centred


def test_fewer_images_than_channels_limit_the_ranks() -> None:
    found = diagnostics(drawn(1, images=3, channels=50), drawn(1, images=3, channels=50))
    assert found.rankme is not None and 1 < found.rankme <= 3 + 1e-4
    assert found.effective_rank is not None and 1 < found.effective_rank <= 2 + 1e-4


def test_alignment_is_the_mean_squared_distance_of_directions() -> None:
    features, mirrored = drawn(2), drawn(3)
    pairs = zip(features.numpy().astype(np.float64), mirrored.numpy().astype(np.float64), strict=True)
    expected = np.mean([np.sum((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2) for a, b in pairs])
    assert diagnostics(features, mirrored).alignment == pytest.approx(expected, rel=1e-9)


def test_equal_views_are_aligned_whatever_their_length_and_opposite_ones_are_not() -> None:
    features = drawn(4)
    assert diagnostics(features, features).alignment == 0
    assert diagnostics(features, 3 * features).alignment == pytest.approx(0, abs=1e-12)
    assert diagnostics(features, -features).alignment == pytest.approx(4)


def test_views_of_other_images_are_less_aligned() -> None:
    features = drawn(5)
    mirrored = features + 0.1 * drawn(6)
    own, other = diagnostics(features, mirrored).alignment, diagnostics(features, mirrored.roll(1, dims=0)).alignment
    assert own is not None and other is not None and own < 0.1 * other


def test_uniformity_of_two_points_is_computed_by_hand() -> None:
    at_60_degrees = torch.tensor([[2.0, 0.0], [0.5, math.sqrt(0.75)]])  # their directions are 1 apart
    assert diagnostics(at_60_degrees, at_60_degrees).uniformity == pytest.approx(-2, abs=1e-6)
    opposite = torch.tensor([[1.0, 0.0], [-5.0, 0.0]])
    assert diagnostics(opposite, opposite).uniformity == pytest.approx(-8)


def test_uniformity_is_a_mean_over_pairs_of_different_images() -> None:
    features = drawn(7)
    directions = features.double() / features.double().norm(dim=1, keepdim=True)
    expected = torch.pdist(directions).square().mul(-2).exp().mean().log()  # the paper's code
    assert diagnostics(features, features).uniformity == pytest.approx(float(expected), rel=1e-9)


def test_uniformity_takes_the_first_images(monkeypatch: pytest.MonkeyPatch) -> None:
    features = drawn(8)
    expected = diagnostics(features[:10], features[:10]).uniformity
    monkeypatch.setattr(module, "PAIRED", 10)
    assert diagnostics(features, features).uniformity == expected


@pytest.mark.parametrize("noise", [0, 1e-4])
def test_constant_features_are_dead_and_have_no_effective_rank(noise: float) -> None:
    constant = 1000 + noise * drawn(18)
    found = diagnostics(constant, constant)
    assert found.dead_channels == 1
    assert found.effective_rank is None
    assert found.rankme == pytest.approx(1, abs=1e-4)
    assert found.alignment == 0
    assert found.uniformity == pytest.approx(0, abs=1e-12)


def test_features_of_zero_are_undefined() -> None:
    found = diagnostics(torch.zeros(20, 5), torch.zeros(20, 5))
    assert found.dead_channels == 1
    assert (found.rankme, found.effective_rank, found.alignment, found.uniformity) == (None, None, None, None)


def test_a_single_image_has_neither_ranks_nor_uniformity() -> None:
    found = diagnostics(drawn(9, images=1), drawn(10, images=1))
    assert (found.rankme, found.effective_rank, found.uniformity) == (None, None, None)
    assert found.alignment is not None and found.alignment > 0


def test_an_image_whose_features_are_zero_has_no_direction() -> None:
    features, mirrored = drawn(11), drawn(12)
    with_zero, with_any = torch.cat([features, torch.zeros(1, 6)]), torch.cat([mirrored, drawn(13, images=1)])
    found, expected = diagnostics(with_zero, with_any), diagnostics(features, mirrored)
    assert (found.alignment, found.uniformity) == (expected.alignment, expected.uniformity)
    assert diagnostics(with_any, with_zero).alignment == pytest.approx(expected.alignment)


def test_dead_channels_are_those_that_standardising_sets_to_zero() -> None:
    features = drawn(14)
    features[:, 0], features[:, 3] = 7.0, 0.0
    features[:, 5] = 1e4 + 1e-3 * features[:, 5]
    found = diagnostics(features, features)
    assert found.dead_channels == pytest.approx(3 / 6)
    (standard,) = standardised(features)
    assert found.dead_channels == pytest.approx(float((standard == 0).all(dim=0).float().mean()))


def test_the_order_of_images_does_not_matter() -> None:
    features, mirrored, order = drawn(15), drawn(16), torch.randperm(40, generator=torch.Generator().manual_seed(0))
    one, other = diagnostics(features, mirrored), diagnostics(features[order], mirrored[order])
    for name, value in one.model_dump().items():
        assert getattr(other, name) == pytest.approx(value, rel=1e-9)


def test_views_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        diagnostics(drawn(17), drawn(17, images=1))
