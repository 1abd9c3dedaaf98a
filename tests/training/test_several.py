"""`--devices` and torchrun: one run on several processes through the command line, also killed, interrupted and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bench.config import MachineConfig
from bench.errors import UsageError
from bench.training import devices
from tests.launch.grids import until, words

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("home")]
GRID = ("--pretext", "l1_color", "--downstream", "voc_seg")
SGD = ("--set", "recipe.optimizer=sgd", "--set", "recipe.lr=0.001", "--set", "protocol.optimizer=sgd")


def start(arguments: list[str], log: Path, *before: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as printed:
        return subprocess.Popen(
            [*(before or (sys.executable, "-m")), "bench", *arguments], stdout=printed, stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip


def finish(process: subprocess.Popen[bytes], log: Path, code: int = 0) -> str:
    assert process.wait(timeout=240) == code, log.read_text(errors="replace")[-3000:]
    return log.read_text(errors="replace")


def record_of(out: Path) -> dict[str, Any]:
    (path,) = out.glob("runs/*/record.json")
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def others_of(head: int) -> list[int]:
    """Return the process ids of the children of a command, in the order in which they were started."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(head)], capture_output=True, text=True).stdout.split()
    return sorted(int(pid) for pid in found if b"-m\0bench" in Path(f"/proc/{pid}/cmdline").read_bytes())


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    (path,) = out.glob("pretrained/*/pretext.safetensors")
    return load_file(path)


def test_a_run_on_two_processes_is_that_of_one(drawn: dict[str, Path], tmp_path: Path) -> None:
    """Fine-tuning, its search, probes of whole images and of places; also a Ctrl-C in between, and resumed by one process."""
    more = ("--pretext", "l1_color", "--downstream", "voc_cls,voc_seg", "--evaluate", "finetune,knn,dense-knn", "--tune", "2")
    found = {}
    for place, count in (("one", ()), ("two", ("--devices", "cpu:2"))):
        out, log = tmp_path / place, tmp_path / f"{place}.log"
        text = finish(start(words(drawn, out, *more, *SGD, *count), log), log)
        assert text.count("Table 4") == 1, "one process alone shows the table"
        records = [json.loads(path.read_bytes()) for path in sorted(out.glob("runs/*/record.json"))]
        found[place] = {(one["job"]["downstream"], str(one["job"].get("probe"))): one for one in records}
    assert found["one"].keys() == found["two"].keys() and len(found["one"]) == 5
    for name, one in found["one"].items():
        other = found["two"][name]
        assert other["provenance"]["machine"]["processes"] == 2 and "processes" not in one["provenance"]["machine"]
        assert one["id"] == other["id"] or one["job"]["rates"] != other["job"]["rates"]
        for metric, value in one["metrics"].items():
            assert other["metrics"][metric] == pytest.approx(value, abs=0.02), (name, metric)
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    assert max(float((tensor - two[name]).abs().max()) for name, tensor in one.items() if tensor.is_floating_point()) < 5e-3


def test_a_run_goes_on_with_another_number_of_processes(drawn: dict[str, Path], tmp_path: Path) -> None:
    """Interrupted on three processes, finished on one: the weights are those of a run on one, to rounding."""
    more = (*GRID, *SGD, "--set", "recipe.epochs=60", "--checkpoint-seconds", "0")
    out, log = tmp_path / "out", tmp_path / "log"
    process = start(words(drawn, out, *more, "--devices", "cpu:3"), log)
    until(lambda: list(out.glob("work/l1_color-*/*.safetensors")), process)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert "failed" not in finish(process, log, 143)
    assert time.monotonic() - began < 20, "the processes wait for each other"
    assert not list(out.glob("pretrained/*"))
    finish(start(words(drawn, out, *more), log), log)
    alone = tmp_path / "alone"
    finish(start(words(drawn, alone, *more), tmp_path / "alone.log"), tmp_path / "alone.log")
    one, two = weights_of(alone), weights_of(out)
    assert max(float((tensor - two[name]).abs().max()) for name, tensor in one.items() if tensor.is_floating_point()) < 5e-3


