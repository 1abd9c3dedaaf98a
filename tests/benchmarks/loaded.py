"""A training step beside busy neighbours: with threads that spin as libgomp lets them, as the program does, and on one thread."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

from bench.training.openmp import VARIABLES
from tests.benchmarks.common import Figure, ratio

ROUNDS = 3
WAYS = ("as libgomp has it", "as the program has it", "on one thread")
BUSY = (0, 1, 2)
ONE = """
import sys
from bench.training import openmp
if sys.argv[1] != "as libgomp has it":
    openmp.spin_less()
import torch
if sys.argv[1] == "on one thread":
    torch.set_num_threads(1)
from bench.training import throughput
throughput.BATCH, throughput.SECONDS = 16, 3.0
print(throughput.images_per_second("unet:depth=6,width=16", 64))
"""


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Keep as many processes busy."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.wait()


def measure() -> list[Figure]:
    """Return the median images/s of each way beside none, one and two busy neighbours, taken in turns, and their ratios."""
    plain = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, "OMP_NUM_THREADS")}
    speeds: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS):
        for count in BUSY:
            for way in WAYS:
                with neighbours(count):
                    done = subprocess.run(
                        [sys.executable, "-c", ONE, way], env=plain, stdout=subprocess.PIPE, text=True, check=True
                    )
                speeds.setdefault((way, count), []).append(float(done.stdout))
    found = {key: median(values) for key, values in speeds.items()}
    figures = [Figure(f"{way}, {count} busy neighbours", found[way, count], "images/s") for way in WAYS for count in BUSY]
    before, after, alone = WAYS
    figures.append(ratio("idle: the program's against libgomp's", found[after, 0] / found[before, 0], 0.95))
    for count in BUSY[1:]:
        figures += [
            Figure(f"libgomp's, {count} neighbours against none", found[before, count] / found[before, 0], "times"),
            Figure(f"the program's, {count} neighbours against none", found[after, count] / found[after, 0], "times"),
            Figure(
                f"one thread, {count} neighbours against two threads and none", found[alone, count] / found[after, 0], "times"
            ),
        ]
    return figures
