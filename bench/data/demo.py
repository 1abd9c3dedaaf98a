"""The demo data: synthetic images, drawn on first use, always the same, written in VOCdevkit and COCO layout.

Eight shapes lie on a textured, almost grey ground. A shape's class decides its hue but not its lightness: a network that colours
the grey image must recognise the shape, so colorization has something to teach. There are 4,000 unlabelled and 800 labelled
images of 64x64 pixels. Scores on these images must not be compared with scores on photographs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from bench.metrics import VOID, voc_palette
from bench.seeding import key
from bench.storage import files

SIZE = 64
UNLABELLED, TRAIN, VAL = 4000, 500, 300
SHAPES = ("disc", "ring", "crescent", "star", "triangle", "square", "bar", "cross")  # neighbours have neighbouring hues
# Degrees in CIELAB, not the whole circle: the median of all hues is grey, which the L1 loss would predict for every shape.
FIRST_HUE, HUES = 20.0, 216.0
VERSION = 1
NOTE = "Synthetic images drawn by pretext-bench. Scores on them say nothing about photographs.\n"


def make(root: Path, unlabelled_count: int = UNLABELLED, train: int = TRAIN, val: int = VAL) -> dict[str, Path]:
    """Draw the two demo data sets below `root` when they are missing; return their folders by name."""
    labelled, unlabelled = root / f"v{VERSION}" / "labelled", root / f"v{VERSION}" / "unlabelled"
    files.publish_folder(labelled, lambda folder: _write_voc(folder, train, val))
    files.publish_folder(unlabelled, lambda folder: _write_coco(folder, unlabelled_count))
    return {"demo": labelled, "demo_unlabelled": unlabelled}


def _write_voc(root: Path, train: int, val: int) -> None:
    folder = root / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Main", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    (folder / "SYNTHETIC.txt").write_text(NOTE)
    (folder / "classes.txt").write_text("\n".join(SHAPES) + "\n")
    palette = voc_palette().tobytes()
    ids = [f"demo_{place:06d}" for place in range(train + val)]
    for identity, (drawn, mask, objects) in zip(ids, _images_of("labelled", len(ids)), strict=True):
        drawn.save(folder / "JPEGImages" / f"{identity}.jpg", quality=95, subsampling=0)
        image = Image.fromarray(mask, mode="P")
        image.putpalette(palette)
        image.save(folder / "SegmentationClass" / f"{identity}.png")
        _annotation(identity, objects).write(folder / "Annotations" / f"{identity}.xml")
    lists = {"train": ids[:train], "val": ids[train:], "trainval": ids}
    for task in ("Main", "Segmentation"):
        for name, members in lists.items():
            (folder / "ImageSets" / task / f"{name}.txt").write_text("\n".join(members) + "\n")


def _write_coco(root: Path, count: int) -> None:
    (root / "train2017").mkdir()
    (root / "annotations").mkdir()
    (root / "SYNTHETIC.txt").write_text(NOTE)
    images = []
    for place, (image, _, _) in enumerate(_images_of("unlabelled", count)):
        name = f"{place:012d}.jpg"
        image.save(root / "train2017" / name, quality=95, subsampling=0)
        images.append({"id": place, "file_name": name, "width": SIZE, "height": SIZE})
    content = {"info": {"description": NOTE.strip()}, "images": images, "annotations": [], "categories": []}
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))


Object = tuple[int, bool, tuple[int, int, int, int]]  # class, difficult, box (xmin, ymin, xmax, ymax), inclusive


def _images_of(name: str, count: int) -> Iterator[tuple[Image.Image, NDArray[np.uint8], list[Object]]]:
    for place in range(count):
        yield draw(np.random.default_rng(key("demo", VERSION, name, place)))


def draw(rng: np.random.Generator) -> tuple[Image.Image, NDArray[np.uint8], list[Object]]:
    """Draw one image: RGB 64x64, its mask uint8 (64, 64) with a void border around each shape, and its objects."""
    scale = 4  # drawn large and shrunk, for smooth edges
    ground = float(rng.uniform(30, 75))
    canvas = _painted(rng, ground, hue=float(rng.uniform(0, 360)), chroma=float(rng.uniform(0, 8)), contrast=7)
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    objects: list[Object] = []
    for _ in range(int(rng.integers(1, 3))):
        kind = int(rng.integers(len(SHAPES)))
        radius = float(rng.uniform(13, 21))
        centre = rng.uniform(radius * 0.7, SIZE - radius * 0.7, size=2)
        stencil = Image.new("L", (SIZE * scale, SIZE * scale))
        _stamp(ImageDraw.Draw(stencil), SHAPES[kind], centre * scale, radius * scale, float(rng.normal(0, 0.2)))
        cover = np.asarray(stencil.resize((SIZE, SIZE), Image.Resampling.BOX)).astype(np.float64) / 255
        inside = cover >= 0.5
        if inside.sum() < 20:
            continue
        rows, columns = np.nonzero(inside)
        box = (int(columns.min()) + 1, int(rows.min()) + 1, int(columns.max()) + 1, int(rows.max()) + 1)
        hidden = float((mask[inside] > 0).mean())
        if hidden > 0.4:
            continue
        skin = _painted(rng, _contrasting(rng, ground), _hue(rng, kind), float(rng.uniform(45, 65)), contrast=4)
        canvas = canvas * (1 - cover[..., None]) + skin * cover[..., None]
        outline = np.asarray(Image.fromarray(inside.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(3))) > 0
        mask[outline] = VOID
        mask[inside] = kind + 1
        objects.append((kind, radius < 14, box))
    canvas[..., 0] += rng.normal(0, 1.5, (SIZE, SIZE))
    return Image.fromarray((_srgb(canvas) * 255).round().astype(np.uint8)), mask, objects


def _hue(rng: np.random.Generator, kind: int) -> float:
    return FIRST_HUE + HUES * kind / len(SHAPES) + float(rng.normal(0, 4))


def _contrasting(rng: np.random.Generator, ground: float) -> float:
    """Return a lightness that differs from the ground's by 18 to 35, independent of the class."""
    step = float(rng.uniform(18, 35))
    darker = ground - step >= 15 and (ground + step > 85 or rng.uniform() < 0.5)
    return ground - step if darker else ground + step


