"""Unpacks a tar or a zip archive whose SHA-256 has matched, whole or not at all.

The digest says that the archive is the pinned one, byte for byte, so Python's own `tarfile` and `zipfile` unpack it. Faults that
the digest excludes are not looked for, such as zip bombs, or a damaged header in a tar, which `tarfile` takes for the end.
"""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path

from bench.errors import DataError, MachineError
from bench.storage import files


def unpack(archive: Path, root: Path) -> None:
    """Unpack a .zip, or else a plain tar, into `root`, which may hold other archives' files already.

    All files are written to a temporary folder beside `root`, then moved into `root`. A process that is killed leaves the
    temporary folder, which the next call removes, or only some files in `root`, which the same call then completes.
    DataError for an archive that does not unpack; MachineError for a full disk, with the number of missing bytes.
    """
    root = root.resolve()
    files.make_folder(root.parent)
    temporary = files.temporary_name(root)
    try:
        _extract(archive, temporary)
        os.sync()  # the content must reach the disk before the names do
        _move(temporary, root)
    except OSError as error:
        raise MachineError(f"cannot unpack {archive} in {root.parent}: {error.strerror or error}.") from error
    finally:
        files.remove(temporary)


def _extract(archive: Path, folder: Path) -> None:
    needed = 0
    try:
        with zipfile.ZipFile(archive) if archive.suffix == ".zip" else tarfile.open(archive, "r:") as opened:
            if isinstance(opened, zipfile.ZipFile):
                sizes = {entry.filename: entry.file_size for entry in opened.infolist()}
            else:
                sizes = {member.name: member.size for member in opened}
            for name in sizes:  # zipfile would silently drop a leading "/" and every "..", and tarfile's filter a leading "/"
                if name.startswith("/") or ".." in name.split("/"):
                    raise ValueError(f"{name!r} leads out of the folder")
            needed, free = sum(sizes.values()), shutil.disk_usage(folder.parent).free
            if needed > free:
                raise _no_room(archive, folder, needed - free)
            folder.mkdir()
            if isinstance(opened, zipfile.ZipFile):
                opened.extractall(folder)
            else:
                opened.extractall(folder, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise DataError(f"{archive} does not unpack: {str(error).rstrip('.') or 'it is damaged'}.") from error
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise
        written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        raise _no_room(archive, folder, needed - written) from error


def _no_room(archive: Path, folder: Path, missing: int) -> MachineError:
    return MachineError(
        f"no room to unpack {archive.name} in {folder.parent} ({missing:,} bytes more): free some space, or move the cache with "
        "$PRETEXT_BENCH_HOME, then run again."
    )


def _move(source: Path, target: Path) -> None:
    """Rename `source` to `target`; where both are folders, do the same for each entry of `source`."""
    if source.is_dir() and target.is_dir():
        for entry in source.iterdir():
            _move(entry, target / entry.name)
    else:
        source.replace(target)
