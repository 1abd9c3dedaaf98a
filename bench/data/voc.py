"""Reads Pascal VOC from VOCdevkit (VOC2007, VOC2012), with SBD's masks when the folder SegmentationClassAug is there.

Source: Everingham et al. 2010, http://host.robots.ox.ac.uk/pascal/VOC/. Two small files beside JPEGImages are optional:
`classes.txt` (one class per line, for other classes than VOC's twenty) and `scored_classes.txt` (the classes that are scored).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from xml.etree import ElementTree

from bench.data import class_lists, lists
from bench.data.dataset import DIFFICULT, JUDGED, VOC_CLASSES, Box, Dataset, ImageFile, choose_scored
from bench.errors import DataError
from bench.text import quoted, some

SUFFIXES = (".jpg", ".jpeg", ".png")
VOC_ID, VOC_2007_ID = re.compile(r"\d{4}_\d{6}"), re.compile(r"\d{6}")
READ = ("JPEGImages", "Annotations", "ImageSets", "classes.txt", "scored_classes.txt", "SYNTHETIC.txt")
MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug")
OTHER_TASKS = ("Layout", "Action", "Person")
"""Folders of ImageSets that VOC itself has for tasks which are not here."""
FLAGS = ("0", "1", "", "Unspecified")
"""The values of `difficult` in VOC's annotations; only 1 means difficult."""
EDGES = ("xmin", "ymin", "xmax", "ymax")


def find(root: Path, year: str = "") -> Path | None:
    """Return the folder that holds JPEGImages at or below `root`, VOCdevkit/VOC2012 for the year 2012; None without one.

    DataError when there are folders of several years and `year` is "".
    """
    years: list[Path] = []
    for folder in (root, root / "VOCdevkit"):
        if (folder / "JPEGImages").is_dir() and (not year or not folder.name.startswith("VOC20") or folder.name == f"VOC{year}"):
            return folder
        years += sorted(path for path in folder.glob(f"VOC{year or '20*'}") if (path / "JPEGImages").is_dir())
    if len(years) > 1:
        found = ", ".join(str(path.relative_to(root)) for path in years)
        raise DataError(f"{root} holds {found}; name the folder of one of them.")
    return years[0] if years else None


def looks_like(root: Path) -> bool:
    """Tell whether `root` is a VOC data set, even an incomplete one."""
    places = (root, root / "VOCdevkit", *root.glob("VOC20*"), *(root / "VOCdevkit").glob("VOC20*"))
    marks = ("JPEGImages", "ImageSets", *MASK_FOLDERS)
    return any((place / mark).is_dir() for place in places for mark in marks)


class Skip:
    """Which images are left out anyway, so that their annotations are not read, and what happens to one that is broken.

    `known` are files that are left out. With `errors`, an image whose annotation is broken joins it, with the reason.
    """

    def __init__(self, known: Collection[str] = (), errors: dict[str, str] | None = None) -> None:
        self.known, self.errors = set(known), errors

    def __call__(self, file: str) -> bool:
        """Tell whether an image is left out."""
        return file in self.known

    def broken(self, file: str, error: DataError) -> bool:
        """Tell whether an image with a broken annotation is left out, and remember the reason."""
        if self.errors is None:
            return False
        self.errors[file] = str(error)
        return True


def read(root: Path, name: str, skip: Skip | None = None) -> Dataset:
    """Return the VOC data set at `root`, of one year when the name is voc2007 or voc2012; DataError says what is wrong."""
    year = name.removeprefix("voc") if name in ("voc2007", "voc2012") else ""
    folder = find(root, year)
    if folder is None:
        raise DataError(
            f"{root} is not a VOC{year} data set: no JPEGImages in it, in VOCdevkit or in VOCdevkit/VOC{year or '20xx'}."
        )
    listed = class_lists.names(folder / "classes.txt")
    own = class_lists.without_reserved(folder / "classes.txt", listed)
    classes = own or VOC_CLASSES
    images, boxes, unused = _images(folder, classes, skip or Skip())
    if len(own) < len(listed):
        unused["lines of classes.txt that name the background or void, which are no classes"] = len(listed) - len(own)
    known = {image.id for image in images}
    masks = _masks(folder, known, classes, unused)
    if not own and masks:
        _check_names(folder, images, name)
    kept: dict[str, lists.Lists] = {}
    for task in lists.TASKS.values():
        kept[task], left = lists.read(folder / "ImageSets" / task, known, classes)
        unused |= left
    dataset = Dataset(
        name=name,
        kind="voc",
        root=folder,
        synthetic=(folder / "SYNTHETIC.txt").is_file(),
        classes=classes,
        images=tuple(images),
        masks=masks,
        lists=kept,
        boxes=boxes,
        boxed=True,
        findings=unused,
    )
    scored = folder / "scored_classes.txt"
    try:
        return choose_scored(dataset, class_lists.names(scored))
    except DataError as error:
        raise DataError(f"{scored}: {error}") from error


