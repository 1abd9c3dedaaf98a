"""The loop: losses, precision, randomness, interruptions, and what it refuses."""

import dataclasses
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.config import MachineConfig
from bench.data import batches, packs
from bench.errors import BenchError, DataError, Interrupted, MachineError
from bench.experiment.pretraining import summary
from bench.storage import files
from bench.training import checkpoint, loop
from bench.training.loop import Stage, train
from bench.training.machine import Machine, make_machine
from tests.conftest import write_rows
from tests.standin import StandIn


class Images(batches.SplitData):
    """Images that need no pack."""

    def __getitem__(self, plan: batches.Plan) -> dict[str, Tensor]:
        return {"images": torch.ones(len(plan[1]), 3, 4, 4)}


class Deaf(SimpleNamespace):
    def __getattr__(self, name: str) -> object:
        return lambda *_: None


@pytest.fixture
def machine() -> Machine:
    return make_machine(MachineConfig(device="cpu", threads=1))


def stage(step: object, optimizers: dict[str, torch.optim.Optimizer], module: nn.Module) -> Stage:
    return Stage("stage", "key", module, optimizers, step, lambda batch, _: batch, 2, 1, 0)  # type: ignore[arg-type]


def split(count: int = 4) -> Images:
    return Images(None, np.arange(count))  # type: ignore[arg-type]


