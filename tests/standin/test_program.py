"""The program on a stand-in for a GPU: every registered task, and the commands. No step but a stage's first may wait for the GPU.

A new plug-in in pretexts/ or downstream/ is tried without a new test.
"""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import record
from bench.config import MachineConfig
from bench.data import batches
from bench.experiment.pretraining import make_pretext, pretraining_stage
from bench.models.modes import inference
from bench.training import loop
from bench.training.machine import make_machine
from tests.docs.test_docs import plugin
from tests.downstream.test_contract import PAIRS
from tests.gpu.steps import read_without_waits, without_waits
from tests.pretexts.test_contract import NAMES, TRUNKS, images, job
from tests.standin import StandIn

Bench = Callable[..., Any]
PHASES = [{"train": train, "epochs": 1, "lr": 1e-3} for train in ("head", "all")]
QUICK = (
    *("--device", "cuda", "--schedule", "two-phase", "--set", "protocol.batch_size=8", "--set", "recipe.evaluation_images=2"),
    *("--set", f"protocol.schedules={json.dumps({'two-phase': PHASES})}"),
)


@pytest.fixture(autouse=True)
def watched(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no training step wait for the GPU, nor the reading of its batch."""
    monkeypatch.setattr(loop, "take_step", without_waits(loop.take_step))
    monkeypatch.setattr(batches, "training", read_without_waits(batches.training))


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_pretext_task_trains_and_is_scored_on_a_gpu(name: str, trunk: str) -> None:
    made, asked = make_machine(MachineConfig(device="cuda")), job(name, trunk)
    pretext = made.place(make_pretext(asked)).train()
    stage = pretraining_stage(asked, pretext)
    for number in range(3):
        losses = loop.take_step(stage, made, {"images": images().to(made.device, non_blocking=True)}, number)
        assert all(loss.device == made.device for loss in losses.values())
    seen, generator = images().to(made.device), torch.Generator(made.device).manual_seed(0)
    with inference(pretext):
        scores = [pretext.evaluate(seen, generator), *pretext.baselines(seen, seen).values(), pretext.visualize(seen, generator)]
    assert all(values.device == made.device for found in scores for values in found.values())


def write_classes(drawn: Path, folder: Path) -> Path:
    """Sort drawn images into two class folders, whatever they show."""
    for place, file in enumerate(sorted(drawn.rglob("*.jpg"))):
        (folder / "sorted" / "ab"[place % 2]).mkdir(parents=True, exist_ok=True)
        (folder / "sorted" / "ab"[place % 2] / file.name).write_bytes(file.read_bytes())
    return folder / "sorted"


@pytest.mark.parametrize(("name", "protocol"), PAIRS)
def test_a_downstream_task_runs_on_a_gpu_by_each_of_its_protocols(
    name: str, protocol: str, tiny: Bench, tmp_path: Path, drawn: dict[str, Path]
) -> None:
    settings: tuple[str, ...] = ()
    if name == "classes":
        name = f"classes@{write_classes(drawn['demo'], tmp_path)}"
    if protocol == "binary":  # the stand-in does not carry MONAI's own kind of tensor, which computes hd95 on the processor
        settings = ("--set", 'segmentation.metrics=["dice","iou_fg"]')
    done = tiny(*QUICK, "--pretext", "random_init", "--downstream", name, "--protocol", protocol, *settings)
    assert done.code == 0, done.err
    (one,) = record.read(tmp_path / "runs")
    assert one.provenance["machine"]["type"] == "cuda" and one.cost.device == "cuda" and one.precision == "bf16"


def test_all_tasks_run_on_a_gpu_and_are_reported(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    everything = ("--pretext", "every", "--downstream", "all", "--log", "tensorboard")
    planned = tiny(*QUICK, *everything, "--plan")
    assert planned.code == 0 and "cuda:0" in planned.out, planned.err
    done = tiny(*QUICK, *everything)
    assert done.code == 0, done.err
    assert {one.pretext for one in record.read(tmp_path / "runs")} == set(NAMES) - {"split_brain"}, "which takes another trunk"
    assert bench("report", "--out", tmp_path / "runs", "--html").code == 0
    with (tmp_path / "runs" / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["device"] for row in rows} == {"cuda"}
    assert {row["downstream"] for row in rows} == {"voc_cls", "voc_seg"}


def test_rates_are_tuned_on_a_gpu(tiny: Bench, tmp_path: Path) -> None:
    done = tiny(*QUICK, "--pretext", "l1_color", "--downstream", "all", "--tune", "2")
    assert done.code == 0, done.err
    for one in record.read(tmp_path / "runs"):
        assert one.tuning is not None and len(one.tuning.trials) == 2
        assert one.tuning.cost.device == "cuda" and one.tuning.cost.peak_memory > 0


def test_a_run_that_is_stopped_on_a_gpu_goes_on_as_if_it_had_not_been(
    tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the stand-in the weights are equal to the bit; on a card sums are rounded anew each time."""
    command = (*QUICK, "--pretext", "cgan_color", "--downstream", "voc_seg", "--checkpoint-seconds", "inf")
    assert tiny(*command, "--out", tmp_path / "whole").code == 0
    take_step, made = loop.take_step, []

    def interrupted(stage: Any, machine: Any, *rest: Any) -> Any:
        made.append(stage.name)
        if made.count(stage.name) == 2:
            machine.stop.signal_number = signal.SIGTERM
        return take_step(stage, machine, *rest)

    monkeypatch.setattr(loop, "take_step", interrupted)
    for number in range(3):  # pretraining and both phases
        stopped = tiny(*command)
        assert stopped.code == 143 and ("goes on from step 2" in stopped.out) == (number > 0)
        assert all(kept.name.startswith("000000002-") for kept in (tmp_path / "runs" / "work").rglob("*.safetensors"))
    resumed = tiny(*command)
    assert resumed.code == 0 and "goes on from step 2" in resumed.out, resumed.err
    (whole,), (one,) = record.read(tmp_path / "whole"), record.read(tmp_path / "runs")
    assert (one.weights, one.predictions, one.pretrain.weights) == (whole.weights, whole.predictions, whole.pretrain.weights)


def test_a_run_is_reproduced_on_a_gpu(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    assert tiny(*QUICK, "--pretext", "random_init", "--downstream", "voc_cls").code == 0
    (one,) = record.read(tmp_path / "runs")
    again = bench("reproduce", one.id, "--out", tmp_path / "runs", "--device", "cuda")
    assert again.code == 0 and "reproduced" in again.out, again.err


def test_readmes_plug_in_runs_on_a_gpu(tiny: Bench, tmp_path: Path) -> None:
    (tmp_path / "upside_down.py").write_text(plugin("README.md", "UpsideDown"))
    given = ("--plugin", tmp_path / "upside_down.py", "--pretext", "upside_down", "--downstream", "voc_cls")
    done = tiny(*QUICK, *given)
    assert done.code == 0, done.err
    (one,) = record.read(tmp_path / "runs")
    assert "accuracy" in one.pretrain.evaluation


def test_the_doctor_examines_a_gpu(bench: Bench, tmp_path: Path) -> None:
    told = bench("doctor", "--out", tmp_path / "runs")
    assert told.code == 0, told.err
    assert "stand-in 0" in told.out and "auto computes in bf16" in told.out


def test_the_doctor_says_that_a_gpu_does_not_start(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Any:
        raise RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment")

    for name in ("mem_get_info", "current_device", "get_device_properties", "get_device_name"):
        monkeypatch.setattr(torch.cuda, name, broken)
    told = bench("doctor", "--out", tmp_path / "runs")
    assert told.code == 4 and "could not run here: gpu 0: torch sees it but cannot compute on it (CUDA unknown error" in told.err
    checks = {line.split("\t")[0]: line.split("\t")[1] for line in told.out.splitlines()}
    assert checks["gpu 0"] == "fails" and checks["out: writing"] == "ok", "what follows is examined all the same"


def test_a_gpu_that_does_not_start_ends_a_run_with_one_sentence(tiny: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment")

    monkeypatch.setattr(torch.cuda, "set_device", broken)
    done = tiny("--device", "auto", "--pretext", "l1_color", "--downstream", "voc_cls")
    assert done.code == 4 and "the GPU failed (CUDA unknown error" in done.err and done.err.count("\n") == 1


def test_event_files_have_each_steps_own_loss(tiny: Bench, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = ("--set", "recipe.epochs=10", "--set", "recipe.batch_size=8", "--log", "tensorboard")
    assert tiny(*QUICK, "--pretext", "l1_color", "--downstream", "voc_cls", *settings).code == 0
    (one,) = record.read(tmp_path / "runs")
    events = EventAccumulator(str(tmp_path / "runs" / "pretrained" / one.pretrain.id / "tensorboard"))
    events.Reload()
    (losses,) = (events.Scalars(tag) for tag in events.Tags()["scalars"] if "/loss/" in tag)
    assert len(losses) > loop.LOSSES_KEPT and [loss.step for loss in losses] == list(range(1, len(losses) + 1))
    assert len({loss.value for loss in losses}) == len(losses)


def test_every_probe_runs_on_a_gpu_and_watches_there(tiny: Callable, gpu: StandIn, tmp_path: Path) -> None:
    asked = ("--pretext", "l1_color", "--downstream", "voc_cls,voc_seg", "--precision", "fp32")
    probes = ("--evaluate", "knn,linear,svm,lowshot,dense-linear,dense-knn", "--set", "lowshot.draws=1", "--watch", "knn:1")
    done = tiny(*asked, *probes, "--device", "cuda")
    assert done.code == 0, done.out[-3000:] + done.err
    on_gpu = {one.job.evaluation: one for one in record.read(tmp_path / "runs")}
    assert len(on_gpu) == 9 and {one.cost.device for one in on_gpu.values()} == {"cuda"}
    assert all(one.pretrain.watched for one in on_gpu.values())
