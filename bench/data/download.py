"""Downloads the known data sets from several mirrors, resumes a download that was cut off, and checks it before unpacking.

The addresses are the publishers'. The SHA-256 sums and sizes are those that TensorFlow Datasets (url_checksums) and torchvision
(prototype data sets) publish; where both publish one, they agree. Archives may come over plain HTTP or from anyone's mirror: the
sum alone says that they are the right ones. If $PRETEXT_BENCH_MIRROR names a base address with archives of these names, it is
tried first.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from bench.data.archive import unpack
from bench.errors import MachineError, UsageError, unknown
from bench.storage import files, locks, offline

VOC = ("http://host.robots.ox.ac.uk/pascal/VOC/", "http://thor.robots.ox.ac.uk/pascal/VOC/")
COCO = ("https://s3.amazonaws.com/images.cocodataset.org/", "http://images.cocodataset.org/")
CHUNK = 1 << 20


class Listener(Protocol):
    """The interface that shows the user a download's progress."""

    def echo(self, text: str) -> None:
        """Print a line."""

    def amount(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` bytes of a file are downloaded."""


@dataclass(frozen=True)
class Archive:
    """One archive: its file name, where it lies below each mirror, its length in bytes and its SHA-256."""

    name: str
    folder: str
    size: int
    sha256: str
    mirrors: Sequence[str]

    def addresses(self) -> list[str]:
        """Return the addresses to try, in order; UsageError when $PRETEXT_BENCH_MIRROR is not an http or https address."""
        own = os.environ.get("PRETEXT_BENCH_MIRROR")
        if own and not _is_web(own):
            raise UsageError(f"PRETEXT_BENCH_MIRROR takes an http or https address, but got {own!r}; give a folder with --root.")
        first = [f"{own.rstrip('/')}/{self.name}"] if own else []
        return first + [f"{mirror}{self.folder}{self.name}" for mirror in self.mirrors]


def _is_web(address: str) -> bool:
    return urllib.parse.urlsplit(address).scheme in ("http", "https")


def _voc(year: int, name: str, size: int, sha256: str) -> Archive:
    return Archive(name, f"voc{year}/", size, sha256, VOC)


def _coco(folder: str, name: str, size: int, sha256: str) -> Archive:
    return Archive(name, f"{folder}/", size, sha256, COCO)


ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "voc2007": (
        _voc(
            2007,
            "VOCtrainval_06-Nov-2007.tar",
            460_032_000,
            "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
        ),
        _voc(
            2007,
            "VOCtest_06-Nov-2007.tar",
            451_020_800,
            "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
        ),
    ),
    "voc2012": (
        _voc(
            2012,
            "VOCtrainval_11-May-2012.tar",
            1_999_639_040,
            "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
        ),
    ),
    "coco2014": (
        _coco(
            "annotations",
            "annotations_trainval2014.zip",
            252_872_794,
            "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
        ),
        _coco(
            "annotations",
            "image_info_test2014.zip",
            763_464,
            "7cecc66f6b09c1671c1896a1bcc1f35eb09b7fcf00a5c18420a5f0f5983dc8c9",
        ),
        _coco("zips", "train2014.zip", 13_510_573_713, "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775"),
        _coco("zips", "val2014.zip", 6_645_013_297, "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0"),
        _coco("zips", "test2014.zip", 6_660_437_059, "ead40c62230cb2cf70ff4c8b4c70abdc260a7556e77b3282621d06d8e2e35bdf"),
    ),
    "coco2017": (
        _coco(
            "annotations",
            "annotations_trainval2017.zip",
            252_907_541,
            "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        ),
        _coco("zips", "train2017.zip", 19_336_861_798, "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929"),
        _coco("zips", "val2017.zip", 815_585_330, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05"),
    ),
}

ARCHIVES["voc0712"] = (*ARCHIVES["voc2007"], *ARCHIVES["voc2012"])


def fetch(name: str, folder: Path, listener: Listener) -> Path:
    """Download, check and unpack a known data set below `folder`; return its root. Archives that are there are not fetched again.

    A mark in the root is written after an archive is unpacked, so the same call resumes whatever was interrupted before.
    """
    if name not in ARCHIVES:
        raise UsageError(f"{unknown('data set', name, [*ARCHIVES, 'demo'])} For a data set of your own, add --root DIR.")
    root, below = folder / name, folder / "archives"
    with locks.lock(folder / f"{name}.lock", listener.echo):
        wanted = [archive for archive in ARCHIVES[name] if not _mark(root, archive).is_file()]
        _check_network(name, wanted, below)
        _check_room(name, wanted, files.make_folder(below))
        for archive in ARCHIVES[name]:
            if archive in wanted:
                path = download(archive, below, listener)
                listener.echo(f"unpacking {archive.name}")
                unpack(path, root)
                files.publish_file(_mark(root, archive), archive.sha256 + "\n")
            (below / archive.name).unlink(missing_ok=True)
    return root


def _mark(root: Path, archive: Archive) -> Path:
    return root / f".{archive.name}.unpacked"


def _check_network(name: str, wanted: Sequence[Archive], folder: Path) -> None:
    missing = [
        archive.name
        for archive in wanted
        if archive.size not in (_length(folder / archive.name), _length(folder / _partial(archive)))
    ]
    if missing and offline.is_forbidden():
        raise MachineError(
            f"{name} is not downloaded ({', '.join(missing)}), and --offline ({offline.VARIABLE}) forbids the network; run "
            f"`bench data prepare {name}` on a machine with a network, copy its folder downloads/{name} to this machine, and run "
            f"`bench data prepare {name} --root DIR` with the copy."
        )


def _check_room(name: str, wanted: Sequence[Archive], folder: Path) -> None:
    """Raise MachineError when the disk has no room for the unpacked files, about as large as the archives, and one archive."""
    sizes = [archive.size for archive in wanted]
    there = sum(_length(folder / file) for archive in wanted for file in (archive.name, _partial(archive)))
    needed = sum(sizes) + max(sizes, default=0) - there
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise MachineError(
            f"{name} needs {needed:,} bytes to be downloaded and unpacked, but {folder} has room for {free:,}; free some space, "
            "or move the cache with $PRETEXT_BENCH_HOME, then run again."
        )


def _partial(archive: Archive) -> str:
    return f"{archive.name}.partial"


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _is(archive: Archive, path: Path) -> bool:
    """Tell whether a file is the archive, by its length and its SHA-256."""
    return path.is_file() and _length(path) == archive.size and files.sha256(path) == archive.sha256


def download(archive: Archive, folder: Path, listener: Listener) -> Path:
    """Return the archive's file with the right SHA-256, from the first mirror that has it; a partial download is resumed.

    MachineError says what went wrong at each mirror. A file with another SHA-256 is removed.
    """
    files.make_folder(folder)
    path, partial = folder / archive.name, folder / _partial(archive)
    if _is(archive, path):
        return path
    path.unlink(missing_ok=True)
    if _is(archive, partial):
        partial.replace(path)
        return path
    if offline.is_forbidden():
        raise MachineError(f"{archive.name} is not here or is damaged, and --offline ({offline.VARIABLE}) forbids the network.")
    problems = []
    for address in archive.addresses():
        again = _length(partial) > 0  # a partial file from another mirror may be wrong, so this mirror gets a second try
        problem = _try(archive, address, partial, listener)
        if problem and again and not partial.exists():
            problem = _try(archive, address, partial, listener)
        if problem is None:
            partial.replace(path)
            return path
        problems.append(f"{address}: {problem}")
    raise MachineError(
        f"cannot download {archive.name} ({'; '.join(problems)}); "
        "download it on another machine, unpack it and name the folder with --root."
    )


def _try(archive: Archive, address: str, partial: Path, listener: Listener) -> str | None:
    """Fetch an archive from one address; return what went wrong, or None. A partial file that cannot be resumed is removed."""
    try:
        _transfer(archive, address, partial, listener)
    except _Unfit as error:
        partial.unlink(missing_ok=True)
        return str(error)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            missing = archive.size - _length(partial)
            raise MachineError(
                f"no room to write {partial} ({missing:,} bytes more): free some space, then run again."
            ) from error
        return str(getattr(error, "reason", None) or error or type(error).__name__)
    if _is(archive, partial):
        return None
    partial.unlink()
    return f"the file has another SHA-256 than {archive.sha256}"


class _Unfit(Exception):
    """Raised for an answer that is not the archive, or not the missing rest of it."""


def _transfer(archive: Archive, address: str, partial: Path, listener: Listener) -> None:
    """Write an address's content, or the missing rest of it, to `partial`, and never more than the archive's length."""
    have = _length(partial)
    if have >= archive.size:
        have = 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = _web().open(request, timeout=30)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            raise _Unfit("the server has nothing after the part that is here") from error
        raise
    with response:
        if response.status == 206 and have:
            _check_range(response, have, archive.size)
        elif response.status == 200:
            have = 0
        else:
            raise _Unfit(f"the server answered {response.status} {response.reason}")
        length = response.headers.get("Content-Length")
        if length is not None and have + int(length) != archive.size:
            raise _Unfit(f"the server's file has {have + int(length):,} bytes, but the archive has {archive.size:,}")
        with partial.open("ab" if have else "wb") as file:
            while chunk := response.read(min(CHUNK, archive.size - have + 1)):
                have += len(chunk)
                if have > archive.size:
                    raise _Unfit(f"the server sent more than the archive's {archive.size:,} bytes")
                file.write(chunk)
                listener.amount(archive.name, have, archive.size)
            file.flush()
            os.fsync(file.fileno())
    if have < archive.size:
        raise OSError(f"the connection ended after {have:,} of {archive.size:,} bytes")


def _check_range(response: http.client.HTTPResponse, have: int, size: int) -> None:
    """Raise _Unfit when an answer's Content-Range is not the part that was asked for."""
    said = response.headers.get("Content-Range", "")
    matched = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", said.strip())
    if matched is None or int(matched[1]) != have or matched[3] not in (str(size), "*"):
        raise _Unfit(f"the server was asked for bytes from {have:,} and sent {said or 'a part that it does not name'!r}")


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https addresses only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not _is_web(newurl):
            raise _Unfit(f"the server redirects to {newurl!r}, which is no http or https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _web() -> urllib.request.OpenerDirector:
    """Return an opener of http and https addresses only: no file, ftp or data address."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _WebRedirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
