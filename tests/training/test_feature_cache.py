"""What is computed once is what would be computed each time, to the bit; and nothing is computed twice."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bench import record
from bench.config import MachineConfig
from bench.data import batches, packs
from bench.experiment import finetuning, pretraining
from bench.models.network import Model
from bench.models.trunk import make_trunk
from bench.training import feature_cache, loop
from bench.training.feature_cache import Cache
from bench.training.machine import make_machine
from downstream.voc_cls import VocCls
from downstream.voc_seg import VocSeg
from tests.conftest import write_rows

Bench = Callable[..., object]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the images that a frozen trunk looks at."""
    counted: list[int] = []
    look = Model.frozen_features
    monkeypatch.setattr(Model, "frozen_features", lambda model, images: counted.append(len(images)) or look(model, images))
    return counted


def weights(out: Path) -> dict[str, tuple[str, str]]:
    return {one.id: (one.weights, one.predictions) for one in record.read(out)}


def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cache, "_room", lambda cache: 0)
    monkeypatch.setattr(Cache, "_disk", lambda cache: 0)


ASKED = ("--pretext", "l1_color", "--downstream", "all", "--schedule", "frozen,two-phase")


@pytest.mark.parametrize("place", ["memory", "file"])
def test_runs_with_features_kept_and_computed_anew_are_equal_to_the_bit(
    place: str, tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: list[int]
) -> None:
    with monkeypatch.context() as patch:
        no_room(patch)
        assert tiny(*ASKED, "--out", tmp_path / "plain").code == 0
    plain = sum(looks)
    looks.clear()
    if place == "file":
        monkeypatch.setattr(Cache, "_room", lambda cache: 0)
    assert tiny(*ASKED, "--out", tmp_path / "kept").code == 0
    assert weights(tmp_path / "kept") == weights(tmp_path / "plain")
    assert sum(looks) < plain / 2
    assert not (tmp_path / "kept" / "work").exists() or not list((tmp_path / "kept" / "work").iterdir())


def test_a_search_looks_once_at_each_image_and_chooses_as_it_would_without(
    tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: list[int]
) -> None:
    asked = ("--pretext", "l1_color", "--downstream", "voc_cls", "--schedule", "frozen", "--tune", "3")
    with monkeypatch.context() as patch:
        no_room(patch)
        assert tiny(*asked, "--out", tmp_path / "plain").code == 0
    looks.clear()
    assert tiny(*asked, "--out", tmp_path / "kept").code == 0
    (plain,), (kept,) = record.read(tmp_path / "plain"), record.read(tmp_path / "kept")
    assert (kept.weights, kept.predictions, kept.tuning.best) == (plain.weights, plain.predictions, plain.tuning.best)
    assert [trial.epochs for trial in kept.tuning.trials] == [trial.epochs for trial in plain.tuning.trials]
    assert sum(looks) == kept.data.counts["train"] + kept.data.counts["test"]


