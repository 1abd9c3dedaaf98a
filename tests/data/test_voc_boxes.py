"""VOC's boxes, read as continuous edges; earlier indexes get them once; VOC 2007 and 2012 as one data set."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.data import catalogue, lists, splits, voc
from bench.data.dataset import DIFFICULT, JUDGED, VOC_CLASSES
from bench.errors import DataError
from tests.data.made import quiet, write_list, write_own


def item(name: str, *edges: object, difficult: int = 0, more: str = "") -> str:
    box = "".join(f"<{tag}>{edge}</{tag}>" for tag, edge in zip(voc.EDGES, edges, strict=False))
    return (
        f"<object>{more}<name>{name}</name><difficult>{difficult}</difficult>{f'<bndbox>{box}</bndbox>' if box else ''}</object>"
    )


def annotate(root: Path, identity: str, *items: str) -> Path:
    path = root / "Annotations" / f"{identity}.xml"
    path.write_text(f"<annotation><size><width>32</width><height>24</height></size>{''.join(items)}</annotation>")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty images whose box is that of the pixels of their class in the mask."""
    made = write_own(tmp_path / "d", void=False)
    for place in range(20):
        annotate(made, f"p{place:02}", item(VOC_CLASSES[place % 3], 9, 7, 24, 18))
    return made


def test_a_box_has_the_pixels_of_its_mask(root: Path) -> None:
    dataset = catalogue.read(root, "mine")
    assert dataset.boxed and len(dataset.boxes) == 20 and lists.tasks_for(dataset)[-1] == "detection"
    for identity, ((number, left, top, right, bottom, flag),) in dataset.boxes.items():
        from PIL import Image

        rows, columns = np.nonzero(np.array(Image.open(dataset.mask_path("SegmentationClass", identity))) == number + 1)
        assert (left, top, right, bottom) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert flag == JUDGED and dataset.labelled()[identity].labels[number] == 1


