"""How long a command takes to start, and `bench report` on folders of 30 and 1,000 runs, for the first time and again."""

import os
import struct
import subprocess
import sys
import tempfile
from functools import cache, partial
from itertools import islice, product
from pathlib import Path

import numpy as np

from bench import metrics
from bench.record import Record, Trial
from bench.storage.arrays import pack_predictions
from tests.benchmarks.common import Figure, seconds
from tests.results.made import make, publish, tuning

IMAGES, CLASSES = 1449, tuple(f"class {n:02}" for n in range(20))
PRETEXTS = ("random_init", "cgan_color", *(f"pretext_{n}" for n in range(8)))
TASKS = {
    "voc_cls": ("acc_keras", "acc_subset", "map_voc", "map_voc07", "f1_macro"),
    "voc_seg": ("miou_voc", "miou_paper", "pixel_acc"),
}
SEEDS, SIZES, PROTOCOLS = range(5), (64, 96, 128, 192, 256), ("paper", "standard")


def measure() -> list[Figure]:
    """Return the seconds of each: the whole command in a process of its own, the start of Python included."""
    found = [
        Figure(f"bench {' '.join(words)}", min(_command(*words) for _ in range(3)), "s", "under 0.5")
        for words in (("--help",), ("list",), ("report", "--help"))
    ]
    found.append(Figure("a name completed in the shell, against the import of its packages", _completion(), "times", "under 5"))
    with tempfile.TemporaryDirectory() as folder:
        for runs in (30, 1000):
            out = Path(folder) / str(runs)
            write(out, runs)
            for what in ("for the first time", "again"):
                goal = "under 3" if what == "again" else ""
                found.append(Figure(f"bench report, {runs:,} runs, {what}", _command("report", "--out", str(out)), "s", goal))
    return found


def _command(*words: str) -> float:
    command = [sys.executable, "-m", "bench", *words]
    return seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))


def _completion() -> float:
    """Return the time in which `bench run --pretext cg` is completed, in times of that in which its two packages are imported."""
    words = {"COMP_WORDS": "bench run --pretext cg", "COMP_CWORD": "3", "_BENCH_COMPLETE": "complete_bash"}
    code, least = "import sys; sys.argv[0] = 'bench'; from bench.__main__ import main; main()", "import pydantic, typer"
    started: dict[str, list[float]] = {code: [], least: []}
    for _ in range(5):
        for one, taken in started.items():
            run = partial(subprocess.run, [sys.executable, "-c", one], env={**os.environ, **words}, stdout=subprocess.DEVNULL)
            taken.append(seconds(run))
    return min(started[code]) / min(started[least])


def write(out: Path, runs: int) -> None:
    """Write the folders of finished runs: a grid of sizes, protocols, pretext tasks, tasks and seeds, as far as it goes."""
    grid = product(SIZES, PROTOCOLS, PRETEXTS, TASKS, SEEDS)
    if runs <= len(PRETEXTS) * len(TASKS) * len(SEEDS):
        grid = product(SIZES, PROTOCOLS, PRETEXTS[:5], TASKS, SEEDS[:3])
    for size, protocol, pretext, task, seed in islice(grid, runs):
        publish(out, *_run(size, protocol, pretext, task, seed))


def _run(size: int, protocol: str, pretext: str, task: str, seed: int) -> tuple[Record, bytes]:
    packed, values, classes = _answers(pretext, task, seed)
    packed = _with_comment(packed, f"{size} {protocol}")
    trials = tuple(
        Trial(
            number=n, rates={"phase-1": 1e-3, "phase-2": 1e-4}, state="complete", value=0.3, epochs=dict.fromkeys(range(6), 0.3)
        )
        for n in range(20)
    )
    record = make(
        pretext, seed, None, task, size=size, protocol=protocol, tuning=tuning(budget=20, trials=trials), metrics=values,
        per_class=classes, losses=[[1 / (1 + epoch) for epoch in range(25)] for _ in range(2)], pretrain_job={"size": size},
    )  # fmt: skip
    data = record.data.model_copy(
        update={"classes": CLASSES, "scored": CLASSES, "prior": (0.05,) * 20, "counts": {"test": IMAGES}}
    )
    history = [{"loss": 1.0, "discriminator": 0.5, "seconds": 60.0} for _ in range(20)]
    pretrain = record.pretrain.model_copy(update={"history": history})
    return record.model_copy(update={"data": data, "pretrain": pretrain}), packed


@cache
def _answers(pretext: str, task: str, seed: int) -> tuple[bytes, dict[str, float | None], dict[str, dict[str, float | None]]]:
    """Return packed predictions of a VOC-sized test split, with the metrics' values."""
    truth = np.random.default_rng(0)
    chance = np.random.default_rng([PRETEXTS.index(pretext), seed])
    ability = 0.3 + 0.04 * PRETEXTS.index(pretext)
    present = truth.uniform(size=(IMAGES, 20)) < 0.08
    if task == "voc_cls":
        scores = np.clip(chance.normal(0.3 + 0.4 * ability * present, 0.15), 0, 1).astype(np.float32)
        predictions = {"scores": scores, "labels": present.astype(np.int8)}
    else:
        shares = np.concatenate([np.full((IMAGES, 1), 3.0), present * truth.uniform(size=present.shape)], axis=1)
        truth_pixels = np.round(50_000 * shares / shares.sum(axis=1, keepdims=True)).astype(np.int32)
        right = np.round(truth_pixels * np.clip(chance.normal(ability, 0.1, truth_pixels.shape), 0, 1)).astype(np.int32)
        confusion = np.zeros((IMAGES, 22, 21), np.int32)
        places = np.arange(21)
        confusion[:, places, places] = right
        confused = chance.integers(1, 21, (IMAGES, 21))
        images = np.arange(IMAGES)[:, None]
        confusion[images, places, (places + confused) % 21] += truth_pixels - right
        confusion[:, 21, 0] = 900
        predictions = {"confusion": confusion}
    ids = [f"2008_{n:06}" for n in range(IMAGES)]
    values = {metrics.get(name).key: metrics.compute(name, predictions, CLASSES, CLASSES) for name in TASKS[task]}
    classes = {metrics.get(name).key: metrics.per_class(name, predictions, CLASSES, CLASSES) for name in TASKS[task]}
    return pack_predictions(predictions, ids), dict(values), {name: scores for name, scores in classes.items() if scores}


def _with_comment(packed: bytes, comment: str) -> bytes:
    """Return the same archive with a comment: the same arrays in another file, without packing them again."""
    return packed[:-2] + struct.pack("<H", len(comment)) + comment.encode()
