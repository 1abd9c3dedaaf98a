"""Finds files in the output folder and the home folder that no record needs, and removes them on request.

A record's folder, its trunk and its search are never removed, nor are splits and prepared data sets, which say what a result
means. An item is renamed to a temporary name before it is removed, so that no command finds it half removed. Links are removed
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
from bench.launch.launch import read as read_launch
from bench.launch.status import at_work, is_at_work
from bench.record import read_one
from bench.storage import files, locks
from bench.storage.disk import amount, size
from bench.text import Rows

ALL = "all"
SAFE = ("temporary", "locks", "launches", "cache", "reproduced")
"""The kinds that no launch at work needs."""
TRACES = ("runs/*/record.json", "pretrained/*/pretrain.json", "studies/*/journal.log", "data/*/index.json", "paths/*/index.json")
"""The files which, like the in-use file, show that a folder was made by `bench`."""


@dataclass(frozen=True)
class Place:
    """The output folder and the home folder, and the kinds of items that are to be removed together."""

    out: Path
    home: Path
    kinds: Sequence[str]

    @cached_property
    def used(self) -> frozenset[str]:
        """The ids of the trunks and searches that records refer to; DataError names a record that cannot be read."""
        found: set[str] = set()
        for path in (run / "record.json" for run in _entries(self.out / "runs")):
            if os.path.lexists(path):
                record = read_one(path)
                found |= {record.pretrain.id, record.job.study, record.tuning.study if record.tuning else ""}
        return frozenset(found)

    @cached_property
    def images(self) -> dict[str, bool]:
        """For each indexed data set, by its fingerprint, whether its images are still there; DataError names a broken index."""
        found: dict[str, bool] = {}
        entries = [*_entries(self.home / "data"), *_entries(self.home / "paths")]
        for path in (entry / "index.json" for entry in entries if catalogue.is_of_this_version(entry)):
            if not path.is_file():
                continue
            dataset = catalogue.read_index(path)
            # An image is looked for, since the root may be the mount point of a disk that is not mounted.
            there = len(dataset.images) > 0 and dataset.path(dataset.images[0]).is_file()
            found[dataset.fingerprint] = there or found.get(dataset.fingerprint, False)
        return found


@dataclass(frozen=True)
class Kind:
    """One kind of removable items: what they are, in which folders they lie, and how they are found."""

    title: str
    folders: tuple[str, ...]
    find: Callable[[Place], Iterable[Path]]


@dataclass(frozen=True)
class Found:
    """The items of one kind, each with its bytes; `problem` says why they cannot be told."""

    kind: str
    items: tuple[tuple[Path, int], ...]
    problem: str = ""

    @property
    def bytes(self) -> int:
        """The bytes of all items together."""
        return sum(taken for _, taken in self.items)


def survey(kinds: Sequence[str], out: Path) -> list[Found]:
    """Return the items of some kinds, or of all kinds, each by itself, when none is named.

    UsageError for a kind that does not exist or a folder that was not made by `bench`. DataError when a record or an index that
    says what is needed cannot be read; when no kind is named, the error becomes the `problem` of the kind.
    """
    for kind in kinds:
        if kind not in (*KINDS, ALL):
            raise unknown("kind", kind, (*KINDS, ALL))
    chosen = tuple(KINDS) if not kinds or ALL in kinds else tuple(kind for kind in KINDS if kind in kinds)
    place = Place(out.resolve(), files.home().resolve(), chosen if kinds else ())
    used = {folder for kind in chosen for folder in KINDS[kind].folders}
    for folder, where, name in (("out", place.out, "--out"), ("home", place.home, "the home folder")):
        if folder in used and not _is_ours(where):
            raise UsageError(f"{name} {where} holds files, but none that bench made; name a folder of its results.")
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
    """Keep every command out of the folders of some kinds inside the block; MachineError when a command is using one now."""
    folders = {"out": out.resolve(), "home": files.home().resolve()}
    named = list(KINDS) if ALL in kinds else [kind for kind in kinds if kind in KINDS]
    with contextlib.ExitStack() as held:
        for folder in sorted({folders[name] for kind in named for name in KINDS[kind].folders}):
            if _is_ours(folder):
                held.enter_context(locks.unused(folder))
        # between two starts of a worker nobody holds the folder
        for launch in at_work(folders["out"]) if any(name not in SAFE and "out" in KINDS[name].folders for name in named) else ():
            raise MachineError(f"launch {launch.id} is at work in {out}; end it first, or remove {launch.folder} if it is gone.")
        yield


def remove(found: Sequence[Found]) -> int:
    """Remove the items that were found and return the freed bytes; MachineError names an item that cannot be removed."""
    freed = 0
    for path, _ in (item for one in found for item in one.items):
        taken = size(path)  # again, since temporary files inside it may be removed already
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
    """Tell whether `bench` has worked in a folder; True also for an empty or missing folder."""
    if (folder / locks.IN_USE).is_file() or any(next(folder.glob(trace), None) for trace in TRACES):
        return True
    return not folder.is_dir() or next(folder.iterdir(), None) is None


def _entries(folder: Path) -> list[Path]:
    """Return a folder's entries without temporary names; none when it is missing, is a link or lies behind one."""
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
        with path.open("rb+") as file:  # NFS gives an exclusive lock only for writing
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _work(place: Place) -> Iterator[Path]:
    yield from _entries(place.out / "work")
    for study in _entries(place.out / "studies"):
        yield from _entries(study / "work")


