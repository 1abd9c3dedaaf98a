"""`bench data prepare` of labelled folders: the layout is found out or said, and the screen says what the data set serves."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import data
from bench.data import catalogue, layouts
from bench.errors import DataError
from tests.data.labelled import draw, write_masks
from tests.data.made import write_own


def test_the_layouts_that_the_shell_completes_are_those_that_there_are() -> None:
    assert data.LAYOUTS == layouts.LAYOUTS


@pytest.mark.integration
def test_prepare_says_what_a_data_set_serves_and_list_shows_it(bench: Callable, tmp_path: Path) -> None:
    root = draw(
        tmp_path / "d", [f"{split}/{name}/{number}.png" for split in ("train", "test") for name in "ab" for number in "12"]
    )
    rows = "".join(f"{path.relative_to(root)},{path.parent.parent.name}{path.stem}\n" for path in sorted(root.rglob("*.png")))
    (root / "scans.csv").write_text(f"file,scan\n{rows}")
    told = bench("data", "prepare", "mine", "--root", root, "--labels", "scans.csv", "--group", "scan")
    assert told.code == 0, told.err
    for line in (
        "tasks: classes@mine, multilabel@mine",
        "splits of its own: train 4, test 4",
        "groups by scan: 4; no group is ever in two splits",
        "2 classes: a, b",
    ):
        assert f"  {line}\n" in told.out
    assert "classes, multilabel" in bench("data", "list").out and bench("data", "verify", "mine").code == 0
    plain = bench("data", "prepare", "plain", "--root", root, "--layout", "images")
    assert "  images to pretrain on, without labels\n" in plain.out
    prepared = catalogue.prepared()
    assert prepared["plain"].fingerprint == prepared["mine"].fingerprint and not prepared["plain"].single


@pytest.mark.integration
def test_masks_that_nothing_names_are_refused_unless_the_layout_is_said(bench: Callable, tmp_path: Path) -> None:
    root = write_masks(tmp_path / "d", "images/{}.jpg", "masks/{}.png", {1: 255, 2: 255, 3: 255})
    refused = bench("data", "prepare", "mine", "--root", root)
    assert refused.code == 3 and "--map 255=1" in refused.err and "--layout images" in refused.err
    assert bench("data", "prepare", "mine", "--root", root, "--layout", "images").code == 0
    (root / "classes.txt").write_text("cell\n")
    told = bench("data", "prepare", "mine", "--root", root, "--map", "255=1")
    assert told.code == 0 and "  tasks: multilabel@mine, segmentation@mine\n" in told.out and "  1 class: cell\n" in told.out


@pytest.mark.integration
@pytest.mark.parametrize("option", [("--labels", "a.csv"), ("--group", "scan"), ("--layout", "csv")])
def test_the_demo_data_has_no_such_choice(bench: Callable, option: tuple[str, str]) -> None:
    assert bench("data", "prepare", "demo", *option).code == 2


def test_voc_and_coco_take_no_table(tmp_path: Path) -> None:
    from bench.errors import UsageError

    root = write_own(tmp_path / "d")
    (root / "labels.csv").write_text("file,label\np00,cat\n")
    assert catalogue.read(root, "mine").kind == "voc"
    with pytest.raises(UsageError, match=r"--labels is for class folders, .* is read as voc; --layout csv"):
        catalogue.read(root, "mine", catalogue.Choices(labels="labels.csv"))


def test_labels_that_changed_since_prepare_stop_a_run(tmp_path: Path) -> None:
    draw(tmp_path / "t", [f"p{place}.png" for place in range(4)])
    (tmp_path / "t" / "labels.csv").write_text("file,label\np0,cat\np1,dog\np2,cat\np3,dog\n")
    catalogue.register(catalogue.read(tmp_path / "t", "mine"))
    assert catalogue.open_dataset("mine", print).classes == ("cat", "dog")
    (tmp_path / "t" / "labels.csv").touch()
    assert catalogue.open_dataset("mine", print).classes == ("cat", "dog"), "the content is the same"
    (tmp_path / "t" / "labels.csv").write_text("file,label\np0,dog\np1,cat\np2,cat\np3,dog\n")
    with pytest.raises(DataError, match=r"labels\.csv has changed since mine was prepared.*bench data prepare mine --root"):
        catalogue.open_dataset("mine", print)


def test_groups_on_two_sides_of_given_splits_are_told_when_the_data_is_prepared(tmp_path: Path) -> None:
    draw(tmp_path / "t", [f"p{place}.png" for place in range(4)])
    rows = ("p0,cat,train,a", "p1,dog,test,a", "p2,cat,train,b", "p3,dog,test,c")
    (tmp_path / "t" / "labels.csv").write_text("\n".join(["file,label,split,patient", *rows]))
    with pytest.raises(DataError, match="patient 'a' is in the train and the test split"):
        catalogue.read(tmp_path / "t", "mine", catalogue.Choices(group="patient"))
