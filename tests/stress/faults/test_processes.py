"""Faults 1 to 7 and 16 to 22: kills, signals, full disks, processes side by side, too little memory, a clock that jumps."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from bench.data.batches import Plan, SplitData, training
from bench.training import checkpoint
from tests.stress.faults.bench import OFTEN, Bench, checkpoints, send, when
from tests.stress.server import CLOCK, FAIL_FROM, KILL, ROOT, Fault


def test_01_a_kill_in_the_middle_of_an_epoch_changes_no_bit(bench: Bench, undisturbed: object) -> None:
    killed = bench.run("l1_color", "voc_seg", *OFTEN, meanwhile=when(lambda: len(checkpoints(bench)), send(signal.SIGKILL)))
    assert killed.code == -signal.SIGKILL
    (kept,) = checkpoints(bench)[-1:]
    assert int(kept.name.split("-")[0]) % 4, "a checkpoint in the middle of an epoch of four steps"
    assert bench.run("l1_color").code == 0
    assert bench.weights() == undisturbed and not bench.left()


def test_02_a_kill_at_any_write_of_a_checkpoint_leaves_one_that_loads(bench: Bench, request: pytest.FixtureRequest) -> None:
    few = ("--set", "recipe.epochs=1", *OFTEN)
    stride = 1 if request.config.getoption("--soak") else 5
    assert bench.run("l1_color", "voc_seg", *few).code == 0
    expected, number, killed = bench.weights(), 1, 0
    while True:
        shutil.rmtree(bench.out)
        ended = bench.run("l1_color", "voc_seg", *few, fault=Fault(KILL, number, (bench.out / "work",)))
        if ended.code == 0:
            break
        killed += 1
        for path in checkpoints(bench):
            assert path.stem.split("-")[1] == checkpoint.files.sha256(path)
        assert bench.run("l1_color", "voc_seg", *few).code == 0
        assert bench.weights() == expected and not bench.left()
        number += stride
    assert killed >= 5


def test_03_a_kill_between_checkpoint_and_record_makes_the_record_once(bench: Bench, undisturbed: object) -> None:
    for number in range(1, 100):
        fault = Fault(KILL, number, (bench.out / "runs", bench.out / "pretrained"))
        if bench.run("l1_color", fault=fault).code == 0:
            break
    assert number > 10
    assert bench.weights() == undisturbed and not bench.left()
    assert bench("report", "--out", bench.out).code == 0
    with (bench.out / "per_run.csv").open() as file:
        assert {row["run_id"] for row in csv.DictReader(file)} == {one.id for one in bench.records()}
    assert len(bench.records()) == 1


def test_04_a_full_disk_while_saving_leaves_the_old_checkpoint_and_names_the_space(bench: Bench, undisturbed: object) -> None:
    bench.run("l1_color", "voc_seg", *OFTEN, meanwhile=when(lambda: checkpoints(bench), send(signal.SIGKILL)))
    (old,) = checkpoints(bench)[-1:]
    content = old.read_bytes()
    full = bench.run("l1_color", "voc_seg", *OFTEN, limits={resource.RLIMIT_FSIZE: 50_000})
    assert full.code == 4 and "no room to write" in full.err
    needed = full.err.split("it needs ")[1].split(" bytes")[0].replace(",", "")
    assert 0.5 * len(content) < int(needed) <= len(content)
    assert old.read_bytes() == content
    assert bench.run("l1_color").code == 0
    assert bench.weights() == undisturbed and not bench.left()


def test_05_a_full_disk_while_writing_tables_leaves_the_old_ones(bench: Bench) -> None:
    assert bench.run().code == 0
    assert bench("report", "--out", bench.out).code == 0
    files = {path.name: path.read_bytes() for path in bench.out.iterdir() if path.is_file() and path.name != "looks.json"}
    assert {"leaderboard.csv", "per_run.csv", "per_class.csv", "agreement.csv", "table4.md", "table4.tex"} <= files.keys()
    looks = json.loads((bench.out / "looks.json").read_text())["looks"]
    assert bench.run("random_init", "voc_seg", "--seed", "1").code == 0
    shutil.copytree(bench.out, bench.folder / "new")
    assert bench("report", "--out", bench.folder / "new").code == 0
    refused = 0
    for number in range(1, 60, 4):
        full = bench("report", "--out", bench.out, fault=Fault(FAIL_FROM, number, (bench.out,)))
        refused += full.code == 4 and "no room to write" in full.err
        for name, old in files.items():
            assert (bench.out / name).read_bytes() in (old, (bench.folder / "new" / name).read_bytes()), f"{name} after {number}"
        kept = json.loads((bench.out / "looks.json").read_text())["looks"]  # of another time each, so no bytes to compare
        assert kept[: len(looks)] == looks, f"a look is lost after {number}"
    assert refused > 5 and not bench.left()


def start(bench: Bench, *arguments: object) -> subprocess.Popen[str]:
    """Start a command without the server."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *map(str, arguments)],
        env={**os.environ, **single, "PRETEXT_BENCH_HOME": str(bench.home), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_06_processes_that_write_one_leaderboard_lose_no_row(bench: Bench) -> None:
    assert bench.run("random_init", "voc_seg,voc_cls", "--seeds", "0,1").code == 0
    (bench.out / "cache").mkdir(exist_ok=True)
    alone = bench("report", "--out", bench.out)
    assert alone.code == 0
    before = (bench.out / "per_run.csv").read_bytes()
    writers = [start(bench, *bench.command("random_init", "voc_cls", "--seed", seed)) for seed in (2, 3)]
    writers += [start(bench, "report", "--out", bench.out) for _ in range(2)]
    for writer in writers:
        _, said = writer.communicate(timeout=300)
        assert writer.returncode == 0, said
    assert bench("report", "--out", bench.out).code == 0
    rows = list(csv.DictReader((bench.out / "per_run.csv").open()))
    assert len({row["run_id"] for row in rows}) == 6 and len(rows) == len({(row["run_id"], row["metric"]) for row in rows})
    assert len(rows) > len(before.splitlines())
    assert not bench.left()


def test_07_two_processes_on_one_run_make_it_once_and_a_dead_holder_holds_nothing(bench: Bench, undisturbed: object) -> None:
    command = bench.command("l1_color", "voc_seg", *OFTEN)

    def both(process: int) -> None:
        second = start(bench, *command)
        seen.append(second)
        assert second.stdout is not None
        for line in second.stdout:
            if f"waiting for process {process} on " in line:
                seen.append(line)
                break
        os.kill(process, signal.SIGKILL)

    seen: list[object] = []
    slow = ("--set", "recipe.epochs=400")
    command = bench.command("l1_color", "voc_seg", *slow, *OFTEN)
    first = bench(*command, meanwhile=when(lambda: checkpoints(bench), both))
    assert first.code == -signal.SIGKILL and len(seen) == 2, "the second says that it waits, and for whom"
    second = seen[0]
    assert isinstance(second, subprocess.Popen) and second.stdout is not None
    went_on = False
    for line in second.stdout:
        went_on = went_on or "pretrain l1_color: epoch" in line
        if went_on:
            break
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=120)
    assert went_on and second.returncode == 143, "the dead holder's lock is free"


