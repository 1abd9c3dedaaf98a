"""Four at once: runs, workers of one search and reports on one output folder, some of them killed."""

from __future__ import annotations

import contextlib
import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench import record
from tests.stress.scenario import TRIALS, Scene, apart
from tests.stress.server import ROOT, Server

PATIENCE = 600
"""Seconds after which a process counts as hanging."""


def four_at_once(folder: Path, server: Server, rounds: int, seed: int = 0) -> Iterator[str]:
    """Yield a line for everything that went wrong in some rounds of four processes each, of which one is killed."""
    alone, chance = Scene.draw(folder / "alone"), random.Random(seed)
    names = ("prepare", "prepare others", "run", "tune", "tuned run")
    for name in names:
        ended = alone.run(server, name)
        assert ended.code == 0, ended.err
    expected = {name: fact for name, fact in alone.facts().items() if "cgan_color" in name}
    for number in range(rounds):
        scene = Scene.draw(folder / f"round-{number}")
        for name in names[:2]:
            assert scene.run(server, name).code == 0
        asked = [names[2], chance.choice(names[2:]), "tune", "tuned run"]
        begun = [_start(scene, name) for name in asked]
        time.sleep(chance.uniform(4, 9))
        victim = chance.randrange(len(begun))
        with contextlib.suppress(ProcessLookupError):
            begun[victim].send_signal(signal.SIGKILL)
        begun.append(_start(scene, asked[victim]))
        for process in begun:
            try:
                _, said = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                yield f"round {number} (seed {seed}): {process.args} does not end"
                continue
            if process.returncode not in (0, -signal.SIGKILL):
                yield f"round {number} (seed {seed}): {process.args} ended with {process.returncode}: {said[-600:]}"
        reports = [_start(scene, "report") for _ in range(4)]
        for process in reports:
            _, said = process.communicate(timeout=PATIENCE)
            if process.returncode:
                yield f"round {number} (seed {seed}): a report ended with {process.returncode}: {said[-600:]}"
        found = {name: fact for name, fact in scene.facts().items() if name in expected}
        yield from (f"round {number} (seed {seed}): {line}" for line in apart(expected, found))
        records = {one.pretext: one for one in record.read(scene.out)}
        tuning = records["random_init"].tuning
        if len(records) != 2 or len(record.read(scene.out)) != 2:
            yield f"round {number} (seed {seed}): {len(record.read(scene.out))} records instead of 2"
        if tuning is None or len({str(trial.rates) for trial in tuning.trials}) != TRIALS:
            yield f"round {number} (seed {seed}): not {TRIALS} trials, each with rates of its own: {tuning}"
        with (scene.out / "per_run.csv").open(newline="") as file:
            rows = [(row["run_id"], row["metric"]) for row in csv.DictReader(file)]
        if sorted(rows) != sorted((one.id, metric) for one in records.values() for metric in one.metrics):
            yield f"round {number} (seed {seed}): rows {rows}"
        yield from (f"round {number} (seed {seed}): {left} is left" for left in scene.leftovers())


def _start(scene: Scene, name: str) -> subprocess.Popen[str]:
    single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *map(str, scene.commands()[name])],
        env={**os.environ, **single, "PRETEXT_BENCH_HOME": str(scene.home), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
