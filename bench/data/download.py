"""Downloads of the known data sets: several mirrors, resumed, checked before anything is unpacked, and unpacked with care.

Addresses and MD5 sums are the publishers'; torchvision checks the sums. Set $PRETEXT_BENCH_MIRROR to a base address that holds
the archives by name to try it first.
"""

from __future__ import annotations

import errno
import http.client
import os
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from bench import store
from bench.errors import DataError, MachineError, UsageError, unknown

VOC = ("http://host.robots.ox.ac.uk/pascal/VOC/", "http://thor.robots.ox.ac.uk/pascal/VOC/")
COCO = ("https://s3.amazonaws.com/images.cocodataset.org/", "http://images.cocodataset.org/")
CHUNK = 1 << 20
LARGEST_GROWTH = 200  # an archive that unpacks to more than this many times its size is a bomb


class Listener(Protocol):
    """Who is told how a download goes."""

    def say(self, text: str) -> None:
        """Print a line."""

    def amount(self, what: str, done: int, total: int) -> None:
        """Show how many bytes are there."""


@dataclass(frozen=True)
class Archive:
    """One archive: its file name, where it lies below each mirror, and its MD5."""

    name: str
    folder: str
    md5: str
    mirrors: Sequence[str]

    def addresses(self) -> list[str]:
        """Return where to look, in order."""
        own = os.environ.get("PRETEXT_BENCH_MIRROR")
        first = [f"{own.rstrip('/')}/{self.name}"] if own else []
        return first + [f"{mirror}{self.folder}{self.name}" for mirror in self.mirrors]


ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "voc2007": (
        Archive("VOCtrainval_06-Nov-2007.tar", "voc2007/", "c52e279531787c972589f7e41ab4ae64", VOC),
        Archive("VOCtest_06-Nov-2007.tar", "voc2007/", "b6e924de25625d8de591ea690078ad9f", VOC),
    ),
    "voc2012": (Archive("VOCtrainval_11-May-2012.tar", "voc2012/", "6cd6e144f989b92b3379bac3b3de84fd", VOC),),
    "coco2014": (
        Archive("annotations_trainval2014.zip", "annotations/", "0a379cfc70b0e71301e0f377548639bd", COCO),
        Archive("image_info_test2014.zip", "annotations/", "25304cbbafb2117fb801c0f7218fdbba", COCO),
        Archive("train2014.zip", "zips/", "0da8c0bd3d6becc4dcb32757491aca88", COCO),
        Archive("val2014.zip", "zips/", "a3d79f5ed8d289b7a7554ce06a5782b3", COCO),
        Archive("test2014.zip", "zips/", "04127eef689ceac55e3a572c2c92f264", COCO),
    ),
    "coco2017": (
        Archive("annotations_trainval2017.zip", "annotations/", "f4bbac642086de4f52a3fdda2de5fa2c", COCO),
        Archive("train2017.zip", "zips/", "cced6f7f71b7629ddf16f17bbcfab6b2", COCO),
        Archive("val2017.zip", "zips/", "442b8da7639aecaf257c1dceb8ba8c80", COCO),
    ),
}


def fetch(name: str, folder: Path, listener: Listener) -> Path:
    """Download, check and unpack a known data set below `folder`; return its root. What is there already is not fetched again."""
    if name not in ARCHIVES:
        raise UsageError(f"{unknown('data set', name, [*ARCHIVES, 'demo'])} For a data set of your own, add --root DIR.")
    root = folder / name
    with store.lock(folder / f"{name}.lock", listener.say):
        for archive in ARCHIVES[name]:
            done = root / f".{archive.name}.unpacked"
            if done.is_file():
                continue
            path = download(archive, folder / "archives", listener)
            listener.say(f"unpacking {archive.name}")
            store.make_folder(root)
            unpack(path, root)
            store.publish_file(done, archive.md5 + "\n")
            path.unlink()
    return root


def download(archive: Archive, folder: Path, listener: Listener) -> Path:
    """Return the archive's file with the right MD5, from the first mirror that has it; a half file is gone on with."""
    from torchvision.datasets.utils import check_integrity

    store.make_folder(folder)
    path, partial = folder / archive.name, folder / f"{archive.name}.partial"
    if path.is_file() and check_integrity(str(path), archive.md5):
        return path
    problems = []
    for address in archive.addresses():
        try:
            _transfer(address, partial, archive.name, listener)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise MachineError(f"no room to write {partial}: free some space, then run again.") from error
            problems.append(f"{address}: {getattr(error, 'reason', None) or error}")
            continue
        if check_integrity(str(partial), archive.md5):
            partial.replace(path)
            return path
        partial.unlink()
        problems.append(f"{address}: the file has another MD5 than {archive.md5}")
    raise MachineError(
        f"cannot download {archive.name} ({'; '.join(problems)}); "
        "get it on another machine, unpack it and name the folder with --root."
    )


def _transfer(address: str, partial: Path, name: str, listener: Listener) -> None:
    have = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing after what is there: the sum decides
            return
        raise
    with response:
        if have and response.status != 206:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else 0
        with partial.open("ab" if have else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                listener.amount(name, have, total)
        if total and have < total:
            raise OSError(f"the connection ended after {have:,} of {total:,} bytes")


def unpack(archive: Path, root: Path) -> None:
    """Unpack a tar or zip archive below `root`; DataError for a name, a link or a size that has no business there."""
    limit = archive.stat().st_size * LARGEST_GROWTH
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                members = tar.getmembers()
                strange = next((m.name for m in members if not (m.isfile() or m.isdir())), None)
                _refuse(archive, [m.name for m in members], sum(m.size for m in members), limit, strange)
                tar.extractall(root, filter="data")
            return
        with zipfile.ZipFile(archive) as zipped:
            entries = zipped.infolist()
            strange = next((e.filename for e in entries if stat.S_ISLNK(e.external_attr >> 16)), None)
            _refuse(archive, [e.filename for e in entries], sum(e.file_size for e in entries), limit, strange)
            zipped.extractall(root)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{archive} does not unpack: {error}.") from error


def _refuse(archive: Path, names: Sequence[str], size: int, limit: int, strange: str | None) -> None:
    tests: list[tuple[Callable[[str], bool], str]] = [
        (lambda name: PurePosixPath(name).is_absolute() or "\\" in name, "is an absolute name"),
        (lambda name: ".." in PurePosixPath(name).parts, "leads out of the folder"),
    ]
    for test, what in tests:
        bad = next((name for name in names if test(name)), None)
        if bad is not None:
            raise DataError(f"{archive} is refused: {bad!r} {what}.")
    if strange is not None:
        raise DataError(f"{archive} is refused: {strange!r} is neither a file nor a folder.")
    if size > limit:
        raise DataError(f"{archive} is refused: it would unpack to {size:,} bytes, {LARGEST_GROWTH} times its size.")
