"""Downloads from a local server: mirrors, resume, checksums, hostile archives."""

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.data import catalogue, download
from bench.errors import DataError, MachineError, UsageError


class Silent:
    def say(self, text: str) -> None:
        pass

    def amount(self, what: str, done: int, total: int) -> None:
        pass


class Server:
    """Files by path; `cut` ends each answer after so many bytes; ranges are honoured when `ranges`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: int | None = None
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                server.asked.append((self.path, wanted))
                content = server.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
                self.send_response(206 if wanted and server.ranges else 200)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                self.wfile.write(content[start:][: server.cut])

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def archive(server: Server, content: bytes, *mirrors: str) -> download.Archive:
    places = [f"{server.address}/{mirror}/" for mirror in mirrors or ("a",)]
    return download.Archive("x.tar", "", hashlib.md5(content).hexdigest(), places)


def test_the_second_mirror_helps_when_the_first_has_nothing(server: Server, tmp_path: Path) -> None:
    server.files["/b/x.tar"] = b"content" * 1000
    path = download.download(archive(server, server.files["/b/x.tar"], "a", "b"), tmp_path, Silent())
    assert path.read_bytes() == server.files["/b/x.tar"]
    assert [name for name, _ in server.asked] == ["/a/x.tar", "/b/x.tar"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(server: Server, tmp_path: Path, ranges: bool) -> None:
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
    server.files["/a/x.tar"] = b"tampered"
    with pytest.raises(MachineError, match="another MD5"):
        download.download(archive(server, b"right"), tmp_path, Silent())
    assert list(tmp_path.iterdir()) == []


def tar(*members: tuple[str, bytes, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content)
            info.linkname = "/etc/passwd"
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar(("../out", tarfile.REGTYPE, b"x")), "leads out"),
        (tar(("/out", tarfile.REGTYPE, b"x")), "absolute"),
        (tar(("a", tarfile.SYMTYPE, b"")), "neither a file nor a folder"),
        (tar(("a", tarfile.LNKTYPE, b"")), "neither a file nor a folder"),
        (tar(("a", tarfile.CHRTYPE, b"")), "neither a file nor a folder"),
        (b"PK\x03\x04 not an archive", "does not unpack"),
    ],
)
def test_a_hostile_archive_is_refused_whole(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    (tmp_path / "root").mkdir()
    with pytest.raises(DataError, match=message):
        download.unpack(tmp_path / "x.tar", tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "x.tar"]


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", b"\0" * 10_000_000)
    with pytest.raises(DataError, match="times its size"):
        download.unpack(tmp_path / "x.zip", tmp_path / "root")


def test_prepare_downloads_unpacks_verifies_and_lists(
    server: Server, bench: Callable, drawn: dict[str, Path], tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.add(drawn["demo"] / "VOCdevkit", "VOCdevkit")
    server.files["/a/x.tar"] = buffer.getvalue()
    monkeypatch.setitem(download.ARCHIVES, "voc2012", (archive(server, buffer.getvalue()),))
    done = bench("data", "prepare", "voc2012")
    assert done.code == 0 and "voc2012 is ready: 40 pictures" in done.out
    assert catalogue.prepared()["voc2012"].root.is_relative_to(home)
    assert "voc2012" in bench("data", "list").out
    assert bench("data", "verify", "voc2012").code == 0
    asked = len(server.asked)
    assert bench("data", "prepare", "voc2012").code == 0
    assert len(server.asked) == asked


def test_an_own_name_needs_a_root() -> None:
    with pytest.raises(UsageError, match="add --root DIR"):
        download.fetch("mine", Path("nowhere"), Silent())


def test_without_a_network_the_way_out_is_named(bench: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = download.Archive("x.tar", "", "0" * 32, ["http://127.0.0.1:9/"])
    monkeypatch.setitem(download.ARCHIVES, "voc2012", (gone,))
    done = bench("data", "prepare", "voc2012")
    assert done.code == 4 and "--root" in done.err and done.err.count("\n") == 1
