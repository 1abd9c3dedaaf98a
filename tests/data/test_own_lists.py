"""Official lists of a user's own: the list that is scored is never replaced silently, and every spelling of an id is read."""

import shutil
from pathlib import Path

import pytest

from bench.data import catalogue, lists, splits
from bench.errors import DataError
from tests.data.made import quiet, write_list, write_own

SUBSETS = ("labels", "SegmentationClass")


def split_of(root: Path, subset: str) -> splits.Splits:
    return splits.open_splits(catalogue.open_dataset(str(root), quiet), "official", subset)


@pytest.mark.parametrize("subset", SUBSETS)
def test_lists_without_trainval_train_on_train_choose_on_val_and_score_test(tmp_path: Path, subset: str) -> None:
    found = split_of(write_own(tmp_path), subset)
    assert [(found.ids(name)[0], found.ids(name)[-1]) for name in ("train", "val", "test")] == [
        ("p00", "p09"),
        ("p10", "p14"),
        ("p15", "p19"),
    ]
    assert found.scored_list.endswith("/test.txt")


def test_a_trainval_list_is_trained_on_whole_and_a_tenth_of_it_chooses(tmp_path: Path) -> None:
    root = write_own(tmp_path)
    write_list(root, "trainval", [f"p{place:02}" for place in range(15)])
    found = split_of(root, "labels")
    assert {name: len(ids) for name, ids in found.members.items()} == {"train": 12, "val": 3, "test": 5}


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("lost", ["JPEGImages/p17.jpg", "own"])
def test_a_test_image_that_lacks_something_stops_the_run_by_its_name(tmp_path: Path, subset: str, lost: str) -> None:
    root = write_own(tmp_path)
    own = {"labels": "Annotations/p17.xml", "SegmentationClass": "SegmentationClass/p17.png"}[subset]
    (root / (own if lost == "own" else lost)).unlink()
    with pytest.raises(DataError, match=r"test\.txt names 'p17', which (has no|is not in).*--skip-broken"):
        split_of(root, subset)


@pytest.mark.parametrize("lost", ["Annotations/p17.xml", "SegmentationClass/p17.png", "JPEGImages/p17.jpg"])
def test_prepare_stops_too_and_skip_broken_leaves_that_one_out_of_the_list(tmp_path: Path, lost: str, home: Path) -> None:
    root = write_own(tmp_path / "d")
    (root / lost).unlink()
    with pytest.raises(DataError, match="'p17'"):
        catalogue.register(catalogue.read(root, "mine"))
    said: list[str] = []
    dataset = catalogue.register(catalogue.read(root, "mine"), skip_broken=True, echo=said.append)
    assert len(said) == len(dataset.unlisted) == (2 if "JPEG" in lost else 1) and all("p17" in text for text in said)
    for subset in SUBSETS:
        kept = splits.open_splits(dataset, "official", subset).ids("test")
        gone = f"{lists.task_of(subset)}/p17" in dataset.unlisted
        assert kept == [f"p{place:02}" for place in range(15, 20) if place != 17 or not gone]
    assert catalogue.verify("mine").fingerprint == dataset.fingerprint
    assert dataset.left_out("Main") + dataset.left_out("Segmentation") == len(dataset.unlisted) and dataset.broken == ()


def test_a_test_list_without_annotations_as_in_voc_2012_scores_val_and_says_so(tmp_path: Path) -> None:
    root = write_own(tmp_path)
    for place in range(15, 20):
        (root / "Annotations" / f"p{place}.xml").unlink()
    said: list[str] = []
    dataset = catalogue.open_dataset(str(root), quiet)
    found = splits.open_splits(dataset, "official", "labels", said.append)
    assert found.scored_list == "ImageSets/Main/val.txt" and said[0].endswith("test is ImageSets/Main/val.txt")
    assert found.members["test"] == tuple(f"p{place}" for place in range(10, 15))
    assert splits.open_splits(dataset, "official", "SegmentationClass").scored_list == "ImageSets/Segmentation/test.txt"


