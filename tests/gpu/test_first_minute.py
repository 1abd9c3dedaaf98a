"""`make gpu` runs: on a card as it is, without one on a stand-in, and it says when there is none."""

from __future__ import annotations

import csv
import dataclasses
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench import colour
from bench.training import loop, updates
from tests.benchmarks.common import Figure
from tests.gpu import __main__ as first_minute
from tests.gpu import commands, equality, speed
from tests.standin import StandIn

TINY = speed.Sizes(32, "unet:depth=5,width=8", "unet:depth=5,width=8", (8,), 64, 2, 64)


@pytest.fixture
def few_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave one pretext task and one downstream task to the part that is resumed, for the time."""
    monkeypatch.setattr(commands, "PRETEXTS", "cgan_color")
    monkeypatch.setattr(commands, "DOWNSTREAMS", "voc_cls")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to try")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert first_minute.main([]) == 4
    assert "There is no GPU here" in capsys.readouterr().out


@pytest.mark.integration
def test_the_doctor_and_a_resumed_run_on_a_stand_in(gpu: StandIn, few_tasks: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert first_minute.main(["doctor", "resume"]) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert "stand-in 0" in said and "none waited for the GPU" in said and "Nothing failed." in said


@pytest.mark.integration
def test_memory_that_runs_out_on_a_stand_in(
    gpu: StandIn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left, take_step = [1.0], loop.take_step

    def limited(*given: Any) -> Any:
        if left[-1] < 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return take_step(*given)

    monkeypatch.setattr(loop, "take_step", limited)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", left.append, raising=False)
    monkeypatch.setattr(commands, "LARGE", ("--set", "recipe.batch_size=32", "--set", "recipe.epochs=1"))
    assert first_minute.main(["memory"]) == 0, capsys.readouterr().out
    assert left[1] < 0.01 and left[2:] == [1.0] and "try a batch size of 16" in capsys.readouterr().out
    monkeypatch.setattr(loop, "take_step", take_step)
    assert first_minute.main(["memory"]) == 1, "memory that does not run out"


@pytest.mark.integration
def test_results_beside_the_processors_on_a_stand_in(gpu: StandIn, tmp_path: Path) -> None:
    assert [line.partition(" ")[0] for line in equality.compare(tmp_path)] == ["fp32", "bf16"]


@pytest.mark.integration
def test_speed_on_a_stand_in(
    gpu: StandIn, drawn: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"data": str(drawn["demo"]), "protocol": "demo", "trunk": TINY.trunk, "size": 32, "epochs": 2}
    sizes = dataclasses.replace(TINY, finetuning=tuple(own.items()))
    monkeypatch.setitem(first_minute.PARTS, "speed", (lambda folder: speed.measure(folder, sizes), 250))
    assert first_minute.main(["speed", "--out", str(tmp_path / "found")]) == 0, capsys.readouterr().out
    with (tmp_path / "found" / "gpu.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["device"] for row in rows} == {"stand-in 0"}
    found = " ".join(row["what"] for row in rows)
    for what in (
        "matrix products",
        "bare step, batch 8",
        "cgan_color, 32 px, batch 8",
        "peak memory",
        "to Lab",
        "voc_seg, paper",
    ):
        assert what in found
    assert all(math.isfinite(float(row["value"])) for row in rows if row["value"])
    page = (tmp_path / "found" / "gpu.md").read_text()
    assert "say nothing of a card" in page and page.count("not measured: ") == page.count("\n- "), page


def test_a_part_that_takes_too_long_keeps_what_it_found_and_fails(
    gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(_: Path) -> Iterator[str | Figure]:
        yield Figure("begun", 1.5, "s")
        while True:
            time.sleep(0.01)

    parts = {"endless": (endless, 0.2), "broken": (lambda _: [1 / 0], 5), "well": (lambda _: ["fine"], 5)}
    monkeypatch.setattr(first_minute, "PARTS", parts)
    assert first_minute.main(["--out", str(tmp_path)]) == 1
    page = (tmp_path / "gpu.md").read_text()
    assert "Failed: ended after 0 s" in page and "| begun | 1.5 | s |" in page
    assert "Failed: ZeroDivisionError: division by zero" in page and "- fine" in page
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_all_parts_together_take_less_than_8_minutes() -> None:
    assert sum(most for _, most in first_minute.PARTS.values()) <= 8 * 60 - 10


def test_figures_of_a_stand_in_are_not_kept_unless_asked(gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(first_minute, "PARTS", {"well": (lambda _: ["fine"], 5)})
    assert first_minute.main([]) == 0 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["colours", "convolutions", "batch norm"])
def test_a_gpu_that_computes_something_else_fails(what: str, gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    linear, convolution, norm = colour._linear, nn.Conv2d.forward, nn.BatchNorm2d.forward

    def noisy(layer: nn.Conv2d, inputs: torch.Tensor) -> torch.Tensor:
        found = convolution(layer, inputs)
        return found * (1 + 0.3 * torch.rand_like(found)) if inputs.is_cuda else found

    def shifted(layer: nn.BatchNorm2d, inputs: torch.Tensor) -> torch.Tensor:
        return norm(layer, inputs) + (0.3 if inputs.is_cuda else 0.0)

    broken: dict[str, tuple[object, str, object]] = {
        "colours": (colour, "_linear", lambda values: linear(values) * (1.01 if values.is_cuda else 1.0)),
        "convolutions": (nn.Conv2d, "forward", noisy),
        "batch norm": (nn.BatchNorm2d, "forward", shifted),
    }
    monkeypatch.setattr(*broken[what])
    monkeypatch.setattr(equality, "NAMES", ["l1_color"])
    with pytest.raises(AssertionError, match="of l1_color differ by"):
        list(equality.compare(Path()))


@pytest.mark.integration
def test_a_step_that_waits_fails(gpu: StandIn, few_tasks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_step = loop.take_step
    monkeypatch.setattr(loop, "take_step", lambda *given: {key: loss * loss.item() for key, loss in take_step(*given).items()})
    with pytest.raises(AssertionError, match=r"Waited.*called a synchronizing CUDA operation"):
        commands.resume(tmp_path)


@pytest.mark.integration
def test_a_loop_that_waits_between_two_steps_fails(
    gpu: StandIn, few_tasks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = updates.Rates.set
    monkeypatch.setattr(updates.Rates, "set", lambda made, step: rates(made, step + torch.zeros(1, device="cuda").int().item()))
    with pytest.raises(AssertionError, match="called a synchronizing CUDA operation"):
        commands.resume(tmp_path)


@pytest.mark.card
@pytest.mark.integration
@pytest.mark.parametrize("part", [name for name in first_minute.PARTS if name != "speed"])
def test_a_part_on_a_card(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert first_minute.main([part]) == 0, capsys.readouterr().out
