"""Reads Pascal VOC from VOCdevkit (VOC2007, VOC2012), with SBD's masks when the folder SegmentationClassAug is there.

Source: Everingham et al. 2010, http://host.robots.ox.ac.uk/pascal/VOC/. Two small files beside JPEGImages are optional:
`classes.txt` (one class per line, for other classes than VOC's twenty) and `scored_classes.txt` (the classes that are scored).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from xml.etree import ElementTree

from bench.data import lists
from bench.data.dataset import VOC_CLASSES, Dataset, ImageFile, choose_scored
from bench.errors import DataError
from bench.metrics import PADDING
from bench.text import quoted, some

SUFFIXES = (".jpg", ".jpeg", ".png")
NUMBERED = re.compile(r"\d+(?:\s*[\s:,;=]\s*\S|[.)]\s*[^\d\s])")
"""A line of classes.txt that numbers its class."""
MARKED = re.compile(r"[-*]\s|([\"'`]).*\1$|[^,;\t]+(?:[,;\t]\s*-?[\d.]+)+$")
"""A line of classes.txt that has more than a name: a list's mark, quotes, or numbers behind a comma."""
NUMBER_LAST = re.compile(r"(.*\S)[\s:=_-]+(\d+)$")
"""A line of classes.txt that may number its class at its end."""
VOC_ID, VOC_2007_ID = re.compile(r"\d{4}_\d{6}"), re.compile(r"\d{6}")
BACKGROUND = ("background", "bg")
RESERVED = (*BACKGROUND, "ignore", "void", "unlabeled", "unlabelled", "none")
"""Names in classes.txt that are no class, whatever their case and the underscores around them."""
READ = ("JPEGImages", "Annotations", "ImageSets", "classes.txt", "scored_classes.txt", "SYNTHETIC.txt")
MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug")
OTHER_TASKS = ("Layout", "Action", "Person")
"""Folders of ImageSets that VOC itself has for tasks which are not here."""
MOST_MASKED = PADDING - 1
"""The most classes that a mask has ids for; other ids are background, padding and void."""
DIFFICULT = ("0", "1", "", "Unspecified")
"""The values of `difficult` in VOC's annotations; only 1 means difficult."""


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
    listed = _names(folder / "classes.txt")
    own = _without_reserved(folder / "classes.txt", listed)
    classes = own or VOC_CLASSES
    images, unused = _images(folder, classes, skip or Skip())
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
        findings=unused,
    )
    scored = folder / "scored_classes.txt"
    try:
        return choose_scored(dataset, _names(scored))
    except DataError as error:
        raise DataError(f"{scored}: {error}") from error


def _images(folder: Path, classes: Sequence[str], skip: Skip) -> tuple[list[ImageFile], dict[str, int]]:
    """Return the images of JPEGImages with their labels, and counts of what is beside them, by reason.

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
    images = []
    for path in files:
        labels, file = None, path.relative_to(folder).as_posix()
        if path.stem in of_id and not skip(file):
            try:
                labels = read_labels(of_id[path.stem], classes)
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
        **_beside(folder),
    }
    return images, {reason: number for reason, number in unused.items() if number}


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
        if kept and len(classes) > MOST_MASKED:
            raise DataError(
                f"{folder / 'classes.txt'} names {len(classes)} classes; a mask in {name} has ids for {MOST_MASKED} at most."
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


def _without_reserved(path: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes without the background, which may come first: it has the id 0 in every mask."""
    listed = names
    if len(names) > 1 and _plain(names[0]) == "ignore" and _plain(names[1]) in BACKGROUND:  # as labelme begins its labels
        names = names[1:]
    if names and _plain(names[0]) in BACKGROUND:
        names = names[1:]
    reserved = next((name for name in names if _plain(name) in RESERVED or BACKGROUND[0] in re.split(r"\W+", name.lower())), None)
    if reserved is not None:
        raise DataError(
            f"{path} names {quoted(reserved)} in the wrong place: background has the id 0 and may stand in the first line only, "
            "and void has the id 255 and stands in none. Remove the line and give other values of the masks their ids with --map "
            "of `bench data prepare`."
        )
    if listed and not names:
        raise DataError(f"{path} names no class but the background.")
    return names


def _plain(name: str) -> str:
    return name.strip("_ <>").lower()


def read_labels(path: Path, classes: Sequence[str]) -> tuple[int, ...]:
    """Return an annotation's labels, one per class: 1 for an ordinary object, -1 for difficult objects only, 0 for none."""
    labels = [0] * len(classes)
    try:
        root = ElementTree.parse(path, ElementTree.XMLParser(target=_Plain())).getroot()
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:  # LookupError: of an encoding
        raise DataError(f"{path} is not a VOC annotation: {error}.") from error
    if root.tag != "annotation":
        raise DataError(f"{path} is not a VOC annotation: it begins with <{quoted(root.tag)[1:-1]}>, not with <annotation>.")
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


def _names(path: Path) -> tuple[str, ...]:
    """Return the classes in a file, one per line; () without the file, DataError when it names none, or one twice."""
    names = tuple(line for line in lists.lines(path) if not line.startswith("#"))
    more = next((name for name in names if NUMBERED.match(name) or MARKED.match(name)), _numbered_last(names))
    if more is not None:
        raise DataError(
            f"{path} has more in a line than the name of a class, {quoted(more)}; write the names alone, that of the id 1 first."
        )
    if path.is_file() and not names:
        raise DataError(f"{path} names no class; write one per line, or remove the file.")
    twice = next((name for name, number in Counter(names).items() if number > 1), None)
    if twice is not None:
        raise DataError(f"{path} names the class {quoted(twice)} twice; remove one of the two lines.")
    return names


def _numbered_last(names: Sequence[str]) -> str | None:
    """Return the first line when all lines end with a number that counts them, as `cat 1`, `dog 2`; else None.

    Classes that differ in their numbers alone, such as `grade 1` and `grade 2`, have these in their names.
    """
    found = [NUMBER_LAST.match(name) for name in names]
    numbers = sorted(int(match[2]) for match in found if match)
    counted = numbers in (list(range(len(names))), list(range(1, len(names) + 1)))
    distinct = len({match[1] for match in found if match}) == len(names) > 1
    return names[0] if counted and distinct else None