Boxes = dict[str, tuple[Box, ...]]
"""The boxes of the objects of an annotation, by its image's id."""


def _images(folder: Path, classes: Sequence[str], skip: Skip) -> tuple[list[ImageFile], Boxes, dict[str, int]]:
    """Return the images of JPEGImages with their labels, their boxes, and counts of what is beside them, by reason.

    An image that `skip` leaves out has no labels, whatever its annotation says.
    """
    place = folder / "JPEGImages"
    found = lists.entries(place)
    files = [path for path in found if path.suffix.lower() in SUFFIXES and path.is_file()]
    dead = sum(path.is_symlink() and not path.exists() for path in found)
    if not files:
        raise DataError(f"{place} holds no images ({', '.join(SUFFIXES)}).")
    annotations = lists.entries(folder / "Annotations")
    of_id = {path.stem: path for path in annotations if path.suffix == ".xml"}
    images, reader = [], _BoxReader(classes)
    for path in files:
        labels, file = None, path.relative_to(folder).as_posix()
        if path.stem in of_id and not skip(file):
            try:
                root = parse(of_id[path.stem])
                labels = labels_in(root, of_id[path.stem], classes)
                reader.add(path.stem, root, of_id[path.stem])
            except DataError as error:
                if not skip.broken(file, error):
                    raise
        images.append(ImageFile(id=path.stem, file=file, labels=labels))
    twice = [identity for identity, number in Counter(image.id for image in images).items() if number > 1]
    if twice:
        raise DataError(f"{place} has several images named {quoted(twice[0])}, of other suffixes; an id must name one image.")
    known = {image.id for image in images}
    unused = {
        f"files or folders in JPEGImages that are no {' or '.join(SUFFIXES)} file": len(found) - len(files) - dead,
        "links in JPEGImages to images that are not there": dead,
        "files in Annotations that are no .xml file": len(annotations) - len(of_id),
        "annotations without an image": len(of_id.keys() - known),
        "annotations without an object": sum(image.labels is not None and not any(image.labels) for image in images),
        **reader.findings(),
        **_beside(folder),
    }
    return images, reader.found(), {reason: number for reason, number in unused.items() if number}


def _beside(folder: Path) -> dict[str, int]:
    """Return counts of what lies beside JPEGImages, or in ImageSets, and is not read."""
    others = [path.name for path in lists.entries(folder) if path.name not in READ and path.name not in MASK_FOLDERS]
    sets = lists.entries(folder / "ImageSets")
    strange = [path.name for path in sets if path.is_dir() and path.name not in (*lists.TASKS.values(), *OTHER_TASKS)]
    return {
        f"files or folders beside JPEGImages that are not read ({some(others)})": len(others),
        "files in ImageSets, beside its folders": sum(path.is_file() for path in sets),
        f"folders in ImageSets that are not read ({some(strange)})": len(strange),
        "hidden files": sum(lists.hidden(folder / name) for name in (*READ[:2], *MASK_FOLDERS)),
    }


def _masks(folder: Path, known: set[str], classes: Sequence[str], unused: dict[str, int]) -> dict[str, tuple[str, ...]]:
    """Return the ids that have a mask, by mask folder; what is beside them is counted in `unused`."""
    masks = {}
    for name in MASK_FOLDERS:
        found = lists.entries(folder / name)
        ids = [path.stem for path in found if path.suffix == ".png"]
        kept = tuple(identity for identity in ids if identity in known)
        if found and not kept:
            raise DataError(
                f"{folder / name} has {len(found):,} files, but none is named like an image in JPEGImages, such as "
                f"{min(known)}.png (letter for letter)."
            )
        if kept and len(classes) > class_lists.MOST_MASKED:
            raise DataError(
                f"{folder / 'classes.txt'} names {len(classes)} classes; a mask in {name} has ids for "
                f"{class_lists.MOST_MASKED} at most."
            )
        if len(ids) < len(found):
            unused[f"files or folders in {name} that are not named ID.png"] = len(found) - len(ids)
        if len(kept) < len(ids):
            unused[f"masks in {name} without an image"] = len(ids) - len(kept)
        if kept:
            masks[name] = kept
    return masks


def _check_names(folder: Path, images: Sequence[ImageFile], name: str) -> None:
    """Raise DataError when nothing says that the ids in the masks are VOC's: neither file names nor annotations.

    The names are VOC's when most have the form 2007_000032. VOC 2007's own, 000032, are told by the data set's name or folder
    alone, since many number their images so. Annotations say so by naming VOC's classes, or they would have been refused.
    """
    is_2007 = name == "voc2007" or folder.name == "VOC2007"
    named = sum((VOC_ID if not is_2007 else VOC_2007_ID).fullmatch(image.id) is not None for image in images)
    if 2 * named < len(images) and all(image.labels is None for image in images):
        raise DataError(
            f"{folder} has masks, but nothing tells the names of their classes: the files are not named like VOC's, there are no "
            "annotations, and there is no classes.txt. Write the names there, one per line, in the order of the ids 1, 2, ..."
        )


