"""`bench data prepare`: downloads, checks and unpacks, and goes on where it was killed; offline it asks for nothing."""

import io
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.data import archive as archives
from bench.data import catalogue, download
from bench.errors import UsageError
from bench.storage import offline
from tests.data.server import Server, Silent, archive

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


@pytest.mark.parametrize("option", [("--score", "disc"), ("--exclude", "*"), ("--skip-broken",)])
def test_an_option_that_the_demo_data_cannot_follow_is_refused(option: tuple[str, ...], bench: Callable) -> None:
    refused = bench("data", "prepare", "demo", *option)
    assert refused.code == 2 and "the demo data is drawn whole" in refused.err
