"""Housekeeping: what lies in the output folder and the home folder that no record needs, and its removal on request.

A record's folder, its trunk and its search are never found here, nor are splits and prepared data sets, which say what a result
means. What is removed first gets a temporary name, so that nothing half removed is ever found under its own. Links are removed
as links, and a folder that is a link is not entered.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.data import catalogue
from bench.errors import DataError, MachineError, UsageError, unknown
from bench.record import read_one
from bench.storage import files, locks
from bench.storage.disk import amount, size
from bench.text import Rows

ALL = "all"
TRACES = ("runs/*/record.json", "pretrained/*/pretrain.json", "studies/*/journal.log", "data/*/index.json", "paths/*/index.json")
"""Besides the in-use file, what shows that a folder is one of ours."""


@dataclass(frozen=True)
class Place:
    """Where is looked: the output and the home folder, and the kinds that are about to be removed together."""

    out: Path
    home: Path
    kinds: Sequence[str]

    @cached_property
    def used(self) -> frozenset[str]:
        """The trunks and searches that records refer to; DataError names a record that cannot be read, which may refer to any."""
        found: set[str] = set()
        for path in (run / "record.json" for run in _entries(self.out / "runs")):
            if os.path.lexists(path):
                record = read_one(path)
                found |= {record.pretrain.id, record.job.study, record.tuning.study if record.tuning else ""}
        return frozenset(found)

    @cached_property
    def images(self) -> dict[str, bool]:
        """Whether each data set that is prepared, or was named by its folder, still has its images, by its fingerprint.

        DataError names an index that cannot be read.
        """
        found: dict[str, bool] = {}
        entries = [*_entries(self.home / "data"), *_entries(self.home / "paths")]
        for path in (entry / "index.json" for entry in entries if catalogue.is_of_this_version(entry)):
            if not path.is_file():
                continue
            dataset = catalogue.read_index(path)
            # An image, not the root alone: the place of a disk that is not mounted exists too.
            there = len(dataset.images) > 0 and dataset.path(dataset.images[0]).is_file()
            found[dataset.fingerprint] = there or found.get(dataset.fingerprint, False)
        return found


@dataclass(frozen=True)
class Kind:
    """One kind of thing: what it is, in which folders it lies, and how it is found."""

    title: str
    folders: tuple[str, ...]
    find: Callable[[Place], Iterable[Path]]


@dataclass(frozen=True)
class Found:
    """What there is of one kind, with the bytes that each takes; `problem` says why nobody can tell."""

    kind: str
    items: tuple[tuple[Path, int], ...]
    problem: str = ""

    @property
    def bytes(self) -> int:
        """Bytes that all take together."""
        return sum(taken for _, taken in self.items)


def survey(kinds: Sequence[str], out: Path) -> list[Found]:
    """Return what there is of some kinds; UsageError for a kind that does not exist or a folder that is not ours.

    DataError when a record or an index that says what is needed cannot be read. With no kind named, all are looked at, each as
    if it were alone, and such an error stands in its place.
    """
    for kind in kinds:
        if kind not in (*KINDS, ALL):
            raise unknown("kind", kind, (*KINDS, ALL))
    chosen = tuple(KINDS) if not kinds or ALL in kinds else tuple(kind for kind in KINDS if kind in kinds)
    place = Place(out.resolve(), files.home().resolve(), chosen if kinds else ())
    for folder, name in ((place.out, "--out"), (place.home, "the home folder")):
        if not _is_ours(folder):
            raise UsageError(f"{name} {folder} holds other things and nothing that bench made; name a folder of its results.")
    found = []
    for kind in chosen:
        try:
            items = sorted(set(KINDS[kind].find(place)))
        except DataError as error:
            if kinds:
                raise
            found.append(Found(kind, (), str(error)))
            continue
        found.append(Found(kind, tuple((item, size(item)) for item in items)))
    return found


def rows(found: Sequence[Found]) -> Rows:
    """Return a survey as rows of text."""
    lines: list[tuple[str, ...]] = []
    for one in found:
        items, taken = (f"{len(one.items):,}", amount(one.bytes)) if not one.problem else ("?", "?")
        lines.append((one.kind, items, taken, one.problem or KINDS[one.kind].title))
    return ("Kind", "Items", "Bytes", "What it is"), lines


@contextlib.contextmanager
def alone(kinds: Sequence[str], out: Path) -> Iterator[None]:
    """Keep every command out of the folders that some kinds lie in; MachineError when one is using them now."""
    folders = {"out": out.resolve(), "home": files.home().resolve()}
    named = list(KINDS) if ALL in kinds else [kind for kind in kinds if kind in KINDS]
    with contextlib.ExitStack() as held:
        for folder in sorted({folders[name] for kind in named for name in KINDS[kind].folders}):
            if _is_ours(folder):
                held.enter_context(locks.unused(folder))
        yield


def remove(found: Sequence[Found]) -> int:
    """Remove what was found and return the bytes that this freed; MachineError names what cannot be removed."""
    freed = 0
    for path, _ in (item for one in found for item in one.items):
        taken = size(path)  # anew: what was left behind inside it may be gone
        _remove(path)
        freed += taken
    return freed


def _remove(path: Path) -> None:
    going = path
    try:
        if not path.name.startswith(files.TEMPORARY):
            going = files.temporary_name(path.with_name("cleaned"))
            path.rename(going)
        if going.is_dir() and not going.is_symlink():
            shutil.rmtree(going)
        else:
            going.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise MachineError(f"cannot remove {path}: {error.strerror}.") from error


def _is_ours(folder: Path) -> bool:
    """Tell whether a command of ours worked in a folder; one that is empty or missing can be."""
    if (folder / locks.IN_USE).is_file() or any(next(folder.glob(trace), None) for trace in TRACES):
        return True
    return not folder.is_dir() or next(folder.iterdir(), None) is None


def _entries(folder: Path) -> list[Path]:
    """Return what a folder holds, but for temporary names; nothing when it is missing, or is or lies behind a link."""
    if not folder.is_dir() or folder.resolve() != folder:
        return []
    return [path for path in folder.iterdir() if not path.name.startswith(".tmp-")]


def _temporary(place: Place) -> Iterator[Path]:
    for top in (place.out, place.home):
        for folder, folders, names in os.walk(top):
            here = [name for name in (*folders, *names) if name.startswith(".tmp-")]
            folders[:] = [name for name in folders if name not in here]
            yield from (path for path in (Path(folder, name) for name in here) if files.is_left(path))


def _locks(place: Place) -> Iterator[Path]:
    studies = _entries(place.out / "studies")
    found = [path for folder in (place.out / "locks", *studies) for path in _entries(folder) if path.suffix == ".lock"]
    found += [path for folder in _entries(place.home) for path in _entries(folder) if path.suffix == ".lock"]
    found += [path for study in studies for path in _entries(study / "workers")]
    yield from (path for path in found if path.is_file() and not path.is_symlink() and not _held(path))


def _held(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _work(place: Place) -> Iterator[Path]:
    yield from _entries(place.out / "work")
    for study in _entries(place.out / "studies"):
        yield from _entries(study / "work")


def _searches(place: Place) -> dict[Path, str]:
    """Return the searches that no record refers to, each with its kind; none for one whose trials lie in a database.

    That one stays: without the token beside it the database's study could never be gone on with.
    """
    used = place.used
    found = {}
    for study in _entries(place.out / "studies"):
        if study.name not in used:
            finished = any(study.glob("tuning-*.json"))
            found[study] = "" if (study / "token").is_file() else "searches" if finished else "studies"
    return found


def _of_kind(kind: str) -> Callable[[Place], list[Path]]:
    return lambda place: [study for study, its in _searches(place).items() if its == kind]


def _trunks(place: Place) -> Iterator[Path]:
    """Yield the trunks that no record refers to, and that nothing which stays may go on from.

    Interrupted work and unused searches do not name their trunks, but they name the pretext task.
    """
    used = place.used
    waiting = [] if "work" in place.kinds else list(_work(place))
    waiting += [study for study, kind in _searches(place).items() if kind not in place.kinds]
    for trunk in _entries(place.out / "pretrained"):
        pretext = trunk.name.rpartition("-")[0]
        if trunk.name not in used and not any(path.name.startswith(f"{pretext}-") for path in waiting):
            yield trunk


def _packs(place: Place, orphaned: bool) -> Iterator[Path]:
    """Yield the packs of no data set that is known, or those that can be made again since their images are still there."""
    for pack in _entries(place.home / "packs"):
        if not ((pack / "manifest.json").is_file() or (pack / "images.npy").is_file()):
            continue
        try:
            fingerprint = json.loads((pack / "manifest.json").read_bytes())["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError):
            fingerprint = None  # no command reads such a pack
        if fingerprint not in place.images if orphaned else place.images.get(fingerprint):
            yield pack


KINDS = {
    "temporary": Kind("left behind by commands that died", ("out", "home"), _temporary),
    "locks": Kind("lock files that nobody holds", ("out", "home"), _locks),
    "cache": Kind(
        "what reports computed; the next report computes it again", ("out",), lambda place: _entries(place.out / "cache")
    ),
    "reproduced": Kind("runs that bench reproduce made again", ("out",), lambda place: _entries(place.out / "reproduced")),
    "work": Kind("checkpoints of interrupted runs and trials, which would go on from there", ("out",), _work),
    "studies": Kind(
        "searches that are not finished, with the trials they have",
        ("out",),
        _of_kind("studies"),
    ),
    "searches": Kind(
        "finished searches that no record refers to yet; bench run --tune would take their rates",
        ("out",),
        _of_kind("searches"),
    ),
    "trunks": Kind("pretrained trunks that no record and nothing interrupted refers to", ("out",), _trunks),
    "orphans": Kind(
        "packs of no data set that is known: forgotten, or changed since", ("home",), lambda p: _packs(p, orphaned=True)
    ),
    "packs": Kind("the other packs, made again from their images", ("home",), lambda place: _packs(place, orphaned=False)),
    "indices": Kind(
        "lists of images in folders given by path, made again from them",
        ("home",),
        lambda place: _entries(place.home / "paths"),
    ),
    "downloads": Kind(
        "archives that came whole or in part and are not unpacked yet",
        ("home",),
        lambda place: _entries(place.home / "downloads" / "archives"),
    ),
}
"""What can be removed, in the order in which it is."""