@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_process_ends_the_run_and_the_same_command_goes_on(number: int, drawn: dict[str, Path], tmp_path: Path) -> None:
    more = (*GRID, "--set", "recipe.epochs=60", "--checkpoint-seconds", "0", "--devices", "cpu:2")
    out, log = tmp_path / "out", tmp_path / "log"
    process = start(words(drawn, out, *more), log)
    until(lambda: list(out.glob("work/l1_color-*/*.safetensors")), process)
    os.kill(others_of(process.pid)[number], signal.SIGKILL)
    text = finish(process, log, 4)
    assert "killed by signal 9; the same command goes on from the last checkpoint" in text
    assert "Traceback" not in text
    finish(start(words(drawn, out, *more), log), log)
    assert record_of(out)["metrics"]


def test_without_its_head_a_run_ends_with_a_checkpoint(drawn: dict[str, Path], tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    process = start(words(drawn, out, *GRID, "--set", "recipe.epochs=2000", "--devices", "cpu:2"), log)
    until(lambda: "epoch 2/2000" in log.read_text(errors="replace"), process)
    workers = others_of(process.pid)
    process.kill()
    end = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").is_dir() for pid in workers):
        assert time.monotonic() < end, "a process is left alone"
        time.sleep(0.1)
    assert list(out.glob("work/l1_color-*/*.safetensors"))


PLUGIN = """
import os
from bench.contract import Pretext

class Boom(Pretext):
    # a task that fails in one process alone
    steps = 0

    def make_batch(self, images, generator):
        return {"inputs": self.trunk.preprocessing(images)}

    def training_step(self, batch):
        self.steps += 1
        if os.environ.get("RANK") == "1" and self.steps > 1:
            raise ValueError("boom")
        yield "loss", self.trunk(batch["inputs"]).square().mean()
"""


def test_an_error_of_one_process_alone_ends_the_run(drawn: dict[str, Path], tmp_path: Path) -> None:
    out, log, plugin = tmp_path / "out", tmp_path / "log", tmp_path / "boom.py"
    plugin.write_text(PLUGIN)
    more = ("--pretext", "boom", "--downstream", "voc_seg", "--plugin", plugin, "--devices", "cpu:2")
    process = start(words(drawn, out, *more), log)
    assert process.wait(timeout=150) == 4
    assert "process 2 of 2: ValueError: boom" in log.read_text(errors="replace")


def test_torchrun_starts_a_run_and_restarts_it_after_a_death(drawn: dict[str, Path], tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    engine = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1", "-m")
    process = start(
        words(drawn, out, *GRID, "--set", "recipe.epochs=60", "--checkpoint-seconds", "0"), log, sys.executable, *engine
    )
    until(lambda: list(out.glob("work/l1_color-*/*.safetensors")), process)
    os.kill(others_of(process.pid)[1], signal.SIGKILL)
    finish(process, log)
    assert record_of(out)["provenance"]["machine"]["processes"] == 2


def test_a_loss_that_is_not_finite_fails_one_run_and_the_others_go_on(drawn: dict[str, Path], tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    more = ("--pretext", "l1_color,rotation", "--downstream", "voc_seg", "--set", "l1_color.lr=1e30", "--devices", "cpu:2")
    text = finish(start(words(drawn, out, *more), log), log, 5)
    assert "2 of 3 runs failed" in text and "try a smaller learning rate" in text
    assert record_of(out)["job"]["pretrain"]["pretext"] == "rotation", "of the three runs, the one that learns"


def test_devices_that_are_not_there_or_cannot_be_used_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("x", "0", "cpu:0", "1,x"):
        with pytest.raises(UsageError, match="--devices takes all, a number"):
            devices.named(text, "cpu")
    with pytest.raises(UsageError, match="needs GPU 3, but torch sees 0 GPUs"):
        devices.named("0,3")
    assert devices.named("cpu:2") == ("cpu", "cpu") == devices.named("2", "cpu")
    with pytest.raises(UsageError, match="needs a process for each device"):
        devices.of_processes(MachineConfig(device="cpu", devices="cpu:2"))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    for name, value in (("WORLD_SIZE", "3"), ("LOCAL_WORLD_SIZE", "3"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="names 2 devices, but this machine has 3"):
        devices.of_processes(MachineConfig(device="cpu", devices="cpu:2"))
    with pytest.raises(UsageError, match="--compile is for one device"):
        devices.of_processes(MachineConfig(device="cpu", compile=True))


def test_more_gpus_than_one_take_a_process_each(two_gpus: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.named("all") == ("cuda:0", "cuda:1") == devices.named("2") == devices.named("0,1")
    assert devices.named("1,") == ("cuda:1",)
    with pytest.raises(UsageError, match="names a GPU twice"):
        devices.named("1,1")
    assert devices.named("2", "cpu") == ("cpu", "cpu")
