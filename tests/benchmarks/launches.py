"""Launches: two workers against one, what the launcher adds, and how long a plan and a status of 10,000 runs take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.experiment.pretraining import find_pretrained
from bench.experiment.runs import find
from bench.experiment.session import Session
from bench.launch import planned
from bench.launch.launch import Launch, now
from bench.launch.planned import Planned, PlannedRun
from bench.storage.seal import sealed
from tests.benchmarks.common import Figure, workplace
from tests.benchmarks.step import opened

SEEDS, SECOND_HALF = 834, 2
OPTIONS = {
    "pretext": "random_init", "downstream": "voc_cls,voc_seg", "schedule": "one-phase,two-phase", "transfer": "all,encoder",
    "labels": "0.5,1", "trunk": "unet:depth=5,width=8", "size": 32, "data": "demo", "protocol": "demo", "device": "cpu",
}  # fmt: skip
EQUAL = ("--pretext", "random_init", "--downstream", "voc_seg", "--schedule", "two-phase", "--trunk", "unet:depth=5,width=8")
EQUAL += ("--data", "demo", "--protocol", "demo", "--device", "cpu", "--size", "64", "--seeds", "8", "--epochs", "16")
ONE, SHORT = ("--threads", "1"), ("--seeds", "1", "--epochs", "2")


def words(options: dict[str, Any], *more: str) -> list[str]:
    """Return a command's words for options by name."""
    return ["run", *(word for name, value in options.items() for word in (f"--{name}", str(value))), *more]


def bench(*arguments: str, out: Path) -> float:
    """Run `bench` and return the seconds that it takes; RuntimeError with what it says where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bench", *arguments, "--out", str(out)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return time.perf_counter() - started


def make_records(session: Session) -> int:
    """Write the records of every second seed of a session, copies of the first seed's; return how many runs the session has."""
    first = {_kind(job): find(job, session.out) for job in session.grid.jobs if job.seed == 0}
    for job in session.grid.jobs:
        template = first[_kind(job)]
        if job.seed % SECOND_HALF or job.seed == 0 or template is None:
            continue
        trunk = template.pretrain.model_copy(update={"id": job.pretrain.id, "job": job.pretrain})
        record = template.model_copy(update={"id": job.id, "job": job, "pretrain": trunk})
        _write(session.out / "runs" / job.id / "record.json", record.model_dump(mode="json"))
        if find_pretrained(job.pretrain, session.out) is None:
            _write(session.out / "pretrained" / job.pretrain.id / "pretrain.json", trunk.model_dump(mode="json"))
    return len(session.grid.jobs)


def _kind(job: Any) -> tuple[object, ...]:
    return job.downstream, job.schedule, job.transfer, job.labels


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(sealed(json.dumps(content, sort_keys=True) + "\n"))


def make_launch(session: Session) -> None:
    """Write the record and the plan of a launch of a session, whose workers are gone."""
    launch = Launch(
        id="made", launcher="local", out=str(session.out.resolve()), cwd="/", words=("run",), workers=8, created=now()
    ).keep()
    runs = tuple(
        PlannedRun(id=job.id, trunk=job.pretrain.id, title=job.id, seed=job.seed, trunk_seed=job.pretrain.seed)
        for job in session.grid.jobs
    )
    seconds = {job.id: 10.0 for job in session.grid.jobs}
    planned.keep([Planned(runs=runs, seconds=seconds)], launch.folder)


def many_runs(folder: Path) -> list[Figure]:
    """Return the seconds of a plan and of a status of 10,000 runs, half of them finished."""
    bench(*words(OPTIONS, *ONE, "--seeds", "1", "--epochs", "2"), out=folder)
    session = opened(folder, **OPTIONS, seeds=SEEDS, epochs=2)
    count = make_records(session)
    make_launch(session)
    plan = words(OPTIONS, *ONE, "--seeds", str(SEEDS), "--epochs", "2", "--plan", "--launch-workers", "8")
    bench(*plan, out=folder)  # times the steps, which later plans know
    return [
        Figure(f"--plan of {count:,} runs, half of them finished", bench(*plan, out=folder), "s", "at most 5"),
        Figure(f"bench status of {count:,} runs, half of them finished", bench("status", out=folder), "s", "at most 5"),
    ]


def measure() -> list[Figure]:
    """Return the figures of a grid of equal runs by one worker and by two, of a short grid, and of 10,000 planned runs."""
    with workplace() as folder:
        bench("run", *EQUAL, *SHORT, *ONE, out=folder / "warm")
        plain = bench("run", *EQUAL, *ONE, out=folder / "plain")
        two_threads = bench("run", *EQUAL, "--threads", "2", out=folder / "threads")
        alone = bench("run", *EQUAL, *ONE, "--launcher", "local", "--devices", "cpu:1", out=folder / "alone")
        both = bench("run", *EQUAL, *ONE, "--launcher", "local", "--devices", "cpu:2", out=folder / "both")
        return [
            Figure("8 equal runs by a plain command with one thread", plain, "s"),
            Figure("the same with two threads", two_threads, "s"),
            Figure("the same by a launch of one worker with one thread", alone, "s"),
            Figure("the same by a launch of two workers with one thread", both, "s"),
            Figure("two workers against one of one thread", both / plain, "times", "at most 0.6"),
            Figure("two workers against one of two threads", both / two_threads, "times", "at most 0.85"),
            Figure("what the launcher adds", alone - plain, "s", "at most 5"),
            *many_runs(folder / "many"),
        ]