def test_decimal_and_difficult_boxes_parts_and_images_without_objects(root: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    annotate(root, "p00", item("cat", 1, 1, 1, 1, difficult=1), item("dog", 2.5, 3.25, 30, 20.5, more=part))
    annotate(root, "p01")
    dataset = catalogue.read(root, "mine")
    cat, dog = VOC_CLASSES.index("cat"), VOC_CLASSES.index("dog")
    assert dataset.boxes["p00"] == ((cat, 0, 0, 1, 1, DIFFICULT), (dog, 1.5, 2.25, 30, 20.5, JUDGED))
    assert dataset.boxes["p01"] == ()


@pytest.mark.parametrize(
    "edges",
    [
        (),
        (5, 5, 4, 9),
        (5, 5, 9, 4),
        (5, 5, 9),
        (5, 5, "nan", 9),
        (5, 5, "inf", 9),
        ("x", 5, 9, 9),
        (-9, 5, 9, 9),
        (40, 5, 50, 9),
    ],
)
def test_a_box_without_sense_is_named_and_not_used(root: Path, edges: tuple[object, ...]) -> None:
    path = annotate(root, "p04", item("bicycle", 9, 7, 24, 18), item("cat", *edges))
    with pytest.raises(DataError, match=r"p04\.xml has an object of class 'cat' (without a box|whose box has no sense)"):
        voc.boxes_in(voc.parse(path), path, VOC_CLASSES)
    dataset = catalogue.read(root, "mine")
    assert "p04" not in dataset.boxes and len(dataset.boxes) == 19 and "p04" in dataset.labelled()
    (reason,) = (reason for reason in dataset.findings if "boxes are not used" in reason)
    assert "p04.xml has an object of class 'cat'" in reason and dataset.findings[reason] == 1


def test_annotations_without_any_box_are_read_as_before(tmp_path: Path) -> None:
    root = write_own(tmp_path / "d")
    annotate(root, "p00")
    dataset = catalogue.read(root, "mine")
    assert dataset.boxed and dataset.boxes == {} and dataset.annotations == ""
    assert dataset.findings == {"annotations without an object": 1}


def test_an_earlier_index_gets_its_boxes_once_and_keeps_its_fingerprint(root: Path) -> None:
    made = catalogue.register(catalogue.read(root, "mine"))
    place = catalogue._index("mine").parent
    catalogue._save(place, made.model_copy(update={"boxes": {}, "boxed": False, "annotations": ""}))
    dataset = catalogue.open_dataset("mine", pytest.fail)
    assert dataset == made and catalogue.read_index(place / "index.json") == made
    shutil.rmtree(root / "Annotations")
    assert catalogue.open_dataset("mine", pytest.fail) == made


def test_an_earlier_index_whose_annotations_are_others_now_stays_as_it_is(root: Path) -> None:
    made = catalogue.register(catalogue.read(root, "mine"))
    catalogue._save(catalogue._index("mine").parent, made.model_copy(update={"boxes": {}, "boxed": False, "annotations": ""}))
    annotate(root, "p03", item("sheep", 1, 1, 2, 2))
    dataset = catalogue.open_dataset("mine", pytest.fail)
    assert not dataset.boxed and dataset.fingerprint == made.fingerprint


def test_a_moved_box_is_seen_though_the_fingerprint_is_of_old(root: Path) -> None:
    made = catalogue.register(catalogue.read(root, "mine"))
    before = catalogue.open_dataset(str(root), quiet)
    annotate(root, "p03", item("aeroplane", 9, 7, 23, 18))
    after = catalogue.open_dataset(str(root), quiet)
    assert after.fingerprint == before.fingerprint and after.annotations != before.annotations == made.annotations
    assert after.boxes["p03"][0][3] == 23
    with pytest.raises(DataError, match="has changed since it was prepared"):
        catalogue.verify("mine")


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """VOC 2007 and VOC 2012, 20 images each."""
    for year, names in (("VOC2007", "{:06}"), ("VOC2012", "2008_{:06}")):
        folder = write_own(tmp_path / "VOCdevkit" / year, names=names)
        ids = [names.format(place) for place in range(20)]
        for place, identity in enumerate(ids):
            annotate(folder, identity, item(VOC_CLASSES[place % 3], 9, 7, 24, 18))
        write_list(folder, "trainval", ids[:15])
    return tmp_path


def test_voc0712_trains_on_both_years_and_scores_the_first(both: Path) -> None:
    made = catalogue.register(catalogue.read(both, "voc0712"))
    assert made.root == both / "VOCdevkit" and not made.masks and len(made.images) == len(made.boxes) == 40
    assert [made.path(image).is_file() for image in made.images] == [True] * 40
    for scheme in ("official", "own"):
        found = splits.open_splits(made, scheme, "boxes")
        trained = set(found.ids("train", "val"))
        assert trained == {f"{place:06}" for place in range(15)} | {f"2008_{place:06}" for place in range(15)}
        assert set(found.ids("test")) == {f"{place:06}" for place in range(15, 20)}
        assert found.scored_list == "ImageSets/Main/test.txt"
    assert catalogue.verify("voc0712").fingerprint == made.fingerprint
    assert catalogue.read(both / "VOCdevkit", "voc0712") == catalogue.read(both, "voc0712")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: shutil.rmtree(d / "VOC2007"), "is not voc0712: it needs VOC2007 and VOC2012"),
        (lambda d: (d / "VOC2012/ImageSets/Main/trainval.txt").unlink(), r"VOC2012 has no ImageSets/Main/trainval\.txt"),
        (lambda d: (d / "VOC2007/ImageSets/Main/test.txt").unlink(), r"VOC2007 has no ImageSets/Main/test\.txt"),
        (lambda d: (d / "VOC2012/classes.txt").write_text("aeroplane\nbicycle\nbird\n"), "has classes of its own"),
    ],
)
def test_half_a_voc0712_is_refused(both: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(both / "VOCdevkit")
    with pytest.raises(DataError, match=message):
        catalogue.read(both, "voc0712")


def test_a_broken_annotation_of_voc0712_is_left_out_by_its_year(both: Path) -> None:
    (both / "VOCdevkit/VOC2012/Annotations/2008_000002.xml").write_text("<annotation")
    with pytest.raises(DataError, match=r"2008_000002\.xml is not a VOC annotation"):
        catalogue.read(both, "voc0712")
    found = catalogue.read(both, "voc0712", catalogue.Choices(skip_broken=True))
    made = catalogue.register(found, skip_broken=True)
    assert made.broken == ("VOC2012/JPEGImages/2008_000002.jpg",) and len(made.images) == 39
    assert catalogue.verify("voc0712").fingerprint == made.fingerprint
