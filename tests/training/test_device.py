"""The device that is asked for is the one that is used, by every command; two GPUs are stand-ins."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from torch import nn

from bench import record
from bench.cli.app import app
from bench.config import MachineConfig
from bench.data import batches
from bench.experiment.pretraining import make_pretext, pretraining_stage
from bench.job import PretrainJob
from bench.training import checkpoint, machine
from bench.training.loop import take_step
from tests.standin import StandIn

Bench = Callable[..., Any]


class Ones(batches.SplitData):
    """Images that need no pack."""

    def __getitem__(self, plan: batches.Plan) -> dict[str, torch.Tensor]:
        return {"images": torch.ones(len(plan[1]), 3, 4, 4)}


class Placed(BaseException):
    """A network was sent to a device; nothing catches this."""


@pytest.fixture
def placed(two_gpus: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Tell where the first network is sent."""

    def to(_: nn.Module, device: torch.device) -> None:
        raise Placed(str(device))

    monkeypatch.setattr(nn.Module, "to", to)
    return two_gpus


ASKED = ("--pretext", "random_init", "--downstream", "voc_seg", "--schedule", "two-phase")
COMMANDS: dict[str, Callable[[Path, dict[str, Path]], tuple[object, ...]]] = {
    "run": lambda out, drawn: ("run", *ASKED, "--data", drawn["demo"], "--out", out),
    "run --plan": lambda out, drawn: ("run", *ASKED, "--data", drawn["demo"], "--out", out, "--plan"),
    "tune": lambda out, drawn: ("tune", *ASKED, "--trials", 1, "--data", drawn["demo"], "--out", out),
    "study": lambda out, drawn: ("study", out.parent, "--out", out),
    "reproduce": lambda out, drawn: ("reproduce", record.read(out)[0].id, "--out", out),
}


def test_every_command_that_takes_a_device_is_tried_below() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    taking = {name for name, one in commands.items() if any("--device" in parameter.opts for parameter in one.params)}
    assert taking == {name.partition(" ")[0] for name in COMMANDS}


@pytest.mark.gpu
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("asked", "used"), [("cuda:1", "cuda:1"), ("cuda", "cuda:0"), ("auto", "cuda:0"), ("cpu", "cpu")])
def test_the_device_that_is_asked_for_is_used(
    command: str, asked: str, used: str, tiny: Bench, bench: Bench, drawn: dict[str, Path], tmp_path: Path, request: Any
) -> None:
    if command == "reproduce":
        assert tiny(*ASKED).code == 0
    (tmp_path / "study.toml").write_text(
        f"title = 'a'\n[options]\ndata = {str(drawn['demo'])!r}\n"
        "[parts.a]\npretext = 'random_init'\ndownstream = 'voc_seg'\n[tables.a]\nparts = ['a']\n"
    )
    gpus = request.getfixturevalue("placed")
    with pytest.raises(Placed, match=f"^{used}$"):
        bench(*COMMANDS[command](tmp_path / "runs", drawn), "--device", asked)
    assert gpus.opened == ({torch.device(used).index} if used != "cpu" else set()), "no other GPU is asked or opened"


def test_a_gpu_computes_in_the_precision_that_is_asked_for(two_gpus: StandIn) -> None:
    for asked, precision, fabrics in (
        ("auto", "bf16", "bf16-mixed"),
        ("bf16", "bf16", "bf16-mixed"),
        ("fp32", "fp32", "32-true"),
    ):
        made = machine.make_machine(MachineConfig(device="cuda:1", precision=asked))
        assert (str(made.device), made.precision, made.fabric._precision.precision) == ("cuda:1", precision, fabrics)
        assert made.describe()["device"] == "stand-in 1" and made.describe()["type"] == "cuda"


def test_bf16_is_asked_of_the_gpu_that_computes(two_gpus: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first GPU has bfloat16 and the second has not."""
    properties = torch.cuda.get_device_properties
    old = {"major": 7}

    def of(device: Any = None) -> Any:
        found = properties(device)
        return type(found)(**{**vars(found), **(old if found.name == "stand-in 1" else {})})

    monkeypatch.setattr(torch.cuda, "get_device_properties", of)
    for asked, precision in (("cuda:0", "bf16"), ("cuda:1", "fp32")):
        two_gpus.opened.clear()
        assert machine.make_machine(MachineConfig(device=asked)).precision == precision
        assert two_gpus.opened == {torch.device(asked).index}


def test_memory_is_pinned_for_the_gpu_that_computes(two_gpus: StandIn, tmp_path: Path) -> None:
    """A thread of torch's loader pins memory for torch's current GPU, and opens it."""
    made = machine.make_machine(MachineConfig(device="cuda:1"))
    split = Ones(None, np.arange(8))  # type: ignore[arg-type]
    for _, batch in batches.training(split, 4, 0, 1, 0, 1, made.device):
        assert batch["images"].device == torch.device("cuda:1")
    assert two_gpus.opened == {1}


def test_a_resumed_fused_adam_takes_channels_last_parameters(tmp_path: Path, gpu: StandIn) -> None:
    """CUDA's fused Adam refuses moments that lie otherwise than their parameters; the CPU's computes wrong updates from them."""

    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 2, 4))
        network.to("cuda").to(memory_format=torch.channels_last)
        return network, torch.optim.Adam(network.parameters(), lr=0.01, fused=True)

    def step(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad(set_to_none=True)
        network(images.to("cuda").to(memory_format=torch.channels_last)).square().mean().backward()
        optimizer.step()

    network, optimizer = made()
    step(network, optimizer, 1)
    checkpoint.save(tmp_path, network, {"loss": optimizer}, {"step": 1})
    other, theirs = made()
    checkpoint.load(tmp_path, other, {"loss": theirs})
    assert other[0].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[index]
    for seed in (2, 3):
        step(network, optimizer, seed)
        step(other, theirs, seed)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in network.state_dict().items())


@pytest.mark.card
def test_a_step_on_a_gpu_is_that_of_the_processor_within_rounding() -> None:
    """The same job's first losses on both devices, in float32."""
    losses = {}
    for device in ("cpu", "cuda"):
        job = PretrainJob(
            pretext="cgan_color", version=1, recipe={"epochs": 1, "batch_size": 4}, trunk="unet:depth=5,width=8", size=32,
            data_fingerprint="none", splits_fingerprint="none", seed=0,
        )  # fmt: skip
        made = machine.make_machine(MachineConfig(device=device, precision="fp32"))
        pretext = made.place(make_pretext(job)).eval()  # no dropout: generators of different devices differ
        images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        batch = {"images": images.to(made.device)}
        losses[device] = {name: float(loss) for name, loss in take_step(pretraining_stage(job, pretext), made, batch, 0).items()}
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)
