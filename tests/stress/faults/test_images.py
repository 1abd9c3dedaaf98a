"""Faults 8 to 15: images and masks that are broken, void or of other sizes, and a loss that is no number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import record
from bench.metrics import voc_palette
from tests.stress.faults.bench import Bench


def test_08_a_truncated_image_stops_with_its_name_and_is_left_out_only_when_asked(bench: Bench) -> None:
    broken = sorted((bench.devkit / "JPEGImages").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:-300])
    for command in (("data", "prepare", "mine", "--root", bench.voc), bench.command("random_init", "voc_seg")):
        refused = bench(*command)
        assert refused.code == 3 and broken.name in refused.err
    asked = bench("data", "prepare", "mine", "--root", bench.voc, "--skip-broken")
    assert asked.code == 0 and broken.name in asked.out
    assert bench.run("random_init", "voc_seg", "--data", "mine").code == 0
    (one,) = bench.records()
    assert one.data.left_out == 1 and "1 image left out" in one.data.title


def test_09_an_empty_file_is_no_image(bench: Bench) -> None:
    broken = sorted((bench.devkit / "JPEGImages").iterdir())[0]
    broken.write_bytes(b"")
    refused = bench.run()
    assert refused.code == 3 and broken.name in refused.err and not bench.records()


def mask_of(bench: Bench, place: int = 0) -> Path:
    return sorted((bench.devkit / "SegmentationClass").iterdir())[place]


def test_10_a_mask_of_another_size_is_named_with_its_image_and_both_sizes(bench: Bench) -> None:
    mask = mask_of(bench)
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(mask)
    refused = bench.run()
    assert refused.code == 3
    assert all(word in refused.err for word in (mask.name, f"{mask.stem}.jpg", "30x20", "64x64"))


def test_11_a_class_id_out_of_range_is_named_with_file_id_and_pixels_when_packing(bench: Bench) -> None:
    mask = mask_of(bench)
    ids = np.array(Image.open(mask))
    ids[:3, :4] = 77
    Image.fromarray(ids).save(mask)
    refused = bench.run()
    assert refused.code == 3 and all(word in refused.err for word in (mask.name, "class id 77", "12 pixels"))
    assert not list(bench.home.glob("packs/*/manifest.json"))


def test_12_a_mask_in_colours_is_read_through_the_palette_or_refused(bench: Bench) -> None:
    assert bench.run().code == 0
    expected = bench.weights()
    mask = mask_of(bench)
    ids = np.array(Image.open(mask))
    colours = voc_palette()[ids]
    Image.fromarray(colours).save(mask)
    assert bench.run("random_init", "voc_seg", "--out", bench.folder / "colours").code == 0
    assert [one.weights for one in record.read(bench.folder / "colours")] == [weights for _, _, weights in expected]
    colours[0, 0] = (1, 2, 3)
    Image.fromarray(colours).save(mask)
    refused = bench.run()
    assert refused.code == 3 and mask.name in refused.err and "#010203" in refused.err


def test_13_masks_that_are_void_throughout_cost_nothing_and_are_counted(bench: Bench) -> None:
    folder = bench.devkit / "SegmentationClass"
    kept = {mask: mask.read_bytes() for mask in folder.iterdir()}
    for mask in kept:
        Image.fromarray(np.full((64, 64), 255, np.uint8)).save(mask)
    refused = bench.run()
    assert refused.code == 3 and "has no mask with a class" in refused.err and "--map 255=1" in refused.err
    trained = (bench.devkit / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    for mask, content in kept.items():
        if mask.stem not in trained:
            mask.write_bytes(content)
    done = bench.run()
    assert done.code == 0 and "void throughout" in done.out
    (one,) = bench.records()
    assert one.data.void == one.data.counts["train"] > 0
    assert one.losses[0] == [0.0, 0.0]


def test_14_a_class_in_no_test_image_is_undefined_left_out_of_the_mean_and_said(bench: Bench) -> None:
    missing = (bench.devkit / "classes.txt").read_text().split().index("star") + 1
    for mask in (bench.devkit / "SegmentationClass").iterdir():
        ids = np.array(Image.open(mask))
        Image.fromarray(np.where(ids == missing, 0, ids).astype(np.uint8)).save(mask)
    without = ("--set", 'protocol.schedules={"one-phase": [{"train": "all", "epochs": 30, "lr": 1e-2}]}')
    done = bench.run("random_init", "voc_seg", *without)
    (one,) = bench.records()
    scores = one.per_class["miou_voc@1"]
    if scores["star"] is None:  # no image has it and none was called so
        assert "warning: miou_voc@1 is not defined for" in done.out and "star" in done.out
    defined = [value for name, value in scores.items() if value is not None]
    assert one.metrics["miou_voc@1"] == pytest.approx(sum(defined) / len(defined))
    assert bench.run("random_init", "voc_cls", "--set", 'protocol.metrics=["map_voc"]').code == 0


def test_15_a_loss_that_is_no_number_fails_its_run_with_step_and_reason_and_stands_on_no_leaderboard(bench: Bench) -> None:
    failed = bench.run("random_init,l1_color", "voc_seg", "--set", "l1_color.lr=1e30")
    assert failed.code == 5 and "the loss of" in failed.err and "step" in failed.err
    assert [one.pretext for one in bench.records()] == ["random_init"]
    assert bench("report", "--out", bench.out).code == 0
    assert "l1_color" not in (bench.out / "leaderboard.csv").read_text()
