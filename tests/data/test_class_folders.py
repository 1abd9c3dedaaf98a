"""Class folders: the labels are those of torchvision's ImageFolder, and the fingerprint is that of the plain folder."""

from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from bench.data import catalogue, class_folders, lists, splits
from bench.data.fingerprint import fingerprinted
from bench.errors import DataError
from tests.data.labelled import draw, read, register, said_again, write_bmp

FLAT = [f"{name}/{place}{number}.png" for name in ("dog", "Cat", "ant 2") for place in ("", "deep/er/") for number in range(4)]
SPLIT = [f"{split}/{name}/{number}.png" for split in ("Train", "VALID", "test") for name in "ab" for number in range(5)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of its own: the home folder lies in tmp_path."""
    return tmp_path / "d"


def test_labels_are_those_of_torchvision(root: Path) -> None:
    draw(root, FLAT)
    dataset, theirs = read(root), ImageFolder(str(root))
    assert list(dataset.classes) == theirs.classes and dataset.single and lists.tasks_for(dataset) == ["classes", "multilabel"]
    ours = {str(dataset.path(image)): image.label for image in dataset.images}
    assert ours == dict(theirs.samples) and len(ours) == len(FLAT)


def test_splits_are_those_of_the_folders_whatever_their_case(root: Path) -> None:
    draw(root, SPLIT)
    dataset = read(root)
    assert dataset.classes == ("a", "b")
    for split, name in (("train", "Train"), ("val", "VALID"), ("test", "test")):
        theirs = ImageFolder(str(root / name))
        assert dataset.given[split] == tuple(str(Path(path).relative_to(root)) for path, _ in theirs.samples)
    made = splits.open_splits(dataset, "own", "labels")
    assert {split: len(ids) for split, ids in made.members.items()} == {"train": 10, "val": 10, "test": 10}


@pytest.mark.parametrize(
    ("names", "fingerprint"),
    [  # of the plain folder, by the version before class folders were read
        (["cat/1.bmp", "cat/deep/2.bmp", "dog/1.bmp"], "0903589c6b36f4bb321d0d9415a8567fa962657a46d8ad42df4bd18158250a39"),
        (
            ["train/cat/1.bmp", "train/dog/2.bmp", "test/cat/1.bmp"],
            "f5ef5aa68f688008df06a47aaacc830e8b996b1722e52f9d701e0a9bb9991cd6",
        ),
    ],
)
def test_the_fingerprint_is_that_of_the_plain_folder_of_earlier_versions(root: Path, names: list[str], fingerprint: str) -> None:
    for number, name in enumerate(names):
        write_bmp(root / name, 40 * number)
    dataset, plain = read(root), read(root, layout="images")
    assert dataset.single and not plain.classes
    assert fingerprinted(dataset).fingerprint == fingerprinted(plain).fingerprint == fingerprint
    assert dataset.annotations and not plain.annotations


@pytest.mark.parametrize(
    "names",
    [
        ["a/1.png", "a/2.png"],
        ["a/1.png", "b/1.png", "c.png"],
        ["train/1.png", "test/2.png"],
        ["train/a/1.png", "train/b/1.png", "test/1.png"],
        ["train/a/1.png", "train/b/1.png", "test/a/1.png", "unlabelled/1.png"],
        ["data/a/1.png", "data/b/1.png"],
    ],
)
def test_other_folders_stay_unlabelled(root: Path, names: list[str]) -> None:
    dataset = read(draw(root, names))
    assert (dataset.kind, dataset.classes, dataset.single, dataset.given) == ("folder", (), False, {})
    with pytest.raises(DataError, match="has no class folders"):
        read(root, layout="classes")


def test_a_class_may_be_called_train_and_a_lone_split_is_divided(root: Path, tmp_path: Path) -> None:
    assert read(draw(root, ["bus/1.png", "train/1.png"])).classes == ("bus", "train")
    lone = read(draw(tmp_path / "e", [f"train/{name}/{number}.png" for name in "ab" for number in range(9)]))
    assert (lone.classes, lone.given) == (("a", "b"), {})
    assert len(splits.open_splits(lone, "own", "labels").ids("test")) == 2


def test_what_may_be_a_mistake_is_counted(root: Path) -> None:
    draw(root, ["train/cat/1.png", "test/cat/1.png", "test/Cat/1.png"])
    (root / "val").mkdir()
    assert read(root).findings == {
        "folders without images, which are no classes (val)": 1,
        "classes whose names differ from another's in their case alone": 1,
        "classes of which the folder train has no image (Cat)": 1,
    }


def table(root: Path, column: str, of: list[str]) -> None:
    rows = "".join(f"{name},{value}\n" for name, value in zip(FLAT, of, strict=True))
    (root / "labels.csv").write_text(f"file,{column}\n{rows}")


def test_a_table_gives_groups_and_splits_and_folders_the_classes(root: Path) -> None:
    draw(root, FLAT)
    table(root, "patient", [f"p{number // 2}" for number in range(len(FLAT))])
    made = register(root, group="patient")
    assert (made.kind, made.sources, made.grouped_by, len(made.classes)) == ("folder", ("labels.csv",), "patient", 3)
    assert said_again(made) == read(root, group="patient") and "files of annotations" not in str(made.findings)
    assert catalogue.verify("mine").annotations == made.annotations
    table(root, "patient", [f"p{number // 3}" for number in range(len(FLAT))])
    with pytest.raises(DataError, match="has changed since it was prepared"):
        catalogue.verify("mine")


def test_a_table_of_other_classes_than_the_folders_has_to_be_chosen(root: Path) -> None:
    draw(root, FLAT)
    table(root, "label", [Path(name).parts[0] for name in FLAT])
    assert read(root).kind == "folder"
    table(root, "label", ["other", *(Path(name).parts[0] for name in FLAT[1:])])
    with pytest.raises(DataError, match=r"labels\.csv and the folders say different classes, such as 'other' for dog/0\.png"):
        read(root)
    assert read(root, layout="csv").classes == ("Cat", "ant 2", "dog", "other")
    assert read(root, layout="classes").classes == ("Cat", "ant 2", "dog")


def test_a_set_that_was_prepared_as_a_plain_folder_stays_one(root: Path) -> None:
    made = register(draw(root, FLAT), layout="images")
    assert catalogue.verify("mine").fingerprint == made.fingerprint and said_again(made).classes == ()
    labelled = class_folders.labelled(made)
    assert labelled is not None and labelled.single


def test_what_spoils_class_folders_is_named_and_can_be_left_out(tmp_path: Path) -> None:
    draw(tmp_path, ["cat/1.png", "dog/2.png", "loose.png"])
    plain = catalogue.read(tmp_path, "mine")
    assert not plain.classes and plain.findings["folders that are no classes, since loose.png lies beside the folders"] == 2
    with pytest.raises(DataError, match=r"has no class folders: loose\.png lies beside the folders"):
        catalogue.read(tmp_path, "mine", catalogue.Choices(layout="classes"))
    left = catalogue.read(tmp_path, "mine", catalogue.Choices(exclude=["loose.png"]))
    assert left.classes == ("cat", "dog") and left.exclude == ("loose.png",)
    draw(tmp_path / "splits", ["train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "backup/x/4.png"])
    with pytest.raises(DataError, match="backup lies beside test, train"):
        catalogue.read(tmp_path / "splits", "mine", catalogue.Choices(layout="classes"))
    assert catalogue.read(tmp_path / "splits", "mine", catalogue.Choices(exclude=["backup/*"])).classes == ("cat", "dog")