def _searches(place: Place) -> dict[Path, str]:
    """Return the folders of searches that no record refers to, each with its kind: `searches`, `studies`, or "" to keep it.

    A search in a database is kept: without the token in its folder the database's study could never be resumed.
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
    """Yield the trunks that no record refers to and that no interrupted work may need.

    Interrupted work and unused searches do not name their trunks, so all trunks of their pretext task are kept.
    """
    used = place.used
    waiting = [] if "work" in place.kinds else list(_work(place))
    waiting += [study for study, kind in _searches(place).items() if kind not in place.kinds]
    for trunk in _entries(place.out / "pretrained"):
        pretext = trunk.name.rpartition("-")[0]
        if trunk.name not in used and not any(path.name.startswith(f"{pretext}-") for path in waiting):
            yield trunk


def _packs(place: Place, orphaned: bool) -> Iterator[Path]:
    """Yield the packs of unknown data sets (`orphaned`), or else those that can be made again, since their images are there."""
    for pack in _entries(place.home / "packs"):
        if not ((pack / "manifest.json").is_file() or (pack / "images.npy").is_file()):
            continue
        try:
            fingerprint = json.loads((pack / "manifest.json").read_bytes())["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError):
            fingerprint = None  # a pack that no command can read
        if fingerprint not in place.images if orphaned else place.images.get(fingerprint):
            yield pack


def _exported(place: Place) -> Iterator[Path]:
    """Yield the images written of what another library reads, where no prepared data set is read from them."""
    indexes = [entry / "index.json" for entry in _entries(place.home / "data")]
    roots = {catalogue.read_index(path).root.resolve() for path in indexes if path.is_file()}
    for entry in _entries(place.home / "exported"):
        if not any(root.is_relative_to(entry.resolve()) for root in roots):
            yield entry


def _launches(place: Place) -> Iterator[Path]:
    for folder in _entries(place.out / "launches"):
        with contextlib.suppress(DataError):  # one that cannot be read may be at work
            if folder.is_dir() and not is_at_work(read_launch(folder)):
                yield folder


KINDS = {
    "temporary": Kind("temporary files of commands that died", ("out", "home"), _temporary),
    "locks": Kind("lock files that nobody holds", ("out", "home"), _locks),
    "cache": Kind(
        "cached results of reports; the next report computes them again", ("out",), lambda place: _entries(place.out / "cache")
    ),
    "launches": Kind("logs and records of launches that have ended; bench status tells of the newest", ("out",), _launches),
    "failures": Kind("why runs failed; a run that succeeds removes its own", ("out",), lambda p: _entries(p.out / "failures")),
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
        "packs of data sets that have changed or are no longer prepared", ("home",), lambda p: _packs(p, orphaned=True)
    ),
    "packs": Kind("the other packs, made again from their images", ("home",), lambda place: _packs(place, orphaned=False)),
    "exported": Kind("images exported from the files of other libraries, of which no data set is prepared", ("home",), _exported),
    "indices": Kind(
        "lists of images in folders given by path, made again from them",
        ("home",),
        lambda place: _entries(place.home / "paths"),
    ),
    "hashes": Kind(
        "hashes of images, by which leaks are found, made again from the images",
        ("home",),
        lambda place: _entries(place.home / "hashes"),
    ),
    "timings": Kind(
        "how long training steps take here; plans time them again",
        ("home",),
        lambda place: _entries(place.home / "steps"),  # not timings, by which an interrupted run keeps its precision
    ),
    "downloads": Kind(
        "archives, whole or partial, that are not unpacked yet",
        ("home",),
        lambda place: _entries(place.home / "downloads" / "archives"),
    ),
}
"""The kinds of items that can be removed, in the order of removal."""
