"""Folders of images as users have them: links, masks beside images, parts of COCO, names in other encodings."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import catalogue
from bench.errors import DataError
from tests.data.made import quiet, save_mask


def draw(*paths: Path) -> None:
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)


def names(root: Path) -> list[str]:
    return [image.id for image in catalogue.open_dataset(str(root), quiet).images]


def findings(root: Path) -> dict[str, int]:
    return catalogue.open_dataset(str(root), quiet).findings


def test_links_to_folders_are_followed_each_folder_once(tmp_path: Path) -> None:
    root = tmp_path / "d"
    draw(root / "a" / "1.jpg", tmp_path / "else" / "2.jpg", tmp_path / "else" / "deep" / "3.jpg")
    for name, target in (("linked", tmp_path / "else"), ("again", tmp_path / "else"), ("a/loop", root), ("0", root / "a")):
        (root / name).symlink_to(target)
    (root / "lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (root / "self").symlink_to(root / "self")
    assert names(root) == ["a/1.jpg", "again/2.jpg", "again/deep/3.jpg"]
    assert findings(root) == {"links to folders that are read already": 3, "links to images that are not there": 1}


def test_other_formats_and_files_of_macos_are_counted(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    for name in ("b.heic", "c.gif", "._a.jpg", "notes.txt"):
        (tmp_path / name).write_text("")
    assert names(tmp_path) == ["a.jpg"]
    assert findings(tmp_path) == {"images in formats that are not read": 2, "files of macOS (._*)": 1}


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "a" / "1.jpg", tmp_path / "b" / "2.jpg")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cannot read .*/b: Permission denied"):
        names(tmp_path)


@pytest.mark.parametrize(
    "mask",
    ["masks/{}.png", "seg_maps/{}.png", "masks/{}_mask.png", "images/{}_mask.png", "images/{}-seg.png", "Labels/{}.jpg"],
)
def test_masks_beside_images_are_no_photographs(tmp_path: Path, mask: str) -> None:
    images = [f"images/{number}.jpg" for number in range(5)]
    draw(*(tmp_path / name for name in images))
    for number in range(5):
        path = tmp_path / mask.format(number)
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".jpg":
            draw(path)
        else:
            save_mask(np.ones((8, 8)), path)
    assert names(tmp_path) == images
    assert findings(tmp_path) == {"masks beside the images, which are no photographs": 5}


def test_masks_in_the_same_tree_of_splits_are_told_too(tmp_path: Path) -> None:
    for split in ("train", "val"):
        draw(tmp_path / "img" / split / "1.png")
        (tmp_path / "gt" / split).mkdir(parents=True)
        save_mask(np.ones((8, 8)), tmp_path / "gt" / split / "1.png")
    assert names(tmp_path) == ["img/train/1.png", "img/val/1.png"]


def test_folders_of_photographs_with_equal_names_are_all_photographs(tmp_path: Path) -> None:
    for number, kind in enumerate(("cats", "dogs", "label_free")):
        draw(tmp_path / kind / "1.jpg", tmp_path / kind / "2_b.jpg")
        for name in ("3.png", "4.png"):
            Image.new("L", (8, 8), number).save(tmp_path / kind / name)
    assert len(names(tmp_path)) == 12 and findings(tmp_path) == {}
    for kind in ("zero", "one"):
        (tmp_path / "grey" / kind).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "grey" / kind / "1.png")
    assert len(names(tmp_path)) == 14


def coco(root: Path, **parts: int) -> None:
    (root / "annotations").mkdir(parents=True)
    for part, count in parts.items():
        images = [{"id": number, "file_name": f"{part}_{number}.jpg"} for number in range(count)]
        text = json.dumps({"images": images, "annotations": [{}] * 3})
        (root / "annotations" / f"instances_{part}.json").write_text(text)
        draw(*(root / part / image["file_name"] for image in images))


def test_one_split_of_coco_is_used_and_the_other_counted(tmp_path: Path) -> None:
    coco(tmp_path, train2017=6, val2017=4)
    for path in (tmp_path / "train2017").iterdir():
        path.unlink()
    lost = {"images that instances_train2017.json lists and that are not there": 6}
    labels = {"objects in annotations, whose labels are not used": 6}
    assert (len(names(tmp_path)), findings(tmp_path)) == (4, {**labels, **lost})
    (tmp_path / "train2017").rmdir()
    assert (len(names(tmp_path)), findings(tmp_path)) == (4, {**labels, **lost})


def test_part_of_the_images_of_coco_is_used_with_a_count(tmp_path: Path) -> None:
    coco(tmp_path, train2017=6)
    (tmp_path / "train2017" / "train2017_2.jpg").unlink()
    draw(tmp_path / "train2017" / "stranger.jpg")
    assert len(names(tmp_path)) == 5
    assert findings(tmp_path) == {
        "objects in annotations, whose labels are not used": 3,
        "images that instances_train2017.json lists and that are not there": 1,
        "images that no annotation file lists": 1,
    }
    for path in (tmp_path / "train2017").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="its annotation files list no image that is there"):
        names(tmp_path)


def test_a_folder_named_in_another_encoding_is_refused_in_one_sentence(tmp_path: Path) -> None:
    root = tmp_path / "caf\udce9"
    draw(root / "a.jpg")
    with pytest.raises(DataError, match=r"is not written in UTF-8.*rename the folder"):
        names(root)
