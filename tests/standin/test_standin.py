"""The stand-in is itself tested: each fault that it is there to find is planted, and what a GPU allows it allows."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench import colour, registry
from bench.config import MachineConfig
from bench.contract import Batch, Pretext
from bench.experiment.pretraining import pretraining_stage
from bench.job import PretrainJob
from bench.models.trunk import make_trunk
from bench.training import checkpoint
from bench.training.loop import take_step
from bench.training.machine import make_machine
from tests.docs.test_docs import plugin
from tests.gpu.steps import Waited, without_waits
from tests.pretexts.test_contract import images
from tests.standin import OnGpu, StandIn, standing_in

pytestmark = pytest.mark.gpu

GPU = "cuda"
MEETING, FILLING = "Expected all tensors to be on the same device", "device type for generator"


@pytest.fixture(autouse=True)
def standing(request: pytest.FixtureRequest) -> None:
    """Give every test one GPU that is not there, unless it asks for two."""
    if "two_gpus" not in request.fixturenames:
        request.getfixturevalue("gpu")


def there(*shape: int) -> Tensor:
    return torch.ones(*shape, device=GPU)


STRANGERS: dict[str, Callable[[], object]] = {
    "a sum": lambda: there(3) + torch.ones(3),
    "a product of matrices": lambda: there(3, 3) @ torch.ones(3, 3),
    "a comparison": lambda: there(3) == torch.ones(3),
    "a joined list": lambda: torch.cat([there(3), torch.ones(3)]),
    "a stacked list of single numbers": lambda: torch.stack([torch.zeros((), device=GPU), torch.zeros(())]),
    "a view": lambda: there(2, 3)[:, 1:].sub_(torch.ones(2, 2)),
    "a view that is written": lambda: torch.sub(there(3), there(3), out=torch.empty(2, 3)[0]),
    "the target of a loss": lambda: functional.cross_entropy(there(2, 3), torch.zeros(2, dtype=torch.long)),
    "the weights of a layer": lambda: nn.Linear(3, 2)(there(1, 3)),
    "a buffer that is no buffer": lambda: nn.BatchNorm1d(3).to(GPU)(torch.ones(2, 3)),
    "a table that is left behind": lambda: torch.linspace(0, 1, 256).index_select(0, torch.zeros(3, dtype=torch.int, device=GPU)),
    "an index of a tensor that stayed": lambda: torch.ones(3)[torch.zeros(1, dtype=torch.long, device=GPU)],
}


@pytest.mark.parametrize("fault", STRANGERS)
def test_a_tensor_on_the_processor_that_meets_one_on_the_gpu_is_refused(fault: str) -> None:
    with pytest.raises(RuntimeError, match=f"{MEETING}|indices should be either on cpu or on the same device"):
        STRANGERS[fault]()


def test_tensors_of_two_gpus_do_not_meet(two_gpus: StandIn) -> None:
    with pytest.raises(RuntimeError, match=f"{MEETING}.*cuda:0 and cuda:1"):
        there(3) + torch.ones(3, device="cuda:1")
    assert torch.ones(3, device="cuda:1").to("cuda:0").device.index == 0
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.ones(3, device="cuda:2")


FILLINGS: dict[str, Callable[[str], object]] = {
    "random numbers": lambda of: torch.randint(4, (3,), generator=torch.Generator(of), device=GPU),
    "a tensor filled in place": lambda of: there(3).uniform_(generator=torch.Generator(of)),
    "a permutation": lambda of: torch.randperm(3, generator=torch.Generator(of), device=GPU),
}


@pytest.mark.parametrize("fault", FILLINGS)
def test_a_generator_of_another_device_is_refused(fault: str) -> None:
    with pytest.raises(RuntimeError, match=f"Expected a 'cuda' {FILLING} but found 'cpu'"):
        FILLINGS[fault]("cpu")
    FILLINGS[fault](GPU)


def test_a_gpus_generator_fills_nothing_on_the_processor() -> None:
    with pytest.raises(RuntimeError, match=f"Expected a 'cpu' {FILLING} but found 'cuda'"):
        torch.rand(3, generator=torch.Generator(GPU))


WAITS: dict[str, Callable[[], object]] = {
    "a number": lambda: there(1).item(),
    "a list": lambda: there(3).tolist(),
    "a condition": lambda: bool(there(1) > 0),
    "a float": lambda: float(there(1)),
    "a text": lambda: f"{there(1)[0]:.3f}",
    "a copy to the processor": lambda: there(3).cpu(),
    "a blocking copy from the processor": lambda: torch.ones(3).to(GPU),
    "a network moved": lambda: nn.Linear(2, 2).to(GPU),
    "numbers of the processor": lambda: torch.tensor([1.0, 2.0], device=GPU),
    "an array": lambda: torch.as_tensor(np.ones(3), device=GPU),
    "a mask as an index": lambda: there(3)[there(3) > 0],
    "an index on the processor": lambda: there(3)[torch.arange(2)],
    "a single number as an index": lambda: there(3)[torch.zeros((), dtype=torch.long, device=GPU)],
    "places": lambda: there(3).nonzero(),
    "counts": lambda: torch.bincount(torch.zeros(3, dtype=torch.long, device=GPU)),
    "values that occur": lambda: there(3).unique(),
    "equality": lambda: torch.equal(there(3), there(3)),
    "one-hot": lambda: functional.one_hot(torch.zeros(3, dtype=torch.long, device=GPU)),
}


@pytest.mark.parametrize("fault", WAITS)
def test_a_wait_is_listed_and_raises_where_it_is_forbidden(fault: str, gpu: StandIn) -> None:
    WAITS[fault]()
    assert gpu.waits
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="called a synchronizing CUDA operation"):
        WAITS[fault]()
    torch.cuda.set_sync_debug_mode("warn")
    with pytest.warns(UserWarning, match="called a synchronizing CUDA operation"):
        WAITS[fault]()


def test_what_a_gpu_does_without_waiting_is_allowed(gpu: StandIn) -> None:
    torch.cuda.set_sync_debug_mode("error")
    index = torch.arange(3, device=GPU)
    there(3)[index][1:][None, :, None].expand(2, -1, 4)
    copied = torch.ones(3).to(GPU, non_blocking=True)
    assert (copied + torch.ones(())).device.type == "cuda"  # a single number of the processor's
    there(3).masked_fill_(there(3) > 0, 2.0)[0] = 5.0
    there(3)[there(3) > 0] = 1.0
    torch.full((3,), 2.0, device=GPU), torch.where(there(3) > 0, there(3), 0.0), there(3).to(torch.float64)
    kept = torch.empty(3)
    kept.copy_(there(3), non_blocking=True)
    assert not isinstance(kept, OnGpu) and not gpu.waits


def test_what_is_on_the_gpu_is_no_array(gpu: StandIn) -> None:
    for asked in (there(3).numpy, lambda: np.asarray(there(3))):
        with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            asked()
    assert there(3).cpu().numpy().sum() == 3


def test_a_copy_shares_no_memory_with_its_original(gpu: StandIn) -> None:
    numbers = np.ones(3)
    for copied in (torch.from_numpy(numbers).to(GPU), torch.as_tensor(numbers, device=GPU)):
        copied.zero_()
    assert numbers.sum() == 3
    original = there(3)
    original.cpu().zero_()
    assert float(original.sum()) == 3 and original.to(GPU) is original


def test_gradients_optimizers_and_copies_stay_on_the_gpu(gpu: StandIn) -> None:
    layer = nn.Linear(2, 2, device=GPU)
    twin = copy.deepcopy(layer)
    adam = torch.optim.Adam(layer.parameters(), fused=True)
    layer(there(1, 2)).sum().backward()
    adam.step()
    found = [*layer.parameters(), *twin.parameters(), layer.weight.grad, *adam.state[layer.weight].values()]
    assert all(isinstance(one, OnGpu) for one in found)
    assert isinstance(twin.weight, nn.Parameter) and not torch.equal(twin.weight, layer.weight)
    assert layer.state_dict()["weight"].device == torch.device("cuda", 0)


def test_moments_that_lie_otherwise_than_their_parameters_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a checkpoint gave them back once: a file keeps no strides, and a network on a GPU is channels-last."""

    def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
        layer = nn.Conv2d(3, 4, 3).to(GPU).to(memory_format=torch.channels_last)
        adam = torch.optim.Adam(layer.parameters(), fused=True)
        layer(there(1, 3, 8, 8)).sum().backward()
        return layer, adam

    layer, adam = trained()
    adam.step()
    checkpoint.save(tmp_path, layer, {"loss": adam}, {"step": 1})
    layer, adam = trained()
    checkpoint.load(tmp_path, layer, {"loss": adam})
    adam.step()
    monkeypatch.setattr(checkpoint, "_lay_out", lambda optimizer: None)
    layer, adam = trained()
    checkpoint.load(tmp_path, layer, {"loss": adam})
    with pytest.raises(RuntimeError, match="must have same dtype, device, and layout"):
        adam.step()


