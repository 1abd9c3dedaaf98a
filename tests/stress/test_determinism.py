"""Same command, same bits: whatever order, however many data workers, with or without what was kept from before."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import record
from tests.stress.scenario import TINY, Scene
from tests.stress.server import Server, serving

QUICK = ("--set", "recipe.epochs=2", "--set", "recipe.batch_size=8", "--set", "protocol.head_width=16")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as one:
        yield one


def weights(out: Path) -> dict[str, tuple[str, str, str]]:
    return {one.id: (one.pretrain.weights, one.weights, one.predictions) for one in record.read(out)}


def test_neither_the_order_of_the_grid_nor_workers_nor_caches_change_a_bit(server: Server, tmp_path: Path) -> None:
    scene = Scene.draw(tmp_path)
    data = ("--data", scene.data["demo"], "--pretrain-data", scene.data["demo_unlabelled"])
    pretexts, tasks, seeds = ["random_init", "l1_color"], ["voc_seg", "voc_cls"], ["0", "1"]
    common = ("run", *TINY, *QUICK, *data, "--schedule", "two-phase")
    words = ("--pretext", ",".join(pretexts), "--downstream", ",".join(tasks), "--seeds", ",".join(seeds))
    assert server.run(*common, *words, "--out", scene.out, home=scene.home).code == 0
    together = weights(scene.out)
    assert len(together) == 8 and len(set(together.values())) == 8
    apart = tmp_path / "apart"
    for number, (seed, task, pretext) in enumerate(
        (s, t, p) for s in reversed(seeds) for t in reversed(tasks) for p in reversed(pretexts)
    ):
        shutil.rmtree(scene.home / "packs", ignore_errors=True)
        alone = (
            "--pretext",
            pretext,
            "--downstream",
            task,
            "--seed",
            seed,
            "--workers",
            2 * (number % 2),
            "--checkpoint-seconds",
            "0",
        )
        assert server.run(*common, *alone, "--out", apart, home=scene.home).code == 0
    assert weights(apart) == together


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {}])
def test_in_a_pipe_and_without_colours_output_has_no_escape_sequence(
    environment: dict[str, str], server: Server, tmp_path: Path
) -> None:
    scene = Scene.draw(tmp_path)
    words = ("--pretext", "random_init", "--downstream", "voc_seg", "--data", scene.data["demo"], "--out", scene.out)
    for command in (("run", *TINY, *QUICK, *words), ("report", "--out", scene.out), ("list",), ("doctor", "--out", scene.out)):
        ended = server.run(*command, home=scene.home, environment=environment)
        assert ended.code == 0 and ended.out and "\x1b" not in ended.out + ended.err
