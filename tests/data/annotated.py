"""Small data sets in COCO's form, for the tests of its reader."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from bench.data.dataset import Dataset
from bench.data.masks import read_mask

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 90, "name": "tree"}]
WIDTH, HEIGHT = 40, 30
SQUARE = [[4, 5, 20, 5, 20, 18, 4, 18]]


def thing(identity: int, image: int, category: int, box: list[float], outline: Any = SQUARE, crowd: int = 0) -> dict[str, Any]:
    return {
        "id": identity, "image_id": image, "category_id": category, "bbox": box, "segmentation": outline, "iscrowd": crowd,
    }  # fmt: skip


def ellipse(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.asfortranarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2, dtype=np.uint8)


def runs(inside: np.ndarray) -> dict[str, Any]:
    """Return the run lengths down the columns, counted the slow way; the first run is of pixels outside."""
    counts, last = [0], 0
    for value in inside.T.ravel().tolist():
        if value != last:
            counts.append(0)
            last = value
        counts[-1] += 1
    return {"size": [HEIGHT, WIDTH], "counts": counts}


def packed(inside: np.ndarray) -> dict[str, Any]:
    found = coco_mask.encode(inside)
    return {"size": [HEIGHT, WIDTH], "counts": found["counts"].decode()}


def objects() -> list[dict[str, Any]]:
    """Return objects of four images: outlines of each form, overlaps within and across classes, crowds, boxes over the edge."""
    return [
        thing(1, 1, 7, [4, 5, 16, 13]),
        thing(2, 1, 2, [10.5, 8.25, 20.0, 15.5], packed(ellipse(20, 16, 8))),
        thing(3, 1, 7, [1, 1, 12, 12], [[1, 1, 13, 1, 13, 13], [30, 20, 38, 20, 38, 29, 30, 29]]),
        thing(4, 2, 90, [30, 20, 50, 50], runs(ellipse(32, 24, 9)), crowd=1),
        thing(5, 2, 7, [-5, -5, 12.5, 11]),
        thing(6, 3, 2, [39, 29, 4, 0]),
        thing(7, 3, 90, [60, 3, 9, 9], runs(ellipse(5, 5, 4)), crowd=1),
        thing(8, 3, 90, [2, 3, 9, 9]),
    ]


def write(root: Path, part: str = "train2017", **change: Any) -> Path:
    """Write four images, of which the last has no object, and their file of instances."""
    images = [{"id": n, "file_name": f"{part}_{n}.png", "width": WIDTH, "height": HEIGHT} for n in range(1, 5)]
    (root / part).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    for one in images:
        colour = tuple(np.random.default_rng(one["id"]).integers(0, 256, 3).tolist())
        Image.new("RGB", (WIDTH, HEIGHT), colour).save(root / part / one["file_name"])
    path = root / "annotations" / f"instances_{part}.json"
    path.write_text(json.dumps({"images": images, "annotations": objects(), "categories": CATEGORIES, **change}))
    return path


def mask_of(dataset: Dataset, identity: str, folder: str = "instances", size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    image = next(one for one in dataset.images if one.id == identity)
    return read_mask(dataset, folder, identity, size, dataset.path(image)).ids


def write_panoptic(root: Path, part: str = "val2017", images: int = 3) -> np.ndarray:
    """Write panoptic annotations of the images of a part, and return the ids of the segments that each image has."""
    categories = [*({**one, "isthing": 1} for one in CATEGORIES), {"id": 150, "name": "sky", "isthing": 0}]
    segments = np.random.default_rng(3).choice(
        [0, 1, 300, 70_000, 256**3 - 1], (images, HEIGHT, WIDTH), p=[0.1, 0.2, 0.2, 0.3, 0.2]
    )
    folder = root / "annotations" / f"panoptic_{part}"
    folder.mkdir(parents=True)
    (root / part).mkdir(exist_ok=True)
    listed, annotations = [], []
    for number, ids in enumerate(segments, 1):
        name = f"{part}_{number}"
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / part / f"{name}.png")
        colours = np.stack([ids % 256, ids // 256 % 256, ids // 256**2], axis=-1).astype(np.uint8)
        Image.fromarray(colours).save(folder / f"{name}.png")
        info = [
            {"id": 1, "category_id": 150, "iscrowd": 0}, {"id": 300, "category_id": 7, "iscrowd": 0},
            {"id": 70_000, "category_id": 2, "iscrowd": 1}, {"id": 256**3 - 1, "category_id": 7, "iscrowd": 1},
        ]  # fmt: skip
        listed.append({"id": number, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT})
        annotations.append({"image_id": number, "file_name": f"{name}.png", "segments_info": info})
    content = {"images": listed, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"panoptic_{part}.json").write_text(json.dumps(content))
    return segments
