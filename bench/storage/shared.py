"""Which file system a folder lies on, and what its locks (`flock`) hold for: between machines, in one machine, or not at all.

| file system | locks hold | source |
|---|---|---|
| NFS 4 | between machines, since Linux turns `flock` into a byte-range lock of the server | flock(2), nfs(5) |
| NFS 2 and 3 | between machines; with nolock or local_lock=flock or all in one machine | nfs(5) |
| Lustre | with -o flock between machines, with localflock in one machine, with noflock not at all | mount.lustre(8) |
| CephFS | between machines: the metadata server keeps them | Linux, fs/ceph/locks.c |
| GFS2, OCFS2 | between machines; with localflocks in one machine | Linux, Documentation/filesystems |
| BeeGFS | in one machine, unless its client has tuneUseGlobalFileLocks = true | beegfs-client.conf |
| SMB (cifs, smb3) | between machines since Linux 5.5; with nobrl in one machine | flock(2), mount.cifs(8) |
| AFS | between machines; with flock=local in one machine | Linux, fs/afs/super.c |
| OrangeFS | not at all; with local_lock in one machine | Linux, Documentation/filesystems/orangefs.rst |
| JuiceFS, GlusterFS | between machines | JuiceFS's README ("Global File Locks"); GlusterFS, features/locks |
| virtiofs; FUSE without locks of its own (1) | in one machine | libfuse, fuse_lowlevel.h: "file locking to work locally" |
| GPFS, 9p and others | not known here: it depends on the version or on the server, and a launch tries it | |

(1) sshfs, s3fs, gcsfuse, goofys, rclone, Mountpoint for S3, blobfuse.

A mount says what should hold; `bench.storage.locks.fault` tries what does hold in this machine, and the workers of a launch try
whether it holds between theirs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.errors import MachineError
from bench.storage import handed, locks

Reach = Literal["machines", "machine", "none", "unknown"]
"""Between which processes a lock holds: of all machines, of one machine, of none, or nobody here knows."""
MOUNTS = Path("/proc/self/mountinfo")
BEEGFS = Path("/etc/beegfs/beegfs-client.conf")
LOCAL = {
    *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "reiserfs", "jfs", "tmpfs", "ramfs", "overlay", "aufs"),
    *("vfat", "exfat", "ntfs", "ntfs3", "fuseblk", "squashfs", "erofs", "rootfs", "devtmpfs", "proc", "sysfs"),
}
"""File systems that other machines do not see."""
SAID: dict[Reach, str] = {
    "machines": "locks hold between machines",
    "machine": "locks hold in one machine only, so use the folder from one machine, or give the runs to one --launcher",
    "none": "locks do not work",
    "unknown": "whether locks hold between machines is not known; a --launcher tries it",
}


@dataclass(frozen=True)
class FileSystem:
    """A mounted file system: its type, what is mounted (a device, or a server's folder), its options and its mount point."""

    kind: str
    source: str = ""
    options: frozenset[str] = frozenset()
    place: str = "/"

    @property
    def is_local(self) -> bool:
        """Whether other machines do not see it."""
        return self.kind in LOCAL

    @property
    def reach(self) -> Reach:
        """Between which processes its locks should hold, by its type and options."""
        if self.is_local:
            return "machine"
        return _RULES[self.kind](self.options) if self.kind in _RULES else "unknown"

    def __str__(self) -> str:
        telling = sorted(self.options & _TELLING)
        return ", ".join([f"{self.kind} ({self.source})" if self.source else self.kind, *telling])


def said(system: FileSystem) -> str:
    """Return what a file system's locks hold for, as text."""
    if system.is_local:
        return f"{system}: other machines do not see it, and locks hold between the processes of this one"
    return f"{system}: {SAID[system.reach]}"


def of(folder: Path) -> FileSystem:
    """Return the file system that a folder, or its nearest parent that exists, lies on; of kind "unknown" without /proc."""
    try:
        text = MOUNTS.read_text(errors="replace")
    except OSError:
        return FileSystem("unknown")
    place = os.path.realpath(folder)
    found = FileSystem("unknown")
    for system in parse(text):
        below = system.place.rstrip("/") + "/"
        if (place + "/").startswith(below) and len(system.place) >= len(found.place):  # of equal places the last one is on top
            found = system
    return found


def parse(text: str) -> list[FileSystem]:
    """Return the file systems that a mountinfo file lists (proc_pid_mountinfo(5)), with the options of mount and superblock."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(rest) < 3:
            continue
        options = frozenset(",".join([fields[5], rest[2]]).split(","))
        found.append(FileSystem(rest[0], _unescaped(rest[1]), options, _unescaped(fields[4])))
    return found


def check(folder: Path, option: str, echo: Callable[[str], object]) -> None:
    """Raise MachineError where locks do not work in a folder, and warn where they hold in one of the machines that see it.

    Nothing is checked in a worker whose runs were handed out (`bench.storage.handed`), since it needs no locks.
    """
    if handed.out():
        return
    system, fault = of(folder), locks.fault(folder)
    if fault:
        raise MachineError(
            f"locks do not work in {folder}, which is on {system}: {fault}; two commands could do the same work, so name a "
            f"folder on another file system by {option}, or add --launcher local, which divides the runs among its workers."
        )
    if not system.is_local and system.reach in ("machine", "none"):
        echo(f"warning: {folder} is on {said(system)}")


def _unescaped(field: str) -> str:
    """Return a field with its spaces, tabs, newlines and backslashes, which mountinfo writes as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _unless(*options: str) -> Callable[[frozenset[str]], Reach]:
    """Return a rule: locks hold between machines, but in one machine with any of these options."""
    return lambda given: "machine" if given & set(options) else "machines"


def _lustre(options: frozenset[str]) -> Reach:
    known: dict[str, Reach] = {"noflock": "none", "localflock": "machine", "flock": "machines"}
    return next((reach for option, reach in known.items() if option in options), "unknown")


def _beegfs(options: frozenset[str]) -> Reach:
    named = next((option.partition("=")[2] for option in options if option.startswith("cfgFile=")), "")
    try:
        text = (Path(named) if named else BEEGFS).read_text(errors="replace")
    except OSError:
        return "unknown"
    return "machines" if re.search(r"(?m)^\s*tuneUseGlobalFileLocks\s*=\s*true\b", text) else "machine"


_RULES: dict[str, Callable[[frozenset[str]], Reach]] = {
    **dict.fromkeys(("nfs4", "ceph", "fuse.ceph", "fuse.ceph-fuse", "fuse.juicefs", "fuse.glusterfs"), _unless()),
    "nfs": _unless("nolock", "local_lock=flock", "local_lock=all"),
    "lustre": _lustre,
    **dict.fromkeys(("gfs2", "ocfs2"), _unless("localflocks")),
    "beegfs": _beegfs,
    **dict.fromkeys(("cifs", "smb3"), _unless("nobrl")),
    "afs": _unless("flock=local"),
    "pvfs2": lambda options: "machine" if "local_lock" in options else "none",
    **dict.fromkeys(
        (
            *("virtiofs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.goofys", "fuse.rclone", "fuse.mountpoint-s3"),
            *("fuse.mount-s3", "fuse.blobfuse", "fuse.blobfuse2"),
        ),
        lambda options: "machine",
    ),
}
_TELLING = {
    *("nolock", "local_lock=flock", "local_lock=all", "flock", "localflock", "noflock", "localflocks", "nobrl", "flock=local"),
    "local_lock",
}
"""The options that decide what locks hold for."""
