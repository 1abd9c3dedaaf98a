"""One run on several processes: the same steps as on one, for every pretext task and both VOC tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import registry
from tests.training.shared_steps import DOWNSTREAMS

pytestmark = pytest.mark.integration
TASKS = (*(name for name in registry.summaries("pretexts") if name != "random_init"), *DOWNSTREAMS)
CHOSEN = ("cgan_color", "chroma_gan", "masked", "moco", "simclr", "voc_seg")
"""Tasks for what not all are tried with: an adversary, a penalty, hooks, a queue, a contrastive loss, void pixels."""
ODD = ("comparing", "scalar", "drop_path", "reversed", "centred", "in_place")


def steps(count: int, folder: Path, tasks: tuple[str, ...], **changes: Any) -> list[dict[str, Any]]:
    """Make the steps of some tasks with `count` processes, and return what each process found, by task."""
    folder.mkdir(parents=True)
    spec = {
        "tasks": tasks, "steps": 3, "double": True, "dropout": True, "optimizer": "sgd", "batch": 8,
        "store": str(folder / "store"), "recipe": {"dino": {"frozen_epochs": 0}}, **changes,
    }  # fmt: skip
    words = [sys.executable, "-m", "tests.training.shared_steps"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [*words, str(rank), str(count), str(folder), json.dumps(spec)], env=env, stderr=subprocess.PIPE, text=True
        )
        for rank in range(count)
    ]
    for process in started:
        _, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors[-2000:]
    return [{name: torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for name in tasks} for rank in range(count)]


def distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the largest difference between two states."""
    pairs = ((tensor.double(), other["state"][name].double()) for name, tensor in one["state"].items())
    return max(float((a - b).abs().max()) for a, b in pairs if a.numel())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return steps(1, tmp_path_factory.mktemp("alone") / "one", TASKS)[0]


@pytest.mark.parametrize("count", [2, 3])
def test_steps_of_several_processes_are_those_of_one_to_rounding_in_float64(
    count: int, alone: dict[str, Any], tmp_path: Path
) -> None:
    """With dropout on: it is drawn by the image. With 3 processes, 8 images are shared unevenly."""
    found = steps(count, tmp_path / "some", TASKS)
    far = {name: distance(found[0][name], alone[name]) for name in TASKS}
    assert max(far.values()) < 1e-9, {name: value for name, value in far.items() if value >= 1e-9}
    assert all(distance(other[name], found[0][name]) == 0 for other in found[1:] for name in TASKS)
    assert all(found[0][name]["whole"] == [] for name in TASKS)  # every network was shared, none computed whole
    for name in TASKS:
        for mine, theirs in zip(found[0][name]["losses"], alone[name]["losses"], strict=True):
            assert mine == pytest.approx(theirs, abs=1e-9)


def test_the_comparison_can_fail(alone: dict[str, Any], tmp_path: Path) -> None:
    """Batch norm by each process alone, gradients that are not averaged, and dropout of each process's own are seen."""
    broken = {"batch norm": 1e-6, "gradients": 1e-6, "dropout": 1e-6}
    for what, least in broken.items():
        found = steps(2, tmp_path / what.replace(" ", "-"), ("cgan_color", "voc_seg"), broken=what)
        for name in ("cgan_color", "voc_seg"):
            assert distance(found[0][name], alone[name]) > least, (what, name)


def test_in_float32_several_processes_are_as_near_as_rounding_and_repeat_to_the_bit(tmp_path: Path) -> None:
    """Within 1e-5 where training does not enlarge rounding; else no further than one process from itself, nudged by rounding."""
    settings = {"double": False, "steps": 20, "lr": 1e-5}
    one = steps(1, tmp_path / "one", CHOSEN, **settings)[0]
    nudged = steps(1, tmp_path / "nudged", CHOSEN, nudged=1e-8, **settings)[0]
    first, again = (steps(2, tmp_path / place, CHOSEN, **settings)[0] for place in ("first", "again"))
    begun = steps(1, tmp_path / "begun", CHOSEN, **{**settings, "steps": 0})[0]
    far = {name: distance(first[name], one[name]) for name in CHOSEN}
    for name in CHOSEN:
        assert far[name] < max(1e-5, 3 * distance(nudged[name], one[name])), (name, far)
        assert distance(first[name], again[name]) == 0, name
        assert distance(first[name], begun[name]) > 1e-5, f"{name} does not move, so nothing was compared"
    assert sum(value < 1e-5 for value in far.values()) >= 4, far


def test_in_bfloat16_losses_are_those_of_one_process_to_its_rounding(tmp_path: Path) -> None:
    one, two = (steps(count, tmp_path / str(count), CHOSEN, double=False, precision="bf16", lr=1e-5)[0] for count in (1, 2))
    for name in CHOSEN:
        assert two[name]["whole"] == [], name
        for mine, theirs in zip(two[name]["losses"], one[name]["losses"], strict=True):
            assert mine == pytest.approx(theirs, rel=0.02, abs=0.02), name


def test_networks_that_compare_images_are_found_and_computed_whole(tmp_path: Path) -> None:
    """A discriminator that reads the batch's spread, and a network that returns its loss, need nothing of their authors."""
    alone = steps(1, tmp_path / "one", ODD)[0]
    found = steps(2, tmp_path / "two", ODD)[0]
    for name in ODD:
        assert distance(found[name], alone[name]) < 1e-9, name
    assert found["comparing"]["whole"] == ["compared.forward"]
    assert found["scalar"]["whole"] == ["scored.forward"]
    assert found["drop_path"]["whole"] == []
    assert found["reversed"]["whole"] == found["in_place"]["whole"] == ["all"]  # the first step is compared with one made whole
    assert found["centred"]["whole"] in (["all"], ["head.forward"])


def test_parts_of_a_batch_are_shared_too(tmp_path: Path) -> None:
    """With `accumulate`, and with a last batch that has fewer images than there are processes."""
    changes = {"recipe": {"cgan_color": {"accumulate": 2}}, "batch": 6}
    alone, found = (steps(count, tmp_path / str(count), ("cgan_color",), **changes)[0] for count in (1, 3))
    assert distance(found["cgan_color"], alone["cgan_color"]) < 1e-9
    alone, found = (steps(count, tmp_path / f"small-{count}", ("l1_color",), batch=2)[0] for count in (1, 3))
    assert distance(found["l1_color"], alone["l1_color"]) < 1e-9
