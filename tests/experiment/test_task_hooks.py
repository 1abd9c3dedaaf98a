"""What a pretext task says of itself reaches its training: priors, larger images, patch sizes, schedules, controls."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bench import record

Bench = Callable[..., Any]
QUICK = ("--downstream", "voc_cls", "--schedule", "frozen", "--set", "recipe.epochs=1")
FEEDING = '''"""Feeds crops of a side that no trunk of stride 32 takes."""
from pretexts.l1_color import L1Color as Base
class Cropped(Base):
    @classmethod
    def feeds(cls, recipe, size, smallest):
        return {"crops": size + 1}
'''


def weights(folder: Path, one: Any) -> dict[str, torch.Tensor]:
    return load_file(folder / "pretrained" / one.pretrain.id / "pretext.safetensors")


def test_priors_are_measured_on_the_training_images_before_training(tiny: Bench, tmp_path: Path) -> None:
    assert tiny("--pretext", "class_color", *QUICK).code == 0
    (one,) = record.read(tmp_path / "runs")
    prior = weights(tmp_path / "runs", one)["bins.prior"]
    assert prior.sum() == pytest.approx(1, abs=1e-4) and prior.max() > 3 / len(prior), "not the uniform one that it begins with"


def test_a_task_that_crops_reads_larger_images(tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import registry

    task, seen = registry.load("pretexts", "simclr"), set()
    make_batch = task.make_batch

    def spied(self: Any, images: torch.Tensor, generator: torch.Generator) -> Any:
        batch = make_batch(self, images, generator)
        seen.add((images.shape[-1], batch["first"].shape[-1]))
        return batch

    monkeypatch.setattr(task, "make_batch", spied)
    done = tiny("--pretext", "simclr", *QUICK)
    assert done.code == 0 and seen == {(37, 32)}, done.err
    assert record.read(tmp_path / "runs")[0].pretrain.trains == "encoder"


def test_patches_that_the_trunk_does_not_take_are_refused_before_anything_is_trained(tiny: Bench, tmp_path: Path) -> None:
    plugin = tmp_path / "cropped.py"
    plugin.write_text(FEEDING)
    refused = tiny("--plugin", plugin, "--pretext", "cropped", *QUICK)
    assert refused.code == 2 and "cropped feeds crops of 33 px to the trunk" in refused.err
    assert not (tmp_path / "runs" / "pretrained").exists()


def test_a_plug_in_that_says_brings_is_told_the_new_name(tiny: Bench, tmp_path: Path) -> None:
    plugin = tmp_path / "older.py"
    plugin.write_text(FEEDING.replace("    @classmethod", '    brings = "encoder"\n    @classmethod'))
    refused = tiny("--plugin", plugin, "--pretext", "older", *QUICK)
    assert refused.code == 3 and "`brings`, which is called `trains` now" in refused.err


@pytest.mark.parametrize("changed", ["lr_schedule=step", "optimizer=sgd", "clip=1e-9", "warmup_epochs=1"])
def test_a_recipes_updates_are_those_of_the_pretraining(changed: str, tiny: Bench, tmp_path: Path) -> None:
    for settings in ((), ("--set", f"recipe.{changed}")):
        assert tiny("--pretext", "l1_color", *QUICK, *settings).code == 0
    usual, other = record.read(tmp_path / "runs")
    assert usual.pretrain.weights != other.pretrain.weights and usual.pretrain.id != other.pretrain.id


@pytest.mark.parametrize("changed", ["lr_schedule=cosine", "optimizer=sgd", "weight_decay=0.1", "accumulate=2"])
def test_a_protocols_updates_are_those_of_the_fine_tuning(changed: str, tiny: Bench, tmp_path: Path) -> None:
    for settings in ((), ("--set", f"voc_cls.{changed}", "--set", "voc_cls.head_width=8")):
        assert tiny("--pretext", "random_init", *QUICK[:4], "--set", "voc_cls.head_width=8", *settings).code == 0
    usual, other = record.read(tmp_path / "runs")
    assert usual.pretrain.id == other.pretrain.id and usual.weights != other.weights


def test_a_shuffled_control_is_a_row_that_is_made_again_by_its_own_command(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "rotation,rotation:shuffled", *QUICK, "--set", "rotation.lr=1e-3")
    assert tiny(*asked).code == 0
    plain, control = sorted(record.read(tmp_path / "runs"), key=lambda one: len(one.pretext))
    assert (plain.pretext, control.pretext) == ("rotation", "rotation:shuffled") and control.id.startswith("rotation-shuffled-")
    assert plain.pretrain.recipe == control.pretrain.recipe and control.pretrain.recipe["lr"] == 1e-3
    assert plain.pretrain.weights != control.pretrain.weights
    shown = bench("show", control.id, "--out", tmp_path / "runs").out
    assert "--pretext rotation:shuffled" in shown
    report = bench("report", "--out", tmp_path / "runs").out
    assert "rotation:shuffled" in report


@pytest.mark.parametrize(("trunk", "said"), [("unet:depth=5,width=8", True), ("unet:depth=5,width=8,preprocessing=rgb", False)])
def test_a_row_says_that_lightness_alone_weakens_a_contrastive_task(
    trunk: str, said: bool, tiny: Bench, bench: Bench, tmp_path: Path
) -> None:
    assert tiny("--pretext", "simclr,random_init", *QUICK, "--trunk", trunk).code == 0
    report = " ".join(bench("report", "--out", tmp_path / "runs").out.split())
    assert ("simclr: the trunk sees lightness alone, so of the jitter" in report) is said


def test_a_plug_in_whose_caveats_take_no_scores_is_told_so_before_training(tiny: Bench, tmp_path: Path) -> None:
    plugin = tmp_path / "older.py"
    body = "class Older(Base):\n    def caveats(self):\n        return ()\n"
    plugin.write_text(f'"""Of before."""\nfrom pretexts.l1_color import L1Color as Base\n{body}')
    refused = tiny("--plugin", plugin, "--pretext", "older", *QUICK)
    assert refused.code != 0 and "caveats() of the plug-in Older takes `scores`" in refused.err
    assert not (tmp_path / "runs" / "pretrained").exists()