def test_a_test_list_whose_images_are_elsewhere_is_counted(tmp_path: Path) -> None:
    root = write_own(tmp_path)
    write_list(root, "test", ["q1", "q2"])
    dataset = catalogue.open_dataset(str(root), quiet)
    assert dataset.findings["images of ImageSets/Main/test.txt, none of which is there"] == 2
    assert splits.open_splits(dataset, "official", "labels").scored_list == "ImageSets/Main/val.txt"


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ("img_{:03}", "{}.jpg"),
        ("img_{:03}", "JPEGImages/{}.jpg"),
        ("img_{:03}", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png"),
        ("img_{:03}", "JPEGImages\\{}.jpg"),
        ("img_{:03}", "{} 1"),
        ("img {:03}", "{}"),
        ("img {:03}", "{}  -1"),
        ("img {:03}", "{}.JPG"),
        ("img.{:03}", "{}"),
        ("img.{:03}", "{}.jpg"),
        ("img {:03}", "JPEGImages/{0}.jpg SegmentationClass/{0}.png"),
    ],
)
def test_an_id_is_read_in_every_spelling(tmp_path: Path, names: str, line: str) -> None:
    root = write_own(tmp_path, names=names)
    ids = [names.format(place) for place in range(20)]
    for name, some in (("train", ids[:10]), ("val", ids[10:15]), ("test", ids[15:])):
        write_list(root, name, map(line.format, some))
    found = split_of(root, "labels")
    assert found.ids("train", "val", "test") == ids


def test_a_list_that_names_strangers_says_the_whole_name(tmp_path: Path) -> None:
    root = write_own(tmp_path, names="img {:03}")
    write_list(root, "train", ["img 1000"])
    with pytest.raises(DataError, match="names 'img 1000' and 0 more images, none of which is in JPEGImages"):
        split_of(root, "labels")


@pytest.mark.parametrize("text", ["nobody\n", "p00 1\np00 1\n", "\xff\xfe", ""])
def test_lists_that_are_not_used_are_left_alone_and_counted(tmp_path: Path, text: str) -> None:
    root = write_own(tmp_path)
    (root / "ImageSets" / "Main" / "cat_train.txt").write_text("p00 -1\n")
    (root / "ImageSets" / "Main" / "trainaug.txt").write_bytes(text.encode("latin-1"))
    (root / "ImageSets" / "Main" / "dog_test.txt").write_bytes(text.encode("latin-1"))
    dataset = catalogue.open_dataset(str(root), quiet)
    assert dataset.findings == {"lists of other names in ImageSets/Main": 1}
    assert set(dataset.lists["Main"]) == {"train", "val", "test"}


def test_lists_of_a_subset_with_classes_of_its_own_are_left_alone(tmp_path: Path) -> None:
    root = write_own(tmp_path)
    (root / "classes.txt").write_text("aeroplane\nbicycle\nbird\n")
    (root / "ImageSets" / "Main" / "cat_train.txt").write_text("2007_000032 -1\n")
    dataset = catalogue.open_dataset(str(root), quiet)
    assert dataset.findings == {"lists of other names in ImageSets/Main": 1}


def test_a_list_of_another_name_is_counted_though_a_class_begins_its_name(tmp_path: Path) -> None:
    root = write_own(tmp_path / "d")
    before = catalogue.open_dataset(str(root), quiet)
    write_list(root, "train_aug", ["p00"])
    (root / "ImageSets" / "all.txt").write_text("p00")
    assert catalogue.open_dataset(str(root), quiet).findings == {
        "lists of other names in ImageSets/Main": 1,
        "lists of other names in ImageSets/Segmentation": 1,
        "files in ImageSets, beside its folders": 1,
    }
    assert catalogue.open_dataset(str(root), quiet).fingerprint == before.fingerprint, "earlier versions did not read it"


def test_a_missing_image_is_not_taken_for_another_whose_name_begins_alike(tmp_path: Path) -> None:
    root = write_own(tmp_path, names="p{:02} (1)")
    write_own(root, 1, names="p00")
    ids = [f"p{place:02} (1)" for place in range(20)]
    write_list(root, "val", [*ids[10:15], "p00 (3)"])
    write_list(root, "train", ids[:10])
    write_list(root, "test", ids[15:])
    with pytest.raises(DataError, match=r"val\.txt names 'p00 \(3\)', which is not in JPEGImages"):
        split_of(root, "labels")


