"""Commands on a GPU, in this process: the doctor, a run that is stopped and goes on, a run that needs too much memory."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from bench import record
from bench.__main__ import main
from bench.data import batches, demo
from bench.experiment import step_times
from bench.training import loop
from tests.gpu.steps import train_without_waits, without_waits

TRUNK, SIZE = "unet:depth=5,width=16", 32
PRETEXTS, DOWNSTREAMS = "cgan_color,inpainting", "voc_cls,voc_seg"
PHASES = (
    *("--schedule", "two-phase", "--set"),
    'protocol.schedules={"two-phase": [{"train": "head", "epochs": 2, "lr": 1e-3}, {"train": "all", "epochs": 2, "lr": 1e-3}]}',
)
STOPPED_AFTER = 7
"""The step of pretraining after which the run is stopped: in its second epoch."""
LEFT = 800e6
"""The bytes that are left to torch where memory is to run out: enough for the weights below, and not for a step."""
LARGE = ("--trunk", "unet", "--size", "256", "--set", "recipe.batch_size=32")
"""The paper's size, which needs more."""


def bench(*words: object) -> tuple[int, str]:
    """Run `bench` in this process and return its exit code and what it printed."""
    said = io.StringIO()
    with (
        patch.object(sys, "argv", ["bench", *map(str, words)]),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            main()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
    return code, said.getvalue()


def doctor(folder: Path) -> list[str]:
    """Return what the doctor says about the GPU; AssertionError when the main experiment could not run."""
    code, said = bench("doctor", "--out", folder / "runs")
    assert code == 0, said
    return [" ".join(line.split("\t")) for line in said.splitlines() if line.startswith(("gpu", "precision", "results"))]


def on_drawn_images(folder: Path, *more: object) -> tuple[object, ...]:
    """Return a small run of two pretext tasks on both downstream tasks, on images that are drawn when they are missing."""
    drawn = {name: folder / "drawn" / name for name in ("demo", "demo_unlabelled")}
    if not drawn["demo"].is_dir():
        drawn = demo.make(folder / "drawn", 48, 24, 16)
    tasks = ("--pretext", PRETEXTS, "--downstream", DOWNSTREAMS, "--protocol", "demo")
    data = ("--data", drawn["demo"], "--pretrain-data", drawn["demo_unlabelled"], "--out", folder / "runs")
    quick = (
        "--checkpoint-seconds",
        "3600",
        "--set",
        "recipe.epochs=2",
        "--set",
        "recipe.batch_size=8",
        "--set",
        "protocol.batch_size=8",
        *PHASES,
    )
    return ("run", "--device", "cuda", "--trunk", TRUNK, "--size", SIZE, *tasks, *data, *quick, *more)


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Let nothing inside an epoch wait for the GPU in the block but where losses are read, and stop the command once.

    Gives the names of the steps' stages.
    """
    made: list[str] = []
    take_step = without_waits(loop.take_step)

    def counted(stage: Any, machine: Any, *rest: Any) -> Any:
        made.append(stage.name)
        losses = take_step(stage, machine, *rest)
        if len(made) == STOPPED_AFTER:
            machine.stop.signal_number = signal.SIGTERM
            torch.cuda.set_sync_debug_mode("default")  # for the checkpoint
        return losses

    reading = train_without_waits(batches.training)
    of_estimates = patch.object(step_times, "take_step", loop.take_step)  # imported inside the block, it would be the counted one
    with of_estimates, patch.object(loop, "take_step", counted), patch.object(batches, "training", reading):
        yield made


def resume(folder: Path) -> list[str]:
    """Run a small grid whose steps may not wait for the GPU, stop it once, let it go on, and report it."""
    logged = ("--log", "tensorboard") if importlib.util.find_spec("tensorboard") else ()
    command = on_drawn_images(folder, *logged)
    with watched() as made:
        code, said = bench(*command)
        assert code == 143, said
        code, said = bench(*command)
        assert code == 0 and f"goes on from step {STOPPED_AFTER}" in said, said
    code, table = bench("report", "--out", folder / "runs")
    assert code == 0, table
    runs = record.read(folder / "runs")
    assert len(runs) == len(PRETEXTS.split(",")) * len(DOWNSTREAMS.split(",")) and {one.cost.device for one in runs} == {"cuda"}
    joules = next((one.pretrain.cost.joules for one in runs), None)
    energy = "the GPU tells no energy, or the extra `energy` is not installed" if joules is None else f"{joules:,.0f} J"
    return [
        f"{len(made)} training steps: none waited for the GPU but the first of each stage, nor did anything else inside an epoch",
        f"stopped at step {STOPPED_AFTER} of pretraining and resumed; {len(runs)} runs and a report",
        f"energy of a pretraining of a few steps: {energy}",
    ]


def exhaust(folder: Path) -> list[str]:
    """Let the GPU's memory run out in a run of the paper's size: it is one sentence, and a small run works afterwards."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(LEFT / torch.cuda.get_device_properties(0).total_memory)
    try:
        code, said = bench(*on_drawn_images(folder, *LARGE, "--pretext", "cgan_color", "--downstream", "voc_cls"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    last = said.strip().splitlines()[-1]
    assert code == 4 and "out of memory" in last and "try a batch size of 16" in last, said
    small = ("--pretext", "random_init", "--downstream", "voc_cls")
    code, said = bench(*on_drawn_images(folder, *small))
    assert code == 0, said
    torch.cuda.empty_cache()
    left = torch.cuda.memory_allocated() / 2**20
    return [f"with {LEFT / 1e6:.0f} MB: {last}", f"a small run works afterwards; {left:.1f} MiB are left allocated"]
