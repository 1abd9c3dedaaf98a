"""Data sets that torchvision and medmnist read: where they are found, and what their own readers say of them.

Nothing is downloaded. torchvision's readers check the MD5 of the official files of CIFAR, STL10 and Flowers102 before they read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.sources import Content, Source, arrays, copies, library
from bench.errors import DataError

EUROSAT = "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop Residential River SeaLake".split()
"""The class folders of EuroSAT (Helber et al. 2019, https://arxiv.org/abs/1709.00029)."""
MEDMNIST = re.compile(r"([a-z]+mnist(?:3d)?)(?:_(64|128|224))?")
"""The stem of a file of MedMNIST: the data set, and the side of its images where it is not 28."""


def find(root: Path) -> Iterator[Source]:
    """Yield what is found in a folder, or in the folder above where that has the name that a reader wants."""
    for name, folder, read in (
        ("CIFAR10", "cifar-10-batches-py", _cifar),
        ("CIFAR100", "cifar-100-python", _cifar),
        ("STL10", "stl10_binary", _stl10),
        ("Flowers102", "flowers-102", _flowers),
        ("OxfordIIITPet", "oxford-iiit-pet", _pets),
    ):
        above = root.parent if root.name == folder else root
        if (above / folder).is_dir():
            yield Source(name, _files(above / folder), _opening(name, above, read))
    for place in (root, root / "2750", root / "eurosat" / "2750"):
        if place.name == "2750" and place.is_dir() and {p.name for p in place.iterdir() if p.is_dir()} == {*EUROSAT}:
            yield Source("EuroSAT", _files(place), _opening("EuroSAT", place, _eurosat))
    for path in sorted(root.glob("*.npz")) if root.is_dir() else [root]:
        found = MEDMNIST.fullmatch(path.stem) if path.suffix == ".npz" else None
        if found is not None and found[1] in library("medmnist", path.name).INFO:
            yield Source(path.stem, [path], _opening(path.stem, path, _medmnist))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("unlabeled"))


def _opening(name: str, place: Path, read: Callable[[str, Path], Content]) -> Callable[[], Content]:
    """Return a function that reads a data set; what its reader raises becomes a DataError."""

    def opened() -> Content:
        try:
            return read(name, place)
        except (RuntimeError, AssertionError, ValueError, KeyError, IndexError, OSError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200].rstrip(".") or "the number of images is not the official one"
            raise DataError(
                f"{place} holds {name}, which its own reader refuses ({reason}); unpack the official files there again."
            ) from error

    return opened


def _reader(name: str) -> Any:
    return getattr(library("torchvision.datasets", name), name)


def _cifar(name: str, root: Path) -> Content:
    parts = {split: _reader(name)(root, train=split == "train", download=False) for split in ("train", "test")}
    splits = {split: arrays(part.data, ((int(one),) for one in part.targets)) for split, part in parts.items()}
    return Content(tuple(parts["train"].classes), splits)


def _stl10(name: str, root: Path) -> Content:
    parts = {split: _reader(name)(root, split=split, download=False) for split in ("train", "test")}
    splits = {
        split: arrays(part.data.transpose(0, 2, 3, 1), ((int(one),) for one in part.labels)) for split, part in parts.items()
    }
    return Content(tuple(parts["train"].classes), splits)


def _flowers(name: str, root: Path) -> Content:
    parts = {split: _reader(name)(root, split=split, download=False) for split in ("train", "val", "test")}
    splits = {split: copies(part._image_files, part._labels) for split, part in parts.items()}
    return Content(tuple(parts["train"].classes), splits)


def _pets(name: str, root: Path) -> Content:
    parts = {"train": _reader(name)(root, split="trainval", download=False), "test": _reader(name)(root, split="test")}
    if parts["train"].classes != parts["test"].classes:
        raise ValueError("trainval.txt and test.txt have different classes")
    splits = {split: copies(part._images, part._labels) for split, part in parts.items()}
    return Content(tuple(parts["train"].classes), splits)


def _eurosat(name: str, folder: Path) -> Content:
    whole = _reader("ImageFolder")(folder)  # torchvision's EuroSAT is one, and wants the folder to lie in eurosat/
    return Content(
        tuple(whole.classes), {"": copies((Path(path) for path, _ in whole.samples), (one for _, one in whole.samples))}
    )


def _medmnist(name: str, path: Path) -> Content:
    medmnist = library("medmnist", name)
    flag, _, size = name.partition("_")
    about = medmnist.INFO[flag]
    if flag.endswith("3d"):
        raise DataError(f"{path} holds volumes; only images are read, so choose one of MedMNIST's data sets of images.")
    reader = getattr(medmnist, about["python_class"])
    parts = {
        split: reader(split=split, root=str(path.parent), size=int(size or 28), download=False)
        for split in ("train", "val", "test")
    }
    classes = tuple(about["label"][str(number)] for number in range(len(about["label"])))
    several = about["task"].startswith("multi-label")
    splits = {}
    for split, part in parts.items():
        if len(part) != len(part.labels) or part.imgs.dtype != np.uint8 or part.imgs.ndim not in (3, 4):
            raise ValueError(f"{split}_images are no uint8 images, one a label")
        labels = [tuple(np.flatnonzero(row).tolist()) if several else (int(row[0]),) for row in part.labels]
        splits[split] = arrays(part.imgs, labels)
    return Content(classes, splits, several)
