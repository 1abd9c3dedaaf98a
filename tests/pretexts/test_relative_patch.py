"""Relative patches: their places and pixels against slow loops, colours against Doersch et al. 2015, and the shortcut audit."""

from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bench import registry
from bench.contract import Pretext, shuffled
from bench.errors import UsageError
from bench.models.trunk import make_trunk
from pretexts._grid import draw_pairs
from pretexts._patches import SPREAD, cut, enlarged, fed_side, hide_colours, paste, place_known, standardised
from tests.pretexts.toys import bowls, certainty, livelier, noise, seeded, trained

RelativePatch = registry.load("pretexts", "relative_patch")
PLACES = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
"""Rows and columns away from the middle, in the order of the answers: 1 2 3 / 4 . 5 / 6 7 8 in the paper's figure 2."""


def task(trunk: str = "unet:depth=3,width=8", cls: type[Pretext] = RelativePatch, **changes: object) -> Pretext:
    torch.manual_seed(0)
    pretext = cls(cls.Recipe().with_changes({"head_width": 64, **changes}, "relative_patch"), make_trunk(trunk))
    pretext.trunk.smallest = 8
    return pretext


def fringed(count: int, seed: int, size: int = 64) -> Tensor:
    """White noise whose green is moved outwards by up to two pixels: lateral chromatic aberration."""
    grey = torch.rand((count, 1, size, size), generator=torch.Generator().manual_seed(seed))
    line = torch.linspace(-1, 1, size)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1) * (1 - 4 / size)
    green = functional.grid_sample(grey, grid.expand(count, -1, -1, -1), align_corners=True)
    return (torch.cat([grey, green, grey], dim=1) * 255).to(torch.uint8)


def taught(cls: type[Pretext], steps: int = 30) -> Pretext:
    return trained(livelier(task(cls=cls, lr=3e-3, beta1=0.9)), bowls, steps)