def test_a_data_worker_that_touches_the_gpu_is_refused(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: gpu.process + 1)
    with pytest.raises(RuntimeError, match="Cannot re-initialize CUDA in forked subprocess"):
        there(3)


def test_the_stand_in_leaves_nothing_behind(gpu: StandIn) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark, torch.cuda.is_available
    gpu.__exit__(None, None, None)  # the fixture's, so that no two stand-ins are there at once
    try:
        with pytest.MonkeyPatch.context() as patch, standing_in(patch):
            make_machine(MachineConfig(device=GPU))
            colour.lightness_of(torch.zeros(1, 3, 4, 4, dtype=torch.uint8, device=GPU))
        assert before == (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark, torch.cuda.is_available)
        assert not torch.ones(3).is_cuda and not colour._table.cache_info().currsize
    finally:
        gpu.__enter__()


class Faulty(Pretext):
    """A pretext task without a fault; each subclass has one."""

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"loss": torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)}

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        return {"inputs": self.trunk.preprocessing(images)}

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        yield "loss", self.trunk(batch["inputs"]).abs().mean()


class WaitingLoss(Faulty):
    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        loss = self.trunk(batch["inputs"]).abs().mean()
        if loss > 1e9:
            loss = loss * 0
        yield "loss", loss