def test_16_too_little_memory_is_one_sentence_with_a_batch_size_and_other_runs_go_on(bench: Bench) -> None:
    used = int(Path(f"/proc/{bench.server.process.pid}/statm").read_text().split()[0]) * resource.getpagesize()
    large = ("--size", "512", "--trunk", "unet:depth=7,width=32", "--set", "l1_color.batch_size=32", "--schedule", "frozen")
    frozen = (
        "--set",
        'protocol.schedules={"frozen": [{"train": "head", "epochs": 1, "lr": 1e-3}]}',
        "--set",
        "protocol.batch_size=2",
    )
    failed = bench.run("l1_color,random_init", "voc_cls", *large, *frozen, limits={resource.RLIMIT_AS: used + (2 << 30)})
    assert failed.code == 5 and "out of memory in pretrain l1_color with batches of 32; try a batch size of 16" in failed.err
    assert [one.pretext for one in bench.records()] == ["random_init"], failed.err


def children_of(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def test_17_a_killed_data_worker_ends_the_command_with_the_cause(bench: Bench) -> None:
    def kill_one(process: int) -> None:
        when(lambda: checkpoints(bench) and children_of(process), lambda _: None)(process)
        os.kill(children_of(process)[0], signal.SIGKILL)

    died = bench.run("l1_color", "voc_seg", "--workers", "2", "--set", "recipe.epochs=1000", *OFTEN, meanwhile=kill_one)
    assert died.code == 4 and "a data worker died" in died.err and "--workers 0" in died.err
    assert died.seconds < 60


class Slow(SplitData):
    """Images that need no pack, and time: the main process waits for a batch, and none is on its way."""

    def __getitem__(self, plan: Plan) -> dict[str, torch.Tensor]:
        time.sleep(1)
        return {"images": torch.ones(len(plan[1]), 3, 4, 4)}


def test_17_the_death_of_a_data_worker_whose_signal_another_thread_took_is_noticed_too() -> None:
    """The kernel may give SIGCHLD to another thread while the main thread waits for a batch, and then nothing wakes that up."""
    split = Slow(None, np.arange(4))  # type: ignore[arg-type]
    stream = training(split, 2, 0, 10_000, 0, 1, torch.device("cpu"))
    next(stream)
    previous = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        (worker,) = multiprocessing.active_children()
        os.kill(cast(int, worker.pid), signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(Exception, match="exited unexpectedly"):
            list(stream)
        assert time.monotonic() - began < 60
    finally:
        signal.signal(signal.SIGCHLD, previous)


@pytest.mark.parametrize("numbers", [(signal.SIGINT,), (signal.SIGTERM,)])
def test_18_and_19_signals_stop_with_a_checkpoint_and_the_same_command_goes_on(
    numbers: tuple[int, ...], bench: Bench, undisturbed: object
) -> None:
    stopped = bench.run("l1_color", "voc_seg", *OFTEN, meanwhile=when(lambda: checkpoints(bench), send(*numbers)))
    assert stopped.code == 128 + numbers[0]
    assert "the same command goes on from here" in stopped.err
    assert checkpoints(bench)
    assert bench.run("l1_color").code == 0
    assert bench.weights() == undisturbed and not bench.left()


def test_18_a_second_signal_stops_at_once_and_the_checkpoint_before_it_is_valid(bench: Bench) -> None:
    slow = ("--trunk", "unet:depth=5,width=64", *OFTEN)  # a step takes long enough for a second signal

    def interrupt(process: int) -> None:
        time.sleep(0.1)  # into the next step
        send(*[signal.SIGINT] * 500)(process)

    stopped = bench.run("l1_color", "voc_seg", *slow, meanwhile=when(lambda: checkpoints(bench), interrupt))
    assert stopped.code == 130 and "stopped at once" in stopped.err
    assert all(path.stem.split("-")[1] == checkpoint.files.sha256(path) for path in checkpoints(bench))
    assert checkpoints(bench)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_18_and_19_signals_stop_what_does_not_train_as_well(number: int, bench: Bench) -> None:
    def packing() -> list[Path]:
        return list(bench.home.glob("packs/.tmp-*/images.npy"))

    stopped = bench.run(meanwhile=when(packing, send(number)))
    assert stopped.code == 128 + number and "the same command goes on from here" in stopped.err and "Traceback" not in stopped.err
    assert bench.run().code == 0 and not bench.left()


def test_20_a_killed_trial_is_tried_again_and_no_rates_twice(bench: Bench) -> None:
    search = ("--tune", "4", "--set", "protocol.head_width=0")
    journals = bench.out / "studies"

    def trials_begun() -> bool:
        return any(path.read_bytes().count(b'"worker"') >= 2 for path in journals.glob("*/journal.log"))

    killed = bench.run("random_init", "voc_cls", *search, *OFTEN, meanwhile=when(trials_begun, send(signal.SIGKILL)))
    assert killed.code == -signal.SIGKILL
    assert bench.run("random_init", "voc_cls", *search).code == 0
    (one,) = bench.records()
    assert one.tuning is not None
    assert [trial.number for trial in one.tuning.trials] == [0, 1, 2, 3]
    assert len({json.dumps(trial.rates, sort_keys=True) for trial in one.tuning.trials}) == 4
    import optuna

    from bench.storage.journal import journal

    (path,) = journals.glob("*/journal.log")
    study = optuna.load_study(study_name=None, storage=journal(path, print))
    assert all(trial.state.is_finished() for trial in study.trials)
    assert sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.trials) == 4


def test_21_a_torn_end_of_the_journal_is_cut_with_a_word_and_every_whole_trial_kept(bench: Bench) -> None:
    assert bench.run("random_init", "voc_cls", "--tune", "2").code == 0
    (path,) = bench.out.glob("studies/*/journal.log")
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines(keepends=True)[-1][:-9])
    more = bench.run("random_init", "voc_cls", "--tune", "3")
    assert more.code == 0 and "bytes of an entry that a dying process left" in more.out
    assert path.read_bytes().startswith(whole)
    first, second = (one.tuning for one in sorted(bench.records(), key=lambda one: one.tuning.budget if one.tuning else 0))
    assert first is not None and second is not None
    assert [trial.rates for trial in second.trials[:2]] == [trial.rates for trial in first.trials]


@pytest.mark.parametrize("jump", [-86400, 86400])
def test_22_a_clock_that_jumps_by_a_day_changes_no_result_and_no_duration(jump: int, bench: Bench, undisturbed: object) -> None:
    jumped = bench.run("l1_color", "voc_seg", *OFTEN, fault=Fault(CLOCK, 20, (bench.home, bench.out), jump))
    assert jumped.code == 0 and bench.weights() == undisturbed and not bench.left()
    (one,) = bench.records()
    assert 0 < one.cost.seconds < 600 and 0 < one.pretrain.cost.seconds < 600
