"""Rotation: its turns against numpy's, its loss by hand, and what it says of a dead trunk and of shuffled targets."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from bench import registry
from bench.contract import Pretext, shuffled
from bench.models.trunk import make_trunk
from tests.pretexts.toys import certainty, seeded, trained

Rotation = registry.load("pretexts", "rotation")


def task(trunk: str = "unet:depth=3,width=8", cls: type[Pretext] = Rotation, **changes: object) -> Pretext:
    torch.manual_seed(0)
    return cls(cls.Recipe().with_changes(changes, "rotation"), make_trunk(trunk))


def images(count: int = 4, size: int = 16) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def skies(count: int, seed: int = 0) -> Tensor:
    """Noise that is brighter above than below."""
    light = torch.linspace(200, 50, 16)[:, None].expand(count, 3, 16, 16)
    noise = torch.rand((count, 3, 16, 16), generator=torch.Generator().manual_seed(seed)) * 60 - 30
    return (light + noise).clamp(0, 255).to(torch.uint8)


def taught(cls: type[Pretext]) -> Pretext:
    return trained(task(cls=cls, lr=3e-3, beta1=0.9, crop=0.8), skies, 60)


@pytest.mark.parametrize("trunk", ["unet:depth=3,width=8", "unet:depth=3,width=8,preprocessing=rgb"])
def test_a_batch_has_numpys_quarter_turns_of_every_image_in_a_drawn_order(trunk: str) -> None:
    pretext = task(trunk).eval()
    batch = pretext.make_batch(images(), seeded())
    inputs = pretext.trunk.preprocessing(images()).numpy()
    orders = batch["target"].tolist()
    expected = [np.rot90(picture, turn, axes=(1, 2)) for picture, order in zip(inputs, orders, strict=True) for turn in order]
    assert np.array_equal(batch["inputs"].numpy(), np.stack(expected))
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders) and len({tuple(order) for order in orders}) > 1


def test_the_loss_is_the_mean_negative_log_likelihood_of_all_turns() -> None:
    pretext = task().eval()
    batch = pretext.make_batch(images(), seeded())
    ((name, loss),) = pretext.training_step(batch)
    scores, turns = pretext.logits(batch).double().exp().detach().view(-1, 4).numpy(), batch["target"].flatten().tolist()
    by_hand = np.mean([-np.log(row[turn] / row.sum()) for row, turn in zip(scores, turns, strict=True)])
    assert name == "loss" and loss.item() == pytest.approx(by_hand, rel=1e-5)


def test_training_crops_and_mirrors_from_the_generator_and_answers_see_whole_images() -> None:
    pretext = task().train()
    first, again = (pretext.make_batch(images(), seeded())["inputs"] for _ in range(2))
    other = pretext.make_batch(images(), torch.Generator().manual_seed(5))["inputs"]
    assert torch.equal(first, again) and not torch.equal(first, other)
    plain = task(crop=1.0, flip=0.0).eval().make_batch(images(), seeded())["inputs"]
    assert torch.equal(pretext.eval().make_batch(images(), seeded())["inputs"], plain)


def test_it_trains_the_encoder_and_leaves_the_decoder() -> None:
    pretext = task().train()
    owned = {id(weight) for group in pretext.optimizers()["loss"].param_groups for weight in group["params"]}
    assert owned == {id(weight) for weight in (*pretext.trunk.down.parameters(), *pretext.head.parameters())}


def test_it_learns_where_the_sky_is_and_shuffled_targets_teach_nothing() -> None:
    assert certainty(taught(Rotation), skies(64, seed=99)) > 0.9
    assert certainty(taught(shuffled("rotation", Rotation)), skies(64, seed=99)) < 0.3


def test_a_dead_trunk_answers_at_chance_and_chance_is_its_baseline() -> None:
    pretext = task()
    for weight in pretext.trunk.down.parameters():
        weight.data.zero_()
    scores = pretext.evaluate(images(8), seeded())["accuracy"]
    assert scores.tolist() == [0.25] * 8
    assert pretext.baselines(images(8), images())["chance"]["accuracy"].tolist() == [0.25] * 8


def test_an_image_counts_as_the_share_of_its_turns_that_are_right() -> None:
    pretext = task()
    wrong = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]])
    pretext.logits = lambda batch: one_hot((batch["target"] + wrong) % 4, 4)  # type: ignore[method-assign,assignment]
    assert pretext.evaluate(images(3), seeded())["accuracy"].tolist() == [1.0, 0.25, 0.0]


def test_the_picture_shows_the_turned_image_and_right_answers_turn_it_back() -> None:
    pretext = task()
    pretext.logits = lambda batch: one_hot(batch["target"], 4)  # type: ignore[method-assign,assignment]
    rows = pretext.visualize(images(8), seeded())
    assert torch.equal(rows["learned"], rows["truth"]) and not torch.equal(rows["asked"], rows["truth"])
    pretext.logits = lambda batch: one_hot(torch.zeros(8, 4, dtype=torch.long), 4)  # type: ignore[method-assign,assignment]
    rows = pretext.visualize(images(8), seeded())
    assert torch.equal(rows["learned"], rows["asked"])


def test_the_papers_recipe_is_the_papers() -> None:
    recipe = Rotation.default_recipe("paper")
    assert (recipe.optimizer, recipe.momentum, recipe.weight_decay, recipe.lr) == ("sgd", 0.9, 5e-4, 0.01)
    assert (recipe.epochs, recipe.batch_size, recipe.lr_schedule) == (30, 192, "step")
    assert [share * recipe.epochs for share in recipe.lr_drops] == pytest.approx([10, 20])
