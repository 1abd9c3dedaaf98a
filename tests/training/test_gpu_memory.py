"""A GPU's memory: how much of it images and features may take, what is given back when it runs out, and the peak of a job."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import record
from bench.config import MachineConfig
from bench.data import batches
from bench.training import loop
from bench.training.feature_cache import FEATURES_SHARE, IMAGES_SHARE, Cache
from bench.training.machine import make_machine
from downstream.voc_cls import VocCls
from tests.standin import StandIn
from tests.training.test_feature_cache import _pack

Bench = Callable[..., Any]
SIZE = 5 * 8 * 8 * 3
"""The bytes of the five images of the pack."""


class Memory:
    """The memory of a GPU on which there are a network and what the cache holds, as torch would count it."""

    def __init__(self, cache: Cache, total: int) -> None:
        self.cache, self.total, self.network, self.kept, self.peak = cache, total, 500, 0, 0

    @property
    def allocated(self) -> int:
        self.peak = max(self.peak, self.network + self.cache.held())
        return self.network + self.cache.held()

    def reset(self) -> None:
        self.peak = 0
        self.peak = self.allocated

    def install(self, patch: pytest.MonkeyPatch) -> None:
        reserved = lambda device=None: self.allocated + self.kept  # noqa: E731
        patch.setattr(torch.cuda, "mem_get_info", lambda device=None: (self.total - reserved(), self.total))
        patch.setattr(torch.cuda, "memory_allocated", lambda device=None: self.allocated)
        patch.setattr(torch.cuda, "memory_reserved", reserved)
        patch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: max(self.allocated, self.peak))
        patch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device=None: self.reset())


def made(folder: Path, free: int, patch: pytest.MonkeyPatch) -> tuple[Cache, Memory]:
    """Return a cache on a GPU with `free` bytes beside the network."""
    cache = Cache(make_machine(MachineConfig(device="cuda")), folder / "work")
    memory = Memory(cache, free + 500)
    memory.install(patch)
    return cache, memory


def parts(folder: Path, count: int) -> list[batches.SplitData]:
    """Return splits of the same size, all different."""
    pack = _pack(folder)
    return [batches.SplitData(pack, np.roll(np.arange(5), number)) for number in range(count)]


def test_all_images_together_take_at_most_their_share(gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each split once took half of what the one before had left: four took 94 %."""
    cache, _ = made(tmp_path, 3 * SIZE * IMAGES_SHARE + 1, monkeypatch)
    cache.begin()
    assert [bool(cache.resident(part).cached) for part in parts(tmp_path, 4)] == [True, True, True, False]
    assert cache.held() == 3 * SIZE


