"""MoCo v2: its loss beside the paper's pseudo-code, its queue, its teacher, and what it learns."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from bench.contract import Pretext
from bench.models.modes import inference
from tests.pretexts.test_contract import make, seeded
from tests.pretexts.test_simclr import coloured

TRUNK = "unet:depth=5,width=8,preprocessing=rgb"


def task(name: str = "moco", **settings: Any) -> Pretext:
    changes = {"projector_width": 32, "projector_channels": 16, "queue": 24, "key_groups": 1, **settings}
    return make(name, TRUNK, **changes).train()


def test_the_loss_is_that_of_the_papers_pseudo_code() -> None:
    made = task()
    batch = made.make_batch(coloured(8), seeded())
    ((_, loss),) = [next(made.training_step(batch))]
    made.train()

    def embedded(trunk: Any, projector: nn.Module, views: Tensor) -> Tensor:
        return normalize(projector(trunk.encode(views)[-1].mean(dim=(2, 3))), dim=1)

    with torch.no_grad():
        queries = embedded(made.trunk, made.projector, batch["first"])
        keys = embedded(made.teacher.network, made.key_projector.network, batch["second"])
    total = 0.0
    for query, key in zip(queries, keys, strict=True):
        scores = torch.stack([query @ key, *(query @ old for old in made.queue)]) / 0.2
        total -= scores.softmax(dim=0)[0].log().item()
    assert loss.item() == pytest.approx(total / 8, rel=1e-4)


def finish(made: Pretext, count: int = 8, seed: int = 1) -> Tensor:
    """One step; what its keys were."""
    kept: list[Tensor] = []
    keys = made.keys
    made.keys = lambda views: kept.append(keys(views)) or kept[-1]  # type: ignore[method-assign, func-returns-value]
    optimizer = made.optimizers()["loss"]
    for _, loss in made.training_step(made.make_batch(coloured(count), torch.Generator().manual_seed(seed))):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    made.keys = keys  # type: ignore[method-assign]
    return kept[0]


def test_the_queue_holds_the_newest_keys_and_begins_anew_at_its_end() -> None:
    made = task()
    steps = [finish(made, count, seed) for seed, count in enumerate((8, 8, 6, 8))]
    everything = torch.cat(steps)
    assert int(made.written) == 30
    for number in range(30 - 24, 30):
        assert torch.equal(made.queue[number % 24], everything[number])


def test_the_queue_is_no_longer_than_a_quarter_of_the_data() -> None:
    made = task(queue=1000)
    made.prepare(iter([coloured(33)] * 4))
    assert made.length == 33
    before = made.queue.clone()
    for seed in range(6):
        finish(made, 8, seed)
    assert torch.equal(made.queue[33:], before[33:]), "what is behind the length is never written"
    assert not (made.queue[:33] == before[:33]).all(dim=1).any()
    other = task(queue=8)
    other.prepare(iter([coloured(20), coloured(20)]))
    assert other.length == 8


@pytest.mark.parametrize("count", [2, 4, 7, 21, 36, 50, 57])
def test_no_part_of_a_batch_has_one_image(count: int) -> None:
    made, seen = task(key_groups=8), []
    encode = made.teacher.encode
    made.teacher.encode = lambda part: seen.append(len(part)) or encode(part)  # type: ignore[method-assign, func-returns-value]
    keys = made.keys(torch.rand(count, 3, 32, 32))
    assert len(keys) == count == sum(seen) and min(seen) >= min(count, 4) and max(seen) - min(seen) <= 1


def test_the_teacher_follows_after_the_step_and_gets_no_gradient() -> None:
    made = task(momentum_of_keys=0.9, lr=0.1)
    before = {name: weight.clone() for name, weight in made.teacher.network.down.named_parameters()}
    finish(made)
    for name, weight in made.teacher.network.down.named_parameters():
        student = dict(made.trunk.down.named_parameters())[name]
        assert torch.allclose(weight, 0.9 * before[name] + 0.1 * student, atol=1e-6) and weight.grad is None
    assert any(not torch.equal(weight, before[name]) for name, weight in made.teacher.network.down.named_parameters())
    assert isinstance(made.teacher.network.up, nn.Identity), "the decoder is not copied"


def test_keys_keep_their_images_when_parts_are_shuffled() -> None:
    made = task(key_groups=2)
    views = made.make_batch(coloured(8), seeded())["second"]
    for part in made.modules():  # with running statistics a key depends on its own image alone
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    whole = task(key_groups=1)
    whole.load_state_dict(made.state_dict())
    whole.eval()
    assert torch.allclose(made.keys(views), whole.keys(views), atol=1e-5)


def test_statistics_are_those_of_shuffled_parts() -> None:
    made, whole = task(key_groups=2), task(key_groups=1)
    views = made.make_batch(coloured(16), seeded())["second"]
    assert not torch.allclose(made.keys(views), whole.keys(views), atol=1e-3)
    torch.manual_seed(4)
    first = made.keys(views)
    torch.manual_seed(5)
    assert not torch.allclose(first, made.keys(views), atol=1e-3), "another order has other statistics"


def test_it_finds_the_other_view_and_its_shuffled_twin_does_not() -> None:
    gentle = {
        "crop_scale": 0.6, "colour_strength": 0.2, "blur": 0.0, "queue": 64, "momentum_of_keys": 0.9, "optimizer": "adam",
        "lr": 2e-3, "lr_scaling": "none",
    }  # fmt: skip
    found = {}
    for name in ("moco", "moco:shuffled"):
        made, generator = task(name, **gentle), seeded()
        optimizer = made.optimizers()["loss"]
        for _ in range(160):
            for _, loss in made.training_step(made.make_batch(coloured(32), generator)):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with inference(made):
            found[name] = made.evaluate(coloured(32), seeded())["accuracy"].mean().item()
    assert found["moco"] > 0.5 and found["moco"] > found["moco:shuffled"] + 0.2, found


def test_a_network_that_answers_all_alike_is_said_to_have_collapsed() -> None:
    healthy = task()
    assert healthy.caveats({"spread": 0.5}) == []
    with torch.no_grad():
        healthy.projector[2].weight.zero_()
        healthy.projector[2].bias.fill_(1.0)
    with inference(healthy):
        scores = {name: values.mean().item() for name, values in healthy.evaluate(coloured(16), seeded()).items()}
    assert scores["spread"] == pytest.approx(0, abs=1e-6)
    (said,) = healthy.caveats(scores)
    assert said.startswith("it may have collapsed")