def test_a_loss_sees_the_weights_that_the_loss_before_left_in_low_precision_too(machine: Machine, tmp_path: Path) -> None:
    critic = nn.Linear(4, 1, bias=False)
    nn.init.ones_(critic.weight)
    seen = []

    def training_step(batch: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        with torch.autocast("cpu", torch.bfloat16):
            for _ in range(2):
                output = critic(torch.ones(1, 4))
                seen.append(output.item())
                yield "critic", output.sum()

    train(
        stage(training_step, {"critic": torch.optim.SGD(critic.parameters(), lr=0.5)}, critic), split(), machine, tmp_path, Deaf()
    )
    assert seen == [4.0, 2.0, 0.0, -2.0]


@pytest.mark.parametrize("fused", [True, False])
def test_an_update_is_right_whatever_the_strides_of_a_gradient(fused: bool, machine: Machine, tmp_path: Path) -> None:
    """A gradient whose numbers lie in another order than its parameter's makes CPU's fused Adam update the wrong numbers."""
    weight = nn.Parameter(torch.zeros(2, 3))
    slopes = torch.tensor([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]])

    def turned(parameter: Tensor) -> None:
        parameter.grad = slopes.t().contiguous().t()

    weight.register_post_accumulate_grad_hook(turned)
    network = nn.ParameterList([weight])

    def training_step(batch: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        yield "loss", weight.sum()

    adam = torch.optim.Adam(network.parameters(), lr=0.1, fused=fused)
    train(stage(training_step, {"loss": adam}, network), split(2), machine, tmp_path, Deaf())
    assert torch.allclose(weight.detach(), -0.1 * slopes)  # Adam's first step is the rate against each sign


def test_optimizers_may_be_left_out_and_strangers_get_none(machine: Machine, tmp_path: Path) -> None:
    module = nn.Linear(4, 1)
    optimizers = {name: torch.optim.SGD(module.parameters(), lr=0.1) for name in ("often", "never")}

    def some(batch: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        yield "often", module(torch.ones(1, 4)).square().sum()

    history = train(stage(some, optimizers, module), split(), machine, tmp_path / "a", Deaf())
    assert history.epochs[0]["never"] == 0 and history.images == 4

    def strange(batch: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        yield "stranger", module(torch.ones(1, 4)).sum()

    with pytest.raises(BenchError, match="'stranger', which is none of its optimizers"):
        train(stage(strange, optimizers, module), split(), machine, tmp_path / "b", Deaf())


def test_what_training_cost_before_an_interruption_counts(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "Meter", lambda _: SimpleNamespace(joules=lambda: 5.0))
    module = nn.Linear(4, 1)
    steps: list[int] = []

    def training_step(batch: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        steps.append(len(steps))
        if len(steps) == 1:
            time.sleep(0.5)
            machine.stop.signal_number = signal.SIGTERM
        yield "one", module(torch.ones(1, 4)).square().sum()

    made = stage(training_step, {"one": torch.optim.SGD(module.parameters(), lr=0.1)}, module)
    with pytest.raises(Interrupted):
        train(made, split(), machine, tmp_path, Deaf())
    machine.stop.signal_number = 0
    history = train(made, split(), machine, tmp_path, Deaf())
    assert (len(steps), history.images, history.joules) == (2, 4, 10.0) and 0.5 < history.seconds < 5


def checkpoints_made(
    machine: Machine, folder: Path, patch: pytest.MonkeyPatch, seconds: float, size: int = 0
) -> tuple[list[int], float]:
    """Return the steps of a stage of 1,000 steps of a second after which a checkpoint was made, and the share of time that the
    checkpoints took, `seconds` each; they have `size` bytes."""
    clock, made = [0.0], []
    module = nn.Linear(4, 1)

    def save(*arguments: Any) -> None:
        clock[0] += seconds
        made.append(arguments[3]["step"])

    def training_step(batch: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        clock[0] += 1
        yield "one", module(torch.ones(1, 4)).sum()

    patch.setattr(checkpoint, "save", save)
    patch.setattr(checkpoint, "bytes_of", lambda *_: size)
    patch.setattr(loop.time, "monotonic", lambda: clock[0])
    made_stage = stage(training_step, {"one": torch.optim.SGD(module.parameters(), lr=0.1)}, module)
    train(made_stage, split(2000), machine, folder, Deaf())
    return made, seconds * len(made) / clock[0]


def test_checkpoints_take_at_most_a_hundredth_of_the_time(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the paper's networks have 686 MB; every 30 s they once took 5 to 9 % of pretraining on a GPU."""
    made, share = checkpoints_made(machine, tmp_path, monkeypatch, 0.1)
    assert made[0] == 30 and len(made) == 33 and share < 0.01
    made, share = checkpoints_made(machine, tmp_path, monkeypatch, 2.0, size=686_000_000)
    assert made[0] > 200 and len(made) >= 2 and share <= 0.01
    made, _ = checkpoints_made(machine, tmp_path, monkeypatch, 2.0)
    assert made == [30, *range(230, 1001, 200)], "the first tells what they take"


def test_checkpoints_are_made_as_often_as_the_user_says(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = dataclasses.replace(machine, checkpoint_seconds=10.0)
    assert len(checkpoints_made(often, tmp_path, monkeypatch, 2.0)[0]) == 100


def test_every_step_of_a_gpu_is_logged_with_its_own_losses(gpu: StandIn, tmp_path: Path) -> None:
    """They are read 50 at a time; the last that was read was once written for each of the next 50 steps."""
    module = nn.Linear(1, 1, device="cuda")
    seen: list[tuple[int, float]] = []

    class Listening(Deaf):
        def losses(self, step: int, losses: dict[str, float]) -> None:
            seen.append((step, losses["one"]))

    def training_step(batch: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        yield "one", module.weight.sum() * 0 + len(steps)

    def make_batch(batch: dict[str, Tensor], _: torch.Generator) -> dict[str, Tensor]:
        steps.append(0)
        return batch

    steps: list[int] = []
    optimizers = {"one": torch.optim.SGD(module.parameters(), lr=0.1)}
    made = Stage("stage", "key", module, optimizers, training_step, make_batch, 2, 2, 0)  # type: ignore[arg-type]
    history = train(made, split(130), make_machine(MachineConfig(device="cuda")), tmp_path, Listening())
    assert seen == [(number, float(number)) for number in range(1, 131)]
    assert [epoch["one"] for epoch in history.epochs] == [33.0, 98.0], "the means of 1 to 65 and of 66 to 130"


def test_too_few_images_to_train_on_are_refused(machine: Machine, tmp_path: Path) -> None:
    module = nn.Linear(4, 1)
    with pytest.raises(DataError, match="has 1 images to train on; at least 2"):
        train(stage(lambda _: iter(()), {}, module), split(1), machine, tmp_path, Deaf())


@pytest.mark.parametrize("make", [lambda p: torch.optim.Adam(p, fused=True), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)])
def test_a_checkpoint_gives_back_network_and_optimizer_bit_for_bit(tmp_path: Path, make: object) -> None:
    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        return module, make(module.parameters())  # type: ignore[operator]

    def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        module(torch.arange(8.0).view(2, 4)).square().sum().backward()
        optimizer.step()

    module, optimizer = made()
    step(module, optimizer)
    checkpoint.save(tmp_path, module, {"a": optimizer}, {"step": 1})
    checkpoint.save(tmp_path, module, {"a": optimizer}, {"step": 2})
    assert len(list(tmp_path.iterdir())) == 1
    other, theirs = made()
    assert checkpoint.load(tmp_path, other, {"a": theirs}) == {"step": 2, "version": checkpoint.VERSION}
    for _ in range(3):
        step(module, optimizer)
        step(other, theirs)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in module.state_dict().items())


def test_a_damaged_checkpoint_and_another_networks_are_refused(tmp_path: Path) -> None:
    module = nn.Linear(4, 4)
    path = checkpoint.save(tmp_path, module, {}, {"step": 1})
    with pytest.raises(DataError, match="does not fit this network"):
        checkpoint.load(tmp_path, nn.Linear(4, 5), {})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        checkpoint.load(tmp_path, module, {})


@pytest.mark.parametrize(("said", "instead"), [(b"loss/0/step", b"loss/0/stop"), (b"loss/0/step", b"loss/x/step")])
def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path: Path, said: bytes, instead: bytes) -> None:
    module = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = checkpoint.save(tmp_path, module, {"loss": optimizer}, {"step": 1})
    content = path.read_bytes().replace(said, instead)
    path.unlink()
    (tmp_path / f"000000001-{files.sha256_bytes(content)}.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="does not fit these optimizers"):
        checkpoint.load(tmp_path, module, {"loss": torch.optim.Adam(module.parameters())})


def test_a_perfect_image_does_not_hide_the_average() -> None:
    assert summary(np.array([10.0, np.inf, 20.0])) == {"average": 15.0, "min": 10.0, "max": 20.0, "not_finite": 1.0}


def test_augmentation_is_keyed_by_seed_epoch_and_image(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    rows, digest = write_rows(tmp_path / "images.npy", np.stack([image, image]))
    manifest = packs.Manifest(
        dataset="d", fingerprint="f", subset="images", rule=packs.PackRule(size=16), side=16,
        ids=("a", "b"), content=((16, 16),) * 2, original=((16, 16),) * 2, sums={"images": digest},
    )  # fmt: skip
    pack = packs.Pack(tmp_path, manifest, rows, None, None)

    def look(seed: int, epoch: int, *positions: int) -> Tensor:
        part = batches.SplitData(pack, np.array([0, 1]), augmentation="crop", size=8, seed=seed)
        return part[epoch, np.array(positions)]["images"]

    assert torch.equal(look(0, 0, 0, 1)[1], look(0, 0, 1)[0])
    assert torch.equal(look(0, 0, 0), look(0, 0, 0))
    for other in (look(0, 1, 0), look(1, 0, 0), look(0, 0, 1)):
        assert not torch.equal(look(0, 0, 0), other)


def test_a_checkpoint_of_another_job_is_refused_with_what_differs(machine: Machine, tmp_path: Path) -> None:
    module = nn.Linear(4, 1)

    def training_step(batch: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        yield "one", module(torch.ones(1, 4)).square().sum()

    def made(identity: str) -> Stage:
        one = stage(training_step, {"one": torch.optim.SGD(module.parameters(), lr=0.1)}, module)
        one.facts = {"id": identity, "phase": 1}
        return one

    train(made("a"), split(), dataclasses.replace(machine, checkpoint_seconds=0.0), tmp_path, Deaf())
    with pytest.raises(DataError, match=r"checkpoint of another job \(different: id\)"):
        train(made("b"), split(), machine, tmp_path, Deaf())


def test_after_a_data_workers_death_the_ends_of_the_others_interrupt_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying:
        def __init__(self, *_: object, **__: object) -> None:
            signal.signal(signal.SIGCHLD, lambda *_: None)  # as torch does

        def __iter__(self) -> Iterator[object]:
            raise EOFError

    class Images:
        cached = False

        def __len__(self) -> int:
            return 4

    before = signal.getsignal(signal.SIGCHLD)
    monkeypatch.setattr(batches, "DataLoader", Dying)
    try:
        with pytest.raises(MachineError, match="a data worker died"):
            next(iter(batches.training(cast(Any, Images()), 2, 0, 1, 0, 1, torch.device("cpu"))))
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGCHLD, before)
