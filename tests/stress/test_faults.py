"""What must survive what: each test injects one fault for real, into a process or a file, and looks at what is left.

The numbers are those of the list of faults; 23 and 24, downloads and archives, are in `tests/bench/test_download.py`.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from bench import record
from bench.data.dataset import voc_palette
from bench.errors import DataError
from bench.training import checkpoint
from tests.conftest import reseal
from tests.stress.scenario import TINY, Scene, sentence
from tests.stress.server import CLOCK, FAIL_FROM, FAIL_ONCE, KILL, ROOT, Ended, Fault, Server, serving

EPOCHS = ("--set", "recipe.epochs=6", "--set", "recipe.batch_size=8", "--set", "protocol.head_width=16")
ONE_PHASE = ("--set", 'protocol.schedules={"one-phase": [{"train": "all", "epochs": 2, "lr": 1e-3}]}', "--schedule", "one-phase")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as one:
        yield one


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    Scene.draw(folder)
    return folder / "drawn"


class Bench:
    """`bench` in processes of its own, on data of its own, with results in `out`."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.voc, self.images = folder / "v1" / "labelled", folder / "v1" / "unlabelled"
        self.home, self.out = folder / "home", folder / "runs"
        self.devkit = self.voc / "VOCdevkit" / "VOC2012"

    def __call__(self, *arguments: object, **more: object) -> Ended:
        ended = self.server.run(*arguments, home=self.home, **more)  # type: ignore[arg-type]
        assert not sentence(ended) or ended.code == -signal.SIGKILL, sentence(ended)
        return ended

    def command(self, pretext: str, downstream: str, *more: object) -> tuple[object, ...]:
        """Return a small run; what it computes comes last, so that `more` may change it."""
        data = ("--data", self.voc, "--pretrain-data", self.images, "--out", self.out)
        return "run", *TINY, *EPOCHS, *ONE_PHASE, *data, "--pretext", pretext, "--downstream", downstream, *more

    def run(self, pretext: str = "random_init", downstream: str = "voc_seg", *more: object, **options: object) -> Ended:
        return self(*self.command(pretext, downstream, *more), **options)

    def records(self) -> list[record.Record]:
        return record.read(self.out)

    def weights(self) -> list[tuple[str, str, str]]:
        return [(one.id, one.pretrain.weights, one.weights) for one in self.records()]

    def left(self) -> list[str]:
        """Return temporary files and working folders that are left."""
        found = [path for place in (self.out, self.home) for path in place.rglob(".tmp-*")]
        return [str(path) for path in [*found, *self.out.glob("work/*")]]


@pytest.fixture
def bench(server: Server, drawn: Path, tmp_path: Path) -> Bench:  # type: ignore[override]
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    return Bench(server, tmp_path)


