"""`--launcher local`: workers of one grid give the table of one process, also when one is killed; Ctrl-C, --detach, mistakes."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launch import grids

TUNED = ("--pretext", "random_init,l1_color", "--downstream", "voc_cls", "--schedule", "two-phase", "--seeds", "2")
SEARCH = ("--tune", "3", "--pruner", "none")
LOCAL = ("--launcher", "local", "--devices", "cpu:2")


@pytest.mark.integration
def test_two_workers_of_which_one_is_killed_give_the_table_of_one_process(
    bench: Callable, drawn: dict[str, Path], tmp_path: Path
) -> None:
    plain, shared, log = tmp_path / "plain", tmp_path / "shared", tmp_path / "log"
    assert bench(*grids.words(drawn, plain, *TUNED, *SEARCH)).code == 0
    head = grids.start(grids.words(drawn, shared, *TUNED, *SEARCH, *LOCAL), log)
    at_trial = grids.until(lambda: [one for one in (1, 0) if " trial " in grids.text_of(shared, one)], head)[0]
    os.kill(killed := grids.pid_of(shared, at_trial), signal.SIGKILL)
    assert head.wait(300) == 0, log.read_text()
    told = log.read_text()
    assert f"worker {at_trial} was ended by signal 9 and is started again" in told and "Table 4" in told
    assert grids.pid_of(shared, at_trial) != killed
    for out in (plain, shared):
        assert bench("report", "--out", out).code == 0
    assert grids.tables(plain) == grids.tables(shared)
    for search in shared.glob("studies/*/tuning-3.json"):
        trials = json.loads(search.read_bytes())["trials"]
        assert [trial["number"] for trial in trials] == [0, 1, 2]
    assert len(list(shared.glob("studies/*/tuning-3.json"))) == 2

    said = bench("status", "--out", shared)
    assert said.code == 0 and "4 runs: 4 finished, 0 at work, 0 waiting, 0 failed" in said.out
    made = sorted(path.name for path in shared.glob("runs/*"))
    for run in made:
        (found,) = json.loads(bench("status", run, "--out", shared, "--json").out)
        assert found["id"] == run and any(run in Path(one).read_text() for one in found["logs"])
    measured = grids.launch_of(shared)["measured"]
    assert measured["device_hours"] > 0 and measured["bytes"]["runs"] > 0 and measured["codes"] == {"0": 0, "1": 0}

    again = bench(*grids.words(drawn, shared, *TUNED, *SEARCH, *LOCAL))
    assert again.code == 0 and len(list(shared.glob("runs/*"))) == 4, "nothing is made twice"


BROKEN = """
from pathlib import Path

from pretexts.rotation import Rotation


class Broken(Rotation):
    TITLE = "broken"

    def make_batch(self, images, generator):
        with (Path(__file__).parent / "tries").open("a") as file:
            file.write("tried\\n")
        raise RuntimeError("it is broken")
