"""Unpacking a tar or a zip archive as if its author were hostile, into a folder that never sees a half of it.

Python's own filters have had holes (CVE-2024-12718, CVE-2025-4138, CVE-2025-4330, CVE-2025-4435, CVE-2025-4517, all of links;
CVE-2025-8194 of negative sizes), so none is relied on: the libraries only list what an archive says it holds, everything in the
list is judged before a byte is written, and every file is made anew by us, below folders that we made, with every byte counted.
Links, devices, sparse files and nested compression are no part of a data set and are refused.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from bench.errors import DataError, MachineError
from bench.storage import files

CHUNK = 1 << 20
LARGEST_GROWTH = 200
"""An archive that unpacks to more than this many times its size is a bomb."""
MOST_MEMBERS = 1_000_000
"""COCO 2017 has 123,000."""
LONGEST_NAME = 1024
"""Bytes in a name, folders included; a disk takes 255 in each part."""
LARGEST_DIRECTORY = 64 << 20
"""Bytes of a zip's list of members that are read at once; COCO 2017's has 12 million."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive: where it goes, how long it says it is, and which bytes of the archive it is made of."""

    parts: tuple[str, ...]
    size: int
    start: int
    length: int
    deflated: bool = False
    crc: int | None = None


def unpack(archive: Path, root: Path) -> None:
    """Unpack a .zip, or else a plain tar, into `root`, which may hold other archives' files already.

    A process that is killed leaves a temporary folder beside `root`, which the next one removes, or some of the files in their
    places, and then the same call puts them all there. DataError names what has no business in the archive; nothing of it is in
    `root` then. MachineError says how much space is missing.
    """
    root = root.resolve()
    files.make_folder(root.parent)
    files.sweep(root.parent)
    temporary = files.temporary_name(root)
    try:
        with archive.open("rb") as opened:
            file = _Careful(opened, LARGEST_DIRECTORY if archive.suffix == ".zip" else CHUNK)
            folders, members = _list(archive, file)
            _check_room(archive, root.parent, sum(member.size for member in members))
            temporary.mkdir()
            for parts in folders:
                temporary.joinpath(*parts).mkdir(parents=True, exist_ok=True)
            for member in members:
                _write(archive, file, temporary.joinpath(*member.parts), member)
        moves = list(_moves(archive, temporary, root))
        os.sync()  # names must not outlive what they name
        for source, target in moves:
            source.replace(target)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise MachineError(f"no room to unpack {archive.name} in {root.parent}: free some space, then run again.") from error
        raise MachineError(f"cannot unpack {archive} in {root.parent}: {error.strerror or error}.") from error
    finally:
        files.remove_folder(temporary)


