"""COCO (2014, 2017) as unlabelled pictures: the instances JSON says which pictures there are; its labels are not used.

Source: Lin et al. 2014, https://cocodataset.org. Layout: annotations/instances_train2014.json beside train2014/ (or below
images/), likewise val and test.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from bench.data.dataset import Dataset, Picture, Pictures
from bench.errors import DataError

PARTS = ("train", "val", "test")


def looks_like(root: Path) -> bool:
    """Whether `root` has COCO's annotations beside picture folders."""
    return bool(_annotations(root))


def _annotations(root: Path) -> list[Path]:
    """Return COCO's own annotation files; others (of a subset, of one's own) make no COCO data set."""
    return sorted(path for year in ("train20??", "val20??") for path in (root / "annotations").glob(f"instances_{year}.json"))


def read(root: Path, name: str) -> Dataset:
    """Read every picture that an instances JSON (or a test set's image_info) lists; DataError names what is missing."""
    from pycocotools.coco import COCO

    pictures: list[Picture] = []
    for path in [*_annotations(root), *sorted((root / "annotations").glob("image_info_test20??.json"))]:
        subset = path.stem.removeprefix("instances_").removeprefix("image_info_")
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                listed = [str(image["file_name"]) for image in COCO(str(path)).imgs.values()]
        except (ValueError, KeyError, AssertionError, TypeError, OSError) as error:
            raise DataError(f"{path} is not a COCO annotation file: {error}.") from error
        folder = next((f for f in (root / subset, root / "images" / subset, root / "images") if f.is_dir()), None)
        if folder is None:
            if subset.startswith("test"):
                continue
            raise DataError(f"{path} lists pictures, but there is no folder {root / subset} to hold them.")
        part = next((part for part in PARTS if subset.startswith(part)), "train")
        for file in listed:
            relative = (folder / file).relative_to(root).as_posix()
            pictures.append(Picture(id=Path(file).stem, file=relative, part=part))
        missing = next((file for file in listed if not (folder / file).is_file()), None)
        if missing is not None:
            raise DataError(f"{path} lists {missing}, but {folder} has not got it; unpack the pictures again.")
    if not pictures:
        raise DataError(f"{root} is not a COCO data set: no annotations/instances_train20xx.json with pictures.")
    unique = {picture.id: picture for picture in pictures}
    if len(unique) < len(pictures):
        raise DataError(f"{root} lists {len(pictures) - len(unique)} pictures twice; file names must differ.")
    return Dataset(
        name=name,
        kind="coco",
        root=root,
        synthetic=(root / "SYNTHETIC.txt").is_file(),
        pictures=Pictures(sorted(unique.values(), key=lambda picture: picture.id)),
    )
