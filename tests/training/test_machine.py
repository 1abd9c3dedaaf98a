"""What the machine computes in, and what it keeps ready."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import record
from bench.config import MachineConfig
from bench.errors import UsageError, out_of_memory
from bench.models.trunk import make_trunk
from bench.training import machine

Bench = Callable[..., object]


@pytest.mark.parametrize(
    ("asked", "has", "times", "size", "chosen"),
    [
        ("auto", "amx_bf16", 1.4, 256, "bf16"),
        ("auto", "amx_bf16", 1.05, 256, "fp32"),
        ("auto", "amx_bf16", 0.7, 256, "fp32"),
        ("auto", "amx_bf16", 1.4, 64, "fp32"),
        ("auto", "avx512_bf16", 1.4, 256, "fp32"),
        ("fp32", "amx_bf16", 1.4, 256, "fp32"),
        ("bf16", "nothing", 0.1, 64, "bf16"),
    ],
)
def test_a_processor_computes_in_bf16_where_a_timing_shows_that_it_pays(
    asked: str, has: str, times: float, size: int, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def speed(trunk: str, size: int, threads: int | None = None, precision: str = "fp32") -> float:
        tried.append(precision)
        return 10 * (times if precision == "bf16" else 1)

    monkeypatch.setattr("bench.training.machine.images_per_second", speed)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {has: True}, raising=False)
    for _ in range(2):  # the second time it is known
        made = machine.make_machine(
            MachineConfig(device="cpu", threads=1, precision=asked), trunk="unet:depth=8,width=64", size=size
        )
        assert tried == (["fp32", "bf16"] if (asked, has, size) == ("auto", "amx_bf16", 256) else [])
    assert made.precision == made.describe()["precision"] == chosen
    layer = nn.Linear(2, 2)
    with made.autocast():
        assert layer(torch.ones(1, 2)).dtype == (torch.bfloat16 if chosen == "bf16" else torch.float32)


def test_a_precision_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown precision 'half'"):
        machine.make_machine(MachineConfig(device="cpu", precision="half"))


def test_rows_say_their_precision_and_are_made_again_in_it(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "l1_color", "--downstream", "voc_seg", "--precision", "bf16")
    outcome = tiny(*asked)
    assert outcome.code == 0 and "cpu, bf16" in outcome.out
    (one,) = record.read(tmp_path / "runs")
    assert one.precision == one.pretrain.precision == "bf16"
    assert "--precision bf16" in bench("show", one.id, "--out", tmp_path / "runs").out.replace("\n", " ")
    again = bench("reproduce", one.id, "--out", tmp_path / "runs")
    assert again.code == 0 and "reproduced to the bit" in again.out and "INFO" not in outcome.err


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler on a CPU")
def test_compiled_networks_compute_the_same() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(make_trunk("unet:depth=3,width=4").eval())
    compiled = nn.Sequential(make_trunk("unet:depth=3,width=4").eval())
    compiled.load_state_dict(plain.state_dict())
    machine.make_machine(MachineConfig(device="cpu", threads=1, compile=True)).place(compiled)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    seen = torch.rand(2, 1, 16, 16)
    assert torch.allclose(compiled(seen), plain(seen), atol=1e-5)
    assert "compiled" in str(machine.make_machine(MachineConfig(device="cpu", threads=1, compile=True)))


def test_room_is_a_share_of_the_memory_that_is_free() -> None:
    made = machine.make_machine(MachineConfig(device="cpu", threads=1))
    assert 0 < made.room(4) < made.room(2)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not create a primitive descriptor for a matmul primitive"), False),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."), True),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_too_little_memory(error: Exception, said: bool) -> None:
    assert out_of_memory(error) is said


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "3", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29999"},
        {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
    ],
    ids=["slurm", "torchrun", "mpi"],
)
def test_a_scheduler_that_says_how_many_tasks_it_started_changes_nothing(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    made = machine.make_machine(MachineConfig(device="cpu"))
    assert made.fabric.world_size == 1 and made.fabric.global_rank == 0


def test_a_second_interrupt_of_a_script_or_notebook_is_an_exception_and_not_the_end_of_the_process() -> None:
    """It ended the process, and so a notebook's kernel with all that it held."""
    stop = machine.Stop()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt, match="stopped at once"), machine.stoppable(stop):
            signal.raise_signal(signal.SIGINT)
            assert stop.signal_number == signal.SIGINT
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
