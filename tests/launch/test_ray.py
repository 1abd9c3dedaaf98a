"""`--launcher ray` on a cluster of two nodes inside this machine: equal tables, a killed worker, a lost node, stopping."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.errors import MachineError, UsageError
from bench.launch import launch as launches
from bench.launch import ray_engine, supervisor
from tests.launch import grids, ray_here
from tests.stress.launchers import workers

pytest.importorskip("ray", reason="the extra ray is not installed")
GRID = ("--pretext", "random_init,l1_color", "--downstream", "voc_cls", "--schedule", "two-phase", "--seeds", "2")


@pytest.fixture(scope="module")
def nodes() -> Iterator[ray_here.Nodes]:
    """Start a cluster once for the tests of this file."""
    with ray_here.cluster() as cluster:
        yield cluster


def launch(*words: str, devices: str = "", address: str = "auto") -> launches.Launch:
    """Return a launch that is not begun."""
    return launches.Launch(
        id="a", launcher="ray", out="/", cwd="/", words=words, workers=2, created=launches.now(), devices=devices,
        options={"address": address},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "devices", "needs"),
    [
        (("--threads", "3", "--device", "cpu"), "", {"CPU": 3}),
        (("--threads=2",), "cpu:4", {"CPU": 8}),
        ((), "", {"CPU": 1, "GPU": 1}),
        ((), "4", {"CPU": 1, "GPU": 4}),
        (("--threads", "2"), "0,1", {"CPU": 2, "GPU": 2}),
    ],
)
def test_a_worker_needs_what_its_command_uses(words: tuple[str, ...], devices: str, needs: dict[str, int]) -> None:
    assert ray_engine.needs_of(launch(*words, devices=devices)) == needs


def test_all_devices_of_an_unknown_machine_are_refused() -> None:
    with pytest.raises(UsageError, match="how many devices each worker takes"):
        ray_engine.needs_of(launch(devices="all"))


def test_without_a_cluster_a_sentence_says_so(bench: Callable, drawn: dict[str, Path], tmp_path: Path) -> None:
    done = bench(*grids.words(drawn, tmp_path / "runs", *GRID, "--launcher", "ray", "--ray", "127.0.0.1:1"))
    assert done.code == MachineError.exit_code and "no Ray cluster answers at --ray 127.0.0.1:1" in done.err, done.err
    assert done.err.count("\n") == 1, "one sentence, and nothing of Ray's"
    with pytest.raises(UsageError, match="takes auto, local or the HOST:PORT"):
        ray_engine.connect("ray://127.0.0.1:1")


@pytest.mark.integration
def test_two_actors_of_which_one_worker_is_killed_and_one_node_is_lost_give_the_table_of_one_process(
    nodes: ray_here.Nodes, bench: Callable, drawn: dict[str, Path], tmp_path: Path
) -> None:
    plain, shared, log = tmp_path / "plain", tmp_path / "shared", tmp_path / "log"
    longer = (*GRID, "--set", "recipe.epochs=20")
    assert bench(*grids.words(drawn, plain, *longer)).code == 0
    head = grids.start(grids.words(drawn, shared, *longer, "--launcher", "ray", "--ray", nodes.address), log)
    first = grids.until(lambda: workers(shared), head)
    os.kill(first[0], signal.SIGKILL)
    grids.until(lambda: len(workers(shared)) == 2 and first[0] not in workers(shared), head)
    nodes.lose()
    nodes.add()
    assert head.wait(200) == 0, log.read_text()
    (folder,) = (shared / "launches").iterdir()
    ended = [supervisor.kept(folder, number) for number in (0, 1)]
    assert {one.code for one in ended if one} == {0}, "as many workers as the cluster has room for"
    assert "raylet" not in log.read_text() and "ray." not in log.read_text(), log.read_text()
    for out in (plain, shared):
        assert bench("report", "--out", out).code == 0
    assert grids.tables(plain) == grids.tables(shared)


@pytest.mark.integration
def test_ctrl_c_stops_the_workers_and_a_detached_launch_goes_on(
    nodes: ray_here.Nodes, bench: Callable, drawn: dict[str, Path], tmp_path: Path
) -> None:
    out, log = tmp_path / "runs", tmp_path / "log"
    words = grids.words(drawn, out, "--pretext", "l1_color", "--downstream", "voc_cls", "--schedule", "two-phase")
    words += ["--launcher", "ray", "--ray", nodes.address, "--launch-workers", "1", "--set", "recipe.epochs=60"]
    head = grids.start(words, log)
    grids.until(lambda: "pretrain l1_color: epoch" in grids.text_of(out, 0), head)
    head.send_signal(signal.SIGINT)
    assert head.wait(60) == 130, log.read_text()
    first = launches.all_in(out)[0]
    assert [(one.state, one.code) for one in ray_engine.Ray.states(first)] == [("ended", 143)] and not workers(out)
    detached = grids.start([*words, "--detach"], log)
    assert detached.wait(60) == 0, log.read_text()
    second = launches.all_in(out)[1]
    deadline = time.monotonic() + 60
    while ray_engine.Ray.states(second)[0].state != "ended" and time.monotonic() < deadline:
        time.sleep(0.5)
    assert [(one.state, one.code) for one in ray_engine.Ray.states(second)] == [("ended", 0)]
    assert len(list(out.glob("runs/*"))) == 1 and grids.text_of(out, 0).count("epoch 1/60") == 1
