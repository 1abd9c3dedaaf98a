"""Archives: what is unpacked, and that one that does not unpack leaves nothing."""

import io
import os
import resource
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.data import archive as archives
from bench.errors import DataError, MachineError
from bench.storage import files


def tar(*members: tuple[str, bytes, bytes], form: int = tarfile.GNU_FORMAT, **fields: object) -> bytes:
    """Return a tar of (name, type, content); `fields` are set on every member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content)
            info.linkname = "/etc/passwd"
            for field, value in fields.items():
                setattr(info, field, value)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def archive_of(*names: str) -> bytes:
    return tar(*((name, REGULAR, b"x") for name in names))


def zipped(*entries: tuple[str, bytes], stored: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as file:
        for name, content in entries:
            file.writestr(name, content)
    return buffer.getvalue()


REGULAR, FOLDER = tarfile.REGTYPE, tarfile.DIRTYPE


UNFIT = {
    "a tar that leads out": ("x.tar", archive_of("a", "../out"), r"'\.\./out' leads out"),
    "a tar that leads out from within": ("x.tar", archive_of("a", "a/../../out"), "leads out"),
    "a tar with an absolute name": ("x.tar", archive_of("a", "/out"), "'/out' leads out"),
    "a tar with a link that leads out": ("x.tar", tar(("a", REGULAR, b"x"), ("b", tarfile.SYMTYPE, b"")), "absolute path"),
    "a tar with a device": ("x.tar", tar(("a", REGULAR, b"x"), ("b", tarfile.CHRTYPE, b"")), "special file"),
    "a tar that is cut off": ("x.tar", tar(("a", REGULAR, b"x" * 5000))[:2000], "unexpected end of data"),
    "a tar that is a zip": ("x.tar", zipped(("a", b"x")), "truncated header"),
    "a tar of nothing": ("x.tar", b"", "empty file"),
    "a zip that leads out": ("x.zip", zipped(("a", b"x"), ("../out", b"x")), r"'\.\./out' leads out"),
    "a zip that leads out from within": ("x.zip", zipped(("a", b"x"), ("a/../../out", b"x")), "leads out"),
    "a zip with an absolute name": ("x.zip", zipped(("a", b"x"), ("/out", b"x")), "'/out' leads out"),
    "a zip that is cut off": ("x.zip", zipped(("a", b"x" * 1000))[:60], "not a zip file"),
    "a zip with another byte": ("x.zip", zipped(("a", b"x"), ("b", b"yes"), stored=True).replace(b"yes", b"yet"), "CRC-32"),
    "a zip that is a tar": ("x.zip", archive_of("a"), "not a zip file"),
    "a zip of nothing": ("x.zip", b"", "not a zip file"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_24_an_archive_that_does_not_unpack_leaves_nothing(tmp_path: Path, case: str) -> None:
    name, content, message = UNFIT[case]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} does not unpack: .*{message}") as raised:
        archives.unpack(tmp_path / "home" / name, tmp_path / "home" / "root")
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["home", name]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_unpacks(tmp_path: Path, form: int) -> None:
    name = f"{'long/' * 25}caf\u00e9.jpg" if form != tarfile.USTAR_FORMAT else f"{'long/' * 25}a.jpg"
    members = [("./", FOLDER, b""), ("./a/", FOLDER, b""), (name, REGULAR, b"x" * 3_000_000), ("a/empty", REGULAR, b"")]
    (tmp_path / "x.tar").write_bytes(tar(*members, form=form))
    archives.unpack(tmp_path / "x.tar", tmp_path / "root")
    assert contents(tmp_path / "root") == {name: b"x" * 3_000_000, "a/empty": b""}


@pytest.mark.parametrize("stored", [True, False])
def test_a_zip_unpacks_to_what_it_was_made_of(tmp_path: Path, stored: bool) -> None:
    noise = os.urandom(2_500_000)
    (tmp_path / "x.zip").write_bytes(
        zipped(("a/", b""), ("a/noise", noise), ("a/text", b"ab" * 900_000), ("b", b""), stored=stored)
    )
    archives.unpack(tmp_path / "x.zip", tmp_path / "root")
    assert contents(tmp_path / "root") == {"a/noise": noise, "a/text": b"ab" * 900_000, "b": b""}


def test_what_is_unpacked_belongs_to_us_and_is_written_by_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar(("a", REGULAR, b"x"), mode=0o6777, uid=12345, gid=12345))
    archives.unpack(tmp_path / "x.tar", tmp_path / "root")
    found = (tmp_path / "root" / "a").stat()
    assert stat.S_IMODE(found.st_mode) == 0o755 and (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())


@pytest.mark.parametrize(("name", "content"), [("x.tar", archive_of("a", "b")), ("x.zip", zipped(("a", b"x"), ("b", b"x")))])
def test_a_disk_without_room_is_told_before_anything_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    for call in (tarfile.TarFile, zipfile.ZipFile):
        monkeypatch.setattr(call, "extractall", lambda *_, **__: pytest.fail("it was unpacked"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(MachineError, match=rf"no room to unpack {name} in .* \(1 bytes more\): free some space"):
        archives.unpack(tmp_path / name, tmp_path / "root")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["x.tar", "x.zip"])
def test_a_disk_that_fills_while_unpacking_leaves_nothing_and_says_what_is_missing(tmp_path: Path, name: str) -> None:
    small, large = os.urandom(1000), os.urandom(3_000_000)
    made = tar(("a", REGULAR, small), ("b", REGULAR, large)) if name == "x.tar" else zipped(("a", small), ("b", large))
    (tmp_path / name).write_bytes(made)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
    try:
        with pytest.raises(MachineError, match=rf"no room to unpack {name} in .* \(1,000,000 bytes more\): free some space"):
            archives.unpack(tmp_path / name, tmp_path / "root")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_archives_of_one_data_set_share_their_folders(tmp_path: Path) -> None:
    for name, members in {"1.tar": ("V/J/1", "V/both", "V/first"), "2.tar": ("V/J/2", "V/both", "W/2")}.items():
        (tmp_path / name).write_bytes(archive_of(*members))
        archives.unpack(tmp_path / name, tmp_path / "root")
    assert set(contents(tmp_path / "root")) == {"V/J/1", "V/J/2", "V/both", "V/first", "W/2"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.tar", "2.tar", "root"]


@pytest.mark.parametrize("there", ["file", "folder"])
def test_what_is_in_the_way_is_told_in_a_sentence(tmp_path: Path, there: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "v").touch() if there == "file" else (root / "b").mkdir()
    (tmp_path / "x.tar").write_bytes(archive_of("v/1", "b"))
    with pytest.raises(MachineError, match=r"cannot unpack .*x\.tar in .*: (Not|Is) a directory\.$"):
        archives.unpack(tmp_path / "x.tar", root)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "x.tar"]


@pytest.mark.parametrize("stop", range(4))
def test_a_process_that_is_killed_between_two_files_is_gone_on_from(tmp_path: Path, stop: int) -> None:
    (tmp_path / "1.tar").write_bytes(archive_of("v/1", "b"))
    archives.unpack(tmp_path / "1.tar", tmp_path / "root")
    noise = {name: os.urandom(1000) for name in ("v/1", "v/2", "w/3", "b")}
    (tmp_path / "2.tar").write_bytes(tar(*((name, REGULAR, content) for name, content in noise.items())))
    subprocess.run([sys.executable, "-c", STOPPED.format(stop=stop), tmp_path / "2.tar", tmp_path / "root"], check=False)
    assert any(path.name.startswith(files.TEMPORARY) for path in tmp_path.iterdir())
    assert sum(content == noise[name] for name, content in contents(tmp_path / "root").items()) == stop
    assert all(content in (noise[name], b"x") for name, content in contents(tmp_path / "root").items())
    archives.unpack(tmp_path / "2.tar", tmp_path / "root")
    assert contents(tmp_path / "root") == noise
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.tar", "2.tar", "root"]


STOPPED = """
import os, sys
from pathlib import Path
from bench.data import archive
moved, replace = 0, Path.replace
def count(*paths):
    global moved
    if moved == {stop}:
        os._exit(1)
    moved += 1
    return replace(*paths)
Path.replace = count
archive.unpack(*map(Path, sys.argv[1:]))
"""
