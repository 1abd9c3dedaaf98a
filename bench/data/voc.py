"""Reads Pascal VOC from VOCdevkit (VOC2007, VOC2012), with SBD's masks when the folder SegmentationClassAug is there.

Source: Everingham et al. 2010, http://host.robots.ox.ac.uk/pascal/VOC/. Two small files beside JPEGImages are optional:
`classes.txt` (one class per line, for other classes than VOC's twenty) and `scored_classes.txt` (the classes that are scored).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from bench.data.dataset import VOC_CLASSES, Dataset, ImageFile, choose_scored
from bench.errors import DataError
from bench.metrics import PADDING
from bench.text import quoted

MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug")
MOST_MASKED = PADDING - 1
"""The most classes that a mask has ids for; other ids are background, padding and void."""
DIFFICULT = ("0", "1", "", "Unspecified")
"""The values of `difficult` in VOC's annotations; only 1 means difficult."""


def find(root: Path, year: str = "") -> Path | None:
    """Return the folder that holds JPEGImages at or below `root`, VOCdevkit/VOC2012 for the year 2012; None without one.

    DataError when there are folders of several years and `year` is "".
    """
    for folder in (root, root / "VOCdevkit"):
        if (folder / "JPEGImages").is_dir() and (not year or not folder.name.startswith("VOC20") or folder.name == f"VOC{year}"):
            return folder
        years = sorted(path for path in folder.glob(f"VOC{year or '20*'}") if (path / "JPEGImages").is_dir())
        if len(years) > 1:
            raise DataError(f"{folder} holds {', '.join(path.name for path in years)}; name the folder of one of them.")
        if years:
            return years[0]
    return None


def looks_like(root: Path) -> bool:
    """Tell whether `root` is a VOC data set, even an incomplete one."""
    places = (root, root / "VOCdevkit", *root.glob("VOC20*"), *(root / "VOCdevkit").glob("VOC20*"))
    marks = ("JPEGImages", "ImageSets", *MASK_FOLDERS)
    return any((place / mark).is_dir() for place in places for mark in marks)


def read(root: Path, name: str) -> Dataset:
    """Return the VOC data set at `root`, of one year when the name is voc2007 or voc2012; DataError says what is wrong."""
    year = name.removeprefix("voc") if name in ("voc2007", "voc2012") else ""
    folder = find(root, year)
    if folder is None:
        raise DataError(
            f"{root} is not a VOC{year} data set: no JPEGImages in it, in VOCdevkit or in VOCdevkit/VOC{year or '20xx'}."
        )
    classes = _names(folder / "classes.txt") or VOC_CLASSES
    files = sorted(path for path in (folder / "JPEGImages").iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise DataError(f"{folder / 'JPEGImages'} holds no images; unpack the archive again.")
    annotations = folder / "Annotations"
    images = []
    for path in files:
        xml = annotations / f"{path.stem}.xml"
        labels = read_labels(xml, classes) if xml.is_file() else None
        images.append(ImageFile(id=path.stem, file=path.relative_to(folder).as_posix(), labels=labels))
    known = {image.id for image in images}
    if len(known) < len(images):
        raise DataError(f"{folder / 'JPEGImages'} has images that differ only in their suffix; an id must name one image.")
    masks = {}
    for mask_folder in MASK_FOLDERS:
        ids = tuple(sorted(path.stem for path in (folder / mask_folder).glob("*.png")))
        stray = [identity for identity in ids if identity not in known]
        if stray and len(stray) == len(ids):
            raise DataError(f"{folder / mask_folder} has masks, but none is of an image in JPEGImages.")
        if ids and len(classes) > MOST_MASKED:
            raise DataError(
                f"{folder / 'classes.txt'} names {len(classes)} classes; a mask in {mask_folder} has ids for {MOST_MASKED} "
                "at most."
            )
        if ids:
            masks[mask_folder] = tuple(identity for identity in ids if identity in known)
    lists = {task: _official_lists(folder / "ImageSets" / task, known, classes) for task in ("Main", "Segmentation")}
    dataset = Dataset(
        name=name,
        kind="voc",
        root=folder,
        synthetic=(folder / "SYNTHETIC.txt").is_file(),
        classes=classes,
        images=tuple(images),
        masks=masks,
        lists=lists,
    )
    scored = folder / "scored_classes.txt"
    try:
        return choose_scored(dataset, _names(scored))
    except DataError as error:
        raise DataError(f"{scored}: {error}") from error


def read_labels(path: Path, classes: Sequence[str]) -> tuple[int, ...]:
    """Return an annotation's labels, one per class: 1 for an ordinary object, -1 for difficult objects only, 0 for none."""
    labels = [0] * len(classes)
    try:
        root = ElementTree.parse(path, ElementTree.XMLParser(target=_Plain())).getroot()
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:  # LookupError: of an encoding
        raise DataError(f"{path} is not a VOC annotation: {error}.") from error
    for item in root.findall("object"):
        name = (item.findtext("name") or "").strip()
        if name not in classes:
            raise DataError(f"{path} has an object of class {quoted(name)}, which is not one of the {len(classes)} classes.")
        flag = (item.findtext("difficult") or "0").strip()
        if flag not in DIFFICULT:
            raise DataError(f"{path} has an object whose difficult is {quoted(flag)}; it must be 0 or 1.")
        difficult = flag == "1"
        place = classes.index(name)
        labels[place] = labels[place] if difficult and labels[place] else (-1 if difficult else 1)
    return tuple(labels)


class _Plain(ElementTree.TreeBuilder):
    """Builds the tree of an XML file without a document type: a few entities nested in each other could fill the memory."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Raise ValueError for a document type."""
        raise ValueError(f"it has a document type ({quoted(name)})")


def _official_lists(folder: Path, known: set[str], classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    lists = {}
    for path in sorted(folder.glob("*.txt")):
        stem = path.stem
        if any(stem.startswith(f"{name}_") for name in classes) and stem not in ("train", "val", "trainval", "test"):
            continue  # a class's own list repeats the annotations
        ids = tuple(line.split()[0] for line in _lines(path))
        missing = [identity for identity in ids if identity not in known]
        if missing and stem != "test":
            raise DataError(f"{path} names {quoted(missing[0])} and {len(missing) - 1} more images that are not in JPEGImages.")
        twice = next((identity for identity, number in Counter(ids).items() if number > 1), None)
        if twice is not None:
            raise DataError(f"{path} names {quoted(twice)} twice; a list must have each image once.")
        if not missing:
            lists[stem] = ids
    return lists


def _names(path: Path) -> tuple[str, ...]:
    """Return the classes in a file, one per line; () without the file, DataError when it names none, or one twice."""
    names = tuple(_lines(path))
    if path.is_file() and not names:
        raise DataError(f"{path} names no class; write one per line, or remove the file.")
    twice = next((name for name, number in Counter(names).items() if number > 1), None)
    if twice is not None:
        raise DataError(f"{path} names the class {quoted(twice)} twice; remove one of the two lines.")
    return names


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (UnicodeDecodeError, OSError) as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"{path} cannot be read as a text: {reason}.") from error
