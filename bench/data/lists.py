"""The official lists of a VOC data set: reading them, and which of them is trained on and which is scored.

Scored is `test.txt`, or `val.txt` where there is no test list or none of its images has annotations (VOC 2012). With `test.txt`,
training has `trainval.txt`, or else `train.txt` with `val.txt` as the validation split; without it, `train.txt`.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from bench.data.dataset import Dataset
from bench.errors import DataError
from bench.text import quoted

OFFICIAL = ("train", "val", "trainval", "test")
TASKS = {"labels": "Main", "masks": "Segmentation"}
SUFFIXED = re.compile(r"^(.*?)\.(?:jpe?g|png|bmp|tiff?|webp)(?:[\s,;]|$)", re.IGNORECASE)
"""A line that names a file, or a pair of files: of the first, all before its suffix."""
FLAGGED = re.compile(r"^(.*\S)\s+(?:-1|0|1)$")
"""A line of a class's list: an id and whether the class is present."""

Lists = dict[str, tuple[str, ...]]


def lines(path: Path) -> list[str]:
    """Return the lines of a text file without blank ones, [] without the file; DataError for a file that is no text."""
    if not os.path.lexists(path):
        return []
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (UnicodeDecodeError, OSError) as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"{path} cannot be read as a text: {reason}.") from error


def entries(folder: Path) -> list[Path]:
    """Return what is in a folder by name, without hidden entries, [] without the folder; DataError when it cannot be read."""
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if not entry.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror}.") from error


def hidden(folder: Path) -> int:
    """Return the number of hidden entries of a folder, 0 without the folder; the errors are those of `entries`."""
    return sum(1 for _ in folder.iterdir()) - len(entries(folder)) if folder.is_dir() else 0


def read(folder: Path, known: Collection[str], classes: Sequence[str]) -> tuple[Lists, dict[str, int]]:
    """Return the lists of one task by name, and what of them is not used, as counts by reason.

    A class's own lists repeat the annotations and are not read. A list of another name is kept as it is where it can be read,
    unless its name begins like a class's list; no split uses it, and fingerprints stay what they were. DataError for an official
    list that names an image twice, or names images of which the data set has none; the test list alone may, since VOC publishes
    it without its images, unless it writes images otherwise (`"p7"`, `P7`, `p7,cat`).
    """
    found: Lists = {}
    unused: Counter[str] = Counter()
    of_classes = {f"{name}_{part}" for name in classes for part in OFFICIAL}
    begin = tuple(f"{name}_" for name in classes)
    for path in entries(folder):
        stem = path.stem
        if path.suffix != ".txt":
            unused[f"files in ImageSets/{folder.name} that are no .txt file"] += 1
        elif stem not in OFFICIAL:
            if stem not in of_classes:
                unused[f"lists of other names in ImageSets/{folder.name}"] += 1
                if not stem.startswith(begin) and (ids := _unofficial(path, known)):
                    found[stem] = ids
        else:
            _add_official(path, known, found, unused)
    return found, dict(unused)


def _add_official(path: Path, known: Collection[str], found: Lists, unused: Counter[str]) -> None:
    ids = tuple(_identity(line, known) for line in lines(path))
    missing = [identity for identity in ids if identity not in known]
    twice = next((identity for identity, number in Counter(ids).items() if number > 1), None)
    if twice is not None:
        raise DataError(f"{path} names {quoted(twice)} twice; a list must have each image once.")
    if missing and len(missing) == len(ids):
        _check_spelling(path, missing, known)
        if path.stem != "test":
            raise DataError(
                f"{path} names {quoted(missing[0])} and {len(missing) - 1} more images, none of which is in JPEGImages."
            )
        unused[f"images of ImageSets/{path.parent.name}/test.txt, none of which is there"] = len(ids)
    else:
        found[path.stem] = ids


def _check_spelling(path: Path, missing: Sequence[str], known: Collection[str]) -> None:
    """Raise DataError when one of some lines, none of which names an image, has an image's id in another spelling."""
    spelled = {identity.casefold(): identity for identity in known}
    for line in missing:
        words = [word for word in re.split(r"[\s,;|\"'`()\[\]]+", line.replace("\\", "/")) if word]
        for word in words:
            name = PurePosixPath(word).name
            found = spelled.get(name.casefold()) or spelled.get(PurePosixPath(name).stem.casefold())
            if found is not None:
                raise DataError(
                    f"{path} names {quoted(line)}, which is not the image {quoted(found)} letter for letter; write the ids of "
                    "the images alone, one per line."
                )


def _unofficial(path: Path, known: Collection[str]) -> tuple[str, ...]:
    try:
        ids = tuple(_identity(line, known) for line in lines(path))
    except DataError:
        return ()
    return ids if len(set(ids)) == len(ids) and all(identity in known for identity in ids) else ()


def _identity(line: str, known: Collection[str]) -> str:
    """Return the id that a line of a list names: `p 7`, `p7 1`, `p7.jpg`, `/JPEGImages/p7.jpg /SegmentationClass/p7.png`."""
    file, flagged = SUFFIXED.match(line.replace("\\", "/")), FLAGGED.match(line)
    whole = [line, flagged[1] if flagged else line, PurePosixPath(file[1]).name if file else line]
    forms = (unicodedata.normalize(form, name) for form in ("NFC", "NFD") for name in whole)
    return next((name for name in [*whole, *forms] if name in known), whole[-1])


class Chosen(NamedTuple):
    """The names of the official lists that are used: trained on, chosen on ("" for a tenth of the former), and scored."""

    train: str
    val: str
    test: str


def usable(dataset: Dataset, subset: str) -> set[str]:
    """Return the ids of the images that have what a task reads: labels, boxes (the subset's name) or a mask in a folder."""
    if subset == "labels":
        return set(dataset.labelled())
    if subset == "boxes":
        return set(dataset.boxes)
    return set(dataset.masks.get(subset, ()))


