"""Small VOC folders and packs for the tests of this room."""

from pathlib import Path

import numpy as np
from PIL import Image

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