def test_features_and_images_leave_the_rest_to_training(gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, memory = made(tmp_path, 4 * SIZE, monkeypatch)
    cache.begin()
    for part in parts(tmp_path, 2):
        cache.resident(part)
    labelled = dataclasses.replace(parts(tmp_path, 1)[0], labels=np.zeros((5, 2), np.int8))
    assert FEATURES_SHARE == 4
    for floats, fits in ((SIZE // 20 - 4, True), (SIZE // 20 + 4, False)):  # a quarter of 4 * SIZE bytes, for five images
        features = lambda images, floats=floats: torch.zeros(len(images), floats, device="cuda")  # noqa: E731
        assert bool(cache.with_features(labelled, f"of {floats}", features, 5).cached) is fits
    assert cache.held() < (memory.total - memory.network) * 3 / 4


def test_memory_that_torch_keeps_for_its_next_tensors_is_free(
    gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, memory = made(tmp_path, 4 * SIZE, monkeypatch)
    memory.kept = 4 * SIZE  # the driver says that nothing is free
    assert cache.resident(parts(tmp_path, 1)[0]).cached


def test_only_images_that_never_change_are_held(gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, _ = made(tmp_path, 1 << 30, monkeypatch)
    (part,) = parts(tmp_path, 1)
    assert cache.resident(part).cached
    assert not cache.resident(dataclasses.replace(part, augmentation="flip", size=8)).cached


def test_images_of_earlier_jobs_give_way_and_those_of_the_present_one_stay(
    gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, _ = made(tmp_path, 2 * SIZE * IMAGES_SHARE + 1, monkeypatch)
    first, second, third, fourth, fifth = parts(tmp_path, 5)
    cache.begin()
    assert cache.resident(first).cached and cache.resident(second).cached
    cache.begin()
    assert cache.resident(third).cached and cache.resident(fourth).cached
    held = set(cache.images)
    assert cache.held() == 2 * SIZE and not cache.resident(fifth).cached and set(cache.images) == held


def test_a_jobs_peak_memory_is_its_own_whatever_earlier_jobs_left(
    gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, memory = made(tmp_path, 2 * SIZE * IMAGES_SHARE + 1, monkeypatch)

    def job(*splits: batches.SplitData, activations: int) -> int:
        cache.begin()
        for split in splits:
            cache.resident(split)
        memory.network += activations
        _ = memory.allocated
        memory.network -= activations
        return cache.peak_memory()

    first, second, third = parts(tmp_path, 3)
    assert job(first, activations=4000) == 4500
    assert job(first, activations=100) == 600  # with images that an earlier job has copied
    assert job(second, third, activations=50) == 550  # after an earlier job's have been dropped
    assert job(activations=0) == 500
    few = dataclasses.replace(first, rows=first.rows[:1])
    assert job(few, activations=20) == 520  # after more has been dropped than was copied


def test_what_is_kept_is_given_back_when_memory_runs_out(gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, memory = made(tmp_path, 4 * SIZE, monkeypatch)
    (part,) = parts(tmp_path, 1)
    assert not cache.give_up(), "there is nothing to drop, and to try again would not help"
    assert cache.resident(part).cached and memory.allocated == 500 + SIZE
    assert cache.give_up() and memory.allocated == 500
    assert not cache.resident(part).cached and not cache.give_up()


def exhausted(patch: pytest.MonkeyPatch, when: Callable[[batches.SplitData], bool]) -> list[str]:
    """Let the GPU's memory run out in steps on some splits; return the list of the stages that it ran out in."""
    found: list[str] = []
    train = loop.train

    def training(stage: Any, split: batches.SplitData, *rest: Any) -> Any:
        if when(split):
            found.append(stage.name)
            stage.training_step = lambda batch: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried to ..."))
        return train(stage, split, *rest)

    for room in ("pretraining", "finetuning"):
        patch.setattr(f"bench.experiment.{room}.train", training)
    return found


def test_after_too_little_memory_a_run_is_tried_again_without_what_the_cache_keeps(
    gpu: StandIn, tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = exhausted(monkeypatch, lambda split: bool(split.cached))
    quick = ("--set", "recipe.epochs=1", "--schedule", "frozen")
    done = tiny("--device", "cuda", "--pretext", "l1_color,inpainting", "--downstream", "voc_cls", *quick)
    assert done.code == 0, done.err
    assert found == ["pretrain l1_color"], "the second run of the command keeps nothing either"
    assert done.out.count("out of memory; tried again without keeping images and features in memory") == 1
    assert len(record.read(tmp_path / "runs")) == 2


def test_a_run_that_lacks_memory_only_because_an_earlier_one_took_it_is_tried_again_once(
    tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """oneDNN cannot create a primitive now and then after another run ran out of memory, although there is enough again."""
    calls: list[str] = []
    features = VocCls.features

    def failing(task: VocCls, *rest: Any) -> Any:
        calls.append("features")
        if len(calls) == 1:
            raise RuntimeError("could not create a primitive")
        return features(task, *rest)

    monkeypatch.setattr(VocCls, "features", failing)
    quick = ("--set", "recipe.epochs=1", "--schedule", "frozen", "--downstream", "voc_cls", "--device", "cpu")
    alone = tiny("--pretext", "random_init", *quick)
    assert alone.code == 4 and calls == ["features"], "with no earlier run that ran out, to try again would not help"
    calls.clear()
    found = exhausted(monkeypatch, lambda split: "features" not in calls)
    done = tiny("--pretext", "l1_color,random_init", *quick)
    assert done.code == 5 and found == ["pretrain l1_color"] and done.out.count("out of memory; tried again") == 1, done.err
    assert [one.pretext for one in record.read(tmp_path / "runs")] == ["random_init"]


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_memory_that_is_too_little_all_the_same_is_one_sentence(
    device: str, gpu: StandIn, tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = exhausted(monkeypatch, lambda split: True)
    done = tiny("--device", device, "--pretext", "l1_color", "--downstream", "voc_cls")
    assert (done.code, len(found)) == (4, 2 if device == "cuda" else 1)
    assert "out of memory in pretrain l1_color with batches of 8; try a batch size of 4" in done.err and done.err.count("\n") == 1