def test_trials_with_one_rate_for_the_head_train_it_once(tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("--pretext", "l1_color", "--downstream", "voc_cls", "--tune", "3", "--space", "head=1e-3")
    begun: list[str] = []
    original = loop.train

    def counted(stage: object, *rest: object) -> object:
        begun.append(stage.name)
        return original(stage, *rest)

    monkeypatch.setattr(finetuning, "train", counted)
    with monkeypatch.context() as patch:
        patch.setattr(Cache, "state", lambda cache, key: None)
        assert tiny(*asked, "--out", tmp_path / "plain").code == 0
    assert sum("phase 1" in name for name in begun) == 4
    begun.clear()
    assert tiny(*asked, "--out", tmp_path / "kept").code == 0
    assert sum("phase 1" in name for name in begun) == 2  # once for the search, once with the validation images
    (plain,), (kept,) = record.read(tmp_path / "plain"), record.read(tmp_path / "kept")
    assert (kept.weights, kept.predictions, kept.tuning.best) == (plain.weights, plain.predictions, plain.tuning.best)
    assert [trial.epochs for trial in kept.tuning.trials] == [trial.epochs for trial in plain.tuning.trials]
    assert kept.losses == plain.losses
    assert kept.tuning.space["phase-1"] == (1e-3, 1e-3)


def test_the_run_that_a_search_has_trained_already_is_not_trained_again(
    tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--pretext", "l1_color", "--downstream", "voc_cls", "--tune", "2", "--set", 'protocol.fit=["train"]')
    with monkeypatch.context() as patch:
        patch.setattr(Cache, "state", lambda cache, key: None)
        assert tiny(*asked, "--out", tmp_path / "plain").code == 0
    begun: list[str] = []
    original = loop.train
    monkeypatch.setattr(finetuning, "train", lambda stage, *rest: begun.append(stage.name) or original(stage, *rest))
    assert tiny(*asked, "--out", tmp_path / "kept").code == 0
    assert len(begun) == 4, "two phases of two trials, and none for the run with the best rates"
    assert weights(tmp_path / "kept") == weights(tmp_path / "plain")


def test_a_trunk_is_pretrained_once_whatever_is_done_with_it(
    tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    original = loop.train
    monkeypatch.setattr(pretraining, "train", lambda stage, *rest: begun.append(stage.name) or original(stage, *rest))
    asked = ("--pretext", "l1_color", "--downstream", "all", "--labels", "0.5,1", "--tune", "1", "--seeds", "2")
    assert tiny(*asked, "--set", "recipe.epochs=1").code == 0
    assert begun == ["pretrain l1_color"] * 2, "one for each seed: 2 tasks, 2 shares of labels and trials share it"


def test_a_trunk_that_was_trained_before_it_was_frozen_has_features_of_its_own(
    tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = '[{"train":"head","epochs":2,"lr":1e-3},{"train":"all","epochs":1,"lr":1e-3},{"train":"head","epochs":2,"lr":1e-3}]'
    changed = ("--set", f'protocol.schedules={{"two-phase":{phases}}}', "--seeds", "2", "--vary", "finetune")
    asked = ("--pretext", "l1_color", "--downstream", "voc_cls", *changed)
    with monkeypatch.context() as patch:
        no_room(patch)
        assert tiny(*asked, "--out", tmp_path / "plain").code == 0
    assert tiny(*asked, "--out", tmp_path / "kept").code == 0
    assert len(weights(tmp_path / "kept")) == 2 and weights(tmp_path / "kept") == weights(tmp_path / "plain")


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_features_are_not_kept_where_an_image_depends_on_its_batch(
    statistics: str, tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str] = []
    with_features = Cache.with_features
    monkeypatch.setattr(Cache, "with_features", lambda cache, *rest: kept.append("") or with_features(cache, *rest))
    changed = ("--set", f"protocol.statistics={statistics}", "--set", "protocol.augmentation=flip")
    assert tiny("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen", *changed).code == 0
    assert not kept


@pytest.mark.parametrize("name", ["unet:depth=5,width=8", "unet:depth=6,width=16", "timm:resnet18,preprocessing=rgb"])
@pytest.mark.parametrize("task", [VocCls, VocSeg])
def test_an_image_has_the_same_features_beside_any_others(name: str, task: type) -> None:
    torch.manual_seed(0)
    trunk = make_trunk(name)
    protocol = task.protocols["demo"].model_copy(update={"batch_size": 8})
    downstream = task(protocol, 20)
    model = Model(trunk, downstream.head(trunk, 64), downstream)
    model.set_mode("head")
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (21, 64, 64, 3), dtype=np.uint8)).permute(0, 3, 1, 2)
    whole = torch.cat([model.frozen_features(images[first : first + 8]) for first in range(0, 21, 8)])
    shuffled = torch.randperm(21)
    for size in (8, 5, 1):
        found = torch.cat([model.frozen_features(images[shuffled[first : first + size]]) for first in range(0, 21, size)])
        assert torch.equal(found, whole[shuffled])


def test_images_in_memory_are_those_on_the_disk(tmp_path: Path) -> None:
    pack = _pack(tmp_path)
    labels = np.random.default_rng(1).integers(0, 2, (5, 20)).astype(np.int8)
    for options in ({"labels": labels}, {"masked": True}):
        part = batches.SplitData(pack, np.array([4, 0, 3, 1, 2]), **options)
        held = batches.resident(part, torch.device("cpu"))
        assert held.cached
        for positions in (np.array([2, 0]), np.array([1, 4, 3])):
            plain, ready = part[0, positions], held[0, positions]
            assert plain.keys() == ready.keys()
            for key in plain:
                assert torch.equal(plain[key], ready[key]) and plain[key].stride() == ready[key].stride()


def test_the_oldest_features_make_room_for_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cache, "_room", lambda cache: 900)
    cache = Cache(make_machine(MachineConfig(device="cpu", threads=1)), tmp_path)
    part = _part(tmp_path, 0, 1, 2, 3, 4)
    asked: list[int] = []
    for key, looks in (("a", 1), ("a", 1), ("b", 2), ("a", 3)):  # 600 bytes each
        assert "features" in cache.with_features(part, key, _counting(asked), 5).cached
        assert len(asked) == looks


@pytest.mark.parametrize("room", [10_000, 0])
def test_only_images_that_no_split_has_shown_are_with_features(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cache, "_room", lambda cache: room)
    cache = Cache(make_machine(MachineConfig(device="cpu", threads=1)), tmp_path / "work")
    asked: list[int] = []
    first = cache.with_features(_part(tmp_path, 3, 1), "a", _counting(asked), 2)
    second = cache.with_features(_part(tmp_path, 0, 3, 4), "a", _counting(asked), 2)
    assert (
        asked == [2, 2]
        and len(cache.with_features(_part(tmp_path, 4, 3, 1, 0), "a", _counting(asked), 2)) == 4
        and len(asked) == 2
    )
    for held, rows in ((first, (3, 1)), (second, (0, 3, 4))):
        plain = _part(tmp_path, *rows)
        positions = np.arange(len(rows))[::-1].copy()
        expected = plain[0, positions]
        found = held[0, positions]
        assert torch.equal(found["features"], expected["images"].float().flatten(1)[:, :30])
        assert torch.equal(found["target"], expected["target"])


def _counting(asked: list[int]) -> Callable[[Tensor], Tensor]:
    def see(images: Tensor) -> Tensor:
        asked.append(len(images))
        return images.float().flatten(1)[:, :30]

    return see


def _part(folder: Path, *rows: int) -> batches.SplitData:
    labels = np.random.default_rng(2).integers(0, 2, (5, 20)).astype(np.int8)
    return batches.SplitData(_pack(folder), np.array(rows), labels=labels[list(rows)])


def test_a_file_of_features_leaves_nothing_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cache, "_room", lambda cache: 0)
    cache = Cache(make_machine(MachineConfig(device="cpu", threads=1)), tmp_path / "work")
    held = cache.with_features(_part(tmp_path, 0, 1, 2, 3, 4), "a", _counting([]), 2)
    assert isinstance(held.cached["features"].rows, feature_cache.InFile)
    assert not list((tmp_path / "work").iterdir())