@pytest.fixture(scope="module")
def undisturbed(server: Server, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """Give the weights of the run that most tests disturb."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(drawn, folder, dirs_exist_ok=True)
    whole = Bench(server, folder)
    assert whole.run("l1_color").code == 0
    return whole.weights()


def when(found: Callable[[], object], then: Callable[[int], object]) -> Callable[[int], None]:
    """Return what waits, while a process runs, until something is found, and then does something to it."""

    def meanwhile(process: int) -> None:
        deadline = time.monotonic() + 60
        while not found() and time.monotonic() < deadline:
            time.sleep(0.002)
        then(process)

    return meanwhile


def send(*numbers: int) -> Callable[[int], None]:
    def then(process: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            for number in numbers:
                os.kill(process, number)
                time.sleep(0.003)

    return then


def checkpoints(bench: Bench) -> list[Path]:
    return sorted(bench.out.glob("work/*/*.safetensors"))


OFTEN = ("--checkpoint-seconds", "0")


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


def test_08_a_truncated_image_stops_with_its_name_and_is_left_out_only_when_asked(bench: Bench) -> None:
    broken = sorted((bench.devkit / "JPEGImages").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:-300])
    for command in (("data", "prepare", "mine", "--root", bench.voc), bench.command("random_init", "voc_seg")):
        refused = bench(*command)
        assert refused.code == 3 and broken.name in refused.err
    asked = bench("data", "prepare", "mine", "--root", bench.voc, "--skip-broken")
    assert asked.code == 0 and broken.name in asked.out
    assert bench.run("random_init", "voc_seg", "--data", "mine").code == 0
    (one,) = bench.records()
    assert one.data.left_out == 1 and "1 broken image left out" in one.data.title


def test_09_an_empty_file_is_no_image(bench: Bench) -> None:
    broken = sorted((bench.devkit / "JPEGImages").iterdir())[0]
    broken.write_bytes(b"")
    refused = bench.run()
    assert refused.code == 3 and broken.name in refused.err and not bench.records()


def mask_of(bench: Bench, place: int = 0) -> Path:
    return sorted((bench.devkit / "SegmentationClass").iterdir())[place]


def test_10_a_mask_of_another_size_is_named_with_its_image_and_both_sizes(bench: Bench) -> None:
    mask = mask_of(bench)
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(mask)
    refused = bench.run()
    assert refused.code == 3
    assert all(word in refused.err for word in (mask.name, f"{mask.stem}.jpg", "30x20", "64x64"))


def test_11_a_class_id_out_of_range_is_named_with_file_id_and_pixels_when_packing(bench: Bench) -> None:
    mask = mask_of(bench)
    ids = np.array(Image.open(mask))
    ids[:3, :4] = 77
    Image.fromarray(ids).save(mask)
    refused = bench.run()
    assert refused.code == 3 and all(word in refused.err for word in (mask.name, "class id 77", "12 pixels"))
    assert not list(bench.home.glob("packs/*/manifest.json"))


def test_12_a_mask_in_colours_is_read_through_the_palette_or_refused(bench: Bench) -> None:
    assert bench.run().code == 0
    expected = bench.weights()
    mask = mask_of(bench)
    ids = np.array(Image.open(mask))
    colours = voc_palette()[ids]
    Image.fromarray(colours).save(mask)
    assert bench.run("random_init", "voc_seg", "--out", bench.folder / "colours").code == 0
    assert [one.weights for one in record.read(bench.folder / "colours")] == [weights for _, _, weights in expected]
    colours[0, 0] = (1, 2, 3)
    Image.fromarray(colours).save(mask)
    refused = bench.run()
    assert refused.code == 3 and mask.name in refused.err and "#010203" in refused.err


def test_13_masks_that_are_void_throughout_cost_nothing_and_are_counted(bench: Bench) -> None:
    for mask in (bench.devkit / "SegmentationClass").iterdir():
        Image.fromarray(np.full((64, 64), 255, np.uint8)).save(mask)
    done = bench.run()
    assert done.code == 0 and "void throughout" in done.out
    (one,) = bench.records()
    assert one.data.void == one.data.counts["train"] > 0
    assert one.losses[0] == [0.0, 0.0]
    assert one.metrics["miou_voc@1"] is None


def test_14_a_class_in_no_test_image_is_undefined_left_out_of_the_mean_and_said(bench: Bench) -> None:
    missing = (bench.devkit / "classes.txt").read_text().split().index("star") + 1
    for mask in (bench.devkit / "SegmentationClass").iterdir():
        ids = np.array(Image.open(mask))
        Image.fromarray(np.where(ids == missing, 0, ids).astype(np.uint8)).save(mask)
    without = ("--set", 'protocol.schedules={"one-phase": [{"train": "all", "epochs": 30, "lr": 1e-2}]}')
    done = bench.run("random_init", "voc_seg", *without)
    (one,) = bench.records()
    scores = one.per_class["miou_voc@1"]
    if scores["star"] is None:  # no image has it and none was called so
        assert "warning: miou_voc@1 is not defined for" in done.out and "star" in done.out
    defined = [value for name, value in scores.items() if value is not None]
    assert one.metrics["miou_voc@1"] == pytest.approx(sum(defined) / len(defined))
    assert bench.run("random_init", "voc_cls", "--set", 'protocol.metrics=["map_voc"]').code == 0


def test_15_a_loss_that_is_no_number_fails_its_run_with_step_and_reason_and_stands_on_no_leaderboard(bench: Bench) -> None:
    failed = bench.run("random_init,l1_color", "voc_seg", "--set", "l1_color.lr=1e30")
    assert failed.code == 5 and "the loss of" in failed.err and "step" in failed.err
    assert [one.pretext for one in bench.records()] == ["random_init"]
    assert bench("report", "--out", bench.out).code == 0
    assert "l1_color" not in (bench.out / "leaderboard.csv").read_text()


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


def test_25_a_tampered_checkpoint_is_refused_and_nothing_in_it_runs(bench: Bench) -> None:
    bench.run("l1_color", "voc_seg", *OFTEN, meanwhile=when(lambda: checkpoints(bench), send(signal.SIGKILL)))
    (path,) = checkpoints(bench)[-1:]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    flipped = bench.run("l1_color")
    assert flipped.code == 3 and path.name in flipped.err and "is damaged" in flipped.err
    mark = bench.folder / "executed"
    torch.save(Payload(mark), path)
    renamed = path.with_name(f"{path.stem.split('-')[0]}-{checkpoint.files.sha256(path)}.safetensors")
    path.rename(renamed)
    payload = bench.run("l1_color")
    assert payload.code == 3 and renamed.name in payload.err and not mark.exists()
    renamed.unlink()
    assert bench.run("l1_color").code == 0
    (weights,) = bench.out.glob("pretrained/*/*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refused = bench.run("l1_color", "voc_cls")
    assert refused.code == 3 and "is damaged" in refused.err and weights.name in refused.err


class Payload:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def test_26_a_checkpoint_of_another_version_or_recipe_is_refused_with_what_differs(bench: Bench, tmp_path: Path) -> None:
    bench.run("l1_color", "voc_seg", *OFTEN, meanwhile=when(lambda: checkpoints(bench), send(signal.SIGKILL)))
    (path,) = checkpoints(bench)[-1:]
    assert bench.run("l1_color", "voc_seg", "--set", "l1_color.lr=1e-4", meanwhile=send(signal.SIGKILL)).code
    other = (
        next((place for place in (bench.out / "work").glob("l1_color-*") if place != path.parent), None) or bench.out / "work/x"
    )
    other.mkdir(exist_ok=True)
    network = nn.Linear(2, 2)
    facts = {"step": 1, "stage": {"id": "another"}, "history": {}, "sums": {}}
    for version, match in ((1, "has version 1, but this program"), (checkpoint.VERSION, "")):
        folder = tmp_path / f"version-{version}"
        folder.mkdir()
        draft = folder / "draft"
        save_file(dict(network.state_dict()), str(draft), metadata={"facts": json.dumps({**facts, "version": version})})
        draft.rename(folder / f"1-{checkpoint.files.sha256(draft)}.safetensors")
        if match:
            with pytest.raises(DataError, match=match):
                checkpoint.load(folder, network, {})
    shutil.copy(path, other / path.name)
    shutil.rmtree(path.parent)
    other.rename(path.parent)
    tampered = checkpoint._read(path.parent / path.name)[1]
    assert tampered["stage"]["id"] == path.parent.name
    assert bench.run("l1_color").code == 0


@pytest.mark.parametrize("which", ["out", "home"])
def test_27_an_output_or_home_that_cannot_be_written_fails_before_any_work(which: str, bench: Bench) -> None:
    (bench.folder / "file").write_text("not a folder")
    setattr(bench, which, bench.folder / "file" / "below")
    refused = bench.run("l1_color")
    assert refused.code == 4 and str(bench.folder / "file") in refused.err and "choose another folder" in refused.err
    assert not (bench.folder / "runs" / "work").exists() and not (bench.folder / "home" / "packs").exists()


def test_27_offline_with_nothing_prepared_fails_before_any_work_and_says_what_to_run(bench: Bench) -> None:
    for command in (("run", "--pretext", "cgan_color", "--downstream", "voc_seg", "--data", "voc2012", "--out", bench.out),
                    ("data", "prepare", "voc2012")):  # fmt: skip
        refused = bench("--offline", *command)
        assert refused.code == 4 and "bench data prepare voc2012" in refused.err
    assert not (bench.home / "packs").exists() and not (bench.home / "demo").exists()


def test_a_failing_write_of_a_lock_or_a_cache_costs_nothing(bench: Bench, undisturbed: object) -> None:
    (bench.out / "locks").mkdir(parents=True)
    ended = bench.run("l1_color", fault=Fault(FAIL_FROM, 3, (bench.out / "locks",)))  # 1 and 2 make the first lock
    assert ended.code == 4 and "cannot lock" in ended.err
    assert bench.run("l1_color", fault=Fault(FAIL_ONCE, 3, (bench.out / "locks",))).code == 0
    assert bench.weights() == undisturbed


def test_a_record_that_was_changed_by_hand_and_sealed_again_is_another_version_only_when_it_says_so(bench: Bench) -> None:
    assert bench.run().code == 0
    (path,) = bench.out.glob("runs/*/record.json")
    reseal(path, lambda value: {**value, "version": 99})
    refused = bench("report", "--out", bench.out)
    assert refused.code == 3 and "it has version 99" in refused.err


PLUGIN = '''"""A task with a mistake."""

import torch

from bench.contract import Pretext


class Mistaken(Pretext):
    """One player, and a name that is not there."""

    def optimizers(self):
        return {"all": torch.optim.Adam(self.parameters(), lr=self.recipe.lr)}

    def make_batch(self, images, generator):
        return {"images": imagess}

    def training_step(self, batch):
        yield "all", batch["images"].sum()
'''


def test_a_mistake_in_a_plug_in_is_one_sentence_with_its_line_and_a_traceback_when_asked(bench: Bench) -> None:
    path = bench.folder / "mistaken.py"
    path.write_text(PLUGIN)
    line = PLUGIN[: PLUGIN.index("imagess")].count("\n") + 1
    command = bench.command("mistaken", "voc_seg", "--plugin", path)
    failed = bench.server.run(*command, home=bench.home)
    assert failed.code == 1 and "Traceback" not in failed.err
    assert f"unexpected NameError at {path}, line {line}: name 'imagess' is not defined" in failed.err
    shown = bench.server.run(*command, home=bench.home, environment={"PRETEXT_BENCH_TRACEBACK": "1"})
    assert shown.code == 1 and "Traceback" in shown.err and f'"{path}", line {line}' in shown.err
