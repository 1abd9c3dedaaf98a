"""Labels, splits and groups from a CSV file: as pandas reads them; a mistake is named with its line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.data import catalogue, lists, splits
from bench.data.dataset import Dataset
from bench.errors import DataError, UsageError
from tests.data.labelled import draw, read, register, said_again

NAMES = [f"images/p{number:02}.png" for number in range(24)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of images: the home folder lies beside it."""
    return draw(tmp_path / "d", NAMES)


def write(root: Path, *lines: str, name: str = "labels.csv") -> Path:
    (root / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return root


def labels_of(dataset: Dataset) -> dict[str, set[str]]:
    ids = list(dataset.labelled())
    shown = dataset.labels(ids)
    return {one: {dataset.classes[number] for number in np.flatnonzero(row)} for one, row in zip(ids, shown, strict=True)}


def test_labels_groups_and_splits_are_those_that_pandas_reads(root: Path) -> None:
    made = np.random.default_rng(0)
    patients = made.integers(0, 6, len(NAMES))
    frame = pd.DataFrame(
        {
            "Image_ID": [Path(name).stem for name in NAMES],
            "Diagnosis": made.choice(["melanoma", "nevus", "kératose"], len(NAMES)),
            "patient": [f"p {number}" for number in patients],
            "split": np.array(["train", "Validation", "test"])[patients % 3],
        }
    )
    frame.to_csv(root / "labels.csv")  # pandas writes its index into a column without a name
    theirs = pd.read_csv(root / "labels.csv")
    dataset = register(root, group="patient")
    assert (dataset.kind, dataset.single, lists.tasks_for(dataset)) == ("csv", True, ["classes", "multilabel"])
    assert dataset.classes == tuple(sorted(theirs["Diagnosis"].unique()))
    assert labels_of(dataset) == {f"images/{row.Image_ID}.png": {row.Diagnosis} for row in theirs.itertuples()}
    assert {image.id: image.group for image in dataset.images} == {
        f"images/{row.Image_ID}.png": row.patient for row in theirs.itertuples()
    }
    own = splits.open_splits(dataset, "own", "labels")
    assert own.grouped_by == "patient"
    for split, word in (("train", "train"), ("val", "Validation"), ("test", "test")):
        assert [Path(one).stem for one in own.ids(split)] == theirs["Image_ID"][theirs["split"] == word].tolist()
    drawn = splits.open_splits(dataset, "paper-70-20-10", "labels")
    groups = [{image.group for image in dataset.images if image.id in drawn.ids(split)} for split in ("train", "val", "test")]
    assert all(groups) and sum(map(len, groups)) == len(set.union(*groups)) == frame["patient"].nunique()
    assert catalogue.verify("mine").fingerprint == dataset.fingerprint and said_again(dataset) == read(root, group="patient")


@pytest.mark.parametrize(
    "cell", ["p05", "p05.png", "images/p05.png", "images/p05", "./images/p05.png", r"images\p05.png", "/d/images/p05.png"]
)
def test_a_file_is_found_by_what_names_it(root: Path, cell: str) -> None:
    assert list(labels_of(read(write(root, "file,label", f"{cell},cat")))) == ["images/p05.png"]


def test_of_two_files_of_one_name_the_folder_tells(root: Path) -> None:
    draw(root, ["more/p05.png"])
    for cell, found in (("more/p05", "more/p05.png"), ("images/p05.png", "images/p05.png")):
        assert list(labels_of(read(write(root, "file,label", f"{cell},cat"), layout="csv"))) == [found]
    with pytest.raises(DataError, match=r"line 2: 'p05' may be images/p05\.png, more/p05\.png; write the folder"):
        read(write(root, "file,label", "p05,cat"), layout="csv")


@pytest.mark.parametrize("text", ['p00,"cat, dog"', "p00,cat;dog", "p00,cat | dog", "p00,dog|cat|dog"])
def test_several_labels_in_a_cell(root: Path, text: str) -> None:
    dataset = read(write(root, "id,tags", text, "p01,", "p02,dog"))
    assert not dataset.single and lists.tasks_for(dataset) == ["multilabel"]
    assert labels_of(dataset) == {"images/p00.png": {"cat", "dog"}, "images/p01.png": set(), "images/p02.png": {"dog"}}
    assert dataset.findings == {
        "images in no row of labels.csv, kept without labels": 21,
        "rows of labels.csv without a label": 1,
    }


@pytest.mark.parametrize("between", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_any_delimiter_with_and_without_a_byte_order_mark(root: Path, between: str, mark: str) -> None:
    text = f"{mark}file,label,split\r\np00,a,train\r\n\r\np01,b,test\r\n".replace(",", between)
    (root / "labels.csv").write_bytes(text.encode())
    dataset = read(root)
    assert (dataset.classes, dataset.given) == (("a", "b"), {"train": ("images/p00.png",), "test": ("images/p01.png",)})
    assert [image.split for image in dataset.images][:3] == ["train", "test", ""]  # pretraining leaves the test split out


def test_one_column_a_class(root: Path) -> None:
    dataset = read(write(root, "image,MEL,NV", "p00,1.0,0.0", "p01,0,1", "p02,,-1", "p03,1,1"))
    assert dataset.classes == ("MEL", "NV") and not dataset.single
    assert [dataset.labelled()[f"images/p0{number}.png"].labels for number in range(4)] == [(1, 0), (0, 1), (0, -1), (1, 1)]
    assert read(write(root, "image,MEL,NV", "p00,1.0,0.0", "p01,0,1")).single
    assert not read(write(root, "image,MEL,NV", "p00,1.0,0.0", "p01,0,-1")).single
    write(root, "NV", "MEL", name="classes.txt")
    assert read(write(root, "image,age,MEL,NV", "p00,50,1,0", "p01,30,0,1")).classes == ("NV", "MEL")


@pytest.mark.parametrize(
    ("numbers", "listed", "shown", "classes"),
    [
        ("0 2", "cat dog fox", "cat fox", "cat dog fox"),
        ("1 3", "cat dog fox", "cat fox", "cat dog fox"),
        ("1.0 3.0", "cat dog fox", "cat fox", "cat dog fox"),
        ("10 9", "", "10 9", "9 10"),
        ("1 2", "2 1 0", "1 2", "2 1 0"),
    ],
)
def test_numbers_are_lines_of_classes_txt_or_names(root: Path, numbers: str, listed: str, shown: str, classes: str) -> None:
    if listed:
        write(root, *listed.split(), name="classes.txt")
    dataset = read(write(root, "file,label", *(f"p0{place},{one}" for place, one in enumerate(numbers.split()))))
    assert list(labels_of(dataset).values()) == [{name} for name in shown.split()] and dataset.classes == tuple(classes.split())
    said = f"labels that are numbers, read as lines of classes.txt, of which the first is {0 if '0' in numbers.split() else 1}"
    assert dataset.findings.get(said) == (2 if "fox" in listed else None)
    assert dataset.sources == (("labels.csv", "classes.txt") if listed else ("labels.csv",))


def test_numbers_that_may_count_from_0_or_from_1_are_refused(root: Path) -> None:
    write(root, "cat", "dog", "fox", name="classes.txt")
    table = write(root, "file,label", "p00,1", "p01,2")
    with pytest.raises(
        DataError, match=r"nothing tells whether its first line is number 0 or 1.* Write the names of the classes"
    ):
        read(table)


def test_columns_that_are_not_used_are_named_with_what_may_group_images(root: Path) -> None:
    found = read(write(root, "file,label,patient,age", "p00,cat,a,3", "p01,dog,b,4")).findings
    said = "columns of labels.csv that are not used (patient, age); --group patient keeps the images of one patient in one split"
    assert found[said] == 2


@pytest.mark.parametrize(
    ("lines", "listed", "message"),
    [
        ("scan,label p00,cat", "", r"labels\.csv has no column that names the files .* its columns are scan, label"),
        ("file,kind p00,cat", "", r"no column of labels .*\(line 2 has 'cat' in kind\)"),
        ("file,label,class p00,cat,dog", "", "has 2 columns that may have the labels, label and class"),
        ("file,label,Label p00,cat,dog", "", "has two columns named 'Label'"),
        (
            "file,label p00,cat lost,cat p99,cat",
            "",
            "line 3: there is no image 'lost' .*the images of other rows are not there either \\(1\\)",
        ),
        ("file,label P00.png,cat", "", r"there is no image 'P00.png'.* There is 'images/p00\.png'"),
        ("file,label p00,cat p00.png,dog", "", "line 3 names the image of line 2, and its label is 'dog', there 'cat'"),
        ("file,label ,cat", "", "line 2 names no file in the column file"),
        ("file,label p00,cat p01,Cat", "", "line 3 has the label 'Cat', and line 2 'cat'"),
        ("file,label p00,dog p01,cats", "cat dog", r"line 3: unknown class 'cats' \(classes\.txt\); did you mean 'cat'\?"),
        ("file,label p00,0 p01,2", "cat dog", r"line 3 has the label 2, .* 2 classes, which are numbered 0 to 1, since there is"),
        ("file,label p00,1 p01,3", "cat dog", "line 3 has the label 3, .* numbered 1 to 2, since no label is 0"),
        ("file,label p00,", "", "has no label in its column label"),
        ("file,label p00", "", "line 2 has 1 cells, and its header 2"),
        ("file,label p00,cat,dog", "", "line 2 has 3 cells, and its header 2"),
        ("file,cat,dog p00,1,2", "", r"one a class with 0 and 1 \(line 2 has '2' in dog\)"),
        ("file,cat,dog p00,1,0", "cat fox", r"name different classes, such as 'dog'"),
        ("file,label,set p00,cat,train p01,cat,hold", "", "line 3: the set is 'hold'; it must be train, val or test"),
        ("file,label", "", "has no row below its header"),
        ('file,label "p00,cat', "", "line 2: this is no row of a CSV file"),
    ],
)
def test_a_mistake_is_named_with_its_line(root: Path, lines: str, listed: str, message: str) -> None:
    if listed:
        write(root, *listed.split(), name="classes.txt")
    with pytest.raises(DataError, match=message):
        read(write(root, *lines.split(" ")))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"group": "pateint"}, "--group: unknown column 'pateint' of labels.csv; did you mean 'patient'"),
        ({"labels": "more.csv"}, r"--labels more\.csv: there is no such file"),
        ({"labels": "../outside.csv"}, "does not lie below"),
        ({"layout": "images", "group": "patient"}, "is read as images"),
        ({"layout": "tables"}, "unknown layout 'tables'"),
        ({"mask_values": ("255=1",)}, "has no masks"),
        ({"score": ("fox",)}, "has no class 'fox' to score"),
    ],
)
def test_a_choice_that_does_not_fit_is_refused(root: Path, choices: dict[str, object], message: str) -> None:
    write(root.parent, "file,label", "p00,cat", name="outside.csv")
    with pytest.raises(UsageError, match=message):
        read(write(root, "file,label,patient", "p00,cat,1"), **choices)