def test_a_disk_that_fills_up_costs_time_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cache, "_room", lambda cache: 0)
    cache = Cache(make_machine(MachineConfig(device="cpu", threads=1)), tmp_path / "work")
    part = _part(tmp_path, 0, 1, 2, 3, 4)
    make = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Path("/dev/full").open("wb"))  # noqa: SIM115
    assert not cache.with_features(part, "a", _counting([]), 2).cached
    monkeypatch.setattr(tempfile, "TemporaryFile", make)
    assert cache.with_features(part, "a", _counting([]), 2).cached


def _pack(folder: Path) -> packs.Pack:
    """Write a pack of five random images of 8 px with masks."""
    random = np.random.default_rng(0)
    arrays = {"images": random.integers(0, 256, (5, 8, 8, 3)), "masks": random.integers(0, 21, (5, 8, 8))}
    written = {name: write_rows(folder / f"{name}.npy", array.astype(np.uint8)) for name, array in arrays.items()}
    sums = {name: digest for name, (_, digest) in written.items()}
    manifest = packs.Manifest(
        dataset="made", fingerprint="", subset="images", rule=packs.PackRule(size=8), side=8,
        ids=tuple("abcde"), content=((8, 8),) * 5, original=((8, 8),) * 5, sums=sums,
    )  # fmt: skip
    return packs.Pack(folder, manifest, written["images"][0], written["masks"][0], None)


def test_features_before_and_after_statistics_are_measured_are_not_mixed_up(tiny: Bench, tmp_path: Path) -> None:
    """Two shares of the labels measure the statistics of one trunk on different images, in one command."""
    phases = '{"two-phase": [{"train": "head", "epochs": 3, "lr": 0.01}, {"train": "all", "epochs": 1, "lr": 0.001}]}'
    asked = ("--pretext", "random_init", "--downstream", "voc_seg", "--schedule", "two-phase")
    asked += ("--set", f"protocol.schedules={phases}")
    assert tiny(*asked, "--labels", "0.5,1").code == 0
    assert tiny(*asked, "--out", tmp_path / "alone").code == 0
    (whole,) = [one for one in record.read(tmp_path / "runs") if one.job.labels == 1]
    (alone,) = record.read(tmp_path / "alone")
    assert (whole.weights, whole.predictions) == (alone.weights, alone.predictions)
