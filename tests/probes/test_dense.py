import numpy as np
import torch
from torch import Tensor

from bench.metrics import PADDING, VOID
from bench.models.probed import at_pixels
from bench.probe import make
from bench.probes.dense import Places, dense_knn, dense_linear, sample, shares_of


def test_shares_are_those_of_a_loop_over_pixels() -> None:
    masks = torch.randint(0, 3, (2, 10, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    masks[0, :3, :3], masks[1, 5:, :2] = VOID, PADDING
    for void_is_background in (False, True):
        found = shares_of(masks, 4, 2, void_is_background)
        assert found.shape == (2, 3, 3, 3)
        slow = torch.zeros(2, 3, 3, 3)
        for image in range(2):
            for row in range(10):
                for column in range(10):
                    value = int(masks[image, row, column])
                    value = 0 if void_is_background and value == VOID else value
                    if value <= 2:
                        slow[image, row // 4, column // 4, value] += 1 / 16
        torch.testing.assert_close(found, slow)


def test_a_sample_has_no_void_places_while_others_are_left() -> None:
    shares = torch.zeros(3, 4, 4, 2)
    shares[:, :2, :, 1] = 1.0  # 8 places an image
    features = torch.arange(3 * 5 * 16).view(3, 5, 4, 4).float()
    found = sample(features, shares, 8, 0, 0)
    assert found.features.shape == (24, 5) and bool((found.shares.sum(dim=1) == 1).all())


def test_a_sample_pairs_each_place_with_its_own_shares() -> None:
    shares = torch.rand(2, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    found = sample(shares.permute(0, 3, 1, 2).contiguous(), shares, 5, 0, 0)
    torch.testing.assert_close(found.features, found.shares)


def test_the_draw_of_an_image_depends_on_its_number_alone() -> None:
    features, shares = torch.randn(4, 3, 4, 4), torch.rand(4, 4, 4, 2)
    whole = sample(features, shares, 3, 7, 0)
    parts = [sample(features[two : two + 2], shares[two : two + 2], 3, 7, two) for two in (0, 2)]
    torch.testing.assert_close(whole.features, torch.cat([part.features for part in parts]))


def planted(count: int = 400, seed: int = 0) -> tuple[Places, Tensor]:
    """Return places whose class shows in their features, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 3, (count,), generator=generator)
    features = torch.randn(count, 6, generator=generator) + 4 * torch.nn.functional.one_hot(truth, 6)
    return Places(features, torch.nn.functional.one_hot(truth, 3).float()), truth


def test_a_layer_finds_planted_classes_at_their_places() -> None:
    places, _ = planted()
    queries, truth = planted(seed=1)
    choices, fitted = dense_linear(make("dense-linear", {}), places)
    scores = fitted(queries.features.view(4, 10, 10, 6).permute(0, 3, 1, 2))
    assert scores.shape == (len(choices), 4, 3, 10, 10)
    assert (scores[0].argmax(dim=1).flatten() == truth).float().mean() > 0.97


def test_neighbours_vote_as_in_a_loop() -> None:
    places, _ = planted(60)
    queries, _ = planted(8, seed=1)
    probe = make("dense-knn", {"k": [3, 500]})
    choices, fitted = dense_knn(probe, places)
    found = fitted(queries.features.view(1, 2, 4, 6).permute(0, 3, 1, 2))[:, 0].permute(0, 2, 3, 1).reshape(2, 8, 3).numpy()
    memory = places.features.double().numpy()
    mean, deviation = memory.mean(axis=0), memory.std(axis=0)
    memory = (memory - mean) / deviation
    for row, query in enumerate((queries.features.double().numpy() - mean) / deviation):
        cosine = memory @ query / np.linalg.norm(memory, axis=1) / np.linalg.norm(query)
        for number, k in enumerate((3, 60)):
            order = np.argsort(-cosine)[:k]
            weights = np.exp((cosine[order] - cosine[order[0]]) / 0.07)
            np.testing.assert_allclose(found[number, row], weights @ places.shares.numpy()[order], rtol=1e-3, atol=1e-5)
    assert [choice["k"] for choice in choices] == [3, 500]


def test_shuffled_features_say_nothing_of_the_place() -> None:
    places, _ = planted(600)
    queries, truth = planted(300, seed=1)
    right = []
    for seed in range(8):
        order = torch.randperm(600, generator=torch.Generator().manual_seed(seed))
        _, fitted = dense_linear(make("dense-linear", {"penalties": [1]}), Places(places.features[order], places.shares))
        found = fitted(queries.features.view(3, 10, 10, 6).permute(0, 3, 1, 2))[0].argmax(dim=1).flatten()
        right.append((found == truth).float().mean())
    assert torch.stack(right).mean() < 0.45  # a third by chance


def test_logits_are_enlarged_to_the_image_and_cut_at_its_border() -> None:
    logits = torch.zeros(1, 2, 3, 3)
    logits[0, 1, 0, 0] = 1.0
    whole = at_pixels(logits, 10)
    assert whole.shape == (1, 2, 10, 10) and float(whole[0, 1, 1, 1]) > 0.9 and float(whole[0, 1, 9, 9]) == 0.0
