"""Reads COCO (2014, 2017) as unlabelled images: the instances JSON lists the images; its labels are not used.

Source: Lin et al. 2014, https://cocodataset.org. Layout: annotations/instances_train2014.json beside train2014/ (or below
images/), likewise val and test.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections import Counter
from pathlib import Path, PurePath

from bench.data.dataset import Dataset, ImageFile
from bench.data.folder import image_files
from bench.errors import DataError
from bench.text import quoted

SPLITS = ("train", "val", "test")


def looks_like(root: Path) -> bool:
    """Tell whether `root` has COCO's annotation files."""
    return bool(_annotations(root))


def _annotations(root: Path) -> list[Path]:
    """Return COCO's own annotation files; files of other names, such as a subset's, do not count."""
    return sorted(path for year in ("train20??", "val20??") for path in (root / "annotations").glob(f"instances_{year}.json"))


def read(root: Path, name: str) -> Dataset:
    """Return the data set of the images that instances JSONs (and test sets' image_info) list, as far as they are there.

    Listed images that are missing are counted, and so are images that no file lists. DataError when none is there.
    """
    images: dict[str, ImageFile] = {}
    unused: Counter[str] = Counter()
    for path in [*_annotations(root), *sorted((root / "annotations").glob("image_info_test20??.json"))]:
        subset = path.stem.removeprefix("instances_").removeprefix("image_info_")
        listed, labels = _listed(path)
        unused["objects in annotations, whose labels are not used"] += labels
        split = next((split for split in SPLITS if subset.startswith(split)), "train")
        folders = [f for f in (root / subset, root / "images" / subset, root / "images", root) if f.is_dir()]
        for file in listed:
            place = next((folder / file for folder in folders if _is_file(folder / file)), None)
            if place is None:
                unused[f"images that {path.name} lists and that are not there"] += 1
                continue
            image = ImageFile(id=Path(file).stem, file=place.relative_to(root).as_posix(), split=split)
            if image.id in images:
                raise DataError(
                    f"{path} lists {quoted(file)}, and {image.id} is listed already; names must differ without folder and suffix."
                )
            images[image.id] = image
    if not images:
        raise DataError(
            f"{root} is not a COCO data set: its annotation files list no image that is there, in a folder named like the "
            f"annotations ({root / 'train2017'} for instances_train2017.json), below images or in images."
        )
    used = {image.file for image in images.values()}
    others = [file for file in image_files(root) if file not in used]
    if others:  # a link gives an image a second name
        real = {os.path.realpath(root / file) for file in used}
        unused["images that no annotation file lists"] = sum(os.path.realpath(root / file) not in real for file in others)
    return Dataset(
        name=name,
        kind="coco",
        root=root,
        synthetic=(root / "SYNTHETIC.txt").is_file(),
        images=tuple(sorted(images.values(), key=lambda image: image.id)),
        findings={reason: number for reason, number in unused.items() if number},
    )


def _listed(path: Path) -> tuple[list[str], int]:
    """Return the file names of the images that an annotation file lists, and the number of its objects, which are not read."""
    from pycocotools.coco import COCO

    index = COCO()
    try:
        content = json.loads(path.read_bytes())
        index.dataset = {"images": content["images"]}
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            index.createIndex()
        listed = [image["file_name"] for image in content["images"]]
    except RecursionError as error:
        raise DataError(f"{path} is not a COCO annotation file: it is nested too deeply.") from error
    except KeyError as error:
        raise DataError(f"{path} is not a COCO annotation file: it has no {error}.") from error
    except (ValueError, TypeError, OSError) as error:
        raise DataError(f"{path} is not a COCO annotation file: {error}.") from error
    for file in listed:
        if not isinstance(file, str) or not file or PurePath(file).is_absolute() or ".." in PurePath(file).parts:
            raise DataError(f"{path} lists {quoted(file)}, which is no file name below a folder.")
    if not listed:
        raise DataError(f"{path} lists no images.")
    labels = content.get("annotations")
    return listed, len(labels) if isinstance(labels, list) else 0


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False
