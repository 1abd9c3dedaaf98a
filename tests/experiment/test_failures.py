"""What a run refuses, and what it says: mistakes, losses that are no number, damaged files."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import record
from bench.errors import DataError
from bench.experiment import figure7
from bench.storage import files
from tests.conftest import reseal

Bench = Callable[..., "object"]

BROKEN = """
from pretexts.l1_color import L1Color
from bench.contract import Pretext

class Broken(Pretext):
    def optimizers(self): return L1Color.optimizers(self)
    def make_batch(self, images, generator): return {"images": images}
    def training_step(self, batch):
        seen = self.trunk.preprocessing(batch["images"])
        yield "generator", self.trunk(seen).mean() * float("nan")
"""


def test_a_loss_that_is_not_a_number_fails_its_run_and_no_other(tiny: Bench, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text('"""Broken."""\n' + BROKEN)
    alone = tiny("--plugin", tmp_path / "broken.py", "--pretext", "broken", "--downstream", "voc_seg")
    assert alone.code == 1
    assert "the loss of generator is nan at step 1" in alone.err and "Traceback" not in alone.err
    both = tiny("--plugin", tmp_path / "broken.py", "--pretext", "broken,random_init", "--downstream", "voc_seg")
    assert both.code == 5
    assert {one.pretext for one in record.read(tmp_path / "runs")} == {"random_init"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--pretext", "cgan_colour"), 2, "did you mean 'cgan_color'"),
        (("--downstream", "voc_sek"), 2, "did you mean 'voc_seg'"),
        (("--protocol", "papers"), 2, "did you mean 'paper'"),
        (("--set", "recipe.lrr=1"), 2, "did you mean 'lr'"),
        (("--set", "recipe.lr=-1"), 2, "takes more than 0, but got -1"),
        (("--set", "protocol.batch_size=many"), 2, "batch_size"),
        (("--set", "protocol.batch_size=NaN"), 2, "batch_size"),
        (("--set", 'protocol.fit=["test"]'), 2, "never trained on"),
        (("--set", "protocol.resize=crop"), 2, "needs augment"),
        (("--set", 'protocol.metrics=["miou"]'), 2, "unknown metric"),
        (("--set", 'protocol.metrics=["map_voc"]'), 2, "is no metric of voc_seg"),
        (("--set", "recipe.lr=Infinity"), 2, "finite number"),
        (("--set", "protocol.size=64"), 2, "contradict each other"),
        (("--set", "voc_seg.size=64"), 2, "contradict each other"),
        (("--set", "voc_seg.trunk=unet"), 2, "one trunk serves every downstream task"),
        (("--set", "voc_set.size=64"), 2, "did you mean 'voc_seg'"),
        (("--set", "protocol.split_scheme=pretraining"), 2, "must be one of labelled images"),
        (("--trunk", "timm:resnet19"), 2, "did you mean 'resnet"),
        (("--device", "cpu:3"), 2, "auto, cpu, cuda or cuda:N"),
        (("--downstream", ","), 2, "at least one of the downstreams"),
        (("--schedule", "one-phase", "--set", 'protocol.schedules={"two-phase": []}'), 2, "has no one-phase schedule"),
        (("--set", "lr=1"), 2, "owner.name=value"),
        (("--size", "40"), 2, "multiples of 32"),
        (("--trunk", "unet:depth=6,width=8", "--size", "32"), 2, "multiples of 64"),
        (("--device", "gpu"), 2, "auto, cpu, cuda or cuda:N"),
        (("--schedule", "three-phase"), 2, "unknown schedule"),
        (("--seed", "1", "--seeds", "2"), 2, "one of the two"),
        (("--seeds", "0"), 2, "at least 1 seed"),
        (("--seeds", "two"), 2, "a number of seeds"),
        (("--seeds", "²,3"), 2, "a number of seeds"),
        (("--seeds", "99999999999999999999"), 2, "a number of seeds"),
        (("--seeds", "100000000"), 2, "at most 1000 seeds"),
        (("--transfer", "decoder"), 2, "'decoder'"),
        (("--labels", ","), 2, "at least one share"),
        (("--rates", "nan,1"), 2, "but got nan"),
        (("--vary", "nothing"), 2, "unknown kind of variation"),
        (("--transfer", "decoder"), 2, "unknown transfer"),
        (("--labels", "0"), 2, "above 0 and at most 1"),
        (("--labels", "ten"), 2, "comma-separated numbers"),
        (("--rates", "1e-3"), 2, "2 rates above 0, one for each phase of the schedule two-phase, but got 0.001"),
        (("--rates", "1e-3,-1"), 2, "2 rates above 0"),
        (("--rates", "1e-3,1e-3", "--tune", "2"), 2, "one of the two"),
        (("--space", "head=1e-4:1e-3"), 2, "belong to a search"),
        (("--log", "csvs"), 2, "unknown log"),
        (("--data", "nowhere"), 2, "unknown data set 'nowhere'"),
        (("--data", "/no/where"), 3, "no such folder"),
        (("--plugin", str(Path(__file__).parent)), 2, "not a Python file"),
        (("--set", "recipe.lrr=1"), 2, "unknown setting 'lrr' of the recipe; did you mean 'lr'?"),
        (("--protocol", "demoo"), 2, "unknown protocol 'demoo' of voc_seg"),
        (("--plugin", "/no/where.py"), 2, "no such Python file"),
        (
            (
                "--downstream",
                "voc_cls",
                "--set",
                "protocol.resize=crop",
                "--set",
                "protocol.augmentation=crop",
                "--set",
                "protocol.evaluate_on=whole",
            ),
            2,
            "evaluate_on=whole is for tasks with masks",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_an_exit_code(tiny: Bench, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = tiny("--pretext", "l1_color", "--downstream", "voc_seg", *arguments)
    assert done.code == code
    assert message in done.err
    assert done.err.startswith("bench: ") and done.err.count("\n") == 1


def test_an_unwritable_output_folder_fails_at_once(tiny: Bench, tmp_path: Path) -> None:
    done = tiny("--pretext", "l1_color", "--downstream", "voc_seg", "--out", "/proc/runs")
    assert done.code == 4 and "cannot write in" in done.err


def test_damaged_weights_are_refused(tiny: Bench, tmp_path: Path) -> None:
    assert tiny("--pretext", "l1_color", "--downstream", "voc_seg").code == 0
    (path,) = (tmp_path / "runs" / "pretrained").glob("*/pretext.safetensors")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    done = tiny("--pretext", "l1_color", "--downstream", "voc_cls")
    assert done.code == 3 and "its SHA-256 is not the recorded one" in done.err
    path.unlink()
    done = tiny("--pretext", "l1_color", "--downstream", "voc_cls")
    assert done.code == 3 and "is missing; remove its folder" in done.err
    (path.parent / "pretrain.json").unlink()
    assert tiny("--pretext", "l1_color", "--downstream", "voc_cls").code == 0


def test_a_record_that_a_dead_process_was_writing_is_none(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    assert tiny("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen").code == 0
    (one,) = record.read(tmp_path / "runs")
    runs_folder = tmp_path / "runs" / "runs"
    left = runs_folder / f"{files.TEMPORARY}1-1-{one.id}"
    shutil.copytree(runs_folder / one.id, left)
    (left / "record.json").write_text('{"sha256": "half of a reco')
    done = bench("report", "--out", tmp_path / "runs")
    assert done.code == 0, done.err
    assert bench("show", one.id[:20], "--out", tmp_path / "runs").code == 0


def test_damaged_records_and_predictions_are_refused(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    assert tiny("--pretext", "random_init", "--downstream", "voc_seg", "--schedule", "one-phase").code == 0
    (folder,) = (tmp_path / "runs" / "runs").iterdir()
    (folder / "predictions.npz").write_bytes(b"x")
    done = bench("report", "--out", tmp_path / "runs", "--metric", "pixel_acc")
    assert done.code == 3 and "predictions.npz is damaged" in done.err
    text = (folder / "record.json").read_text()
    (folder / "record.json").write_text(
        text.replace('"miou_voc@1": 0.0', '"miou_voc@1": 0.1', 1).replace('"seed": 0', '"seed": 1', 1)
    )
    done = bench("report", "--out", tmp_path / "runs")
    assert done.code == 3 and "record.json is damaged: its SHA-256 is not the one it begins with; remove its folder" in done.err
    (folder / "record.json").write_text(text)
    reseal(folder / "record.json", lambda record: {**record, "version": 1})
    done = bench("report", "--out", tmp_path / "runs")
    assert done.code == 3 and "it has version 1, and this program reads version 4; remove its folder" in done.err
    (folder / "record.json").write_text("{")
    done = bench("report", "--out", tmp_path / "runs")
    assert done.code == 3 and "is not a record" in done.err
    again = tiny("--pretext", "random_init", "--downstream", "voc_seg,voc_cls", "--schedule", "one-phase")
    assert again.code == 5 and "is not a record" in again.err
    (folder / "record.json").unlink()
    assert tiny("--pretext", "random_init", "--downstream", "voc_seg", "--schedule", "one-phase").code == 0
    assert len(record.read(tmp_path / "runs")) == 2


def test_a_damaged_image_of_the_progress_is_named_with_the_way_out(tmp_path: Path) -> None:
    """The images of a pretext task's progress lie in the working folder until the trunk is published."""
    kept = tmp_path / "work" / "images"
    figure7.keep(kept, 1, {"input": np.zeros((2, 3, 8, 8), np.uint8), "learned": np.ones((2, 3, 8, 8), np.uint8)})
    figure7.draw(kept, tmp_path / "whole.png")
    assert Image.open(tmp_path / "whole.png").height == 2 * (8 + figure7.MARGIN)
    (kept / "epoch 1.png").write_bytes((kept / "epoch 1.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"epoch 1\.png does not decode; remove .*images, and the trunk gets no figure7\.png"):
        figure7.draw(kept, tmp_path / "figure7.png")


def test_images_to_pretrain_on_that_nothing_uses_are_said(tiny: Bench, drawn: dict[str, Path], tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--set", "protocol.head_width=0")
    assert "--pretrain-data is not used" in tiny(*asked).out
    assert {one.provenance["pretrain_data"] for one in record.read(tmp_path / "runs")} == {None}


def test_a_name_that_looks_like_markup_is_planned_as_it_is(tiny: Bench, tmp_path: Path) -> None:
    path = tmp_path / "[red]x.py"
    path.write_text((Path(__file__).parents[2] / "pretexts" / "l1_color.py").read_text())
    planned = tiny("--plugin", path, "--pretext", "[red]x", "--downstream", "voc_cls", "--plan")
    assert planned.code == 0 and "[red]x-" in planned.out, planned.err
