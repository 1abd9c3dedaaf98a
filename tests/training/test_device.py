"""The device that is asked for is the one that is used, by every command; Lightning Fabric is a stub that has two GPUs."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch import nn

from bench import record
from bench.cli.app import app
from bench.config import MachineConfig
from bench.experiment.pretraining import make_pretext, pretraining_stage
from bench.job import PretrainJob
from bench.training import checkpoint, machine
from bench.training.loop import take_step

Bench = Callable[..., Any]


class Fabric:
    """What the program asks of Fabric, and a device that it says it has."""

    def __init__(self, accelerator: str, devices: int | list[int], precision: str) -> None:
        self.device = (
            torch.device("cuda", devices[0]) if accelerator == "cuda" and isinstance(devices, list) else torch.device("cpu")
        )
        self.precision = precision

    def autocast(self) -> Any:
        return nullcontext()


class Placed(BaseException):
    """A network was sent to a device; nothing catches this."""


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch see two GPUs with bfloat16, and tell where the first network is sent."""

    def to(_: nn.Module, device: torch.device) -> None:
        raise Placed(str(device))

    monkeypatch.setattr("lightning.fabric.Fabric", Fabric)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"stand-in {device}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(nn.Module, "to", to)


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
    request.getfixturevalue("two_gpus")
    with pytest.raises(Placed, match=f"^{used}$"):
        bench(*COMMANDS[command](tmp_path / "runs", drawn), "--device", asked)


def test_a_gpu_computes_in_the_precision_that_is_asked_for(two_gpus: None) -> None:
    for asked, precision, fabrics in (
        ("auto", "bf16", "bf16-mixed"),
        ("bf16", "bf16", "bf16-mixed"),
        ("fp32", "fp32", "32-true"),
    ):
        made = machine.make_machine(MachineConfig(device="cuda:1", precision=asked))
        assert (str(made.device), made.precision, made.fabric.precision) == ("cuda:1", precision, fabrics)
        assert made.describe()["device"] == "stand-in cuda:1" and made.describe()["type"] == "cuda"


def test_a_resumed_fused_adam_takes_channels_last_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's fused Adam refuses moments that lie otherwise than their parameters; the CPU's computes wrong updates from them."""
    fused = torch._fused_adam_

    def checked(
        parameters: list[Any], gradients: list[Any], averages: list[Any], squares: list[Any], *rest: Any, **named: Any
    ) -> Any:
        for kept in (gradients, averages, squares):
            if any(one.stride() != parameter.stride() for one, parameter in zip(kept, parameters, strict=True)):
                raise RuntimeError("params, grads, exp_avgs, and exp_avg_sqs must have same dtype, device, and layout")
        return fused(parameters, gradients, averages, squares, *rest, **named)

    monkeypatch.setattr(torch, "_fused_adam_", checked)

    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 2, 4)).to(
            memory_format=torch.channels_last
        )
        return network, torch.optim.Adam(network.parameters(), lr=0.01, fused=True)

    def step(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad(set_to_none=True)
        network(images.to(memory_format=torch.channels_last)).square().mean().backward()
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
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