def test_an_image_without_a_group_is_refused_by_its_line(root: Path) -> None:
    write(root, "file,label,patient", "p00,cat,1", "p01,cat,")
    assert read(root).grouped_by == ""
    with pytest.raises(DataError, match="line 3 has no patient, which groups the images"):
        read(root, group="patient")


def test_rows_of_files_that_are_not_there_are_left_out_when_asked_for_good(root: Path) -> None:
    write(root, "file,label", *(f"p{number:02},cat" for number in range(26)))
    said: list[str] = []
    found = catalogue.read(root, "mine", catalogue.Choices(skip_broken=True), said.append)
    made = catalogue.register(found, skip_broken=True)
    assert made.broken == ("p24", "p25") and made.findings == {"rows of labels.csv whose file is not there": 2}
    assert len(said) == 2 and "line 26 names 'p24'" in said[0] and "--skip-broken" in made.prepare_with()
    assert catalogue.verify("mine").fingerprint == made.fingerprint


def test_a_changed_label_is_another_data_set(root: Path) -> None:
    write(root, "file,label", "p00,cat", "p01,dog")
    made = register(root)
    write(root, "file,label", "p00,dog", "p01,cat")
    with pytest.raises(DataError, match="has changed since it was prepared"):
        catalogue.verify("mine")
    assert register(root).fingerprint != made.fingerprint


def test_a_row_may_name_what_looks_like_a_mask(root: Path) -> None:
    from PIL import Image

    for name in NAMES:
        (root / "drawings").mkdir(exist_ok=True)
        Image.new("L", (16, 12), 7).save(root / "drawings" / Path(name).name)
    assert len(read(root, layout="images").images) == len(NAMES)
    found = labels_of(read(write(root, "file,label", "drawings/p03.png,cat", "p04.png,dog"), layout="csv"))
    assert found == {"drawings/p03.png": {"cat"}, "images/p04.png": {"dog"}}
