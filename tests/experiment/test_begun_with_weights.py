"""TASK@LABEL: a pretext task that begins with the weights of an --init, through the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from bench import record
from bench.cli.screen import Screen
from bench.config import MachineConfig, RunConfig
from bench.experiment import estimate
from bench.experiment.reproduction import command, reproduce
from bench.experiment.resolve import resolve
from bench.record import Record
from tests.experiment.test_rows_from_elsewhere import HALF, RESNET, weights

Run = Callable[..., "object"]
__all__ = ["weights"]
ASKED = (*RESNET, "--downstream", "voc_cls", "--evaluate", "knn", "--set", "recipe.epochs=1")


def of_rows(folder: Path) -> dict[str, Record]:
    return {one.pretext: one for one in record.read(folder)}


def trunk_of(folder: Path, one: Record) -> dict[str, torch.Tensor]:
    stored = load_file(folder / "pretrained" / one.pretrain.id / "pretext.safetensors")
    return {name.removeprefix("trunk."): tensor for name, tensor in stored.items() if name.startswith("trunk.")}


def test_a_task_begins_with_the_weights_and_its_row_says_so(tiny: Run, bench: Run, tmp_path: Path, weights: Path) -> None:
    rows = "random_init,frozen_color@mine,frozen_color,l1_color@mine,chroma_gan@mine,chroma_gan"
    done = tiny("--pretext", rows, "--init", f"mine={weights},{HALF}", *ASKED)
    assert done.code == 0, done.err
    runs, found = tmp_path / "runs", of_rows(tmp_path / "runs")
    assert set(found) == {*rows.split(","), "mine"}
    given = trunk_of(runs, found["mine"])
    encoder = [name for name in given if name.startswith("down.")]
    for name in encoder:
        assert torch.equal(trunk_of(runs, found["frozen_color@mine"])[name], given[name]), "frozen: those of the file to the bit"
    moved = trunk_of(runs, found["l1_color@mine"])
    assert any(not torch.equal(moved[name], given[name]) for name in encoder)
    assert not torch.equal(trunk_of(runs, found["frozen_color"])["down.conv1.0.weight"], given["down.conv1.0.weight"])
    copied = load_file(runs / "pretrained" / found["chroma_gan@mine"].pretrain.id / "pretext.safetensors")
    assert torch.equal(copied["clusters.network.network.down.conv1.0.weight"], given["down.conv1.0.weight"]), (
        "what a task copies of its trunk is what it begins with"
    )

    labels = {name: one.pretrain.supervision for name, one in found.items()}
    assert {name for name, said in labels.items() if said == "ImageNet-1k labels"} == {name for name in found if "mine" in name}
    assert labels["chroma_gan"] == labels["frozen_color"] == labels["random_init"] == "none"
    report = bench("report", "--out", runs).out
    assert "frozen_color@mine (frozen; ImageNet-1k labels)" in report or "frozen_color@mine (ImageNet-1k labels)" in report
    board = json.loads(bench("report", "--out", runs, "--json").out)["leaderboard"]
    assert {row["pretext"]: row["supervision"] for row in board} == labels


def test_its_id_follows_the_weights_and_not_their_label(tiny: Run, tmp_path: Path, weights: Path) -> None:
    assert tiny("--pretext", "l1_color@mine", "--init", f"mine={weights},{HALF}", *ASKED).code == 0
    again = tiny("--pretext", "l1_color@yours", "--init", f"yours={weights},{HALF}", *ASKED)
    assert again.code == 0 and again.out.count("finished before") == 2
    assert len(list((tmp_path / "runs" / "pretrained").glob("l1_color-*"))) == 1


def test_seeds_vary_its_training(tiny: Run, tmp_path: Path, weights: Path) -> None:
    assert tiny("--pretext", "l1_color@mine", "--init", f"mine={weights},{HALF}", *ASKED, "--seeds", "2").code == 0
    runs = [one for one in record.read(tmp_path / "runs") if one.pretext == "l1_color@mine"]
    assert len({one.pretrain.id for one in runs}) == 2
    first, second = (trunk_of(tmp_path / "runs", one) for one in runs)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_it_is_made_again_by_its_own_command_and_by_reproduce(tiny: Run, tmp_path: Path, weights: Path) -> None:
    assert tiny("--pretext", "frozen_color@mine", "--init", f"mine={weights},{HALF}", *ASKED).code == 0
    one = of_rows(tmp_path / "runs")["frozen_color@mine"]
    words = command(one)
    assert words[words.index("--pretext") + 1] == "frozen_color@mine" and any(word.startswith("mine=") for word in words)
    made = reproduce(one, tmp_path / "again", MachineConfig(threads=1, device="cpu"), Screen())
    assert made.pretrain.weights == one.pretrain.weights and made.metrics == one.metrics


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("l1_color@other", "unknown label 'other' of --init"),
        ("random_init@mine", "random_init trains nothing, so random_init@mine would be the row mine again"),
        ("l1_color@", "NAME@LABEL, which begins with the weights of --init LABEL"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(rows: str, said: str, tiny: Run, tmp_path: Path, weights: Path) -> None:
    done = tiny("--pretext", rows, "--init", f"mine={weights},{HALF}", *ASKED)
    assert done.code == 2 and said in done.err, done.err
    assert not (tmp_path / "runs" / "pretrained").exists()


@pytest.mark.parametrize("row", ["l1_color:shuffled@mine:encoder", "l1_color@mine:shuffled"])
def test_a_label_and_a_part_may_both_be_asked_for(row: str, tiny: Run, tmp_path: Path, weights: Path) -> None:
    done = tiny("--pretext", row, "--init", f"mine={weights},{HALF}", *ASKED)
    assert done.code == 0, done.err
    assert "l1_color:shuffled@mine" in of_rows(tmp_path / "runs")


def test_a_recipe_trains_on_as_many_images_as_it_says(tiny: Run, tmp_path: Path) -> None:
    asked = ("--downstream", "voc_cls", "--evaluate", "knn", "--set", "recipe.epochs=2")
    for count in (16, 24):
        assert tiny("--pretext", "l1_color", *asked, "--set", f"recipe.images={count}").code == 0
    counts = {one.pretrain.recipe["images"]: one.pretrain for one in record.read(tmp_path / "runs")}
    assert {images: one.data.counts["train"] for images, one in counts.items() if one.data} == {16: 16, 24: 24}
    assert [counts[16].cost.images, counts[24].cost.images] == [32, 48]
    refused = tiny("--pretext", "l1_color", *asked, "--set", "recipe.images=100000")
    assert refused.code == 2 and "asks for 100,000 images to train on, but there are" in refused.err


def test_of_two_counts_the_larger_has_the_images_of_the_smaller() -> None:
    from bench.experiment.pretraining import chosen

    ids = [str(number) for number in range(100)]
    few, many = chosen(ids, 10), chosen(ids, 40)
    assert len(few) == 10 and len(many) == 40 and set(few) < set(many) and many == sorted(many, key=int)
    assert chosen(ids, None) == ids


def test_a_task_knows_how_much_of_its_training_is_done(tiny: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import registry

    task, seen = registry.load("pretexts", "l1_color"), []
    step = task.training_step

    def spied(self: object, batch: object) -> object:
        seen.append(self.progress)  # type: ignore[attr-defined]
        return step(self, batch)

    monkeypatch.setattr(task, "training_step", spied)
    asked = ("--downstream", "voc_cls", "--evaluate", "knn", "--set", "recipe.epochs=2", "--set", "recipe.images=16")
    assert tiny("--pretext", "l1_color", *asked).code == 0
    assert seen[-4:] == [0.0, 0.25, 0.5, 0.75]


def test_a_collapsed_network_is_said_below_the_table(
    tiny: Run, bench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import registry

    moco = registry.load("pretexts", "moco")
    monkeypatch.setattr(moco, "project", lambda self, features: features[:, :1].expand(-1, 16) * 0 + 1)
    small = [f"moco.{name}" for name in ("projector_width=16", "projector_channels=16", "queue=16", "epochs=1")]
    asked = [word for setting in small for word in ("--set", setting)]
    assert tiny("--pretext", "moco", "--downstream", "voc_cls", "--evaluate", "knn", *asked).code == 0
    said = "moco: it may have collapsed: the spread of its outputs over images is"
    assert said in bench("report", "--out", tmp_path / "runs").out


def test_a_plan_counts_the_images_that_a_recipe_trains_on(drawn: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """With steps of one second, 16 images in batches of 8 take 2 of them an epoch, before scoring."""
    monkeypatch.setattr(estimate, "pretext_kind", lambda *facts: "")

    def seconds(*settings: str) -> float:
        config = RunConfig(
            pretext=("l1_color",), downstream=("voc_cls",), protocol="demo", size=32, data=str(drawn["demo"]),
            pretrain_data=str(drawn["demo_unlabelled"]), set=("recipe.batch_size=8", *settings),
        )  # fmt: skip
        grid = resolve(config, lambda text: None)
        times = SimpleNamespace(step=lambda kind, batch: 1.0)
        asked = SimpleNamespace(grid=grid, times=times, machine=None)
        return estimate.Estimate.pretraining(asked, grid.jobs[0])  # type: ignore[arg-type]

    few = [seconds("recipe.images=16", f"recipe.epochs={epochs}") for epochs in (1, 11)]
    assert few[1] - few[0] == pytest.approx(20)
    assert seconds("recipe.epochs=11") - seconds("recipe.epochs=1") > 20
