"""Folders of images as users have them: links, masks beside images, parts of COCO, names in other encodings."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import catalogue
from bench.errors import DataError
from bench.metrics import voc_palette
from tests.data.made import quiet, save_mask


def draw(*paths: Path) -> None:
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of its own: the home folder lies in tmp_path."""
    made = tmp_path / "d"
    made.mkdir()
    return made


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
    assert findings(root) == {"links to folders that are read already": 3, "links that lead nowhere": 2}


def test_other_formats_and_files_of_macos_are_counted(root: Path) -> None:
    draw(root / "a.jpg")
    for name in ("b.heic", "c.gif", "._a.jpg", "notes.txt"):
        (root / name).write_text("")
    assert names(root) == ["a.jpg"]
    assert findings(root) == {"images in formats that are not read": 2, "files of macOS (._*)": 1, "files of other kinds": 1}


def test_a_colour_photograph_with_the_name_of_a_mask_is_a_photograph_and_a_grey_image_is_none(root: Path) -> None:
    draw(*(root / f"{name}{place}.jpg" for place in range(3) for name in ("p", "label_p")))
    assert len(names(root)) == 6
    for place in range(3):
        Image.open(root / f"label_p{place}.jpg").convert("L").save(root / f"label_p{place}.jpg")
    assert names(root) == ["p0.jpg", "p1.jpg", "p2.jpg"]
    assert findings(root) == {"masks beside the images, which are no photographs": 3}


def test_a_folder_that_cannot_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(root / "a" / "1.jpg", root / "b" / "2.jpg")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cannot read .*/b: Permission denied"):
        names(root)


@pytest.mark.parametrize(
    "mask",
    [
        *(
            "masks/{}.png",
            "seg_maps/{}.png",
            "masks/{}_mask.png",
            "masks/mask_{}.png",
            "Labels/{}.jpg",
            "annotations/trimaps/{}.png",
        ),
        *("images/{}_mask.png", "images/{}-seg.png", "images/{}.png"),
    ],
)
def test_masks_beside_images_are_no_photographs(root: Path, mask: str) -> None:
    images = [f"images/{number}.jpg" for number in range(5)]
    draw(*(root / name for name in images))
    for number in range(5):
        path = root / mask.format(number)
        path.parent.mkdir(exist_ok=True, parents=True)
        if path.suffix == ".jpg":
            Image.fromarray(np.tile(np.uint8(255) * (np.arange(16) > 7), (16, 1))).save(path)
        else:
            save_mask(np.ones((8, 8)), path)
    assert names(root) == images
    assert findings(root) == {"masks beside the images, which are no photographs": 5}


def test_masks_in_the_same_tree_of_splits_are_told_too(root: Path) -> None:
    for split in ("train", "val"):
        draw(root / "img" / split / "1.png")
        (root / "gt" / split).mkdir(parents=True)
        save_mask(np.ones((8, 8)), root / "gt" / split / "1.png")
    assert names(root) == ["img/train/1.png", "img/val/1.png"]


def test_folders_of_photographs_with_equal_names_are_all_photographs(root: Path) -> None:
    for number, kind in enumerate(("cats", "dogs", "label_free")):
        draw(root / kind / "1.jpg", root / kind / "2_b.jpg")
        for name in ("3.png", "4.png"):
            photograph = np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)
            Image.fromarray(photograph).save(root / kind / name)
    assert len(names(root)) == 12 and findings(root) == {}
    for kind in ("zero", "one"):
        (root / "grey" / kind).mkdir(parents=True)
        Image.new("L", (8, 8)).save(root / "grey" / kind / "1.png")
    assert len(names(root)) == 14


def coco(root: Path, **parts: int) -> None:
    (root / "annotations").mkdir(parents=True)
    for part, count in parts.items():
        images = [{"id": number, "file_name": f"{part}_{number}.jpg"} for number in range(count)]
        text = json.dumps({"images": images, "annotations": [{}] * 3})
        (root / "annotations" / f"instances_{part}.json").write_text(text)
        draw(*(root / part / image["file_name"] for image in images))


def test_one_split_of_coco_is_used_and_the_other_counted(root: Path) -> None:
    coco(root, train2017=6, val2017=4)
    for path in (root / "train2017").iterdir():
        path.unlink()
    lost = {"images that instances_train2017.json lists and that are not there": 6}
    labels = {"objects in annotations, whose labels are not used": 6}
    assert (len(names(root)), findings(root)) == (4, {**labels, **lost})
    (root / "train2017").rmdir()
    assert (len(names(root)), findings(root)) == (4, {**labels, **lost})


def test_part_of_the_images_of_coco_is_used_with_a_count(root: Path) -> None:
    coco(root, train2017=6)
    (root / "train2017" / "train2017_2.jpg").unlink()
    draw(root / "train2017" / "stranger.jpg")
    assert len(names(root)) == 5
    assert findings(root) == {
        "objects in annotations, whose labels are not used": 3,
        "images that instances_train2017.json lists and that are not there": 1,
        "images that no annotation file lists": 1,
    }
    for path in (root / "train2017").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="its annotation files list no image that is there"):
        names(root)


def test_a_folder_named_in_another_encoding_is_refused_in_one_sentence(tmp_path: Path) -> None:
    root = tmp_path / "caf\udce9"
    draw(root / "a.jpg")
    with pytest.raises(DataError, match=r"is not written in UTF-8.*rename the folder"):
        names(root)


@pytest.mark.parametrize(
    ("image", "mask", "colours"),
    [
        ("leftImg8bit/train/aachen/a_{}_leftImg8bit.png", "gtFine/train/aachen/a_{}_gtFine_labelIds.png", "ids"),
        ("leftImg8bit/train/aachen/a_{}_leftImg8bit.png", "gtFine/train/aachen/a_{}_gtFine_color.png", "rgb"),
        ("train/{}.png", "train_labels/{}_L.png", "rgb"),
        ("photos/{}.jpg", "colours/{}.png", "rgb"),
    ],
)
def test_masks_of_well_known_data_sets_are_no_photographs(root: Path, image: str, mask: str, colours: str) -> None:
    ids = np.tile(np.arange(16) // 4, (16, 1))
    for number in range(6):
        draw(root / image.format(number))
        (root / mask.format(number)).parent.mkdir(parents=True, exist_ok=True)
        if colours == "ids":
            save_mask(ids, root / mask.format(number))
        else:
            Image.fromarray(voc_palette()[ids]).save(root / mask.format(number))
    assert names(root) == [image.format(number) for number in range(6)]


@pytest.mark.parametrize("folder", ["gt", "labels", "annotations/seg"])
def test_photographs_in_a_folder_that_is_named_like_masks_stay_photographs(root: Path, folder: str) -> None:
    draw(*(root / place / f"{number}.jpg" for place in (folder, "blurred") for number in range(4)))
    assert len(names(root)) == 8


def test_a_file_name_with_a_wide_space_is_printable(root: Path) -> None:
    draw(root / "a\u3000b.jpg")
    assert names(root) == ["a\u3000b.jpg"]
