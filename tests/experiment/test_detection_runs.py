"""Detection from job to record: with a new decoder, with searched rates, at several shares of labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench
from bench import record
from bench.data.dataset import Dataset, ImageFile

TINY: dict[str, Any] = {
    "protocol": "demo", "trunk": "unet:depth=5,width=8", "size": 32, "threads": 1, "device": "cpu", "downstream": "detection",
}  # fmt: skip
SMALL = ["protocol.head_width=16", "protocol.pyramid_width=8", "protocol.proposals=8", "recipe.epochs=1"]


def run(drawn: dict[str, Path], out: Path, **more: Any) -> list[record.Record]:
    given = {"pretext": "random_init", "data": str(drawn["demo"]), "pretrain_data": str(drawn["demo_unlabelled"]), "set": SMALL}
    bench.run(**{**TINY, **given, "out": out, **more})
    return record.read(out)


@pytest.mark.parametrize("trunk", ["unet:depth=5,width=8", "timm:resnet10t"])
def test_a_row_that_brings_an_encoder_alone_is_trained_in_every_schedule(
    trunk: str, drawn: dict[str, Path], tmp_path: Path
) -> None:
    schedules = "one-phase,two-phase,frozen"
    found = run(drawn, tmp_path, trunk=trunk, transfer="encoder", schedule=schedules, epochs=2, size=64)
    assert len(found) == 3 and all(np.isfinite(one.losses[-1][-1]) for one in found)
    assert {one.job.frozen for one in found} == {"encoder" if trunk.startswith("unet") else "trunk"}


def test_rates_of_a_detector_are_searched(drawn: dict[str, Path], tmp_path: Path) -> None:
    (found,) = run(drawn, tmp_path, tune=2, schedule="frozen", epochs=1)
    assert found.tuning is not None and found.tuning.metric == "ap50_voc@1" and len(found.tuning.trials) == 2


def test_a_run_is_the_same_whatever_share_of_labels_came_before(drawn: dict[str, Path], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"pretext": "l1_color", "schedule": "frozen", "epochs": 2, "seed": 5}
    both = run(drawn, tmp_path / "both", labels="0.2,1", **settings)
    (alone,) = run(drawn, tmp_path / "alone", **settings)
    (same,) = [one for one in both if one.id == alone.id]
    assert same.losses == alone.losses and same.predictions == alone.predictions


def test_targets_of_all_splits_have_one_shape() -> None:
    one, more = ((0, 0.0, 0.0, 1.0, 1.0, 0),), tuple((0, 0.0, 0.0, 1.0, 1.0, 0) for _ in range(6))
    images = (ImageFile("a", "a.png"), ImageFile("b", "b.png"))
    dataset = Dataset(name="d", kind="coco", root=Path(), classes=("x",), images=images, boxes={"a": one, "b": more})
    assert dataset.boxes_of(["a"]).shape == dataset.boxes_of(["b"]).shape == (1, 6, 6)
    assert dataset.boxes_of(["a"])[0, :, 0].tolist() == [0, -1, -1, -1, -1, -1]
