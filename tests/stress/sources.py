"""Source data: images, masks, annotations and lists, which others wrote. A broken one may be another valid one."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.data import catalogue, coco, splits, voc
from bench.data.dataset import VOC_CLASSES, decode
from bench.data.masks import decode_mask
from bench.metrics import voc_palette
from tests.stress.cases import Format, Subject
from tests.stress.documents import XML
from tests.stress.ground import Ground, quiet
from tests.stress.image_files import BMP, JPEG, PNG, TIFF, WEBP
from tests.stress.mutations import BYTES, JSON, TEXT

IMAGE_MEMORY = 1200 << 20
"""An image of the most pixels that are let in, as it is decoded and as it is given back."""


def _drawing(mode: str = "RGB") -> Image.Image:
    rows, columns = np.mgrid[:48, :64]
    pixels = np.stack([rows * 5, columns * 4, (rows * columns) % 256], axis=2).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    return image.convert(mode)


def _saved(image: Image.Image, kind: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def _some(seeds: Path | None, pattern: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(seeds.glob(pattern))[:200:10]] if seeds else []


def images(folder: Path, seeds: Path | None) -> list[Format]:
    oriented = Image.Exif()
    oriented[0x0112] = 6
    kinds: dict[str, tuple[str, Callable[[], list[bytes]], dict[str, Any], int]] = {
        "jpeg": (
            ".jpg",
            lambda: [
                _saved(_drawing(), "JPEG"),
                _saved(_drawing(), "JPEG", progressive=True, exif=oriented),
                _saved(_drawing("L"), "JPEG"),
                _saved(_drawing("CMYK"), "JPEG"),
                *_some(seeds, "JPEGImages/*.jpg"),
            ],
            {**BYTES, **JPEG},
            12,
        ),
        "png": (
            ".png",
            lambda: [
                _saved(_drawing(), "PNG", exif=oriented),
                _saved(_drawing("RGBA"), "PNG"),
                _saved(_drawing("P"), "PNG", transparency=3),
                _saved(_drawing("I;16"), "PNG"),
                _saved(_drawing("LA"), "PNG"),
            ],
            {**BYTES, **PNG},
            10,
        ),
        "webp": (
            ".webp",
            lambda: [_saved(_drawing(), "WEBP"), _saved(_drawing("RGBA"), "WEBP", lossless=True, exif=oriented)],
            {**BYTES, **WEBP},
            5,
        ),
        "bmp": (
            ".bmp",
            lambda: [_saved(_drawing(), "BMP"), _saved(_drawing("P"), "BMP")],
            {**BYTES, **BMP},
            5,
        ),
        "tiff": (
            ".tiff",
            lambda: [
                _saved(_drawing(), "TIFF"),
                _saved(_drawing(), "TIFF", compression="tiff_lzw"),
                _saved(_drawing(), "TIFF", compression="jpeg"),
                _saved(_drawing("1"), "TIFF", compression="group4"),
                _saved(_drawing("I;16"), "TIFF", compression="tiff_adobe_deflate"),
            ],
            {**BYTES, **TIFF},
            8,
        ),
    }

    def subject(name: str) -> Callable[[], Subject]:
        suffix, examples, _, _ = kinds[name]

        def make_it() -> Subject:
            path = folder / f"image{suffix}"
            every = examples()
            path.write_bytes(every[0])
            loud = name == "tiff"
            return Subject(path, lambda: decode(path, upright=True).tobytes(), every, memory=IMAGE_MEMORY, loud=loud)

        return make_it

    return [Format(name, subject(name), changes, share) for name, (_, _, changes, share) in kinds.items()]


def masks(folder: Path, seeds: Path | None) -> list[Format]:
    ids = np.zeros((48, 64), dtype=np.uint8)
    ids[4:20, 8:40], ids[20:40, 30:60], ids[0] = 3, 20, 255
    palette = Image.fromarray(ids, mode="P")
    palette.putpalette(voc_palette().tobytes())
    forms = {
        "mask-palette": [_saved(palette, "PNG"), *_some(seeds, "SegmentationClass/*.png")],
        "mask-grey": [_saved(Image.fromarray(ids), "PNG")],
        "mask-rgb": [_saved(Image.fromarray(voc_palette()[ids]), "PNG")],
    }

    def subject(name: str) -> Callable[[], Subject]:
        def make_it() -> Subject:
            path = folder / f"{name}.png"
            path.write_bytes(forms[name][0])

            def read() -> bytes:
                said = path.read_bytes()[16:24]  # other examples have other sizes
                size = struct.unpack(">II", said) if seeds is not None and len(said) == 8 else (64, 48)
                return decode_mask(path, 20, size, folder / "image.jpg").ids.tobytes()

            return Subject(path, read, forms[name], memory=IMAGE_MEMORY)

        return make_it

    return [Format(name, subject(name), {**BYTES, **PNG}, 5) for name in forms]


def lists(ground: Ground, seeds: Path | None) -> list[Format]:
    def xml() -> Subject:
        path = ground.devkit / "Annotations" / "demo_000003.xml"
        classes = tuple((ground.devkit / "classes.txt").read_text().split())
        examples = [path.read_bytes(), *_some(seeds, "Annotations/*.xml")]
        return Subject(path, lambda: voc.read_labels(path, (*classes, *VOC_CLASSES)), examples)

    def coco_json(name: str) -> Callable[[], Subject]:
        def make_it() -> Subject:
            path = ground.coco / "annotations" / name
            return Subject(path, lambda: coco.read(ground.coco, "mine").model_dump_json())

        return make_it

    def beside(name: str) -> Callable[[], Subject]:
        def make_it() -> Subject:
            path = ground.devkit / name
            if not path.is_file():
                path.write_text("ring\ndisc\nstar\n")

            def read() -> str:
                dataset = catalogue.open_dataset(str(ground.devkit), quiet)
                subset = "labels" if "Main" in name else "SegmentationClass"
                return splits.open_splits(dataset, "official", subset).model_dump_json()

            def tidy() -> None:
                ground.clear("paths", "splits")

            # A class that is not in the list any more is found where it is used.
            names = (
                (str(path), "Annotations/")
                if name == "classes.txt"
                else (str(path), f"{Path(name).parent}/{path.name}".removeprefix("./"))
            )
            return Subject(path, read, names=(*names, *_needs(name)), tidy=tidy)

        return make_it

    text = {**BYTES, **TEXT}
    return [
        Format("voc-xml", xml, {**BYTES, **XML}, 8),
        Format("coco-instances", coco_json("instances_train2014.json"), {**BYTES, **JSON, **TEXT}, 6),
        Format("coco-info", coco_json("image_info_test2014.json"), {**BYTES, **JSON, **TEXT}, 4),
        Format("list-main", beside("ImageSets/Main/train.txt"), text, 3),
        Format("list-masks", beside("ImageSets/Segmentation/val.txt"), text, 3),
        Format("classes", beside("classes.txt"), text, 3),
        Format("scored", beside("scored_classes.txt"), text, 3),
    ]


def _needs(name: str) -> tuple[str, ...]:
    """Return how a list that is empty or short is named: by what the split needs."""
    folder = Path(name).parent
    return (f"{folder} needs train.txt and val.txt", "images to split; at least 10") if folder.parent.name == "ImageSets" else ()
