"""`make gpu` runs: on a card as it is, without one on a stand-in, and it says when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import colour
from bench.training import loop
from tests.gpu import __main__ as first_minute
from tests.gpu import commands, equality, speed
from tests.standin import StandIn

TINY = {"size": 32, "trunk": "unet:depth=5,width=8", "cases": ((8, False),)}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to try")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert first_minute.main([]) == 4
    assert "There is no GPU here" in capsys.readouterr().out


@pytest.mark.integration
def test_the_doctor_and_a_resumed_run_on_a_stand_in(gpu: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert first_minute.main(["doctor", "resume"]) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert "stand-in 0" in said and "none of which waited" in said and "Nothing failed." in said


@pytest.mark.integration
def test_results_beside_the_processors_on_a_stand_in(gpu: StandIn, tmp_path: Path) -> None:
    assert [line.partition(":")[0] for line in equality.compare(tmp_path)] == ["fp32", "bf16"]


@pytest.mark.integration
def test_speed_on_a_stand_in(gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRETEXT_BENCH_HOME", str(tmp_path / "home"))
    lines = speed.measure(tmp_path, **TINY)  # type: ignore[arg-type]
    assert any("images/s" in line for line in lines) and any(line.startswith("a checkpoint takes") for line in lines)


def test_a_gpu_that_computes_something_else_fails(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    linear = colour._linear
    monkeypatch.setattr(colour, "_linear", lambda values: linear(values) * (1.01 if values.is_cuda else 1.0))
    monkeypatch.setattr(equality, "NAMES", ["l1_color"])
    with pytest.raises(AssertionError, match="differs by"):
        equality.compare(Path())


@pytest.mark.integration
def test_a_step_that_waits_fails(gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_step = loop.take_step
    monkeypatch.setattr(loop, "take_step", lambda *given: {key: loss * loss.item() for key, loss in take_step(*given).items()})
    with pytest.raises(AssertionError, match=r"Waited.*called a synchronizing CUDA operation"):
        commands.resume(tmp_path)


@pytest.mark.card
@pytest.mark.integration
@pytest.mark.parametrize("part", [name for name in first_minute.PARTS if name != "speed"])
def test_a_part_on_a_card(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert first_minute.main([part]) == 0, capsys.readouterr().out
