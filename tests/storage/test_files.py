"""What is written is whole or not there."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.errors import MachineError
from bench.storage import files, locks


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = files.publish_file(tmp_path / "table.csv", "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(MachineError, match="no room to write"):
        files.publish_written(path, fail, 4)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_a_folder_appears_whole_and_stays(tmp_path: Path) -> None:
    files.publish_folder(tmp_path / "pack", lambda folder: (folder / "a").write_text("first"))
    files.publish_folder(tmp_path / "pack", lambda folder: (folder / "a").write_text("second"))
    assert (tmp_path / "pack" / "a").read_text() == "first"
    with pytest.raises(ValueError, match="broken"):
        files.publish_folder(tmp_path / "other", _fail)
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_what_is_left_of_a_folder_gives_way(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "predictions").write_text("left")
    files.publish_folder(tmp_path / "run", lambda folder: (folder / "record").write_text("whole"), whole="record")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["record"]


def test_waiting_for_a_lock_can_be_given_up(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with locks.lock(tmp_path / "a.lock", print), pytest.raises(KeyboardInterrupt), locks.lock(tmp_path / "a.lock", print, stop):
        pass


def _fail(folder: Path) -> None:
    (folder / "a").write_text("half")
    raise ValueError("broken")


def test_temporary_files_of_dead_writers_are_swept_and_living_ones_kept(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f"{files.TEMPORARY}{dead.pid}-1-a").write_text("left")
    (tmp_path / f"{files.TEMPORARY}{os.getppid()}-1-b").write_text("in work")
    files.publish_file(tmp_path / "c", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{files.TEMPORARY}{os.getppid()}-1-b", "c"]


def test_an_unwritable_folder_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot write in"):
        files.make_folder(tmp_path / "file" / "below")


def _hold(path: Path) -> None:
    with locks.lock(path, print):
        time.sleep(60)


def test_a_lock_names_its_holder_and_is_free_when_the_holder_dies(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(path,))
    holder.start()
    while not (path.is_file() and path.read_text()):
        time.sleep(0.05)
    with (
        pytest.raises(MachineError, match=f"run is being worked on by process {holder.pid}"),
        locks.lock(path, print, timeout=0.1),
    ):
        pass
    holder.kill()
    holder.join()
    with locks.lock(path, print, timeout=5):
        assert str(os.getpid()) in path.read_text()


def test_a_folder_named_in_another_encoding_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="is not written in UTF-8"):
        files.make_folder(tmp_path / "caf\udce9")
    assert list(tmp_path.iterdir()) == []
