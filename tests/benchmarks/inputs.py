"""From images to normalised Lab batches: a pack, against the paper's pipeline and torchvision's on as many cores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.color import rgb2lab

from bench import colour
from bench.config import MachineConfig
from bench.data import batches, catalogue, packs
from bench.training.machine import make_machine
from tests.benchmarks.common import CORES, Figure, photographs, ratio, seconds, workplace

IMAGES, BATCH, PACKED_EPOCHS = 192, 16, 8


def papers(files: list[Path], size: int) -> None:
    """Do as the released generator does: decode and resize (nearest) an image at a time, scikit-image's rgb2lab on the batch."""
    for first in range(0, len(files), BATCH):
        batch = np.empty((BATCH, size, size, 3), dtype=np.float32)
        for place, file in enumerate(files[first : first + BATCH]):
            with Image.open(file) as image:
                batch[place] = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.NEAREST))
        lab = rgb2lab(batch * np.float32(1 / 255))
        lab[..., :1] / 50.0 - 1.0, lab[..., 1:] / 128


def torchvisions(folder: Path, size: int) -> None:
    """Do as a tutorial does: ImageFolder, a DataLoader with a worker a core, Lab by kornia a batch at a time."""
    from kornia.color import rgb_to_lab
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    change = v2.Compose([v2.Resize((size, size)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    loader = torch.utils.data.DataLoader(ImageFolder(folder, change), BATCH, shuffle=True, num_workers=CORES)
    for images, _ in loader:
        lab = rgb_to_lab(images)
        torch.cat([lab[:, :1] / 50 - 1, lab[:, 1:] / 128], dim=1)


def packed(split: batches.SplitData, epochs: int) -> None:
    """Do as the bench does in training."""
    for _, batch in batches.training(split, BATCH, 0, epochs, 0, 0, torch.device("cpu")):
        colour.split_lab(batch["images"])


def measure() -> list[Figure]:
    """Return images/s of the three at the paper's size and the demo's."""
    make_machine(MachineConfig(device="cpu", threads=CORES))
    found: list[Figure] = []
    with workplace() as folder:
        files = photographs(folder / "images" / "all", IMAGES)
        dataset = catalogue.read(folder / "images", "photographs")
        for size in (256, 64):
            order = packs.Order(dataset, "images", packs.PackRule(size=size))
            pack = packs.open_pack(order, lambda _: None, lambda *_: None)
            split = batches.SplitData(pack, np.arange(IMAGES))
            packed(split, 1)
            ours = IMAGES * PACKED_EPOCHS / seconds(lambda split=split: packed(split, PACKED_EPOCHS))  # type: ignore[misc]
            paper = IMAGES / seconds(lambda size=size: papers(files, size))  # type: ignore[misc]
            vision = IMAGES / seconds(lambda size=size: torchvisions(folder / "images", size))  # type: ignore[misc]
            found += [
                Figure(f"pack to Lab, {size} px", ours, "images/s"),
                Figure(f"the paper's pipeline, {size} px", paper, "images/s"),
                Figure(f"ImageFolder, {CORES} workers, {size} px", vision, "images/s"),
                ratio(f"pack against the paper's, {size} px", ours / paper, 20),
                ratio(f"pack against ImageFolder, {size} px", ours / vision, 5),
            ]
    return found
