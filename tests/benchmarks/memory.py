"""How much memory packing and training hold at most with 1,000 and with 100,000 images; the two should be equal."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.data import demo
from tests.benchmarks.common import Figure

COUNTS = (1_000, 100_000)
QUICK = """
    --pretext l1_color --downstream voc_seg --protocol demo --size 64 --trunk unet:depth=3,width=1 --device cpu --threads 1
    --set recipe.epochs=1 --set recipe.batch_size=64 --set recipe.evaluation_images=32
""".split()
WATCH = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""A process between ours and the measured one: a child's peak begins with what its parent held."""
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "1000000"}
"""glibc keeps up to 64 MB of what was freed, by chance, which is more than what is looked for; so told, it keeps 1 MB."""


def measure(counts: tuple[int, int] = COUNTS) -> list[Figure]:
    """Return the peak MB of a first run and of one with everything packed, for both counts, and the ratios."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as place:
        drawn = demo.make(Path(place) / "drawn", 48, 24, 16)
        few, many = (_folder(Path(place) / str(count), drawn["demo_unlabelled"], count) for count in counts)
        for seed, what in enumerate(("index, pack, train", "train alone")):
            peaks = [_peak(folder, drawn["demo"], Path(place), seed) for folder in (few, many)]
            figures += [Figure(f"{what}, {n:,} images", peak, "MB") for n, peak in zip(counts, peaks, strict=True)]
            figures.append(Figure(f"{what}, many against few", peaks[1] / peaks[0], "times", "within 5 % of 1"))
    return figures


def _folder(folder: Path, drawn: Path, count: int) -> Path:
    """Link the drawn images to `count` names."""
    files = sorted(drawn.rglob("*.jpg"))
    folder.mkdir()
    for place in range(count):
        os.link(files[place % len(files)], folder / f"image_{place:012}.jpg")
    return folder


def _peak(folder: Path, labelled: Path, place: Path, seed: int) -> float:
    """Return the peak memory of one command in MB."""
    command = [sys.executable, "-m", "bench", "run", *QUICK, "--seed", str(seed), "--data", str(labelled)]
    command += ["--pretrain-data", str(folder), "--out", str(place / "runs")]
    environment = os.environ | GIVE_BACK | {"PRETEXT_BENCH_HOME": str(place / "home")}
    watched = [sys.executable, "-c", WATCH, *command]
    return int(subprocess.run(watched, env=environment, check=True, capture_output=True, text=True).stdout) / 1000
