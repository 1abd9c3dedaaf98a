"""Splits: their schemes, their files, and lists that contradict each other."""

from pathlib import Path

import numpy as np
import pytest

from bench.data import catalogue, splits
from bench.errors import DataError
from tests.data.made import devkit, quiet, write_voc


def test_the_papers_split_is_70_20_10_and_stratified(voc: Path) -> None:
    dataset = catalogue.open_dataset(str(voc), quiet)
    split = splits.open_splits(dataset, "paper-70-20-10", "labels")
    parts = [set(split.ids(part)) for part in ("train", "val", "test")]
    assert np.abs(np.array([len(part) for part in parts]) - [28, 8, 4]).max() <= 1
    assert len(set.union(*parts)) == 40


def test_the_official_split_tests_on_val_and_holds_a_tenth_of_train_back(voc: Path) -> None:
    dataset = catalogue.open_dataset(str(voc), quiet)
    split = splits.open_splits(dataset, "official", "SegmentationClass")
    assert set(split.ids("test")) == set(dataset.lists["Segmentation"]["val"])
    assert set(split.ids("train", "val")) == set(dataset.lists["Segmentation"]["train"])
    assert 1 <= len(split.ids("val")) <= 3


def test_a_split_is_a_file_that_is_read_and_not_made_again(voc: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = catalogue.open_dataset(str(voc), quiet)
    first = splits.open_splits(dataset, "paper-70-20-10", "labels")
    monkeypatch.setattr(splits, "_make", lambda *_: pytest.fail("made again"))
    assert splits.open_splits(dataset, "paper-70-20-10", "labels").fingerprint == first.fingerprint
    (file,) = (home / "splits").iterdir()
    file.write_text("{")
    with pytest.raises(DataError, match="is not a file of splits"):
        splits.open_splits(dataset, "paper-70-20-10", "labels")


def test_a_data_set_of_one_class_can_be_split(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "v", [(8, 8)] * 12)
    (devkit(root) / "classes.txt").write_text("aeroplane\n")
    for path in (devkit(root) / "Annotations").iterdir():
        path.write_text("<annotation><object><name>aeroplane</name></object></annotation>")
    split = splits.open_splits(catalogue.open_dataset(str(root), quiet), "paper-70-20-10", "labels")
    assert sum(len(ids) for ids in split.members.values()) == 12


def test_lists_that_overlap_are_refused(voc: Path) -> None:
    lists = devkit(voc) / "ImageSets" / "Main"
    (lists / "val.txt").write_text((lists / "train.txt").read_text())
    with pytest.raises(DataError, match="both name"):
        splits.open_splits(catalogue.open_dataset(str(voc), quiet), "official", "labels")


def test_a_split_is_the_same_under_another_name(voc: Path) -> None:
    found = [splits.open_splits(catalogue.read(voc, name), "official", "labels") for name in ("one", "two")]
    assert found[0].fingerprint == found[1].fingerprint