def _check_room(archive: Path, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise MachineError(
            f"{archive.name} unpacks to {needed:,} bytes, and {folder} has room for {free:,}; free some space, or move the cache "
            "with $PRETEXT_BENCH_HOME, then run again."
        )


def _write(archive: Path, file: _Careful, path: Path, member: Member) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    written = crc = 0
    with open(descriptor, "wb") as new:  # noqa: PTH123
        for chunk in _content(archive, file, member):
            written += len(chunk)
            if written > member.size:
                break
            crc = zlib.crc32(chunk, crc)
            new.write(chunk)
    if written != member.size:
        more = "more" if written > member.size else "fewer"
        raise _refused(archive, "/".join(member.parts), f"has {more} bytes than the {member.size:,} that the archive says")
    if member.crc not in (None, crc):
        raise _refused(archive, "/".join(member.parts), "is damaged: its CRC-32 is another")


def _moves(archive: Path, source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """Yield what to rename to what, for all below `source` to be below `target` too; whole folders where nothing is there."""
    if not target.exists() and not target.is_symlink():
        yield source, target
        return
    if target.is_symlink() or target.is_dir() != source.is_dir():
        raise DataError(f"{archive} holds {source.name}, but {target} is something else; remove it and run again.")
    if not source.is_dir():
        yield source, target
        return
    for entry in sorted(source.iterdir()):
        yield from _moves(archive, entry, target / entry.name)


Listing = tuple[list[tuple[str, ...]], list[Member]]
"""The folders and the files of an archive."""


class _Names:
    """The names of an archive, each judged by itself and against those before."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self.known: dict[str, tuple[str, bool]] = {}  # folded: as it was written, and whether it is a file
        self.count = 0

    def add(self, name: str, is_file: bool) -> tuple[str, ...]:
        """Return the parts of a name, none for the archive's own folder; DataError says what is wrong with it."""
        self.count += 1
        if self.count > MOST_MEMBERS:
            raise DataError(f"{self.archive} is refused: it has more than {MOST_MEMBERS:,} members.")
        if not name.isprintable():
            raise _refused(self.archive, name, "is no readable text")
        if name.startswith("/") or "\\" in name:
            raise _refused(self.archive, name, "is an absolute name")
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if ".." in parts:
            raise _refused(self.archive, name, "leads out of the folder")
        if len(name.encode()) > LONGEST_NAME or any(len(part.encode()) > 255 for part in parts):
            raise _refused(self.archive, name[:80] + "...", "is too long a name")
        if parts and parts[0].endswith(".unpacked"):
            raise _refused(self.archive, name, "has the name of a mark of ours")
        if is_file and (not parts or name.endswith("/")):
            raise _refused(self.archive, name, "is a file with a folder's name")
        for length in range(1, len(parts) + 1):
            self._place("/".join(parts[:length]), is_file and length == len(parts))
        return parts

    def _place(self, path: str, is_file: bool) -> None:
        # Names that differ by case or by how an accent is written are one name on some disks: one would overwrite the other.
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
        if folded not in self.known:
            self.known[folded] = path, is_file
            return
        before, was_file = self.known[folded]
        if before != path:
            raise _refused(self.archive, path, f"is also there as {before!r}")
        if is_file and was_file:
            raise _refused(self.archive, path, "is there twice")
        if is_file or was_file:
            raise _refused(self.archive, path, "is a file and a folder")


def _refused(archive: Path, name: str, reason: str) -> DataError:
    return DataError(f"{archive} is refused: {name!r} {reason}.")


class _Careful(io.RawIOBase):
    """A file that is never read in pieces of more than `largest` bytes, whatever a number in it says."""

    def __init__(self, file: BinaryIO, largest: int) -> None:
        self.file, self.largest = file, largest
        self.length = os.fstat(file.fileno()).st_size

    def read(self, size: int = -1, /) -> bytes:
        left = max(0, self.length - self.file.tell())
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > self.largest:
            raise ValueError(f"a header of {wanted:,} bytes")
        return self.file.read(wanted)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if whence == 0 and offset < 0:
            raise ValueError(f"a place before the beginning ({offset:,})")
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _list(archive: Path, file: _Careful) -> Listing:
    """Return what an archive holds, all of it judged; whatever goes wrong in the libraries is the archive's fault."""
    try:
        return (_list_zip if archive.suffix == ".zip" else _list_tar)(archive, file)
    except (DataError, OSError, MemoryError):
        raise
    except Exception as error:
        raise _broken(archive, str(error)) from error


def _broken(archive: Path, reason: str) -> DataError:
    return DataError(f"{archive} does not unpack: {reason or 'it is damaged'}.")


def _list_tar(archive: Path, file: _Careful) -> Listing:
    names = _Names(archive)
    folders: list[tuple[str, ...]] = []
    members: list[Member] = []
    tar = tarfile.open(fileobj=cast(IO[bytes], file), mode="r:")  # noqa: SIM115
    end = -1
    for info in iter(tar.next, None):
        tar.members.clear()  # type: ignore[attr-defined]  # it would keep every one
        if info.size < 0 or info.offset_data <= end:
            raise _refused(archive, info.name, "has an impossible size")
        end = info.offset_data
        if info.isdir():
            folders.append(names.add(info.name, False))
            continue
        if not info.isreg() or info.issparse():
            raise _refused(archive, info.name, "is neither a file nor a folder")
        if info.offset_data + info.size > file.length:
            raise _refused(archive, info.name, "ends after the archive does")
        members.append(Member(names.add(info.name, True), info.size, info.offset_data, info.size))
    if not members:
        raise _broken(archive, "it holds no file")
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes a broken header for the end
        raise _broken(archive, f"the header at byte {tar.offset:,} is damaged")
    return folders, members


def _list_zip(archive: Path, file: _Careful) -> Listing:
    names = _Names(archive)
    folders: list[tuple[str, ...]] = []
    members: list[Member] = []
    with zipfile.ZipFile(cast(IO[bytes], file)) as zipped:
        entries, directory = zipped.infolist(), zipped.start_dir
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        name, kind = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
        is_folder = name.endswith("/")
        if kind not in (0, stat.S_IFDIR if is_folder else stat.S_IFREG):
            raise _refused(archive, name, "is neither a file nor a folder")
        if entry.flag_bits & _ENCRYPTED_OR_PATCHED or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused(archive, name, "is encrypted or compressed in an unusual way")
        start = _data_of(archive, file, entry)
        if entry.header_offset < end or start + entry.compress_size > directory:
            raise _refused(archive, name, "lies over another member")
        end = start + entry.compress_size
        parts = names.add(name, not is_folder)
        if is_folder and entry.file_size:
            raise _refused(archive, name, "is a folder with content")
        if is_folder:
            folders.append(parts)
            continue
        deflated = entry.compress_type == zipfile.ZIP_DEFLATED
        members.append(Member(parts, entry.file_size, start, entry.compress_size, deflated, entry.CRC))
    if not members:
        raise _broken(archive, "it holds no file")
    total = sum(member.size for member in members)
    if total > file.length * LARGEST_GROWTH:
        raise DataError(f"{archive} is refused: it would unpack to {total:,} bytes, more than {LARGEST_GROWTH} times its size.")
    return folders, members


_ENCRYPTED_OR_PATCHED = 0x1 | 0x20 | 0x40 | 0x2000


def _data_of(archive: Path, file: _Careful, entry: zipfile.ZipInfo) -> int:
    """Return where the bytes of a member begin: behind its own header, which need not be as long as the list's."""
    file.seek(entry.header_offset)
    header = file.read(30)
    if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
        raise _refused(archive, entry.orig_filename, "is not where the archive says")
    name, extra = struct.unpack("<HH", header[26:])
    return entry.header_offset + 30 + int(name) + int(extra)


def _content(archive: Path, file: _Careful, member: Member) -> Iterator[bytes]:
    stored = _stored(file, member.start, member.length)
    try:
        yield from _inflated(stored) if member.deflated else stored
    except zlib.error as error:
        raise _refused(archive, "/".join(member.parts), f"is damaged: {error}") from error


def _stored(file: _Careful, start: int, length: int) -> Iterator[bytes]:
    file.seek(start)
    left = length
    while left and (chunk := file.read(min(CHUNK, left))):
        left -= len(chunk)
        yield chunk


def _inflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what deflated bytes unpack to, at most CHUNK at a time; zlib.error when they are not one whole stream."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    for chunk in chunks:
        waiting = chunk
        while waiting and not engine.eof:
            yield engine.decompress(waiting, CHUNK)
            waiting = engine.unconsumed_tail
        if engine.eof and (engine.unused_data or next(chunks, b"")):
            raise zlib.error("it goes on after its end")
    while not engine.eof and (rest := engine.decompress(b"", CHUNK)):
        yield rest
    if not engine.eof:
        raise zlib.error("it ends too early")
