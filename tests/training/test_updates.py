"""Updates of weights: optimizers, learning rates, clipping, parts of a batch, and teachers, alone and after a resume."""

import copy
import itertools
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR

from bench.config import MachineConfig
from bench.data import batches
from bench.errors import BenchError, Interrupted
from bench.models.teacher import Teacher
from bench.optimization import make_optimizer
from bench.protocol import Optimization, Recipe
from bench.training import updates
from bench.training.loop import Stage, take_step, train
from bench.training.machine import Machine, make_machine
from tests.training.test_loop import Deaf


@pytest.fixture
def machine() -> Machine:
    return make_machine(MachineConfig(device="cpu", threads=1))


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))


def rates(settings: Optimization, batch_size: int = 256, per_epoch: int = 10, epochs: int = 8) -> list[float]:
    return [updates.rate_of(settings, batch_size, step, per_epoch, epochs) for step in range(per_epoch * epochs)]


def by_torch(make: Any, steps: int = 80) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, found = make(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_rates_go_on_as_those_of_torchs_schedulers() -> None:
    cosine = rates(Optimization(lr_schedule="cosine"))
    assert cosine == pytest.approx(by_torch(lambda one: CosineAnnealingLR(one, 80))) and cosine[0] == 1 and 0 < cosine[-1] < 1e-3
    drops = rates(Optimization(lr_schedule="step", lr_drops=(0.25, 0.75), lr_drop_factor=0.2))
    assert drops == pytest.approx(by_torch(lambda one: MultiStepLR(one, [20, 60], 0.2)))

    def warm(one: torch.optim.Optimizer) -> SequentialLR:
        return SequentialLR(one, [LinearLR(one, 1 / 15, 1, 14), CosineAnnealingLR(one, 65)], [15])

    found = rates(Optimization(lr_schedule="cosine", warmup_epochs=1.5))
    assert found[:15] == pytest.approx([(step + 1) / 15 for step in range(15)])
    assert found == pytest.approx(by_torch(warm))
    assert rates(Optimization()) == [1.0] * 80


@pytest.mark.parametrize(("scaling", "factor"), [("none", 1.0), ("linear", 0.25), ("sqrt", 0.5)])
def test_rates_grow_with_the_batch_size_where_asked(scaling: Any, factor: float) -> None:
    assert rates(Optimization(lr_scaling=scaling), batch_size=64) == [factor] * 80


def test_drops_are_shares_in_ascending_order() -> None:
    for wrong in ((0.75, 0.5), (0.0, 0.5), (0.5, 1.0), (0.5, 0.5)):
        with pytest.raises(ValueError, match="shares between 0 and 1 in ascending order"):
            Optimization(lr_drops=wrong)


def lars_by_hand(weights: list[Tensor], slopes: list[list[Tensor]], adapted: list[bool], decay: float, lr: float) -> list[Tensor]:
    """You et al. 2017, algorithm 1, with decay and the local rate for the `adapted` alone; momentum is torch's."""
    moved = [torch.zeros_like(weight) for weight in weights]
    for step in slopes:
        for place, (weight, slope, is_adapted) in enumerate(zip(weights, step, adapted, strict=True)):
            change = slope
            if is_adapted:
                change = (slope + decay * weight) * 0.001 * weight.norm() / (slope.norm() + decay * weight.norm())
            moved[place] = 0.9 * moved[place] + change
            weights[place] = weight - lr * moved[place]
    return weights


@pytest.mark.parametrize("decay", [1e-2, 0.0])
def test_lars_adapts_the_rates_of_weights_but_not_of_biases_and_norms(decay: float) -> None:
    net = network()
    made = make_optimizer(Recipe(optimizer="lars", weight_decay=decay), 0.5, net)
    names = [name for name, _ in net.named_parameters()]
    adapted = [name in ("0.weight", "4.weight") for name in names]
    generator = torch.Generator().manual_seed(0)
    slopes = [[torch.randn(weight.shape, generator=generator) for weight in net.parameters()] for _ in range(4)]
    expected = lars_by_hand([weight.detach().clone() for weight in net.parameters()], slopes, adapted, decay, 0.5)
    for step in slopes:
        for weight, slope in zip(net.parameters(), step, strict=True):
            weight.grad = slope.clone()
        made.step()
    for weight, wanted in zip(net.parameters(), expected, strict=True):
        assert torch.allclose(weight, wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_optimizers_are_torchs_own_with_the_recipes_settings(name: Any) -> None:
    recipe = Recipe(optimizer=name, beta1=0.8, beta2=0.95, momentum=0.7, weight_decay=0.1)
    mine, theirs = network(), network()
    made = make_optimizer(recipe, 0.01, mine)
    heavy = [weight for weight in theirs.parameters() if weight.ndim > 1]
    groups = [{"params": heavy, "weight_decay": 0.1}, {"params": [w for w in theirs.parameters() if w.ndim == 1]}]
    if name == "sgd":
        other: torch.optim.Optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.7, weight_decay=0)
    else:
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
        other = kind(groups, lr=0.01, betas=(0.8, 0.95), weight_decay=0)
    for net, optimizer in ((mine, made), (theirs, other)):
        for _ in range(3):
            optimizer.zero_grad()
            net(images()["images"]).square().sum().backward()
            optimizer.step()
    for one, two in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-5)
    assert sum(len(group["params"]) for group in made.param_groups) == 6