def test_lists_that_share_an_image_are_refused_with_a_way_out(tmp_path: Path) -> None:
    root = write_own(tmp_path)
    write_list(root, "val", ["p00", "p10", "p11"])
    with pytest.raises(DataError, match=r"train\.txt and val\.txt both name 'p00'; .*split_scheme=paper-70-20-10"):
        split_of(root, "labels")


def test_a_list_that_is_a_link_to_nowhere_is_no_missing_list(tmp_path: Path) -> None:
    root = write_own(tmp_path)
    path = root / "ImageSets" / "Main" / "test.txt"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"test\.txt cannot be read as a text: No such file"):
        split_of(root, "labels")


def test_sbd_masks_that_a_list_lacks_name_no_way_out_that_does_not_help(tmp_path: Path) -> None:
    root = write_own(tmp_path)
    shutil.copytree(root / "SegmentationClass", root / "SegmentationClassAug")
    (root / "SegmentationClassAug" / "p17.png").unlink()
    assert split_of(root, "SegmentationClass")
    with pytest.raises(DataError, match=r"'p17', which has no mask in SegmentationClassAug; add what is missing\.$"):
        split_of(root, "SegmentationClassAug")


@pytest.mark.parametrize("line", ["{0},{0}", "JPEGImages/{0}", "{0} {0}", "{0}\tcat", '"{0}"', "{0};", "P{1}"])
def test_a_test_list_in_an_unknown_spelling_is_refused_and_not_replaced_by_val(tmp_path: Path, line: str) -> None:
    root = write_own(tmp_path)
    write_list(root, "test", [line.format(f"p{place}", place) for place in range(15, 20)])
    with pytest.raises(DataError, match=r"test\.txt names .*, which is not the image 'p15' letter for letter"):
        split_of(root, "masks")


@pytest.mark.parametrize("subset", SUBSETS)
def test_a_test_list_that_is_not_scored_is_told_with_the_reason(tmp_path: Path, subset: str, home: Path) -> None:
    """No line, no image that is left, no mask or annotation: `val` is scored, and the row says what became of the test list."""
    scored, task = lists.task_of(subset), "voc_cls" if subset == "labels" else "voc_seg"
    for number, spoil in enumerate(("empty", "exclude", "lacking")):
        root = write_own(tmp_path / spoil)
        choices = catalogue.Choices(exclude=["p1[5-9]*"] if spoil == "exclude" else ())
        if spoil == "empty":
            write_list(root, "test", [])
        if spoil == "lacking":
            folder, suffix = ("Annotations", "xml") if subset == "labels" else ("SegmentationClass", "png")
            for place in range(15, 20):
                (root / folder / f"p{place}.{suffix}").unlink()
        dataset = catalogue.read(root, f"mine{number}", choices)
        ((reason, count),) = lists.passed_over(dataset, subset).items()
        assert f"ImageSets/{scored}/test.txt" in reason and reason.endswith("so that val.txt is scored"), task
        assert count == (5 if spoil == "lacking" else 1)
    assert lists.passed_over(catalogue.read(write_own(tmp_path / "whole"), "whole"), subset) == {}


def test_years_at_two_depths_are_refused_and_folders_of_other_names_counted(tmp_path: Path) -> None:
    for place in ("VOC2012", "VOCdevkit/VOC2007"):
        write_own(tmp_path / "d" / place, 10)
    with pytest.raises(DataError, match=r"holds VOC2012, VOCdevkit/VOC2007; name the folder of one"):
        catalogue.read(tmp_path / "d", "mine")
    root = tmp_path / "d" / "VOC2012"
    for name in ("segmentation", "Layout"):
        (root / "ImageSets" / name).mkdir()
    assert catalogue.read(root, "mine").findings == {"folders in ImageSets that are not read (segmentation)": 1}