"""


@pytest.mark.integration
def test_a_broken_run_is_tried_once_and_stops_no_other(bench: Callable, drawn: dict[str, Path], tmp_path: Path) -> None:
    """Four runs of one trunk that cannot be trained, and two others, on two workers."""
    out, tries = tmp_path / "runs", tmp_path / "tries"
    (tmp_path / "broken.py").write_text(BROKEN)
    asked = ("--plugin", tmp_path / "broken.py", "--pretext", "broken,random_init", "--downstream", "voc_cls,voc_seg")
    words = grids.words(drawn, out, *asked, "--schedule", "two-phase", "--transfer", "encoder", "--labels", "0.5,1")
    done = bench(*words, *LOCAL)
    assert done.code == 5 and "4 of 8 runs failed" in done.err and done.err.count("broken on voc_") == 4, done.err
    assert "it is broken" in done.err and len(list(out.glob("runs/*"))) == 4 and "Table 4" in done.out
    assert tries.read_text() == "tried\n"
    noted = {path.stem: json.loads(path.read_bytes()) for path in out.glob("failures/*.json")}
    (trunk,) = [one for name, one in noted.items() if "voc" not in name]
    assert "it is broken" in trunk["reason"] and f"worker-{trunk['worker']}.log" in trunk["log"]
    assert "it is broken" in Path(trunk["log"]).read_text()
    told = json.loads(bench("status", "--out", out, "--json").out)
    assert (told["finished"], told["failed"], told["waiting"]) == (4, 4, 0) and told["failures"][0]["log"] == trunk["log"]
    assert "it is broken" in bench("status", trunk["id"], "--out", out).out

    assert bench(*words, *LOCAL).code == 5 and tries.read_text() == "tried\n" * 2, "a new launch tries again, once"


STUDY = """title = "t"
[options]
data = {data!r}
pretrain_data = {pretrain!r}
protocol = "demo"
trunk = "unet:depth=5,width=8"
size = 32
epochs = 2
seeds = 2
schedule = "two-phase"
set = ["recipe.epochs=1", "recipe.batch_size=8", "recipe.images=16", "recipe.evaluation_images=8", "protocol.head_width=16"]
[parts.main]
pretext = "random_init,l1_color"
downstream = "voc_cls"
[parts.searched]
pretext = "random_init"
downstream = "voc_cls"
tune = 2
pruner = "none"
[tables.main]
parts = ["main", "searched"]
"""


@pytest.mark.integration
def test_a_study_by_two_workers_has_the_tables_of_one_process(bench: Callable, drawn: dict[str, Path], tmp_path: Path) -> None:
    made = {}
    for name, options in (("plain", ()), ("shared", LOCAL)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "study.toml").write_text(STUDY.format(data=str(drawn["demo"]), pretrain=str(drawn["demo_unlabelled"])))
        done = bench("study", folder, "--out", tmp_path / f"{name}-runs", "--device", "cpu", "--threads", "1", *options)
        assert done.code == 0 and "wrote" in done.out, done.err
        made[name] = grids.tables(folder / "main")
        parts = json.loads((folder / "records" / "parts.json").read_bytes())["parts"]
        assert {part: len(found["runs"]) for part, found in parts.items()} == {"main": 4, "searched": 2}
    assert made["plain"] == made["shared"]
    assert len(list(tmp_path.glob("shared-runs/launches/*/worker-*.log"))) == 2
    again = bench("study", tmp_path / "shared", "--out", tmp_path / "shared-runs", "--device", "cpu", *LOCAL)
    assert again.code == 0 and "finished before" in again.out and len(list(tmp_path.glob("shared-runs/launches/*"))) == 1


@pytest.mark.integration
def test_ctrl_c_stops_the_workers_and_the_same_command_goes_on(bench: Callable, drawn: dict[str, Path], tmp_path: Path) -> None:
    out, log = tmp_path / "runs", tmp_path / "log"
    words = grids.words(drawn, out, *TUNED, "--epochs", "300", *LOCAL)
    head = grids.start(words, log)
    grids.until(lambda: "  loss " in grids.text_of(out, 0), head)
    head.send_signal(signal.SIGINT)
    assert head.wait(60) == 130, log.read_text()
    for number in (0, 1):
        assert not Path(f"/proc/{grids.pid_of(out, number)}").exists(), "no worker is left"
    assert "the same command goes on from here" in log.read_text() and list(out.glob("work/*"))
    left = bench("status", "--out", out)
    assert "no worker is left" in left.out


@pytest.mark.integration
def test_a_detached_launch_goes_on_by_itself_also_when_a_worker_is_killed(
    bench: Callable, drawn: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    done = bench(*grids.words(drawn, out, *TUNED, *LOCAL, "--detach"))
    assert done.code == 0 and "bench status" in done.out and "Table 4" not in done.out
    told = json.loads(bench("status", "--out", out, "--json").out)
    assert told["total"] == 4 and [(one["state"], one["where"]) for one in told["workers"]] == [("runs", "cpu")] * 2
    end = time.monotonic() + 120
    while not (killed := grids.child_of(grids.pid_of(out, 1))) or "loss" not in grids.text_of(out, 1):
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(killed, signal.SIGKILL)
    while any(one["state"] == "runs" for one in told["workers"]):
        assert time.monotonic() < end
        time.sleep(0.5)
        told = json.loads(bench("status", "--out", out, "--json").out)
    assert (told["finished"], told["failed"]) == (4, 0) and [one["code"] for one in told["workers"]] == [0, 0]
    (kept,) = [json.loads(path.read_bytes()) for path in out.glob("launches/*/worker-1.json")]
    assert kept["starts"] == 2


@pytest.mark.integration
def test_a_second_launch_in_a_folder_says_that_another_is_at_work_and_shares_its_runs(
    bench: Callable, drawn: dict[str, Path], tmp_path: Path
) -> None:
    out, log = tmp_path / "runs", tmp_path / "log"
    words = grids.words(drawn, out, *TUNED, *LOCAL)
    head = grids.start(words, log)
    first = grids.until(lambda: grids.pid_of(out, 1) and grids.launch_of(out), head)
    second = bench(*words)
    assert head.wait(120) == 0 and second.code == 0, log.read_text()
    assert f"launch {first['id']} by local is at work in {out} too" in second.out and "too, and both" not in log.read_text()
    assert len(list(out.glob("runs/*"))) == 4
    assert "is at work in" not in bench(*words).out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--launcher", "lokal"), "unknown launcher 'lokal'; did you mean 'local'?"),
        (("--slurm", "time=60"), "--slurm belongs to --launcher slurm; give both."),
        (("--ray", "auto"), "--ray belongs to --launcher ray; give both."),
        (("--detach",), "--detach belongs to --launcher local, slurm or ray; give both."),
        (("--launch-workers", "2"), "--launch-workers belongs to --launcher local, slurm or ray, or to --plan"),
        (("--launcher", "local", "--devices", "0,1"), "--devices 0,1 needs GPU 1"),
        (("--launcher", "local", "--devices", "two"), "--devices takes all, a number (4)"),
        (("--pruner", "none"), "--space, --search, --pruner and --storage belong to a search"),
    ],
)
def test_mistakes_are_told_before_any_worker_starts(
    bench: Callable, drawn: dict[str, Path], tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    out = tmp_path / "runs"
    done = bench(*grids.words(drawn, out, "--pretext", "random_init", "--downstream", "voc_cls", *options))
    assert done.code == 2 and said in done.err, done.err
    assert not list(out.glob("launches/*"))


def test_a_plan_tells_what_a_launch_costs(bench: Callable, drawn: dict[str, Path], tmp_path: Path) -> None:
    asked = grids.words(drawn, tmp_path / "runs", *TUNED, "--tune", "3", "--plan", "--json")
    one, two = (json.loads(bench(*asked, "--launch-workers", count).out)["launch"] for count in (1, 2))
    assert one["device_hours"] == pytest.approx(two["device_hours"], rel=0.05)
    assert one["wall_seconds"] == pytest.approx(one["device_hours"] * 3600, rel=0.02)
    assert one["wall_seconds"] / 2 - 0.01 <= two["wall_seconds"] < one["wall_seconds"]
    assert one["cached"] == {"trunks": {"there": 0, "of": 4}, "searches": {"there": 0, "of": 2}, "runs": {"there": 0, "of": 4}}
    assert (
        one["bytes"]["trunks"] > 0 and two["bytes"]["checkpoints while at work"] == 2 * one["bytes"]["checkpoints while at work"]
    )
    assert not list((tmp_path / "runs").glob("launches/*")) and "launch" not in json.loads(bench(*asked).out)
