"""`bench run`: from a command to records, resumed, shared between processes, and planned."""

import fcntl
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import record
from bench.experiment import finetuning as runs
from bench.experiment import grid, pretraining
from bench.storage import files
from tests.conftest import QUICK, TINY

Bench = Callable[..., "object"]


def weights(out: Path) -> dict[str, str]:
    return {path.parent.name: files.sha256(path) for path in sorted((out / "pretrained").glob("*/pretext.safetensors"))}


def predictions(out: Path) -> dict[str, str]:
    return {path.parent.name: files.sha256(path) for path in sorted((out / "runs").glob("*/predictions.npz"))}


def test_every_pretext_task_runs_on_every_downstream_task_and_makes_a_table(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    done = tiny("--pretext", "all", "--downstream", "all")
    assert done.code == 0, done.err
    assert "(synthetic)" in done.out
    records = record.read(tmp_path / "runs")
    assert len(records) == 2 * (2 + 3)
    assert len(weights(tmp_path / "runs")) == 4
    assert not list((tmp_path / "runs" / "work").glob("*"))
    for one in records:
        assert (
            one.provenance["versions"]["torch"] and one.data.splits_fingerprint and one.data.counts == {"train": 24, "test": 16}
        )
        assert all(0 <= value <= 1 for value in one.metrics.values() if value is not None)
        assert [len(losses) for losses in one.losses] == [p.epochs for p in one.job.settings.schedules[one.job.schedule]]
    report = bench("report", "--out", tmp_path / "runs")
    assert report.code == 0
    for text in (
        "Table 4",
        "Model Initialization",
        "acc_keras",
        "miou_voc",
        "random_init (one-phase, the paper's baseline)",
        "Table 3",
        "psnr",
    ):
        assert text in report.out
    assert all((tmp_path / "runs" / name).is_file() for name in ("leaderboard.csv", "table4.md", "table4.tex"))
    assert (next((tmp_path / "runs" / "pretrained").glob("cgan_color-*")) / "figure7.png").is_file()
    other = bench("report", "--out", tmp_path / "runs", "--metric", "map_voc07,pixel_acc")
    assert "map_voc07" in other.out and "pixel_acc" in other.out and "acc_keras@1" not in other.out
    shown = bench("show", records[0].id[:-2], "--json", "--out", tmp_path / "runs")
    assert json.loads(shown.out)["id"] == records[0].id
    assert records[3].id in bench("list", "runs", "--out", tmp_path / "runs").out.replace("\n", "")


def test_the_same_command_again_trains_nothing_and_another_task_reuses_the_trunk(
    tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny("--pretext", "l1_color", "--downstream", "voc_seg").code == 0
    names = []
    train = runs.train
    for module in (runs, pretraining):
        monkeypatch.setattr(module, "train", lambda stage, *rest: names.append(stage.name) or train(stage, *rest))
    again = tiny("--pretext", "l1_color", "--downstream", "voc_seg")
    assert again.code == 0 and "finished before" in again.out and names == []
    other = tiny("--pretext", "l1_color", "--downstream", "voc_seg", "--precision", "bf16")
    assert other.code == 2 and "was computed in fp32" in other.err and "another --out for bf16" in other.err and names == []
    assert tiny("--pretext", "l1_color", "--downstream", "voc_cls").code == 0
    assert names and not any(name.startswith("pretrain") for name in names)
    assert tiny("--pretext", "l1_color", "--downstream", "voc_seg", "--seed", 1).code == 0
    assert len(weights(tmp_path / "runs")) == 2


def command(out: Path, drawn: dict[str, Path], *more: str) -> list[str]:
    data = ("--data", str(drawn["demo"]), "--pretrain-data", str(drawn["demo_unlabelled"]), "--out", str(out))
    return [
        sys.executable,
        "-m",
        "bench",
        "run",
        *TINY,
        *QUICK,
        *data,
        "--pretext",
        "cgan_color",
        "--downstream",
        "voc_seg",
        *more,
    ]


def end_when(process: "subprocess.Popen[bytes]", number: int, ready: Callable[[], bool]) -> int:
    deadline = time.monotonic() + 120
    while process.poll() is None and not ready():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    return process.wait()


def test_a_run_killed_in_the_middle_of_an_epoch_ends_bit_equal_to_an_undisturbed_one(
    tiny: Bench, drawn: dict[str, Path], tmp_path: Path
) -> None:
    assert tiny("--pretext", "cgan_color", "--downstream", "voc_seg").code == 0
    out = tmp_path / "killed"
    every_step = command(out, drawn, "--checkpoint-seconds", "0")

    def step_of(stage: str) -> int:
        steps = [int(path.name.split("-")[0]) for path in (out / "work").glob(f"{stage}/*.safetensors")]
        return max(steps, default=0)

    killed = subprocess.Popen(every_step, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert end_when(killed, signal.SIGKILL, lambda: step_of("cgan_color-*") >= 3) == -signal.SIGKILL
    assert not (out / "pretrained").exists(), "killed too late to say anything"
    ended = subprocess.Popen(every_step, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert end_when(ended, signal.SIGTERM, lambda: step_of("cgan_color-voc_seg-*/phase-2") >= 2) == 143
    last = subprocess.run(every_step, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert "goes on from step" in last.stdout
    assert weights(out) == weights(tmp_path / "runs")
    assert predictions(out) == predictions(tmp_path / "runs")
    mine, reference = record.read(out)[0], record.read(tmp_path / "runs")[0]
    assert (mine.metrics, mine.losses, mine.pretrain.history) == (
        reference.metrics,
        reference.losses,
        reference.pretrain.history,
    )
    assert mine.cost.images == reference.cost.images


def planned_id(plan: str, beginning: str) -> str:
    """Return the id in the one line of a plan that begins like this."""
    (found,) = [line.split()[0] for line in plan.splitlines() if line.startswith(beginning)]
    return found


def test_what_another_process_makes_is_left_for_last(tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init,l1_color,inpainting", "--downstream", "voc_cls", "--schedule", "frozen")
    assert tiny(*asked, "--plan").code == 0
    trunk = planned_id(tiny(*asked, "--plan").out, "l1_color-")
    begun: list[str] = []

    def let_go() -> None:
        deadline = time.monotonic() + 60
        while len(record.paths(tmp_path / "runs")) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        begun.extend(one.pretext for one in record.read(tmp_path / "runs"))
        holder.close()

    (tmp_path / "runs" / "locks").mkdir(parents=True)
    holder = (tmp_path / "runs" / "locks" / f"{trunk}.lock").open("w")
    fcntl.flock(holder, fcntl.LOCK_EX)
    other = threading.Thread(target=let_go)
    other.start()
    done = tiny(*asked)
    other.join()
    assert done.code == 0 and sorted(begun) == ["inpainting", "random_init"], done.err
    places = [line[:5] for line in done.out.splitlines() if line.startswith("[")]
    assert places == ["[1/3]", "[3/3]", "[2/3]"]
    assert len(record.read(tmp_path / "runs")) == 3
    shutil.rmtree(tmp_path / "runs" / "runs")
    shutil.rmtree(tmp_path / "runs" / "pretrained")
    holder = (tmp_path / "runs" / "locks" / f"{trunk}.lock").open("w")
    fcntl.flock(holder, fcntl.LOCK_EX)
    threading.Timer(2, holder.close).start()
    waited = tiny(*asked[:1], "l1_color", *asked[2:])  # there is nothing else to do
    assert waited.code == 0 and f"waiting for another process, which works on {trunk}" in waited.out
    assert len(record.read(tmp_path / "runs")) == 1


def test_what_another_process_begins_at_the_same_moment_is_left_for_last_too(
    tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen", "--seeds", 2)
    first, second = (planned_id(tiny(*asked[:-2], "--seed", seed, "--plan").out, "  random_init-voc") for seed in (0, 1))
    monkeypatch.setattr(grid, "is_busy", lambda job, out: False)  # it begins between the look and the lock
    (tmp_path / "runs" / "locks").mkdir(parents=True, exist_ok=True)
    holder = (tmp_path / "runs" / "locks" / f"{first}.lock").open("w")
    fcntl.flock(holder, fcntl.LOCK_EX)
    said: list[str] = []

    def let_go() -> None:
        deadline = time.monotonic() + 20
        while not (tmp_path / "runs" / "runs" / second / "record.json").is_file() and time.monotonic() < deadline:
            time.sleep(0.01)
        said.extend(path.parent.name for path in record.paths(tmp_path / "runs"))
        holder.close()

    process = threading.Thread(target=let_go)
    process.start()
    done = tiny(*asked)
    process.join()
    assert done.code == 0 and said == [second], done.err
    assert len(record.read(tmp_path / "runs")) == 2


def test_while_another_process_trains_the_trunk_of_a_search_the_other_trunks_are_trained(tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "l1_color", "--downstream", "voc_cls", "--seeds", 2, "--tune", 1)
    one_seed = ("--pretext", "l1_color", "--downstream", "voc_cls", "--plan", "--seed")
    searched, other = (planned_id(tiny(*one_seed, seed).out, "l1_color-") for seed in (0, 1))
    there: list[bool] = []

    def let_go() -> None:
        deadline = time.monotonic() + 20
        while not (tmp_path / "runs" / "pretrained" / other / "pretrain.json").is_file() and time.monotonic() < deadline:
            time.sleep(0.01)
        there.extend((tmp_path / "runs" / "pretrained" / trunk).is_dir() for trunk in (searched, other))
        holder.close()

    (tmp_path / "runs" / "locks").mkdir(parents=True, exist_ok=True)
    holder = (tmp_path / "runs" / "locks" / f"{searched}.lock").open("w")
    fcntl.flock(holder, fcntl.LOCK_EX)
    process = threading.Thread(target=let_go)
    process.start()
    done = tiny(*asked)
    process.join()
    assert done.code == 0 and there == [False, True], done.err
    assert len(record.read(tmp_path / "runs")) == 2


def test_data_workers_change_nothing(tiny: Bench, tmp_path: Path) -> None:
    arguments = ("--pretext", "l1_color", "--downstream", "all", "--set", "protocol.augmentation=flip")
    found = []
    for workers in (0, 2):
        done = tiny(*arguments, "--workers", workers)
        assert done.code == 0, done.err
        found.append((weights(tmp_path / "runs"), predictions(tmp_path / "runs")))
        (tmp_path / "runs").rename(tmp_path / f"workers-{workers}")
    assert found[0] == found[1] and found[0][1]


@pytest.mark.parametrize("protocol", ["paper", "paper-code", "standard"])
def test_every_protocol_runs(tiny: Bench, tmp_path: Path, protocol: str) -> None:
    phases = '{"two-phase": [{"train": "head", "epochs": 1, "lr": 1e-3}, {"train": "all", "epochs": 1, "lr": 1e-3}]}'
    done = tiny(
        "--protocol", protocol, "--pretext", "l1_color", "--downstream", "all", "--set", f"protocol.schedules={phases}",
        "--set", "recipe.lr=1e-3",
    )  # fmt: skip
    assert done.code == 0, done.err
    records = record.read(tmp_path / "runs")
    assert {one.downstream for one in records} == {"voc_cls", "voc_seg"}
    assert all(one.job.protocol.startswith(f"{protocol}+head_width=16+schedules=") for one in records)


def test_a_timm_trunk_takes_colour(tiny: Bench) -> None:
    done = tiny(
        "--trunk", "timm:resnet10t,preprocessing=rgb", "--size", 64, "--pretext", "cgan_color,inpainting", "--downstream", "all"
    )
    assert done.code == 0, done.err


def test_a_plan_says_what_is_there_and_trains_nothing(tiny: Bench, tmp_path: Path) -> None:
    planned = tiny("--pretext", "l1_color", "--downstream", "all", "--plan")
    assert planned.code == 0 and planned.out.count("to do") == 3
    assert re.search(r"about \d+ s in all on this machine", planned.out)
    assert not (tmp_path / "runs" / "runs").exists()
    assert tiny("--pretext", "l1_color", "--downstream", "voc_seg").code == 0
    planned = tiny("--pretext", "l1_color", "--downstream", "all", "--plan")
    assert "pretrained" in planned.out and "finished" in planned.out and planned.out.count("to do") == 1


def test_scored_classes_are_in_the_row(tiny: Bench, bench: Bench, voc: Path, tmp_path: Path) -> None:
    done = bench("data", "prepare", "mine", "--root", voc, "--score", "disc,star")
    assert done.code == 0 and "mine is ready: 40 images" in done.out
    assert "2 of 8 scored" in bench("data", "list").out
    assert tiny("--data", "mine", "--pretext", "random_init", "--downstream", "voc_seg", "--schedule", "one-phase").code == 0
    (one,) = record.read(tmp_path / "runs")
    assert list(one.per_class["miou_voc@1"]) == ["background", "disc", "star"]
    assert "2 of 8 classes scored: disc, star" in " ".join(bench("report", "--out", tmp_path / "runs").out.split())
