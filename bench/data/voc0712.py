"""Reads VOC 2007 and VOC 2012 as one data set, voc0712: the lists trainval of both are trained on, and 2007's test is scored.

Source: Girshick 2015, Fast R-CNN, https://arxiv.org/abs/1504.08083, table 1 (07+12).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.data import voc
from bench.data.dataset import VOC_CLASSES, Dataset, choose_scored
from bench.errors import DataError
from bench.text import quoted

NAME = "voc0712"
YEARS = ("VOC2007", "VOC2012")


def read(root: Path, name: str, skip: voc.Skip | None = None) -> Dataset:
    """Return the two years below `root` or below its VOCdevkit, with files as VOC2007/JPEGImages/000001.jpg and without masks.

    DataError when a year, its list trainval or 2007's list test is not there, and the errors of `bench.data.voc.read`.
    """
    skip = skip or voc.Skip()
    folder = next((place for place in (root, root / "VOCdevkit") if (place / YEARS[1] / "JPEGImages").is_dir()), None)
    if folder is None or not (folder / YEARS[0] / "JPEGImages").is_dir():
        raise DataError(f"{root} is not {NAME}: it needs VOC2007 and VOC2012 in it or in its VOCdevkit, each with JPEGImages.")
    parts = [_year(folder, year, skip) for year in YEARS]
    lists = [part.lists.get("Main", {}) for part in parts]
    for year, found, wanted in zip(YEARS, lists, (("trainval", "test"), ("trainval",)), strict=True):
        lacking = next((one for one in wanted if not found.get(one)), None)
        if lacking is not None:
            raise DataError(f"{folder / year} has no ImageSets/Main/{lacking}.txt of images that are there, which {NAME} needs.")
    images = tuple(image for part in parts for image in part.images)
    both = {image.id for image in parts[0].images} & {image.id for image in parts[1].images}
    if both:
        raise DataError(f"{folder} has an image {quoted(min(both))} in both years; ids must differ.")
    dataset = Dataset(
        name=name,
        kind="voc",
        root=folder,
        synthetic=any(part.synthetic for part in parts),
        classes=parts[0].classes,
        images=images,
        lists={"Main": {"trainval": lists[0]["trainval"] + lists[1]["trainval"], "test": lists[0]["test"]}},
        boxes={**parts[0].boxes, **parts[1].boxes},
        boxed=True,
        findings={f"{year}: {text}": n for year, part in zip(YEARS, parts, strict=True) for text, n in part.findings.items()},
    )
    return choose_scored(dataset, ())


def _year(folder: Path, year: str, skip: voc.Skip) -> Dataset:
    """Return one year, its files named below the folder of both; annotations that are broken are told to `skip` by that name."""
    errors: dict[str, str] | None = None if skip.errors is None else {}
    known = {file.removeprefix(f"{year}/") for file in skip.known}
    part = voc.read(folder / year, year.lower(), voc.Skip(known, errors))
    if part.classes != VOC_CLASSES:
        raise DataError(f"{folder / year} has classes of its own, and {NAME} has VOC's twenty; take classes.txt away.")
    if skip.errors is not None:
        skip.errors |= {f"{year}/{file}": error for file, error in (errors or {}).items()}
    images = tuple(replace(image, file=f"{year}/{image.file}") for image in part.images)
    return part.model_copy(update={"images": images})
