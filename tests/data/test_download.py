"""Downloads from a local server: mirrors, resume, sums, answers that lie; archives, whole or not at all; a killed process."""

import hashlib
import io
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.data import archive as archives
from bench.data import catalogue, download
from bench.errors import DataError, MachineError, UsageError
from bench.storage import files, offline


class Silent:
    def echo(self, text: str) -> None:
        pass

    def amount(self, what: str, done: int, total: int) -> None:
        pass


class Server:
    """Files by path; `cut` ends each answer after so many bytes; ranges are honoured when `ranges`.

    `headers` are sent instead of Content-Length and Content-Range, `redirects` leads on, and `endless` never ends.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.headers: dict[str, str] | None = None
        self.cut: int | None = None
        self.ranges = True
        self.endless = False
        self.asked: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                server.asked.append((self.path, wanted))
                if self.path in server.redirects:
                    self.send_response(302)
                    self.send_header("Location", server.redirects[self.path])
                    self.end_headers()
                    return
                content = server.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
                self.send_response(206 if wanted and server.ranges else 200)
                honest = {"Content-Length": str(len(content) - start)}
                if wanted and server.ranges:
                    honest["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                for name, value in (honest if server.headers is None else server.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content[start:][: server.cut])
                while server.endless:
                    try:
                        self.wfile.write(bytes(65536))
                    except OSError:
                        return

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.endless = False
    made.http.shutdown()
    made.http.server_close()


def archive(server: Server, content: bytes, *mirrors: str) -> download.Archive:
    places = [f"{server.address}/{mirror}/" for mirror in mirrors or ("a",)]
    return download.Archive("x.tar", "", len(content), hashlib.sha256(content).hexdigest(), places)


def test_the_second_mirror_helps_when_the_first_has_nothing(server: Server, tmp_path: Path) -> None:
    server.files["/b/x.tar"] = b"content" * 1000
    path = download.download(archive(server, server.files["/b/x.tar"], "a", "b"), tmp_path, Silent())
    assert path.read_bytes() == server.files["/b/x.tar"]
    assert [name for name, _ in server.asked] == ["/a/x.tar", "/b/x.tar"]


@pytest.mark.parametrize("ranges", [True, False])
def test_23_a_half_downloaded_archive_is_gone_on_with_where_it_stopped(server: Server, tmp_path: Path, ranges: bool) -> None:
    content = server.files["/a/x.tar"] = bytes(range(256)) * 40
    server.cut, server.ranges = 3000, ranges
    wanted = archive(server, content)
    with pytest.raises(MachineError, match=r"ended after 3,000 of 10,240 bytes.*--root"):
        download.download(wanted, tmp_path, Silent())
    server.cut = None
    assert download.download(wanted, tmp_path, Silent()).read_bytes() == content
    assert server.asked[-1] == ("/a/x.tar", "bytes=3000-")
    asked = len(server.asked)
    download.download(wanted, tmp_path, Silent())
    assert len(server.asked) == asked


def test_a_file_with_another_sum_is_never_kept(server: Server, tmp_path: Path) -> None:
    server.files["/a/x.tar"] = b"wrong"
    with pytest.raises(MachineError, match="another SHA-256"):
        download.download(archive(server, b"right"), tmp_path, Silent())
    assert list(tmp_path.iterdir()) == []


def test_after_a_wrong_sum_the_next_mirror_is_asked_from_the_beginning(server: Server, tmp_path: Path) -> None:
    server.files.update({"/a/x.tar": b"wrong", "/b/x.tar": b"right"})
    assert download.download(archive(server, b"right", "a", "b"), tmp_path, Silent()).read_bytes() == b"right"
    assert server.asked == [("/a/x.tar", None), ("/b/x.tar", None)]


def test_a_half_file_of_a_bad_mirror_does_not_spoil_a_good_one(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.tar.partial").write_bytes(b"wr")
    server.files["/a/x.tar"] = b"right"
    assert download.download(archive(server, b"right"), tmp_path, Silent()).read_bytes() == b"right"
    assert server.asked == [("/a/x.tar", "bytes=2-"), ("/a/x.tar", None)]


@pytest.mark.parametrize("there", [b"other", b"much longer than it should be", b""])
def test_a_whole_file_with_another_sum_is_fetched_again(server: Server, tmp_path: Path, there: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(there)
    server.files["/a/x.tar"] = b"right"
    assert download.download(archive(server, b"right"), tmp_path, Silent()).read_bytes() == b"right"


def test_a_download_that_was_killed_before_its_last_step_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.tar.partial").write_bytes(b"right")
    assert download.download(archive(server, b"right"), tmp_path, Silent()).read_bytes() == b"right"
    assert server.asked == []


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Content-Length": "1000000"}, "file has 1,000,000 bytes"),
        ({"Content-Length": "3"}, "file has 3 bytes"),
        ({"Content-Length": "-5"}, "file has -5 bytes"),
        ({"Content-Length": "many"}, "many"),
        ({}, "sent more than"),
    ],
)
def test_an_endless_answer_does_not_fill_the_disk(server: Server, tmp_path: Path, headers: dict[str, str], message: str) -> None:
    server.files["/a/x.tar"] = b"right"
    server.endless, server.headers = True, headers
    with pytest.raises(MachineError, match=message):
        download.download(archive(server, b"right"), tmp_path, Silent())
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= len(b"right")


@pytest.mark.parametrize("said", [None, "bytes 0-9/10", "bytes 5-9/10", "bytes 3-9/11", "bytes */10", "items 3-9/10", "bytes 3"])
def test_a_part_that_was_not_asked_for_is_not_appended(server: Server, tmp_path: Path, said: str | None) -> None:
    (tmp_path / "x.tar.partial").write_bytes(b"012")
    server.files["/a/x.tar"] = b"0123456789"
    server.headers = {} if said is None else {"Content-Range": said}
    assert download.download(archive(server, b"0123456789"), tmp_path, Silent()).read_bytes() == b"0123456789"
    assert [wanted for _, wanted in server.asked] == ["bytes=3-", None]


@pytest.mark.parametrize("place", ["file:///etc/hostname", "ftp://127.0.0.1/x.tar", "data:,right"])
def test_a_redirect_leads_to_the_web_and_nowhere_else(server: Server, tmp_path: Path, place: str) -> None:
    server.redirects["/a/x.tar"] = place
    with pytest.raises(MachineError, match=r"no http or https address|not allowed"):
        download.download(archive(server, b"right"), tmp_path, Silent())
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_on_the_web_is_followed(server: Server, tmp_path: Path) -> None:
    server.redirects["/a/x.tar"] = f"{server.address}/b/x.tar"
    server.files["/b/x.tar"] = b"right"
    assert download.download(archive(server, b"right"), tmp_path, Silent()).read_bytes() == b"right"


def test_a_mirror_of_ones_own_is_asked_first_and_must_be_on_the_web(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/own/x.tar"] = b"right"
    monkeypatch.setenv("PRETEXT_BENCH_MIRROR", f"{server.address}/own/")
    assert download.download(archive(server, b"right"), tmp_path, Silent()).read_bytes() == b"right"
    monkeypatch.setenv("PRETEXT_BENCH_MIRROR", "file:///etc")
    with pytest.raises(UsageError, match=r"http or https.*--root"):
        download.download(archive(server, b"other"), tmp_path, Silent())


def test_a_full_disk_is_told_before_anything_is_downloaded(
    server: Server, bench: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = download.Archive("x.tar", "", 10**18, "0" * 64, [f"{server.address}/a/"])
    monkeypatch.setitem(download.ARCHIVES, "voc2012", (huge,))
    done = bench("data", "prepare", "voc2012")
    assert done.code == 4 and "voc2012 needs 2,000,000,000,000,000,000 bytes" in done.err
    assert server.asked == []


def test_every_known_archive_has_a_sum_and_a_length() -> None:
    known = [one for members in download.ARCHIVES.values() for one in members]
    assert len({one.sha256 for one in known}) == len({one.name for one in known}) == len(known)
    assert all(len(one.sha256) == 64 and one.size > 0 and bytes.fromhex(one.sha256) for one in known)


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


KILLED = """
import sys
from bench.data import download
download.ARCHIVES["voc2012"] = (download.Archive("x.tar", "", {size}, "{sha256}", ["{mirror}"]),)
sys.argv = ["bench", "data", "prepare", "voc2012"]
from bench.__main__ import main
main()
"""


def test_a_process_that_is_killed_while_it_unpacks_is_gone_on_from(
    server: Server, drawn: dict[str, Path], home: Path, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.add(drawn["demo"] / "VOCdevkit", "VOCdevkit")
        for number in range(20_000):  # enough for it to be caught in the act
            info = tarfile.TarInfo(f"more/{number}")
            info.size = 100
            file.addfile(info, io.BytesIO(bytes(100)))
    content = server.files["/a/x.tar"] = buffer.getvalue()
    wanted = archive(server, content)
    script = KILLED.format(size=wanted.size, sha256=wanted.sha256, mirror=wanted.mirrors[0])
    downloads = home / "downloads"

    def half() -> bool:
        return any((place / "more").is_dir() and next((place / "more").iterdir(), None) for place in downloads.glob(".tmp-*"))

    process = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 120
    while not half() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert half() and not (downloads / "voc2012").exists()
    again = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "voc2012 is ready: 40 images" in again.stdout
    assert len(list((downloads / "voc2012" / "more").iterdir())) == 20_000
    assert {path.name for path in downloads.iterdir()} == {"archives", "voc2012", "voc2012.lock"}
    assert not list((downloads / "archives").iterdir())
    assert [wanted for _, wanted in server.asked] == [None]


def prepared_from(server: Server, drawn: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve the drawn images as if they were VOC 2012."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.add(drawn["demo"] / "VOCdevkit", "VOCdevkit")
    server.files["/a/x.tar"] = buffer.getvalue()
    monkeypatch.setitem(download.ARCHIVES, "voc2012", (archive(server, buffer.getvalue()),))


def test_prepare_downloads_unpacks_verifies_and_lists(
    server: Server, bench: Callable, drawn: dict[str, Path], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared_from(server, drawn, monkeypatch)
    done = bench("data", "prepare", "voc2012")
    assert done.code == 0 and "voc2012 is ready: 40 images" in done.out
    assert catalogue.prepared()["voc2012"].root.is_relative_to(home)
    assert "voc2012" in bench("data", "list").out
    assert bench("data", "verify", "voc2012").code == 0
    asked = len(server.asked)
    assert bench("data", "prepare", "voc2012").code == 0
    assert len(server.asked) == asked


def test_23_an_archive_is_not_unpacked_before_its_sum_fits(
    server: Server, bench: Callable, drawn: dict[str, Path], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared_from(server, drawn, monkeypatch)
    whole = server.files["/a/x.tar"]
    server.files["/a/x.tar"] = whole[:-2000] + bytes(2000 - 1) + b"x"
    refused = bench("data", "prepare", "voc2012")
    assert refused.code == 4 and "another SHA-256" in refused.err
    assert not [path for path in (home / "downloads").rglob("*") if path.is_file() and path.suffix != ".lock"]
    server.files["/a/x.tar"] = whole
    assert bench("data", "prepare", "voc2012").code == 0


@pytest.mark.parametrize("place", ["from the mirror", "x.tar", "x.tar.partial"])
def test_23_an_archive_with_another_sum_is_never_given_to_unpack(
    server: Server, bench: Callable, drawn: dict[str, Path], home: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    prepared_from(server, drawn, monkeypatch)
    whole = server.files["/a/x.tar"]
    wrong = whole[:-1] + b"x"
    given: list[bytes] = []
    monkeypatch.setattr(download, "unpack", lambda path, root: (given.append(path.read_bytes()), archives.unpack(path, root)))
    server.files["/a/x.tar"] = wrong
    if place != "from the mirror":
        there = home / "downloads" / "archives" / place
        there.parent.mkdir(parents=True)
        there.write_bytes(wrong)
    assert bench("data", "prepare", "voc2012").code == 4
    assert given == []
    server.files["/a/x.tar"] = whole
    assert bench("data", "prepare", "voc2012").code == 0
    assert given == [whole]


def test_an_archive_that_was_left_after_its_mark_is_removed(
    server: Server, bench: Callable, drawn: dict[str, Path], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared_from(server, drawn, monkeypatch)
    bench("data", "prepare", "voc2012")
    left = home / "downloads" / "archives" / "x.tar"
    left.write_bytes(server.files["/a/x.tar"])
    assert bench("data", "prepare", "voc2012").code == 0
    assert not left.exists()


def test_an_own_name_needs_a_root() -> None:
    with pytest.raises(UsageError, match="add --root DIR"):
        download.fetch("mine", Path("nowhere"), Silent())


def test_without_a_network_the_way_out_is_named(bench: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = download.Archive("x.tar", "", 10, "0" * 64, ["http://127.0.0.1:9/"])
    monkeypatch.setitem(download.ARCHIVES, "voc2012", (gone,))
    done = bench("data", "prepare", "voc2012")
    assert done.code == 4 and "--root" in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize("by", ["option", "variable"])
def test_offline_nothing_is_asked_for_and_what_to_run_is_said(
    server: Server, bench: Callable, drawn: dict[str, Path], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    prepared_from(server, drawn, monkeypatch)
    if by == "variable":
        monkeypatch.setenv(offline.VARIABLE, "1")
    done = bench(*(["--offline"] if by == "option" else []), "data", "prepare", "voc2012")
    assert done.code == 4 and "bench data prepare voc2012" in done.err and "--root" in done.err
    assert server.asked == []


def test_offline_what_is_already_there_is_used(
    server: Server, bench: Callable, drawn: dict[str, Path], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared_from(server, drawn, monkeypatch)
    there = home / "downloads" / "archives" / "x.tar"
    there.parent.mkdir(parents=True)
    there.write_bytes(server.files["/a/x.tar"])
    assert bench("--offline", "data", "prepare", "voc2012").code == 0
    assert bench("--offline", "data", "prepare", "voc2012").code == 0
    assert server.asked == []
