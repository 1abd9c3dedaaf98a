"""Downloads from a local server: mirrors, sums, ranges and redirects."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.data import download
from bench.errors import MachineError, UsageError
from tests.data.server import Server, Silent, archive


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
    known = [one for name, members in download.ARCHIVES.items() for one in members if name != "voc0712"]
    assert set(download.ARCHIVES["voc0712"]) == {*download.ARCHIVES["voc2007"], *download.ARCHIVES["voc2012"]}
    assert len({one.sha256 for one in known}) == len({one.name for one in known}) == len(known)
    assert all(len(one.sha256) == 64 and one.size > 0 and bytes.fromhex(one.sha256) for one in known)
