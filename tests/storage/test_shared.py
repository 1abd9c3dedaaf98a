"""Which file system a folder lies on, and what its locks hold for, by its mount and by trying."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.storage import locks, shared

LINE = "36 35 98:0 / {place} rw,noatime shared:1 - {kind} {source} {options}"
TABLE = {
    ("ext4", "rw"): "machine",
    ("nfs4", "rw,vers=4.2,local_lock=none"): "machines",
    ("nfs", "rw,vers=3,local_lock=none"): "machines",
    ("nfs", "rw,vers=3,nolock,local_lock=all"): "machine",
    ("nfs", "rw,vers=3,local_lock=flock"): "machine",
    ("nfs", "rw,vers=3,local_lock=posix"): "machines",
    ("lustre", "rw,flock,lazystatfs"): "machines",
    ("lustre", "rw,localflock,lazystatfs"): "machine",
    ("lustre", "rw,noflock"): "none",
    ("lustre", "rw,lazystatfs"): "unknown",
    ("ceph", "rw,acl"): "machines",
    ("gfs2", "rw"): "machines",
    ("gfs2", "rw,localflocks"): "machine",
    ("cifs", "rw,vers=3.1.1"): "machines",
    ("cifs", "rw,vers=3.1.1,nobrl"): "machine",
    ("gpfs", "rw"): "unknown",
    ("9p", "rw,trans=virtio"): "unknown",
    ("fuse.sshfs", "rw,user_id=0"): "machine",
    ("fuse.juicefs", "rw"): "machines",
    ("pvfs2", "rw"): "none",
    ("something.new", "rw"): "unknown",
}


@pytest.mark.parametrize(
    ("mount", "reach"), TABLE.items(), ids=lambda value: "-".join(value) if isinstance(value, tuple) else None
)
def test_a_mount_says_what_its_locks_hold_for(mount: tuple[str, str], reach: str) -> None:
    kind, options = mount
    (system,) = shared.parse(LINE.format(place="/data", kind=kind, source="server:/export", options=options))
    assert (system.kind, system.reach) == (kind, reach)
    assert shared.said(system).startswith(f"{kind} (server:/export")
    assert system.is_local == (kind == "ext4")


@pytest.mark.parametrize(("text", "reach"), [("true", "machines"), ("false", "machine"), (None, "unknown")])
def test_beegfs_says_it_in_its_configuration(text: str | None, reach: str, tmp_path: Path) -> None:
    file = tmp_path / "client.conf"
    if text is not None:
        file.write_text(f"tuneRemoteFSync = true\ntuneUseGlobalFileLocks        = {text}\n")
    (system,) = shared.parse(LINE.format(place="/data", kind="beegfs", source="beegfs_nodev", options=f"rw,cfgFile={file}"))
    assert system.reach == reach


def test_the_longest_mount_point_counts_and_of_equal_ones_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"/": "ext4", "/data": "nfs4", "/data/a b": "lustre", "/data2": "xfs", "/top": "ext4"}
    lines = [
        LINE.format(place=place.replace(" ", r"\040"), kind=kind, source="x", options="rw") for place, kind in places.items()
    ]
    lines.append(LINE.format(place="/top", kind="ceph", source="x", options="rw"))
    (tmp_path / "mountinfo").write_text("\n".join([*lines, "a broken line"]))
    monkeypatch.setattr(shared, "MOUNTS", tmp_path / "mountinfo")
    asked = {"/data/runs": "nfs4", "/data/a b/runs": "lustre", "/data2/runs": "xfs", "/datas": "ext4", "/top/x": "ceph"}
    assert {folder: shared.of(Path(folder)).kind for folder in asked} == asked
    monkeypatch.setattr(shared, "MOUNTS", tmp_path / "none")
    assert shared.of(Path("/data")).reach == "unknown"


@pytest.mark.skipif(shutil.which("findmnt") is None, reason="findmnt is not installed")
@pytest.mark.parametrize("folder", ["/proc", "/sys", "/dev/shm", "/"])
def test_it_is_what_findmnt_says(folder: str, tmp_path: Path) -> None:
    for place in (folder, str(tmp_path)):
        said = subprocess.run(["findmnt", "-n", "-o", "FSTYPE,SOURCE", "-T", place], capture_output=True, text=True, check=True)
        kind, source = said.stdout.split()[-2:]
        found = shared.of(Path(place))
        assert (found.kind, found.source) == (kind, source.partition("[")[0])


NFS = """
import sys
from pathlib import Path
from bench.storage import locks
folder = Path(sys.argv[1])
with locks.using(folder, print), locks.lock(folder / "a.lock", print), locks.alive(folder / "workers") as name:
    (folder / "ready").touch()
    sys.stdin.read()
