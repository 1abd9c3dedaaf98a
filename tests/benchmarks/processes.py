"""One run on several processes: a step of two one-thread processes against one thread and against one process of two threads."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from bench.config import MachineConfig
from bench.experiment.pretraining import make_pretext, pretraining_stage
from bench.job import PretrainJob
from bench.models.shards import Shards
from bench.training.loop import Stage, take_step
from bench.training.machine import make_machine
from tests.benchmarks.common import Figure

STEPS, WARM = 12, 3
TASKS = {"cgan_color": "unet:depth=7,width=32", "simclr": "timm:resnet18,preprocessing=rgb"}
SIZE, BATCH = 128, 16


def stage_of(task: str) -> Stage:
    """Return the stage that trains a task on images of `SIZE` px with batches of `BATCH`."""
    job = PretrainJob(
        pretext=task, version=1, recipe={"batch_size": BATCH}, trunk=TASKS[task], size=SIZE, data_fingerprint="none",
        splits_fingerprint="none", seed=0,
    )  # fmt: skip
    pretext = make_pretext(job)
    pretext.train()
    return pretraining_stage(job, pretext)


def times(task: str, threads: int, shards: Shards | None) -> dict[str, float]:
    """Return the median seconds of a step, and of making its batch, which every process does for all images."""
    machine, stage = make_machine(MachineConfig(device="cpu", threads=threads, precision="fp32")), stage_of(task)
    made: list[float] = []
    make_batch = stage.make_batch

    def timed(batch: Any, generator: torch.Generator) -> Any:
        began = time.perf_counter()
        found = make_batch(batch, generator)
        made.append(time.perf_counter() - began)
        return found

    stage.make_batch = timed
    side = round(SIZE * 1.15) if task == "simclr" else SIZE
    images = torch.randint(0, 256, (BATCH, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    taken = []
    for step in range(STEPS):
        began = time.perf_counter()
        take_step(stage, machine, {"images": images}, step, shards)
        taken.append(time.perf_counter() - began)
    return {"step": statistics.median(taken[WARM:]), "batch": statistics.median(made[WARM:])}


def together(task: str, count: int, threads: int) -> dict[str, float]:
    """Return the times of `count` processes with `threads` threads each, those of the first."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "tests.benchmarks.processes", task, str(count), str(threads), str(Path(folder) / "store")]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        started = [subprocess.Popen([*words, str(rank)], stdout=subprocess.PIPE, text=True, env=env) for rank in range(count)]
        printed = [one.communicate()[0] for one in started]
    found: dict[str, float] = json.loads(printed[0].splitlines()[-1])
    return found


def measure() -> list[Figure]:
    """Time both tasks, one after the other."""
    found = []
    for task in TASKS:
        one, wide, two = together(task, 1, 1), together(task, 1, 2), together(task, 2, 1)
        found += [
            Figure(
                f"{task}, {SIZE} px, batch {BATCH}: a step of 2 processes / of 1, one thread each",
                two["step"] / one["step"],
                "times",
            ),
            Figure(
                f"{task}: a step of 2 one-thread processes / of 1 process with 2 threads", two["step"] / wide["step"], "times"
            ),
            Figure(f"{task}: making the batch, a share of one process's step", one["batch"] / one["step"], "share"),
        ]
    return found


def main() -> None:
    """Measure as one of several processes, and print the times."""
    task, count, threads, store, rank = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
    shards = None
    if count > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
        shards = Shards(rank, count)
    print(json.dumps(times(task, threads, shards)))


if __name__ == "__main__":
    main()