def by_hand(patch: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([(channel - channel.mean()) / channel.std() * SPREAD for channel in patch])


def test_patches_are_those_of_a_slow_loop() -> None:
    pretext = task()
    batch = pretext.make_batch(noise(), seeded())
    lightness = pretext.trunk.preprocessing(noise()).numpy()
    for picture, patches, corners in zip(lightness, batch["patches"].numpy(), batch["corners"].tolist(), strict=True):
        for patch, (top, left) in zip(patches, corners, strict=True):
            assert np.allclose(patch, by_hand(picture[:, top : top + 10, left : left + 10]), atol=1e-5)


@pytest.mark.parametrize("size", [32, 48, 64, 96, 224])
def test_patches_have_the_papers_gaps_and_jitter_and_stay_inside_the_image(size: int) -> None:
    pretext = task()
    patch = int(0.22 * size)
    gap, jitter = round(patch * 48 / 96), max(1, round(patch * 7 / 96))
    corners = pretext.corners(noise(300, size=size), seeded()).view(300, 3, 3, 2)
    assert corners.min() >= 0 and corners.max() + patch <= size
    for down in range(3):
        for right in range(3):
            away = corners[:, down, right] - corners[:, 1, 1] - torch.tensor([down - 1, right - 1]) * (patch + gap)
            assert away.abs().max() <= 2 * jitter
    beside = corners[:, :, 1:, 1] - corners[:, :, :-1, 1] - patch
    assert beside.min() == gap - 2 * jitter and beside.max() == gap + 2 * jitter


@pytest.mark.parametrize("each", [1, 3, 4])
def test_targets_say_where_the_second_of_each_pair_lies(each: int) -> None:
    batch = task(pairs=each).make_batch(noise(20), seeded())
    assert len({tuple(row) for row in batch["target"].tolist()}) == 20
    for corners, pairs, answers in zip(*(batch[name].tolist() for name in ("corners", "pairs", "target")), strict=True):
        assert sorted(answers) == sorted(list(range(8)) * each)
        assert len({tuple(pair) for pair in pairs}) == 8 * each
        for (first, second), answer in zip(pairs, answers, strict=True):
            away = ((to - start) / 15 for start, to in zip(corners[first], corners[second], strict=True))
            assert tuple(round(each) for each in away) == PLACES[answer]


def test_each_pair_of_a_place_is_drawn_as_often() -> None:
    pairs, places = draw_pairs(6000, 1, seeded())
    for place, (down, right) in enumerate(PLACES):
        of_place = Counter(map(tuple, pairs[places == place].tolist()))
        assert len(of_place) == (3 - abs(down)) * (3 - abs(right))
        assert max(abs(count * len(of_place) / 6000 - 1) for count in of_place.values()) < 0.15


def test_the_loss_joins_the_patches_of_each_pair_through_one_encoder() -> None:
    pretext = task(pairs=1).eval()
    batch = pretext.make_batch(noise(), seeded())
    ((name, loss),) = pretext.training_step(batch)
    losses = []
    for patches, pairs, target in zip(batch["patches"], batch["pairs"].tolist(), batch["target"], strict=True):
        fed = functional.interpolate(patches, size=(16, 16), mode="bilinear")
        features = [pretext.trunk.encode(each[None])[-1].mean(dim=(2, 3)) for each in fed]
        for (first, second), answer in zip(pairs, target, strict=True):
            scores = pretext.head(torch.cat([features[first], features[second]], dim=1)).double()[0]
            losses.append((scores.exp().sum().log() - scores[answer]).item())
    assert name == "loss" and loss.item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_patches_are_fed_at_multiples_of_what_the_trunk_takes() -> None:
    assert RelativePatch.feeds(RelativePatch.Recipe(), 96, 32) == {"patches": 32}
    assert RelativePatch.feeds(RelativePatch.Recipe(), 224, 32) == {"patches": 64}
    assert RelativePatch.feeds(RelativePatch.Recipe(), 64, 64) == {"patches": 64}
    assert (fed_side(21, 0), fed_side(32, 32), fed_side(33, 32)) == (21, 32, 64)


@pytest.mark.parametrize(
    ("size", "changes", "numbers"), [(24, {}, ("5 px", "24 px", "6 px")), (48, {"gap": 2.0}, ("72 px", "10 px", "48 px"))]
)
def test_images_too_small_for_the_grid_are_refused_with_numbers(
    size: int, changes: dict[str, float], numbers: tuple[str, ...]
) -> None:
    recipe = RelativePatch.Recipe().with_changes(changes, "relative_patch")
    for asked in (lambda: RelativePatch.feeds(recipe, size, 8), lambda: task(**changes).make_batch(noise(size=size), seeded())):
        with pytest.raises(UsageError) as found:
            asked()
        assert all(number in str(found.value) for number in numbers)


def test_it_learns_slopes_and_shuffled_targets_teach_nothing() -> None:
    assert certainty(taught(RelativePatch), bowls(64, seed=99)) > 0.5
    assert certainty(taught(shuffled("relative_patch", RelativePatch)), bowls(64, seed=99)) < 0.155


def test_a_dead_trunk_answers_at_chance() -> None:
    pretext = task()
    for weight in pretext.trunk.down.parameters():
        weight.data.zero_()
    assert pretext.evaluate(noise(8), seeded())["accuracy"].tolist() == [0.125] * 8
    assert pretext.baselines(noise(8), noise())["chance"]["accuracy"].tolist() == [0.125] * 8
    assert pretext.audit(noise(8), seeded()) == pytest.approx(1 / 9)


def test_dropped_colours_leave_one_channel_and_noise_of_a_hundredth() -> None:
    patches = torch.rand((50, 9, 3, 12, 12), generator=seeded())
    hidden = hide_colours(patches, "drop", seeded())
    kept = hidden.std(dim=(3, 4)) > SPREAD / 2
    assert (kept.sum(dim=2) == 1).all()
    assert kept.float().mean(dim=(0, 1)).tolist() == pytest.approx([1 / 3] * 3, abs=0.08)
    assert hidden[~kept].std().item() == pytest.approx(SPREAD / 100, rel=0.02)
    assert torch.allclose(hidden[kept], standardised(patches)[kept])


def test_projected_colours_are_the_papers_matrix_times_the_colours() -> None:
    axis = np.array([[-1.0, 2.0, -1.0]])
    matrix = np.eye(3) - axis.T @ axis / (axis @ axis.T)
    patches = torch.rand((2, 9, 3, 8, 8), generator=seeded())
    expected = standardised(torch.from_numpy(np.einsum("dc,npchw->npdhw", matrix, patches.double().numpy())))
    assert torch.allclose(hide_colours(patches, "project", seeded()).double(), expected, atol=1e-4)


def test_a_trunk_of_lightness_has_no_colours_to_hide() -> None:
    patches = torch.rand((2, 9, 1, 8, 8), generator=seeded())
    assert all(torch.equal(hide_colours(patches, how, seeded()), standardised(patches)) for how in ("drop", "project", "keep"))


def test_the_audit_finds_chromatic_aberration_and_hidden_colours_hide_it() -> None:
    known = {}
    for how in ("keep", "drop", "project"):
        known[how] = livelier(task("unet:depth=3,width=32,preprocessing=rgb", colours=how)).audit(fringed(400, seed=3), seeded())
    assert known["keep"] > 0.2
    assert known["drop"] < 0.15  # a guess has 1 / 9
    assert (
        known["drop"] < known["project"] < known["keep"]
    )  # the sum of shifted channels shows along which line, not to which end


def test_the_probe_knows_places_that_features_tell_and_no_others() -> None:
    noise = torch.randn((100, 9, 12), generator=seeded())
    assert place_known(noise).item() == pytest.approx(1 / 9, abs=0.05)
    assert place_known(noise + 9 * functional.pad(torch.eye(9), (0, 3))).item() > 0.99


def test_pasted_patches_are_where_they_were_cut() -> None:
    pretext = task()
    corners = pretext.corners(noise(), seeded())
    patches = cut(noise(), corners, 10)
    assert torch.equal(paste(noise(), patches, corners), noise())
    blank = paste(torch.zeros_like(noise()), patches, corners)
    assert torch.equal(cut(blank, corners, 10), patches)
    assert int((blank != 0).any(dim=1).sum()) <= 4 * 9 * 100


def test_enlarged_patches_are_torchs_one_by_one() -> None:
    patches = torch.rand((2, 3, 1, 7, 7), generator=seeded())
    expected = [functional.interpolate(patch[None], size=(32, 32), mode="bilinear") for patch in patches.flatten(end_dim=1)]
    assert torch.allclose(enlarged(patches, 32), torch.cat(expected))
    assert torch.equal(enlarged(patches, 7), patches.flatten(end_dim=1))


def test_a_flat_patch_stays_flat() -> None:
    assert standardised(torch.full((1, 1, 1, 8, 8), 0.7)).abs().max() < 1e-4


def test_the_picture_puts_the_second_patch_where_the_answer_says() -> None:
    pretext = task(jitter=0.0)
    pretext.logits = lambda batch: functional.one_hot(batch["target"], 8)  # type: ignore[method-assign,assignment]
    rows = pretext.visualize(noise(8), seeded())
    assert torch.equal(rows["learned"], rows["truth"])
    pretext.logits = lambda batch: functional.one_hot((batch["target"] + 1) % 8, 8)  # type: ignore[method-assign,assignment]
    wrong = pretext.visualize(noise(8), seeded())
    assert torch.equal(wrong["truth"], rows["truth"]) and all(
        not torch.equal(said, true) for said, true in zip(wrong["learned"], wrong["truth"], strict=True)
    )
