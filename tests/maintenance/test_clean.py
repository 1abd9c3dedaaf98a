"""What no record needs is shown, and removed when it is named; what a record or a running command needs never is."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import record
from bench.data import catalogue, packs
from bench.experiment import finetuning as runs
from bench.experiment import pretraining
from bench.maintenance import clean
from bench.storage import files, locks
from tests.conftest import QUICK, TINY

Bench = Callable[..., "object"]
RUN = ("--pretext", "l1_color", "--downstream", "voc_seg")


def digest(*folders: Path) -> dict[str, str]:
    """Give everything below some folders: files by their content, links by where they lead."""
    found = {}
    for path in (path for folder in folders for path in folder.rglob("*")):
        found[str(path)] = f"-> {path.readlink()}" if path.is_symlink() else files.sha256(path) if path.is_file() else "folder"
    return found


def items(text: str) -> dict[str, str]:
    return {line.split("\t")[0]: line.split("\t")[1] for line in text.splitlines() if "\t" in line}


@contextmanager
def running(drawn: dict[str, Path], out: Path, ready: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command line in a process of its own, at work when the block begins, and killed when it ends."""
    data = ("--data", drawn["demo"], "--pretrain-data", drawn["demo_unlabelled"], "--out", out, "--checkpoint-seconds", "0")
    command = [sys.executable, "-m", "bench", "run", *TINY, *QUICK, *data, *RUN, "--set", "recipe.epochs=500"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not ready():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


def leave(out: Path, name: str = "l1_color-00000000dead") -> Path:
    """Leave a trunk that no record refers to."""
    trunk = out / "pretrained" / name
    trunk.mkdir(parents=True)
    (trunk / "pretext.safetensors").write_bytes(bytes(5000))
    return trunk


def test_nothing_is_removed_until_a_kind_is_named(tiny: Bench, bench: Bench, home: Path, tmp_path: Path) -> None:
    assert tiny(*RUN).code == 0
    leave(tmp_path / "runs")
    before = digest(tmp_path)
    for arguments in ((), ("--plan",), ("--plan", "all"), ("--plan", "trunks", "cache")):
        told = bench("clean", *arguments, "--out", tmp_path / "runs")
        assert told.code == 0, told.err
        assert items(told.out)["trunks"] == "1" and "freed" not in told.out
    assert digest(tmp_path) == before
    assert items(bench("clean", "--out", tmp_path / "runs").out).keys() - {"Kind"} == clean.KINDS.keys()


def test_after_everything_is_cleaned_records_and_reports_are_the_same_and_nothing_is_trained_again(
    tiny: Bench, bench: Bench, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "runs"
    assert tiny(*RUN).code == 0
    reported = bench("report", "--out", out)
    lost = leave(out)
    kept = digest(out / "runs", out / "pretrained")
    planned = items(bench("clean", "--plan", "all", "--out", out).out)
    told = bench("clean", "all", "--out", out)
    assert told.code == 0, told.err
    assert items(told.out) == planned and "freed" in told.out
    assert not lost.exists()
    left = digest(out / "runs", out / "pretrained")
    assert left == {path: content for path, content in kept.items() if not path.startswith(str(lost))}
    assert not list((home / "packs").iterdir()) and not list((out / "cache").iterdir())
    assert set(items(bench("clean", "--out", out).out).values()) == {"Items", "0"}
    assert bench("report", "--out", out).out == reported.out
    trained = []
    for module in (runs, pretraining):
        monkeypatch.setattr(module, "train", lambda stage, *rest: trained.append(stage.name))
    again = tiny(*RUN)
    assert again.code == 0 and "finished before" in again.out and trained == []


def test_what_interrupted_work_goes_on_from_stays_unless_the_work_goes_with_it(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    assert tiny(*RUN).code == 0
    trunk, other = leave(out), leave(out, "inpainting-00000000dead")
    work = out / "work" / "l1_color-voc_seg-000000000000"
    work.mkdir()
    assert bench("clean", "trunks", "--out", out).code == 0
    assert trunk.exists() and work.exists() and not other.exists()
    planned = bench("clean", "--plan", "trunks", "work", "--out", out)
    assert (items(planned.out)["trunks"], items(planned.out)["work"]) == ("1", "1")
    assert bench("clean", "trunks", "work", "--out", out).code == 0
    assert not trunk.exists() and not work.exists()


def test_a_finished_search_is_a_kind_of_its_own_until_a_record_refers_to_it(
    tiny: Bench, bench: Bench, drawn: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    cell = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "one-phase")
    data = ("--data", drawn["demo"], "--pretrain-data", drawn["demo_unlabelled"])
    assert bench("tune", *TINY, *QUICK, *data, "--out", out, *cell, "--trials", 1).code == 0
    unfinished = out / "studies" / "random_init-voc_cls-000000000000"
    unfinished.mkdir()
    in_a_database = out / "studies" / "random_init-voc_cls-111111111111"
    in_a_database.mkdir()
    (in_a_database / "token").write_text("known to the database")
    trunk = leave(out, "random_init-00000000dead")
    told = items(bench("clean", "--out", out).out)
    assert (told["searches"], told["studies"], told["trunks"]) == ("1", "1", "0")
    assert bench("clean", "studies", "--out", out).code == 0
    assert not unfinished.exists() and in_a_database.exists() and items(bench("clean", "--out", out).out)["searches"] == "1"
    done = tiny(*cell, "--tune", 1)
    assert done.code == 0, done.err
    assert bench("clean", "trunks", "searches", "studies", "--out", out).code == 0 and trunk.exists()
    shutil.rmtree(in_a_database)
    shutil.rmtree(trunk)
    kept = digest(out / "studies", out / "pretrained")
    assert items(bench("clean", "all", "--out", out).out)["searches"] == "0"
    left = digest(out / "studies", out / "pretrained")
    assert {path for path in kept.keys() - left.keys() if not path.endswith(".lock")} == set()
    assert tiny(*cell, "--tune", 1).code == 0


def test_the_folder_of_a_running_command_is_refused_until_it_is_dead(
    tiny: Bench, bench: Bench, drawn: dict[str, Path], home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    with running(drawn, out, lambda: any(out.glob("work/*/*.safetensors"))) as process:
        process.send_signal(signal.SIGSTOP)
        before = digest(out, home)
        told = bench("clean", "all", "--out", out)
        assert told.code == 4
        assert "another command is using" in told.err and str(tmp_path) in told.err
        packing = bench("clean", "packs", "--out", tmp_path / "elsewhere")
        assert packing.code == 4 and str(home) in packing.err
        assert digest(out, home) == before
        assert bench("clean", "cache", "--out", tmp_path / "elsewhere").code == 0
    told = bench("clean", "all", "--out", out)
    assert told.code == 0, told.err
    assert items(told.out)["work"] == "1" and not any((out / "work").iterdir())
    assert tiny(*RUN).code == 0


def test_a_command_waits_with_a_word_while_its_folder_is_cleaned(drawn: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "runs"
    out.mkdir()
    command = [sys.executable, "-m", "bench", "report", "--out", str(out)]
    with locks.unused(out):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert "waiting for bench clean" in process.stderr.readline()
        assert process.poll() is None
    assert "holds no finished runs yet" in process.communicate(timeout=60)[1]


def test_links_are_removed_as_links_and_never_followed(bench: Bench, home: Path, tmp_path: Path) -> None:
    out, outside = tmp_path / "runs", tmp_path / "outside"
    trunk = leave(out)
    for name in ("cache", "work/phase", "studies/work/trial", "archives"):
        (outside / name).mkdir(parents=True)
        (outside / name / "precious").write_text("kept")
    (trunk / "link").symlink_to(outside, target_is_directory=True)
    (trunk / "file").symlink_to(outside / "cache" / "precious")
    (out / "cache").symlink_to(outside / "cache", target_is_directory=True)
    (out / "work").mkdir()
    (out / "work" / "gone").symlink_to(outside / "work", target_is_directory=True)
    (out / "studies").mkdir()
    (out / "studies" / "moved").symlink_to(outside / "studies", target_is_directory=True)
    (home / "data").mkdir(parents=True)
    (home / locks.IN_USE).write_text("")
    (out / locks.IN_USE).write_text("")
    (home / "downloads").symlink_to(outside, target_is_directory=True)
    before = digest(outside)
    told = bench("clean", "all", "--out", out)
    assert told.code == 0, told.err
    assert not trunk.exists() and not (out / "work" / "gone").is_symlink()
    assert digest(outside) == before and len(before) > 8
    assert (items(told.out)["cache"], items(told.out)["downloads"]) == ("0", "0")


def test_an_output_folder_behind_a_link_is_cleaned_where_it_is(bench: Bench, tmp_path: Path) -> None:
    trunk = leave(tmp_path / "disk")
    (tmp_path / "disk" / locks.IN_USE).write_text("")
    (tmp_path / "runs").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert bench("clean", "trunks", "--out", tmp_path / "runs").code == 0
    assert not trunk.exists() and (tmp_path / "runs").is_symlink()


def test_a_record_that_cannot_be_read_keeps_every_trunk_and_search(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    assert tiny(*RUN).code == 0
    trunk = leave(out)
    assert bench("report", "--out", out).code == 0
    (path,) = (out / "runs").glob("*/record.json")
    path.write_text(path.read_text()[:-100])
    before = digest(out / "pretrained", out / "runs")
    for kind in ("trunks", "searches", "studies", "all"):
        told = bench("clean", kind, "--out", out)
        assert told.code == 3 and str(path) in told.err
    shown = bench("clean", "--out", out)
    assert shown.code == 0 and items(shown.out)["trunks"] == "?" and items(shown.out)["cache"] == "1"
    assert str(path) in shown.out
    assert bench("clean", "cache", "--out", out).code == 0
    assert digest(out / "pretrained", out / "runs") == before and trunk.exists()


def test_a_removal_that_dies_half_way_leaves_nothing_under_its_name(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    trunk = leave(out)
    (out / locks.IN_USE).write_text("")
    dying = (
        "import os, shutil, sys; from bench.__main__ import main; shutil.rmtree = lambda path: os.kill(os.getpid(), 9); main()"
    )
    killed = subprocess.run([sys.executable, "-c", dying, "clean", "trunks", "--out", str(out)], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert not trunk.exists() and [path.name[:5] for path in (out / "pretrained").iterdir()] == [".tmp-"]
    assert items(bench("clean", "temporary", "--out", out).out)["temporary"] == "1"
    assert not list((out / "pretrained").iterdir())


def test_only_what_dead_writers_of_this_machine_left_is_temporary(bench: Bench, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for folder in (home / "packs", out / "studies" / "a" / "work"):
        folder.mkdir(parents=True)
        for name in (f"{files.TEMPORARY}{dead.pid}-1-a", f"{files.TEMPORARY}{os.getppid()}-1-b", ".tmp-00000000-1-1-c"):
            (folder / name).mkdir()
            (folder / name / f"{files.TEMPORARY}{dead.pid}-2-inner").write_text("left")
    for folder in (home, out):
        (folder / locks.IN_USE).write_text("")
    assert items(bench("clean", "temporary", "--out", out).out)["temporary"] == "2"
    left = {f"{files.TEMPORARY}{os.getppid()}-1-b", ".tmp-00000000-1-1-c"}
    for folder in (home / "packs", out / "studies" / "a" / "work"):
        assert {path.name for path in folder.iterdir()} == left


def test_a_lock_that_is_held_stays(bench: Bench, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    (out / "locks").mkdir(parents=True)
    (out / "locks" / "free.lock").write_text("")
    (out / locks.IN_USE).write_text("")
    with locks.lock(out / "locks" / "held.lock", print), locks.alive(out / "studies" / "a" / "workers") as worker:
        (out / "studies" / "a" / "workers" / "dead").write_text("")
        assert items(bench("clean", "locks", "--out", out).out)["locks"] == "2"
        assert [path.name for path in (out / "locks").iterdir()] == ["held.lock"]
        assert [path.name for path in (out / "studies" / "a" / "workers").iterdir()] == [worker]


def test_packs_are_told_apart_by_whether_they_can_be_made_again(bench: Bench, voc: Path, home: Path, tmp_path: Path) -> None:
    def pack(size: int) -> Path:
        dataset = catalogue.register(catalogue.read(voc, "mine"))
        order = packs.Order(dataset, "images", packs.PackRule(size=size))
        return packs.open_pack(order, print, lambda *_: None).folder

    old = pack(8)
    next(voc.rglob("*.jpg")).write_bytes(next(voc.rglob("demo_000001.jpg")).read_bytes())
    new = pack(16)
    strange = home / "packs" / "notes"
    strange.mkdir()
    told = items(bench("clean", "--out", tmp_path / "runs").out)
    assert (told["orphans"], told["packs"]) == ("1", "1")
    assert bench("clean", "orphans", "--out", tmp_path / "runs").code == 0
    assert not old.exists() and new.exists() and strange.exists()
    voc.rename(tmp_path / "unmounted")
    assert bench("clean", "packs", "orphans", "--out", tmp_path / "runs").code == 0
    assert new.exists(), "nothing could make it again"
    (tmp_path / "unmounted").rename(voc)
    assert bench("clean", "packs", "--out", tmp_path / "runs").code == 0
    assert not new.exists()
    shutil.rmtree(home / "data" / "mine")


def test_a_folder_of_other_things_is_refused(bench: Bench, tmp_path: Path) -> None:
    for name in ("cache", "work", "locks"):
        (tmp_path / "project" / name).mkdir(parents=True)
        (tmp_path / "project" / name / "mine.lock").write_text("")
    before = digest(tmp_path / "project")
    for arguments in ((), ("all",), ("--plan", "cache")):
        told = bench("clean", *arguments, "--out", tmp_path / "project")
        assert told.code == 2 and "project holds files, but none that bench made" in told.err
    assert digest(tmp_path / "project") == before


def test_a_kind_that_does_not_exist_is_named_with_the_nearest(bench: Bench, tmp_path: Path) -> None:
    told = bench("clean", "trunk", "--out", tmp_path / "runs")
    assert told.code == 2 and "did you mean 'trunks'" in told.err
    assert not record.read(tmp_path / "runs") and not (tmp_path / "runs").exists()


def test_timings_of_steps_can_be_removed_and_those_of_precisions_stay(
    tiny: Bench, bench: Bench, home: Path, tmp_path: Path
) -> None:
    assert tiny(*RUN, "--plan").code == 0
    assert list((home / "steps").iterdir())
    (home / "timings").mkdir()
    (home / "timings" / "0123456789abcdef.json").write_text("{}")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "notes.txt").write_text("not of bench, and not looked at: timings lie in the home folder")
    assert bench("clean", "timings", "--out", tmp_path / "project").code == 0
    assert not list((home / "steps").iterdir()) and list((home / "timings").iterdir())


def test_exported_images_stay_while_a_data_set_is_prepared_from_them(bench: Bench, voc: Path, home: Path, tmp_path: Path) -> None:
    for name in ("kept", "left"):
        shutil.copytree(voc, home / "exported" / name)
    catalogue.register(catalogue.read(home / "exported" / "kept", "mine"))
    assert bench("clean", "exported", "--out", tmp_path / "runs").code == 0
    assert [path.name for path in (home / "exported").iterdir()] == ["kept"]