def test_weights_may_get_their_first_gradients_in_different_steps() -> None:
    """As the last layer of DINO's head, which waits for an epoch; torch's fused SGD of its own fails in the second step."""
    mine, theirs = (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)) for _ in range(2))
    theirs.load_state_dict(mine.state_dict())
    other = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.7)
    for net, optimizer in ((mine, make_optimizer(Recipe(optimizer="sgd", momentum=0.7), 0.1, mine)), (theirs, other)):
        for late in (False, True, True):
            optimizer.zero_grad()
            inner = net[0](torch.ones(2, 3))
            (net[1](inner) if late else inner).square().mean().backward()
            optimizer.step()
    for one, two in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-7)


def test_weights_that_several_modules_share_are_updated_once() -> None:
    net = network()
    made = make_optimizer(Recipe(), 0.1, net, net[0], net[4])
    assert [len(group["params"]) for group in made.param_groups] == [6]


class Pairs(nn.Module):
    """A task with two losses, the second of which sees the update by the first."""

    def __init__(self) -> None:
        super().__init__()
        self.judge, self.painter = network(1), network(2)
        self.after = 0

    def training_step(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        made = self.painter(batch["images"])
        yield "judge", (self.judge(batch["images"]) - made.detach()).square().mean()
        yield "painter", (self.judge(batch["images"]).detach() * made).mean() + made.square().mean()
        self.after += 1


def stage_of(task: Pairs, **settings: Any) -> Stage:
    recipe = Recipe(optimizer="sgd", **settings)
    optimizers = {"judge": make_optimizer(recipe, 0.1, task.judge), "painter": make_optimizer(recipe, 0.1, task.painter)}
    return Stage("pairs", "key", task, optimizers, task.training_step, lambda batch, _: batch, 8, 1, 0, recipe)


def images(count: int = 8) -> dict[str, Tensor]:
    return {"images": torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(3))}


@pytest.mark.parametrize(("count", "images_of_batch"), [(4, 8), (3, 8), (8, 8), (4, 7)])
def test_a_batch_in_parts_updates_weights_as_the_whole_batch_does(count: int, images_of_batch: int, machine: Machine) -> None:
    whole, parted = Pairs(), Pairs()
    ways = ((whole, stage_of(whole)), (parted, stage_of(parted, accumulate=count)))
    losses = [[take_step(stage, machine, images(images_of_batch), step) for step in range(3)] for _, stage in ways]
    for one, two in zip(whole.parameters(), parted.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-5)
    for before, after in zip(*losses, strict=True):
        assert {name: float(loss) for name, loss in before.items()} == pytest.approx(
            {name: float(loss) for name, loss in after.items()}, rel=1e-4
        )
    assert whole.after == parted.after == 3, "what follows the last yield is done once a step"


def test_parts_have_at_least_two_images() -> None:
    parts, shares = updates.parts_of(images(7), 9)
    assert [len(part["images"]) for part in parts] == [3, 2, 2] and sum(shares) == pytest.approx(1)
    assert updates.parts_of({}, 4) == ([{}], [1.0])