"""


@pytest.fixture
def on_nfs(flock_library: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Give a process that holds locks in `tmp_path`, where they are byte-range locks as on NFS."""
    environment = {**os.environ, "LD_PRELOAD": str(flock_library), "FAULTS_FLOCK": "host:1"}
    held = subprocess.Popen([sys.executable, "-c", NFS, str(tmp_path)], stdin=subprocess.PIPE, text=True, env=environment)
    while not (tmp_path / "ready").exists():
        assert held.poll() is None
    yield held
    held.kill()
    held.wait()


ASKED = """
import sys
from pathlib import Path
from bench.errors import MachineError
from bench.storage import locks
folder = Path(sys.argv[1])
(name,) = [path.name for path in (folder / "workers").iterdir()]
try:
    with locks.unused(folder):
        used = False
except MachineError:
    used = True
print(locks.is_held(folder / "a.lock"), locks.is_alive(folder / "workers", name), used, repr(locks.fault(folder)))
"""


def asked(library: Path, folder: Path, how: str) -> str:
    environment = {**os.environ, "LD_PRELOAD": str(library), "FAULTS_FLOCK": how}
    return subprocess.run(
        [sys.executable, "-c", ASKED, str(folder)], capture_output=True, text=True, check=True, env=environment
    ).stdout.strip()


def test_locks_work_as_byte_range_locks(on_nfs: subprocess.Popen[str], flock_library: Path, tmp_path: Path) -> None:
    assert asked(flock_library, tmp_path, "host:1") == "True True True ''"
    on_nfs.kill()
    on_nfs.wait()
    assert asked(flock_library, tmp_path, "host:1") == "False False False ''"


def test_locks_of_another_machine_are_not_seen_where_they_hold_in_one(
    on_nfs: subprocess.Popen[str], flock_library: Path, tmp_path: Path
) -> None:
    assert asked(flock_library, tmp_path, "host:2") == "False False False ''"


def test_locks_work_in_a_plain_folder(tmp_path: Path) -> None:
    assert not locks.fault(tmp_path) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("ENOLCK", "No locks available"),
        ("ENOSYS", "Function not implemented"),
        ("EOPNOTSUPP", "Operation not supported"),
        ("nobody", "two processes can hold one at once"),
    ],
)
def test_without_locks_the_doctor_and_a_plain_command_say_so(how: str, said: str, flock_library: Path, tmp_path: Path) -> None:
    variables = {"LD_PRELOAD": str(flock_library), "FAULTS_FLOCK": how, "FAULTS_FLOCK_BELOW": str(tmp_path / "out")}
    (tmp_path / "out").mkdir()

    def bench(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench", *words, "--out", str(tmp_path / "out")]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})

    told = bench("doctor")
    row = next(line for line in told.stdout.splitlines() if line.startswith("out: locks\t"))
    assert told.returncode == 4 and row.split("\t")[1] == "fails" and said in row
    told = bench("run", "--pretext", "random_init", "--downstream", "voc_cls", "--data", "demo", "--size", "32")
    assert told.returncode == 4 and said in told.stderr and "--launcher local" in told.stderr
    assert told.stderr.count("\n") == 1 and not told.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {locks.IN_USE}