def _painted(rng: np.random.Generator, lightness: float, hue: float, chroma: float, contrast: float) -> NDArray[np.float64]:
    """Return a textured 64x64 surface in CIELAB around a lightness in [0, 100], with the most chroma in sRGB up to `chroma`."""
    texture = np.zeros((SIZE, SIZE))
    for cells in (4, 16):
        grid = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
        texture += np.asarray(grid.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    if rng.uniform() < 0.5:
        angle, wave = rng.uniform(0, math.tau), rng.uniform(3, 9)
        y, x = np.mgrid[:SIZE, :SIZE]
        texture += 1.2 * np.sin((x * math.cos(angle) + y * math.sin(angle)) * math.tau / wave)
    surface = np.empty((SIZE, SIZE, 3))
    surface[..., 0] = np.clip(lightness + contrast * texture / 2, 8, 92)
    direction = np.array([math.cos(math.radians(hue)), math.sin(math.radians(hue))])
    extremes = np.array([[surface[..., 0].min(), 0, 0], [surface[..., 0].max(), 0, 0]])
    for share in np.linspace(1, 0.1, 19):
        extremes[:, 1:] = surface[..., 1:] = share * chroma * direction
        if _linear(extremes).min() >= 0 and _linear(extremes).max() <= 1:
            break
    return surface


def _linear(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return linear RGB (..., 3) of CIELAB (..., 3), D65; outside [0, 1] where sRGB has no such colour."""
    y = (lab[..., 0] + 16) / 116
    cubes = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    xyz = np.where(cubes > 6 / 29, cubes**3, (cubes - 16 / 116) * 3 * (6 / 29) ** 2) * np.array([0.95047, 1.0, 1.08883])
    linear: NDArray[np.float64] = xyz @ np.array(
        [[3.2404542, -0.969266, 0.0556434], [-1.5371385, 1.8760108, -0.2040259], [-0.4985314, 0.041556, 1.0572252]]
    )
    return linear


def _srgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sRGB in [0, 1] of CIELAB (..., 3), in double precision, so that every machine draws the same pixels."""
    linear = np.clip(_linear(lab), 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _stamp(pen: ImageDraw.ImageDraw, shape: str, centre: NDArray[np.float64], radius: float, turn: float) -> None:
    x, y = centre.tolist()

    def points(polar: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x + radius * r * math.cos(turn + a), y + radius * r * math.sin(turn + a)) for r, a in polar]

    def corners(flat: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return points([(math.hypot(u, v), math.atan2(v, u)) for u, v in flat])

    def disc(r: float, fill: int, shift: float = 0.0) -> None:
        cx, cy = x + radius * shift * math.cos(turn), y + radius * shift * math.sin(turn)
        pen.ellipse([cx - radius * r, cy - radius * r, cx + radius * r, cy + radius * r], fill=fill)

    if shape == "disc":
        disc(0.9, 255)
    elif shape == "ring":
        disc(1.0, 255)
        disc(0.55, 0)
    elif shape == "crescent":
        disc(1.0, 255)
        disc(0.85, 0, shift=0.55)
    elif shape == "square":
        pen.polygon(corners([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]), fill=255)
    elif shape == "bar":
        pen.polygon(corners([(-1.2, -0.35), (1.2, -0.35), (1.2, 0.35), (-1.2, 0.35)]), fill=255)
    elif shape == "triangle":
        pen.polygon(points([(1.1, place * math.tau / 3) for place in range(3)]), fill=255)
    elif shape == "star":
        pen.polygon(points([(1.15 if place % 2 == 0 else 0.48, place * math.tau / 10) for place in range(10)]), fill=255)
    else:
        pen.polygon(corners([(-1, -0.32), (1, -0.32), (1, 0.32), (-1, 0.32)]), fill=255)
        pen.polygon(corners([(-0.32, -1), (0.32, -1), (0.32, 1), (-0.32, 1)]), fill=255)


def _annotation(identity: str, objects: list[Object]) -> ElementTree.ElementTree[ElementTree.Element]:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{identity}.jpg"
    size = ElementTree.SubElement(root, "size")
    for name, value in (("width", SIZE), ("height", SIZE), ("depth", 3)):
        ElementTree.SubElement(size, name).text = str(value)
    for kind, difficult, box in objects:
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = SHAPES[kind]
        ElementTree.SubElement(item, "difficult").text = str(int(difficult))
        corner = ElementTree.SubElement(item, "bndbox")
        for name, number in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            ElementTree.SubElement(corner, name).text = str(number)
    return ElementTree.ElementTree(root)