def tasks_for(dataset: Dataset) -> list[str]:
    """Return the downstream tasks, by what they do, that a data set has annotations for."""
    on_voc = dataset.kind == "voc"
    found = ["voc_cls"] * (on_voc and bool(dataset.labelled())) + ["voc_seg"] * (on_voc and bool(dataset.masks))
    found += ["voc_det"] * (on_voc and bool(dataset.boxes))
    found += [*(["classes"] if dataset.single else []), *(["multilabel"] if dataset.labelled() else [])]
    return found + ["segmentation"] * bool(dataset.masks) + ["detection"] * bool(dataset.boxes)


def held(dataset: Dataset) -> str:
    """Return what a data set has for tasks, in words, as the rest of a sentence."""
    tasks = [f"{name}@{dataset.name}" for name in tasks_for(dataset)]
    return f"what these tasks need: {', '.join(tasks)}" if tasks else "images alone, without labels, masks or boxes"


def choose(dataset: Dataset, subset: str) -> Chosen | None:
    """Return the official lists that a task uses, None when they are not all there."""
    there, held = _lists(dataset, subset), usable(dataset, subset)
    test = "test" if not held.isdisjoint(there.get("test", ())) else "val"
    if test == "val":
        chosen = Chosen("train", "", "val")
    elif there.get("trainval"):
        chosen = Chosen("trainval", "", "test")
    else:
        chosen = Chosen("train", "val" if there.get("val") else "", "test")
    return chosen if there.get(chosen.train) and there.get(chosen.test) else None


def _lists(dataset: Dataset, subset: str) -> Lists:
    return dataset.lists.get(task_of(subset), {})


def task_of(subset: str) -> str:
    """Return the folder of ImageSets that has the lists of a task."""
    return TASKS["labels" if subset in ("labels", "boxes") else "masks"]


def _lacking(dataset: Dataset, subset: str) -> Iterator[tuple[str, str, str]]:
    """Yield the task, the list and the id of each image of the lists used that lacks its label or mask, or is not there."""
    chosen, held = choose(dataset, subset), usable(dataset, subset)
    for name in filter(None, chosen or ()):
        for identity in _lists(dataset, subset)[name]:
            if identity not in held:
                yield task_of(subset), name, identity


def check(dataset: Dataset, subset: str, images_only: bool = False) -> None:
    """Raise DataError when an official list that is used names an image that lacks its annotation or mask, or is not there.

    With `images_only` the image must be there, whether or not it has an annotation or a mask; else no image may be in two lists.
    """
    chosen, listed = choose(dataset, subset), _lists(dataset, subset)
    for one, other in combinations(filter(None, chosen or ()) if not images_only else (), 2):
        both = set(listed[one]) & set(listed[other])
        if both:
            raise DataError(
                f"{dataset.root}: ImageSets/{task_of(subset)}/{one}.txt and {other}.txt both name {quoted(min(both))}"
                f"{f', and {len(both) - 1:,} more' if len(both) > 1 else ''}; no image may be in two splits. Mend the lists, "
                "or let the images be divided by --set protocol.split_scheme=paper-70-20-10."
            )
    known = {image.id for image in dataset.images}
    lacking = [one for one in _lacking(dataset, subset) if not images_only or one[2] not in known]
    if not lacking:
        return
    task, name, identity = lacking[0]
    known_as = {"labels": "has no annotation", "boxes": "has no box for each of its objects"}
    what = known_as.get(subset, f"has no mask in {subset}")
    way = (
        f", or leave such images out of the lists: {dataset.prepare_with('--skip-broken')}" if subset in subsets(dataset) else ""
    )
    more = f", and so {len(lacking) - 1:,} more" if len(lacking) > 1 else ""
    raise DataError(
        f"{dataset.root}: ImageSets/{task}/{name}.txt names {quoted(identity)}, which "
        f"{what if identity in known else 'is not in JPEGImages'}{more}; add what is missing"
        f"{way}."
    )


def subsets(dataset: Dataset) -> list[str]:
    """Return what tasks usually read of a data set: `labels` where there are some, and its first mask folder."""
    return [*(["labels"] if usable(dataset, "labels") else []), *list(dataset.masks)[:1]]


def lacking(dataset: Dataset) -> tuple[str, ...]:
    """Return the images that the lists used name in vain, as `Main/p7` for the lists of the task Main."""
    return tuple(sorted({f"{task}/{one}" for subset in subsets(dataset) for task, _, one in _lacking(dataset, subset)}))


def passed_over(dataset: Dataset, subset: str) -> dict[str, int]:
    """Return the number of images of a test list that is there and not scored, with the reason; {} where there is none."""
    chosen, listed = choose(dataset, subset), _lists(dataset, subset)
    if chosen is None or chosen.test == "test" or "test" not in listed:
        return {}
    name, instead = f"ImageSets/{task_of(subset)}/test.txt", f"so that {chosen.test}.txt is scored"
    if not listed["test"]:
        return {f"test lists that have no image ({name}), {instead}": 1}
    lacked = "an annotation" if subset in ("labels", "boxes") else "a mask"
    return {f"images of {name}, none of which has {lacked}, {instead}": len(listed["test"])}


def without(dataset: Dataset, unlisted: Collection[str]) -> Dataset:
    """Return the data set with some images (`Main/p7`) taken out of its lists, and named."""
    lists = {
        task: {name: tuple(one for one in ids if f"{task}/{one}" not in unlisted) for name, ids in found.items()}
        for task, found in dataset.lists.items()
    }
    return dataset.model_copy(update={"lists": lists, "unlisted": tuple(sorted(unlisted))})
