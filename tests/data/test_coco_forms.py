"""Panoptic annotations, and files of one's own in COCO's form."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from bench.data import coco
from bench.errors import DataError
from bench.metrics import VOID
from tests.data.annotated import CATEGORIES, HEIGHT, SQUARE, WIDTH, mask_of, write, write_panoptic


def test_panoptic_masks_have_the_category_of_each_segment_and_void_elsewhere(tmp_path: Path) -> None:
    segments = write_panoptic(tmp_path)
    assert coco.looks_like(tmp_path)
    dataset = coco.read(tmp_path, "c")
    assert dataset.classes == ("dog", "cat", "tree", "sky") and dataset.findings == {} and not dataset.boxed
    assert len(dataset.images) == 3 and dataset.masks == {"panoptic": ("val2017_1", "val2017_2", "val2017_3")}
    assert dataset.labels(["val2017_1"])[0].tolist() == [-1, 1, 0, 1]
    assert dataset.sources[1:] == tuple(f"annotations/panoptic_val2017/val2017_{n}.png" for n in (1, 2, 3))
    ids = {0: VOID, 1: 4, 300: 2, 70_000: 1, 256**3 - 1: 2}
    for number, wanted in enumerate(segments, 1):
        assert np.array_equal(mask_of(dataset, f"val2017_{number}", "panoptic"), np.vectorize(ids.get)(wanted))


def test_a_segment_that_the_panoptic_file_has_not_is_refused(tmp_path: Path) -> None:
    write_panoptic(tmp_path)
    path = tmp_path / "annotations" / "panoptic_val2017.json"
    path.write_text(path.read_text().replace('"id": 300,', '"id": 301,'))
    with pytest.raises(DataError, match=r"val2017_2\.png has the segment 300, which panoptic_val2017\.json does not list"):
        mask_of(coco.read(tmp_path, "c"), "val2017_2", "panoptic")
    Image.new("RGB", (9, 9)).save(tmp_path / "annotations" / "panoptic_val2017" / "val2017_2.png")
    with pytest.raises(DataError, match=r"val2017_2\.png is 9x9, but its image is 40x30"):
        mask_of(coco.read(tmp_path, "c"), "val2017_2", "panoptic")


def test_panoptic_files_beside_instances_add_their_classes_where_they_are_of_all_images(tmp_path: Path) -> None:
    write_panoptic(tmp_path, images=4)
    write(tmp_path, "val2017")
    dataset = coco.read(tmp_path, "c")
    assert dataset.classes == ("dog", "cat", "tree", "sky") and dataset.findings == {
        "boxes that have no area inside their image": 2,
        coco.CUT: 2,
    }
    assert set(dataset.masks) == {"instances", "panoptic"} and len(dataset.images) == 4 and dataset.given == {}
    assert dataset.labels(["val2017_1"])[0].tolist() == [1, 1, 0, 1] and len(dataset.boxes["val2017_1"]) == 3
    write(tmp_path, "train2017")
    dataset = coco.read(tmp_path, "c")
    assert dataset.classes == ("dog", "cat", "tree") and set(dataset.masks) == {"instances"}
    assert dataset.findings["images with instances and no panoptic annotation, so panoptic annotations are not used"] == 4


def test_files_that_call_a_category_otherwise_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "train2017")
    write(tmp_path, "val2017", categories=[{"id": 7, "name": "Cat"}, *CATEGORIES[1:]])
    with pytest.raises(DataError, match=r"instances_val2017\.json calls the category 7 'Cat', and another file .* 'cat'"):
        coco.read(tmp_path, "c")


@pytest.mark.parametrize("images", ["", "images", "instances_mine", "mine"])
def test_a_file_of_ones_own_in_cocos_form_is_read(tmp_path: Path, images: str) -> None:
    path = write(tmp_path, "train2017")
    wanted = coco.read(tmp_path, "c")
    path.rename(path.with_name("instances_mine.json"))
    if images:
        (tmp_path / "train2017").rename(tmp_path / images)
    else:
        for image in (tmp_path / "train2017").iterdir():
            image.rename(tmp_path / image.name)
    assert coco.looks_like(tmp_path)
    dataset = coco.read(tmp_path, "c")
    assert (dataset.classes, dataset.boxes, dataset.masks, dataset.given) == (wanted.classes, wanted.boxes, wanted.masks, {})
    assert dataset.sources == ("annotations/instances_mine.json",)
    square = coco_mask.decode(coco_mask.frPyObjects(SQUARE, HEIGHT, WIDTH))[..., 0]
    assert (mask_of(dataset, "train2017_1")[square > 0] > 0).all()


def test_images_that_only_an_image_info_lists_are_there_without_labels(tmp_path: Path) -> None:
    path = write(tmp_path, "train2017")
    path.rename(path.with_name("instances_mine.json"))
    (tmp_path / "train2017").rename(tmp_path / "images")
    names = [f"train2017_{n}.png" for n in range(1, 5)] + ["more.png", "left.png"]
    for name in (*names[4:], "stranger.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name)
    content = {"images": [{"id": n, "file_name": name} for n, name in enumerate(names)], "annotations": [], "categories": []}
    (tmp_path / "annotations" / "image_info.json").write_text(json.dumps(content))
    dataset = coco.read(tmp_path, "c")
    assert len(dataset.images) == 6 and len(dataset.labelled()) == 4 and set(dataset.boxes) == set(dataset.labelled())
    assert dataset.findings["images that no annotation file lists"] == 1


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (["_annotations.coco.json"], True),
        (["train.json", "valid.json"], True),
        (["train_a.json", "train_b.json"], False),
        (["a.json", "b.json"], False),
    ],
)
def test_files_in_the_root_are_read_where_there_is_one_or_one_a_split(tmp_path: Path, names: list[str], read: bool) -> None:
    for number, name in enumerate(names):
        part = f"part{number}"
        path = write(tmp_path, part)
        for image in (tmp_path / part).iterdir():
            image.rename(tmp_path / image.name)
        path.rename(tmp_path / name)
    assert coco.looks_like(tmp_path) == read
    if read:
        dataset = coco.read(tmp_path, "c")
        assert len(dataset.images) == 4 * len(names) and set(dataset.given) == ({"train", "val"} if len(names) > 1 else set())


@pytest.mark.parametrize("text", ["{}", "[", "[1]", '{"images": [{"file_name": "a.png"}], "annotations": [], "categories": []}'])
def test_a_file_in_another_form_or_without_annotations_does_not_pick_images(tmp_path: Path, text: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "mine.json").write_text(text)
    assert not coco.looks_like(tmp_path)