class CpuNoise(Faulty):
    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        inputs = self.trunk.preprocessing(images)
        return {"inputs": inputs + torch.rand(inputs.shape)}


class CpuGenerator(Faulty):
    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        inputs = self.trunk.preprocessing(images)
        return {"inputs": inputs + torch.rand(inputs.shape, device=inputs.device, generator=torch.Generator())}


class GeneratorWithoutDevice(Faulty):
    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        inputs = self.trunk.preprocessing(images)
        return {"inputs": inputs + torch.rand(inputs.shape, generator=generator)}


def steps(pretext_class: type[Pretext]) -> None:
    """Make three steps of a pretext task on the stand-in, without waits from the second on."""
    job = PretrainJob(
        pretext="faulty", version=1, recipe={}, trunk="unet:depth=5,width=8", size=32,
        data_fingerprint="none", splits_fingerprint="none", seed=0,
    )  # fmt: skip
    made = make_machine(MachineConfig(device=GPU))
    pretext = made.place(pretext_class(pretext_class.Recipe(), make_trunk(job.trunk))).train()
    stage = pretraining_stage(job, pretext)
    step = without_waits(take_step)
    for number in range(3):
        step(stage, made, {"images": images().to(made.device, non_blocking=True)}, number)


FAULTS = {
    WaitingLoss: (Waited, "synchronizing CUDA operation"),
    CpuNoise: (RuntimeError, MEETING),
    CpuGenerator: (RuntimeError, FILLING),
    GeneratorWithoutDevice: (RuntimeError, FILLING),
}


@pytest.mark.parametrize("task", FAULTS, ids=lambda task: task.__name__)
def test_a_fault_in_a_pretext_task_is_found(task: type[Pretext]) -> None:
    steps(Faulty)
    error, said = FAULTS[task]
    with pytest.raises(error, match=said):
        steps(task)


def test_readmes_plug_in_does_not_wait_and_would_with_a_choice_by_truth_values(tmp_path: Path) -> None:
    text = plugin("README.md", "UpsideDown")
    chosen = text.replace("turned.flatten()}", "turned.flatten()[turned.flatten() >= 0]}")
    assert chosen != text
    for name, source in (("fine", text), ("faulty", chosen)):
        (tmp_path / f"{name}.py").write_text(source)
        registry.add_plugin(tmp_path / f"{name}.py")
    steps(registry.load("pretexts", "fine"))
    with pytest.raises(Waited, match="__getitem__"):
        steps(registry.load("pretexts", "faulty"))


def test_a_colour_table_left_on_the_processor_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    table = colour._table(torch.device("cpu"))
    monkeypatch.setattr(colour, "_table", lambda device: table)
    with pytest.raises(RuntimeError, match=MEETING):
        colour.split_lab(images().to(GPU))
