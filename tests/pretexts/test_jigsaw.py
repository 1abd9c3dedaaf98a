"""Jigsaw puzzles: permutations against brute force, tiles and puzzles against slow loops, and dead and shuffled ones."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

from bench import registry
from bench.contract import Pretext, shuffled
from bench.errors import UsageError
from bench.models.trunk import make_trunk
from pretexts._patches import SPREAD
from pretexts._permutations import digest, every_permutation, permutations
from tests.pretexts.toys import bowls, certainty, livelier, noise, seeded, trained

Jigsaw = registry.load("pretexts", "jigsaw")
COLOUR = "unet:depth=3,width=8,preprocessing=rgb"


def task(trunk: str = "unet:depth=3,width=8", cls: type[Pretext] = Jigsaw, **changes: object) -> Pretext:
    torch.manual_seed(0)
    pretext = cls(cls.Recipe().with_changes({"head_width": 64, **changes}, "jigsaw"), make_trunk(trunk))
    pretext.trunk.smallest = 8
    return livelier(pretext)


def taught(cls: type[Pretext]) -> Pretext:
    return trained(task(cls=cls, lr=3e-3, beta1=0.9, permutations=20, puzzles=8), bowls, 40)


def test_candidates_are_all_permutations_in_order() -> None:
    assert every_permutation(5).tolist() == [list(each) for each in itertools.permutations(range(5))]


def test_permutations_are_far_apart_by_brute_force() -> None:
    found = permutations(100).tolist()
    distances = [sum(a != b for a, b in zip(one, other, strict=True)) for one, other in itertools.combinations(found, 2)]
    assert all(sorted(each) == list(range(9)) for each in found)
    assert min(distances) == 6 and np.mean(distances) == pytest.approx(8.08)
    drawn = np.random.default_rng(0).permuted(np.tile(np.arange(9), (100, 1)), axis=1).tolist()
    at_random = [sum(a != b for a, b in zip(one, other, strict=True)) for one, other in itertools.combinations(drawn, 2)]
    assert min(at_random) < 6 and np.mean(at_random) == pytest.approx(8, abs=0.1)


def test_each_permutation_is_the_farthest_from_those_before() -> None:
    found, every = permutations(6), every_permutation(9)
    for count in range(1, 6):
        distances = np.stack([(every != before).sum(axis=1) for before in found[:count]])
        wanted = max(zip(distances.min(axis=0).tolist(), distances.sum(axis=0).tolist(), strict=True))
        mine = [sum(a != b for a, b in zip(found[count], before, strict=True)) for before in found[:count]]
        assert (min(mine), sum(mine)) == wanted


def test_permutations_are_the_same_everywhere_and_a_longer_list_begins_with_a_shorter() -> None:
    assert digest(permutations(100)) == Jigsaw.digest  # another digest needs another Jigsaw.version
    assert np.array_equal(permutations(101)[:100], permutations(100))
    assert not np.array_equal(permutations(5, seed=1), permutations(5))


def test_tiles_are_those_of_a_slow_loop_inside_their_cells() -> None:
    pretext = task()
    batch = pretext.make_batch(noise(40), seeded())
    lightness = pretext.trunk.preprocessing(noise(40)).numpy()
    moved = []
    for picture, tiles, corners in zip(lightness, batch["tiles"].numpy(), batch["corners"].tolist(), strict=True):
        for place, (tile, (top, left)) in enumerate(zip(tiles, corners, strict=True)):
            down, right = top - place // 3 * 16, left - place % 3 * 16
            assert 0 <= down <= 16 - 12 and 0 <= right <= 16 - 12
            moved.append((down, right))
            pixels = picture[:, top : top + 12, left : left + 12]
            assert np.allclose(tile, (pixels - pixels.mean()) / pixels.std() * SPREAD, atol=1e-5)
    assert len(set(moved)) == 25


def test_the_loss_joins_the_tiles_in_the_order_asked_about() -> None:
    pretext = task(puzzles=3, permutations=10).eval()
    batch = pretext.make_batch(noise(), seeded())
    ((name, loss),) = pretext.training_step(batch)
    losses = []
    for tiles, target in zip(batch["tiles"], batch["target"], strict=True):
        for answer in target.tolist():
            given = tiles[permutations(10)[answer].astype(int)]
            fed = functional.interpolate(given, size=(16, 16), mode="bilinear")
            joined = torch.cat([pretext.trunk.encode(tile[None])[-1].mean(dim=(2, 3)) for tile in fed], dim=1)
            scores = pretext.head(joined).double()[0]
            losses.append((scores.exp().sum().log() - scores[answer]).item())
    assert name == "loss" and loss.item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_images_too_small_for_nine_tiles_are_refused_with_numbers() -> None:
    recipe = Jigsaw.Recipe()
    assert Jigsaw.feeds(recipe, 96, 32) == {"tiles": 32} and Jigsaw.feeds(recipe, 224, 32) == {"tiles": 64}
    for asked in (lambda: Jigsaw.feeds(recipe, 20, 8), lambda: task().make_batch(noise(size=20), seeded())):
        with pytest.raises(UsageError, match="5 px from images of 20 px, and needs 6 px"):
            asked()


def test_it_learns_slopes_and_shuffled_targets_teach_nothing() -> None:
    assert certainty(taught(Jigsaw), bowls(64, seed=99)) > 0.6
    assert certainty(taught(shuffled("jigsaw", Jigsaw)), bowls(64, seed=99)) < 0.065


def test_a_dead_trunk_answers_at_chance() -> None:
    pretext = task(permutations=10, puzzles=40)
    for weight in pretext.trunk.down.parameters():
        weight.data.zero_()
    assert pretext.evaluate(noise(50), seeded())["accuracy"].mean().item() == pytest.approx(0.1, abs=0.03)
    assert pretext.baselines(noise(8), noise())["chance"]["accuracy"].tolist() == pytest.approx([0.1] * 8)


def test_colour_images_have_shifted_channels_and_grey_images_equal_ones() -> None:
    coloured, grey = (task(COLOUR, grey=share, shift=1 / 12).eval() for share in (0.0, 1.0))
    picture = noise(1)[:, :1].expand(6, 3, -1, -1).contiguous()
    tiles = coloured.make_batch(picture, seeded())["tiles"]
    same = (tiles[:, :, :1] - tiles).abs().amax(dim=(3, 4)) < 1e-5
    assert 0 < same[:, :, 1:].float().mean() < 0.5  # 1 of 9 shifts is the same, but for borders
    tiles = grey.make_batch(noise(6), seeded())["tiles"]
    assert torch.equal(tiles[:, :, 0], tiles[:, :, 1]) and torch.equal(tiles[:, :, 0], tiles[:, :, 2])


def test_the_picture_shows_the_puzzle_and_right_answers_solve_it() -> None:
    pretext = task()
    pretext.logits = lambda batch: functional.one_hot(batch["target"], 100)  # type: ignore[method-assign,assignment]
    rows = pretext.visualize(noise(8), seeded())
    assert torch.equal(rows["learned"], rows["truth"]) and not torch.equal(rows["asked"], rows["truth"])
    pretext.logits = lambda batch: functional.one_hot((batch["target"] + 1) % 100, 100)  # type: ignore[method-assign,assignment]
    wrong = pretext.visualize(noise(8), seeded())
    assert torch.equal(wrong["asked"], rows["asked"]) and not torch.equal(wrong["learned"], rows["truth"])


def test_the_papers_recipe_is_the_papers() -> None:
    recipe = Jigsaw.default_recipe("paper")
    assert (recipe.optimizer, recipe.momentum, recipe.weight_decay, recipe.lr) == ("sgd", 0.9, 5e-4, 0.01)
    assert (recipe.permutations, recipe.batch_size, recipe.puzzles, recipe.head_width) == (1000, 256, 1, 4096)
    assert Jigsaw.Recipe().permutations == 100
