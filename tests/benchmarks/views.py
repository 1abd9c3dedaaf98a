"""Two views of each image, made by the batch from a pack, against lightly's SimCLR transform on the same JPEG files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from bench.config import MachineConfig
from bench.data import batches, catalogue, packs
from bench.training.machine import make_machine
from bench.views import View
from tests.benchmarks.common import CORES, Figure, photographs, ratio, seconds, workplace

IMAGES, BATCH, ROUNDS = 512, 64, 5
LARGER = 1.15
"""The side of a pack's images, in sides of a view."""
GOALS = {64: (6, 4), 128: (5, 3), 224: (3.5, 2.3)}
"""At least how many times as fast, by size: without a worker, and with two."""


def ours(view: View, split: batches.SplitData, seed: int) -> None:
    """Make two views of all images, normalised as lightly normalises."""
    generator = torch.Generator().manual_seed(seed)
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for _, batch in batches.training(split, BATCH, seed, 1, 0, 0, torch.device("cpu")):
        for _ in range(2):
            view(batch["images"], generator).sub_(mean).div_(deviation)


class Files(Dataset[list[torch.Tensor]]):
    """JPEG files, each decoded and made two views of by lightly."""

    def __init__(self, files: list[Path], size: int) -> None:
        from lightly.transforms import SimCLRTransform

        self.files, self.change = files, SimCLRTransform(input_size=size)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> list[torch.Tensor]:
        from PIL import Image

        with Image.open(self.files[place]) as image:
            return self.change(image.convert("RGB"))


@contextmanager
def files_of(folder: Path, count: int = IMAGES) -> Iterator[list[Path]]:
    """Give JPEG files, also in folder / "images": some of the folder in BENCH_IMAGES, or synthetic ones."""
    given = os.environ.get("BENCH_IMAGES")
    if not given:
        yield photographs(folder / "images", count, 320, 240)
        return
    (folder / "images").mkdir()
    found = sorted(Path(given).glob("*.jpg"))[:count]
    for file in found:
        (folder / "images" / file.name).symlink_to(file.resolve())
    yield found


def measure() -> list[Figure]:
    """Return images/s of two views by size, and ratios: the median of rounds in which all ways are taken in turns.

    The JPEG files are those of the folder that BENCH_IMAGES names, or synthetic.
    """
    make_machine(MachineConfig(device="cpu", threads=CORES))
    found: list[Figure] = []
    with workplace() as folder, files_of(folder) as files:
        dataset = catalogue.read(folder / "images", "photographs")
        for size, goals in GOALS.items():
            rule = packs.PackRule(size=round(LARGER * size))
            pack = packs.open_pack(packs.Order(dataset, "images", rule), lambda _: None, lambda *_: None)
            split, view = batches.SplitData(pack, np.arange(len(files))), View(size=size)
            loaders = [DataLoader(Files(files, size), BATCH, shuffle=True, num_workers=n, drop_last=True) for n in (0, 2)]
            ways: dict[str, Callable[[int], object]] = {
                "ours": lambda seed, view=view, split=split: ours(view, split, seed),  # type: ignore[misc]
                "lightly": lambda _, loader=loaders[0]: list(map(len, loader)),  # type: ignore[misc]
                "lightly, two workers": lambda _, loader=loaders[1]: list(map(len, loader)),  # type: ignore[misc]
            }
            ours(view, split, ROUNDS)
            took = [{name: seconds(lambda way=way, seed=seed: way(seed)) for name, way in ways.items()} for seed in range(ROUNDS)]
            found += [Figure(f"{name}, {size} px", len(files) / median(t[name] for t in took), "images/s") for name in ways]
            for name, goal in zip(list(ways)[1:], goals, strict=True):
                found.append(ratio(f"ours against {name}, {size} px", median(t[name] / t["ours"] for t in took), goal))
    return [*found, Figure("threads", float(torch.get_num_threads()), "")]
