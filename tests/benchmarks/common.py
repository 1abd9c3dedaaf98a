"""What the measurements share: a figure with its goal, images to read, and a bench of their own to work on."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Figure:
    """One figure: what was measured, how much of which unit, and what it should be ("" where there is no goal)."""

    what: str
    value: float
    unit: str
    goal: str = ""


def ratio(what: str, value: float, least: float) -> Figure:
    """Return a ratio that should be at least `least`."""
    return Figure(what, value, "times", f"at least {least:g}")


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def workplace() -> Iterator[Path]:
    """Give a temporary folder that is also the home of prepared data."""
    with tempfile.TemporaryDirectory() as name:
        before = os.environ.get("PRETEXT_BENCH_HOME")
        os.environ["PRETEXT_BENCH_HOME"] = f"{name}/home"
        try:
            yield Path(name)
        finally:
            os.environ.pop("PRETEXT_BENCH_HOME")
            if before is not None:
                os.environ["PRETEXT_BENCH_HOME"] = before


def photographs(folder: Path, count: int, width: int = 640, height: int = 480) -> list[Path]:
    """Write synthetic JPEGs as large as COCO's (640x480, about 160 kB): coloured noise that is coarse and fine, as nature's."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    found = []
    for number in range(count):
        image = np.full((height, width, 3), 128.0)
        for level, strength in ((4, 60), (16, 30), (64, 18), (240, 34)):
            grid = random.normal(0, strength, (level * 3 // 4, level, 3)).clip(-127, 127) + 128
            layer = Image.fromarray(grid.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
            image += np.asarray(layer, dtype=np.float64) - 128
        found.append(folder / f"{number:06d}.jpg")
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(found[-1], quality=90)
    return found
