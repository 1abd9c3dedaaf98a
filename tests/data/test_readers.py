"""Readers of VOC, COCO and folders, on small real files, whole and broken."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import catalogue, splits, voc
from bench.data.dataset import VOC_CLASSES
from bench.errors import DataError
from tests.data.made import devkit, quiet, write_voc


def test_voc_labels_keep_difficult_objects_apart(tmp_path: Path) -> None:
    dataset = catalogue.open_dataset(str(write_voc(tmp_path / "v", [(40, 30)])), quiet)
    assert dataset.classes == VOC_CLASSES
    labels = dataset.labels(["p0"])[0]
    assert labels[VOC_CLASSES.index("aeroplane")] == 1
    assert labels[VOC_CLASSES.index("cat")] == -1
    assert np.abs(labels).sum() == 2


@pytest.mark.parametrize(("flags", "label"), [("0", 1), ("1", -1), ("01", 1), ("10", 1), ("11", -1)])
def test_one_ordinary_object_makes_a_class_present(tmp_path: Path, flags: str, label: int) -> None:
    objects = "".join(f"<object><name>cat</name><difficult>{flag}</difficult></object>" for flag in flags)
    (tmp_path / "a.xml").write_text(f"<annotation>{objects}</annotation>")
    assert voc.read_labels(tmp_path / "a.xml", ("cat", "dog")) == (label, 0)


def test_voc_is_found_at_every_level_with_its_official_lists(voc: Path) -> None:
    found = [catalogue.read(path, "v") for path in (voc, voc / "VOCdevkit", devkit(voc))]
    assert len({dataset.root for dataset in found}) == 1
    assert {name: len(ids) for name, ids in found[0].lists["Main"].items()} == {"train": 24, "val": 16, "trainval": 40}
    assert found[0].synthetic and len(found[0].classes) == 8 and found[0].scored == found[0].classes


def test_scored_classes_are_read_from_a_file_beside_the_images(voc: Path) -> None:
    (devkit(voc) / "scored_classes.txt").write_text("ring\ndisc\n")
    assert catalogue.open_dataset(str(voc), quiet).scored == ("disc", "ring")
    (devkit(voc) / "scored_classes.txt").write_text("dog\n")
    with pytest.raises(DataError, match="no class 'dog' to score"):
        catalogue.open_dataset(str(voc), quiet)


def test_coco_lists_the_images_of_its_json_by_part(tmp_path: Path) -> None:
    for part, count in (("train2014", 3), ("val2014", 2)):
        (tmp_path / part).mkdir()
        names = [f"{part}_{place}.jpg" for place in range(count)]
        for name in [*names, "not listed.jpg"]:
            Image.new("RGB", (8, 8)).save(tmp_path / part / name)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        images = [{"id": place, "file_name": name} for place, name in enumerate(names)]
        text = json.dumps({"images": images, "annotations": [], "categories": []})
        (tmp_path / "annotations" / f"instances_{part}.json").write_text(text)
    dataset = catalogue.open_dataset(str(tmp_path), quiet)
    assert dataset.kind == "coco"
    assert [image.split for image in dataset.images] == ["train"] * 3 + ["val"] * 2
    split = splits.open_splits(dataset, "pretraining", "images")
    assert (len(split.ids("train")), len(split.ids("test"))) == (3, 2)
    assert dataset.findings == {"images that no annotation file lists": 2}


def test_a_folder_of_images_is_a_data_set_and_files_can_be_left_out(tmp_path: Path) -> None:
    for name in ("a/x.jpg", "a/y.PNG", "b_1.jpg", "b_2.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    assert len(catalogue.read(tmp_path, "f").images) == 4
    assert [p.id for p in catalogue.read(tmp_path, "f", catalogue.Choices(exclude=["b_*"])).images] == ["a/x.jpg", "a/y.PNG"]
    with pytest.raises(DataError, match="has no labels"):
        splits.open_splits(catalogue.read(tmp_path, "f"), "official", "labels")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: shutil.rmtree(d / "JPEGImages"), "no images|not a VOC"),
        (
            lambda d: (d / "Annotations" / "demo_000003.xml").write_text("<annotation><obj"),
            r"demo_000003\.xml is not a VOC annotation",
        ),
        (
            lambda d: (d / "Annotations" / "demo_000003.xml").write_text(
                "<annotation><object><name>dog</name></object></annotation>"
            ),
            r"demo_000003\.xml has an object of class 'dog'",
        ),
        (lambda d: (d / "JPEGImages" / "demo_000001.jpg").unlink(), "names 'demo_000001'"),
    ],
)
def test_half_a_voc_is_refused(voc: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(devkit(voc))
    with pytest.raises(DataError, match=message):
        catalogue.open_dataset(str(voc), quiet)


def test_a_json_of_ones_own_does_not_hide_images(tmp_path: Path) -> None:
    for name in ("images/a.jpg", "images/b.jpg", "annotations/instances_some_subset.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name) if name.endswith("jpg") else (tmp_path / name).write_text("{}")
    dataset = catalogue.read(tmp_path, "mine")
    assert (dataset.kind, len(dataset.images)) == ("folder", 2)


def test_a_known_name_takes_its_year_and_nothing_else(voc: Path, tmp_path: Path) -> None:
    shutil.copytree(devkit(voc), voc / "VOCdevkit" / "VOC2007")
    assert catalogue.read(voc, "voc2007").root.name == "VOC2007"
    assert catalogue.read(voc, "voc2012").root.name == "VOC2012"
    with pytest.raises(DataError, match="holds VOCdevkit/VOC2007, VOCdevkit/VOC2012; name the folder of one"):
        catalogue.read(voc, "mine")
    with pytest.raises(DataError, match="has the layout voc, but coco2014 has coco"):
        catalogue.register(catalogue.read(devkit(voc), "coco2014"))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    shutil.rmtree(voc / "VOCdevkit" / "VOC2007")
    with pytest.raises(DataError, match="not a VOC2007 data set"):
        catalogue.read(voc, "voc2007")


def test_an_empty_list_and_a_name_listed_twice_are_refused(voc: Path) -> None:
    path = devkit(voc) / "ImageSets" / "Segmentation" / "val.txt"
    ids = path.read_text()
    path.write_text("")
    with pytest.raises(DataError, match=r"needs train\.txt and val\.txt"):
        splits.open_splits(catalogue.open_dataset(str(voc), quiet), "official", "SegmentationClass")
    path.write_text(ids + ids.splitlines()[0])
    with pytest.raises(DataError, match=r"val\.txt names 'demo_\d+' twice"):
        splits.open_splits(catalogue.open_dataset(str(voc), quiet), "official", "SegmentationClass")


def test_a_file_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "caf\udce9.jpg")
    with pytest.raises(DataError, match="which cannot be printed"):
        catalogue.open_dataset(str(tmp_path), quiet)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<?xml version="1.0" encoding="rot13"?><annotation/>', "not a text encoding"),
        ('<!DOCTYPE a [<!ENTITY b "cat">]><annotation><object><name>&b;</name></object></annotation>', "document type"),
        ("<annotation><object><name>cat</name><difficult>?</difficult></object></annotation>", "it must be 0 or 1"),
        (
            f"<annotation><object><name>{'cat' * 1000}</name></object></annotation>",
            "an object of class 'catcat.{,110} which is not",
        ),
    ],
)
def test_an_annotation_is_refused_in_a_short_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"a\.xml .*{message}"):
        voc.read_labels(path, ("cat", "dog"))


def test_a_list_of_windows_is_read_and_one_of_strange_names_is_refused(voc: Path) -> None:
    path = devkit(voc) / "ImageSets" / "Main" / "train.txt"
    lists = catalogue.read(voc, "v").lists
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert catalogue.read(voc, "v").lists == lists
    path.write_text("a" * 100_000)
    with pytest.raises(DataError, match=r"train\.txt names 'a{99}\.\.\. and 0 more images"):
        catalogue.read(voc, "v")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("scored_classes.txt", "dog\n", r"scored_classes\.txt: .* no class 'dog' to score"),
        ("scored_classes.txt", "\n", r"scored_classes\.txt names no class"),
        ("classes.txt", "", r"classes\.txt names no class"),
        ("classes.txt", "disc\ndisc\n", r"classes\.txt names the class 'disc' twice"),
    ],
)
def test_a_list_of_classes_is_refused_by_its_name(voc: Path, file: str, text: str, message: str) -> None:
    (devkit(voc) / file).write_text(text)
    with pytest.raises(DataError, match=message):
        catalogue.read(voc, "v")


ABSENT = "list no image that is there"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": ' + "[" * 100_000, "is nested too deeply"),
        ('{"images": [{"id": ' + "1" * 5000 + "}]}", "is not a COCO annotation file"),
        ('{"photographs": []}', "it has no 'images'"),
        ('{"images": []}', "lists no images"),
        ('{"images": [3]}', "is not a COCO annotation file"),
        ('{"images": [{"id": 1, "file_name": "../val2014/a.jpg"}]}', "which is no file name below a folder"),
        ('{"images": [{"id": 1, "file_name": "/a.jpg"}]}', "which is no file name below a folder"),
        ('{"images": [{"id": 1, "file_name": 3}]}', "lists 3, which is no file name"),
        ('{"images": [{"id": 1, "file_name": "' + "a" * 5000 + '.jpg"}]}', ABSENT),
        ('{"images": [{"id": 1, "file_name": "a\\u0000.jpg"}]}', ABSENT),
        (
            '{"images": [{"id": 2, "file_name": "a.jpg"}, {"id": 1, "file_name": "a.jpg"}]}',
            "lists 'a.jpg', and a is listed already",
        ),
    ],
)
def test_a_coco_file_is_refused_by_its_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "annotations" / "instances_train2014.json"
    for folder in ("annotations", "train2014"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "train2014" / "a.jpg")
    path.write_text(text)
    with pytest.raises(DataError, match=rf"(instances_train2014\.json|its annotation files) .*{message}") as refused:
        catalogue.read(tmp_path, "c")
    assert len(str(refused.value)) < 500
