"""Data of a user's own, from `bench data prepare` to a table, through the command line: class names and scores in every file."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bench import metrics, record
from bench.storage.arrays import unpack
from tests.conftest import TINY

Bench = Callable[..., Any]
FEW = ("--pretext", "random_init", "--schedule", "frozen", "--epochs", "1", "--set", "protocol.head_width=16")


def draw(path: Path, mask: NDArray[np.uint8], seed: int) -> None:
    """Draw an image that is brighter where its mask is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 100, (*mask.shape, 3))
    Image.fromarray((noise + 150 * (mask > 0)[..., None]).astype(np.uint8)).save(path)


def blob(seed: int, size: tuple[int, int] = (40, 48)) -> NDArray[np.uint8]:
    """Return a mask uint8 (H, W) of one disc of value 255; that of every sixth seed is empty."""
    random = np.random.default_rng(seed)
    rows, columns = np.ogrid[: size[0], : size[1]]
    centre, radius = random.uniform(12, 28, 2), random.uniform(5, 10)
    inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
    return (255 * (inside & (seed % 6 > 0))).astype(np.uint8)


def test_masks_of_one_class_are_scored_by_dice_iou_and_hausdorff_distance(bench: Bench, tmp_path: Path) -> None:
    pytest.importorskip("monai")
    root = tmp_path / "polyps"
    for seed in range(30):
        draw(root / "images" / f"p{seed:02}.png", blob(seed), seed)
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(blob(seed)).save(root / "masks" / f"p{seed:02}.png")
    (root / "classes.txt").write_text("polyp\n")
    (root / "patients.csv").write_text("file,patient\n" + "".join(f"p{seed:02}.png,person {seed // 3}\n" for seed in range(30)))
    refused = bench("data", "prepare", "polyps", "--root", root)
    assert refused.code != 0 and "--map 255=1" in refused.err
    made = bench("data", "prepare", "polyps", "--root", root, "--map", "255=1", "--labels", "patients.csv", "--group", "patient")
    assert made.code == 0 and "segmentation@polyps" in made.out and "polyp" in made.out, made.err
    tiny = [word if word != "demo" else "binary" for word in TINY]
    done = bench("run", *tiny, *FEW, "--downstream", "segmentation@polyps", "--out", tmp_path / "runs")
    assert done.code == 0, done.err
    (one,) = record.read(tmp_path / "runs")
    assert one.job.protocol.startswith("binary") and one.metric_ids == ("dice@1", "iou_fg@1", "hd95@1")
    assert one.data.group == "patient" and one.data.classes == ("polyp",) and set(one.per_class["dice@1"]) == {"polyp"}
    split = json.loads((tmp_path / "runs" / "runs" / one.id / "split.json").read_text())["members"]
    sides = [{int(identity.rsplit("p", 1)[1]) // 3 for identity in ids} for ids in split.values()]
    assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    found = unpack((tmp_path / "runs" / "runs" / one.id / "predictions.npz").read_bytes(), 1 << 24)
    shown = found["confusion"][:, 1].sum(axis=1) > 0
    assert (np.isnan(found["surface"][:, 0]) == ~shown).all() and 0 < one.metrics["hd95@1"] <= 1  # type: ignore[operator]
    right = np.zeros_like(found["confusion"])
    right[:, 0, 0], right[:, 1, 1] = found["confusion"][:, 0].sum(axis=1), found["confusion"][:, 1].sum(axis=1)
    assert metrics.compute("dice", {"confusion": right}, ("polyp",), ("polyp",)) == 1
    report = bench("report", "--out", tmp_path / "runs", "--metric", "dice,hd95", "--html")
    assert report.code == 0 and "dice@1" in report.out and "hd95@1" in report.out, report.err


def test_class_folders_a_table_and_masks_go_to_one_table_with_their_own_names(bench: Bench, tmp_path: Path) -> None:
    for seed in range(24):
        draw(tmp_path / "kinds" / ("katze", "hund")[seed % 2] / f"k{seed:02}.png", blob(seed + 1), seed)
        draw(tmp_path / "table" / "photos" / f"t{seed:02}.png", blob(seed + 1), 100 + seed)
        mask = np.where(blob(seed + 1) > 0, seed % 2 + 1, 0).astype(np.uint8)
        draw(tmp_path / "parts" / "images" / f"m{seed:02}.png", mask, 200 + seed)
        (tmp_path / "parts" / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "parts" / "masks" / f"m{seed:02}.png")
    rows = "".join(f"t{seed:02},{('rot', 'blau', 'rot;blau')[seed % 3]}\n" for seed in range(24))
    (tmp_path / "table" / "labels.csv").write_text("image,labels\n" + rows)
    (tmp_path / "parts" / "classes.txt").write_text("links\nrechts\n")
    for name in ("kinds", "table", "parts"):
        assert bench("data", "prepare", name, "--root", tmp_path / name).code == 0
    tasks = "classes@kinds,multilabel@table,segmentation@parts"
    done = bench("run", *TINY, *FEW, "--downstream", tasks, "--evaluate", "finetune,knn,dense-knn", "--out", tmp_path / "runs")
    assert done.code == 0, done.err
    report = bench("report", "--out", tmp_path / "runs")
    assert report.code == 0 and report.out.count("Table 4") == 1, report.err
    names = {"classes": ("hund", "katze"), "multilabel": ("blau", "rot"), "segmentation": ("links", "rechts")}
    assert "kinds names no splits; they were made once: " in report.out
    assert not [line for line in report.out.splitlines() if "Multilabel" in line and "acc_top1" in line]
    html = bench("report", "--out", tmp_path / "runs", "--html")
    assert html.code == 0 and "Classification on kinds (acc_class@1, %)" in (tmp_path / "runs" / "report.html").read_text()
    for one in record.read(tmp_path / "runs"):
        assert one.data.classes == names[one.downstream]
        assert set(next(iter(one.per_class.values()))) <= {"background", *names[one.downstream]}
    with (tmp_path / "runs" / "leaderboard.csv").open() as file:
        found = {(row["downstream"], row["data"], row["evaluation"]) for row in csv.DictReader(file)}
    assert {("classes", "kinds", "finetune"), ("multilabel", "table", "knn"), ("segmentation", "parts", "dense-knn")} <= found
    with (tmp_path / "runs" / "per_class.csv").open() as file:
        assert {"hund", "rot", "links"} <= {row["class"] for row in csv.DictReader(file)}
