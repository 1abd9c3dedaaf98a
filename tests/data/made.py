"""Small VOC folders and packs for the tests of this room."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.dataset import VOC_CLASSES
from bench.metrics import voc_palette


def quiet(*_: object) -> None:
    pass


def devkit(root: Path) -> Path:
    return root / "VOCdevkit" / "VOC2012"


def write_voc(root: Path, sizes: list[tuple[int, int]]) -> Path:
    """Write images of some (width, height) with a mask that has class 1 on its left half and void in its last row."""
    folder = devkit(root)
    for name in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Main", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for place, (width, height) in enumerate(sizes):
        mask = np.zeros((height, width), dtype=np.uint8)
        mask[:, : width // 2] = 1
        mask[-1] = 255
        Image.fromarray(np.full((height, width, 3), 100 + place, dtype=np.uint8)).save(folder / "JPEGImages" / f"p{place}.png")
        image = Image.fromarray(mask, mode="P")
        image.putpalette(voc_palette().tobytes())
        image.save(folder / "SegmentationClass" / f"p{place}.png")
        objects = "".join(
            f"<object><name>{name}</name><difficult>{flag}</difficult></object>" for name, flag in (("aeroplane", 0), ("cat", 1))
        )
        (folder / "Annotations" / f"p{place}.xml").write_text(f"<annotation>{objects}</annotation>")
    return root


def write_own(root: Path, count: int = 20, classes: int = 3, names: str = "p{:02}", void: bool = True) -> Path:
    """Write a VOC folder of small JPEGs, one object each: image i has the class i % classes + 1 of VOC's, a palette mask with a
    void border, an annotation, and is in the lists train (first half), val (third quarter) or test (last quarter)."""
    for name in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Main", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True, exist_ok=True)
    ids = [names.format(place) for place in range(count)]
    for place, identity in enumerate(ids):
        one = place % classes + 1
        noise = np.random.default_rng(place).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "JPEGImages" / f"{identity}.jpg")
        mask = np.zeros((24, 32), dtype=np.uint8)
        mask[6:18, 8:24] = 255 if void else one
        mask[8:16, 10:22] = one
        save_mask(mask, root / "SegmentationClass" / f"{identity}.png")
        text = f"<annotation><object><name>{VOC_CLASSES[one - 1]}</name></object></annotation>"
        (root / "Annotations" / f"{identity}.xml").write_text(text)
    parts = {"train": ids[: count // 2], "val": ids[count // 2 : 3 * count // 4], "test": ids[3 * count // 4 :]}
    for name, some in parts.items():
        write_list(root, name, some)
    return root


def write_list(root: Path, name: str, lines: Iterable[str]) -> None:
    """Write a list for both tasks."""
    for task in ("Main", "Segmentation"):
        (root / "ImageSets" / task / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def save_mask(ids: np.ndarray, path: Path, palette: np.ndarray | None = None) -> None:
    """Save class ids as a palette image, with VOC's palette unless another (K, 3) is given."""
    image = Image.fromarray(ids.astype(np.uint8), mode="P")
    image.putpalette((voc_palette() if palette is None else palette).astype(np.uint8).tobytes())
    image.save(path)