def read_labels(path: Path, classes: Sequence[str]) -> tuple[int, ...]:
    """Return an annotation's labels, one per class: 1 for an ordinary object, -1 for difficult objects only, 0 for none."""
    return labels_in(parse(path), path, classes)


def parse(path: Path) -> ElementTree.Element:
    """Return the tree of an annotation; DataError for a file that is none."""
    try:
        root = ElementTree.parse(path, ElementTree.XMLParser(target=_Plain())).getroot()
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:  # LookupError: of an encoding
        raise DataError(f"{path} is not a VOC annotation: {error}.") from error
    if root.tag != "annotation":
        raise DataError(f"{path} is not a VOC annotation: it begins with <{quoted(root.tag)[1:-1]}>, not with <annotation>.")
    return root


def labels_in(root: ElementTree.Element, path: Path, classes: Sequence[str]) -> tuple[int, ...]:
    """Return the labels in an annotation's tree, as `read_labels`; DataError names the file."""
    labels = [0] * len(classes)
    for item in root.findall("object"):
        name = (item.findtext("name") or "").strip()
        if name not in classes:
            whose = (
                "VOC's twenty classes; name your own in classes.txt beside JPEGImages"
                if classes == VOC_CLASSES
                else (f"the {len(classes)} classes of classes.txt")
            )
            raise DataError(f"{path} has an object of class {quoted(name)}, which is not one of {whose}.")
        flag = (item.findtext("difficult") or "0").strip()
        if flag not in FLAGS:
            raise DataError(f"{path} has an object whose difficult is {quoted(flag)}; it must be 0 or 1.")
        difficult = flag == "1"
        place = classes.index(name)
        labels[place] = labels[place] if difficult and labels[place] else (-1 if difficult else 1)
    return tuple(labels)


def boxes_in(root: ElementTree.Element, path: Path, classes: Sequence[str]) -> tuple[Box, ...]:
    """Return the boxes in an annotation's tree, whose labels have been read; DataError for a box that is missing or has no sense.

    VOC counts pixels from 1 and names the first and the last that a box covers; edges of `Box` are continuous, and so `xmin` and
    `ymin` are less by 1.
    """
    size = [_number(root.findtext(f"size/{side}")) for side in ("width", "height")]
    found: list[Box] = []
    for item in root.findall("object"):
        name, box = (item.findtext("name") or "").strip(), item.find("bndbox")
        if box is None:
            raise DataError(f"{path} has an object of class {quoted(name)} without a box (<bndbox>).")
        left, top, right, bottom = (_number(box.findtext(edge)) for edge in EDGES)
        left, top = left - 1, top - 1
        inside = all(not side > 0 or edge < side for edge, side in zip((left, top), size, strict=True))
        if not (-1 <= left < right < math.inf and -1 <= top < bottom < math.inf and inside):
            said = ", ".join(f"{edge} {quoted(box.findtext(edge))}" for edge in EDGES)
            raise DataError(f"{path} has an object of class {quoted(name)} whose box has no sense: {said}.")
        flag = DIFFICULT if (item.findtext("difficult") or "").strip() == "1" else JUDGED
        found.append((classes.index(name), left, top, right, bottom, flag))
    return tuple(found)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


class _BoxReader:
    """Gathers the boxes of annotations; one of which an object has no box, or a box without sense, has none."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.boxes: Boxes = {}
        self.problems: list[str] = []
        self.drawn = False

    def add(self, identity: str, root: ElementTree.Element, path: Path) -> None:
        """Take an annotation in, whose labels have been read."""
        self.drawn |= root.find("object/bndbox") is not None
        try:
            self.boxes[identity] = boxes_in(root, path, self.classes)
        except DataError as error:
            self.problems.append(str(error).removesuffix("."))

    def found(self) -> Boxes:
        """Return the boxes by image; none where no object has one, since nobody then drew boxes."""
        return self.boxes if self.drawn else {}

    def findings(self) -> dict[str, int]:
        """Return the number of annotations whose boxes are not used, with an example."""
        reason = f"annotations whose boxes are not used, since one is missing or has no sense ({some(self.problems, 1)})"
        return {reason: len(self.problems)} if self.drawn and self.problems else {}


def boxes_of(dataset: Dataset) -> Boxes | None:
    """Return the boxes of a data set that an earlier version read without them; None where its annotations are others now."""
    reader = _BoxReader(dataset.classes)
    for identity, image in dataset.labelled().items():
        path = dataset.root / "Annotations" / f"{identity}.xml"
        try:
            root = parse(path)
            if labels_in(root, path, dataset.classes) != image.labels:
                return None
        except DataError:
            return None
        reader.add(identity, root, path)
    return reader.found()


class _Plain(ElementTree.TreeBuilder):
    """Builds the tree of an XML file without a document type: a few entities nested in each other could fill the memory."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Raise ValueError for a document type."""
        raise ValueError(f"it has a document type ({quoted(name)})")