def test_parts_whose_losses_are_of_different_optimizers_are_refused(machine: Machine) -> None:
    task, names = Pairs(), itertools.cycle(["judge", "painter"])

    def training_step(batch: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        yield next(names), task.judge(batch["images"]).sum()

    stage = stage_of(task, accumulate=2)
    stage.training_step = training_step
    with pytest.raises(BenchError, match="a loss for judge for one part of a batch, and for painter"):
        take_step(stage, machine, images(), 0)


def test_gradients_are_clipped_by_the_norm_of_all_of_an_optimizers(machine: Machine) -> None:
    free, clipped = Pairs(), Pairs()
    before = [weight.detach().clone() for weight in clipped.judge.parameters()]
    for task, settings in ((free, {}), (clipped, {"clip": 1e-3})):
        take_step(stage_of(task, **settings), machine, images(), 0)
    change = [one.detach() - two for one, two in zip(clipped.judge.parameters(), before, strict=True)]
    assert torch.cat([one.flatten() for one in change]).norm() == pytest.approx(0.1 * 1e-3, rel=1e-3)
    raw = [one.detach() - two for one, two in zip(free.judge.parameters(), before, strict=True)]
    scale = change[0].norm() / raw[0].norm()
    for one, two in zip(change, raw, strict=True):
        assert torch.allclose(one, two * scale, atol=1e-7)


@pytest.mark.parametrize("norm", [1e-3, 1.0, 1e3])
def test_clipped_gradients_are_those_of_torch(norm: float) -> None:
    one = network()
    one(images()["images"]).square().sum().backward()
    other, optimizer = copy.deepcopy(one), torch.optim.SGD([*one.parameters(), nn.Parameter(torch.ones(2))], lr=1.0)
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        theirs.grad = mine.grad.clone()
    updates.clip(optimizer, norm)
    torch.nn.utils.clip_grad_norm_(other.parameters(), norm)
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


class Distilled(nn.Module):
    """A task with a teacher and a queue of what the teacher said."""

    queue: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.student = network()
        self.teacher = Teacher(self.student)
        self.register_buffer("queue", torch.zeros(6, 5))

    def training_step(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        said = self.teacher(batch["images"])
        noisy = batch["images"] + torch.randn_like(batch["images"])
        yield "loss", (self.student(noisy) @ torch.cat([said, self.queue]).T).logsumexp(1).mean()
        self.teacher.follow(self.student, 0.9)
        self.queue.copy_(torch.cat([said, self.queue])[:6])


class Images(batches.SplitData):
    def __getitem__(self, plan: batches.Plan) -> dict[str, Tensor]:
        return {"images": torch.stack([images(12)["images"][place] for place in plan[1]])}


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_a_resumed_run_with_a_schedule_a_teacher_and_a_queue_is_equal_to_the_bit(
    name: Any, machine: Machine, tmp_path: Path
) -> None:
    recipe = Recipe(
        optimizer=name, weight_decay=0.05, lr_schedule="cosine", warmup_epochs=1, lr_scaling="linear", clip=1.0, accumulate=2
    )

    def trained(folder: Path, stop_at: int | None) -> dict[str, Tensor]:
        task, steps = Distilled(), itertools.count()

        def training_step(batch: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
            if next(steps) == stop_at:
                machine.stop.signal_number = signal.SIGTERM
            yield from task.training_step(batch)

        made = {"loss": make_optimizer(recipe, 0.1, task.student)}
        stage = Stage("s", "key", task, made, training_step, lambda batch, _: batch, 4, 3, 0, recipe)
        try:
            train(stage, Images(None, np.arange(12)), machine, folder, Deaf())  # type: ignore[arg-type]
        except Interrupted:
            machine.stop.signal_number = 0
            return trained(folder, None)
        return task.state_dict()

    whole, resumed = trained(tmp_path / "whole", None), trained(tmp_path / "resumed", 7)
    assert list(tmp_path.glob("resumed/*")) and not list(tmp_path.glob("whole/*"))
    for key, tensor in whole.items():
        assert torch.equal(tensor, resumed[key]), key
    assert not torch.equal(whole["teacher.network.0.weight"], whole["student.0.weight"])


def test_a_teacher_is_the_moving_average_of_its_student() -> None:
    student = network()
    teacher, expected = Teacher(student), [weight.detach().clone() for weight in student.parameters()]
    assert not any(weight.requires_grad for weight in teacher.parameters())
    for _ in range(3):
        with torch.no_grad():
            for weight in student.parameters():
                weight += 1
        teacher.follow(student, 0.75)
        expected = [0.75 * one + 0.25 * two.detach() for one, two in zip(expected, student.parameters(), strict=True)]
    for one, two in zip(teacher.network.parameters(), expected, strict=True):
        assert torch.allclose(one, two)
    frozen = copy.deepcopy(teacher)
    teacher.follow(student, 1.0)
    assert all(torch.equal(one, two) for one, two in zip(teacher.parameters(), frozen.parameters(), strict=True))
