"""A search is refused before training when the validation split cannot judge every scored class."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.data.dataset import Dataset, ImageFile
from bench.data.splits import Splits
from bench.errors import DataError
from bench.experiment import choice
from tests.conftest import Outcome
from tests.data.made import save_mask, write_list, write_own

Bench = Callable[..., Outcome]
SMALL = ("--trunk", "unet:depth=5,width=8", "--size", 32, "--pretext", "random_init", "--protocol", "small")


OFFICIAL = "protocol.split_scheme=official"


def own(root: Path, count: int, classes: int = 2) -> Path:
    made = write_own(root, count, classes)
    (made / "classes.txt").write_text("\n".join(("aeroplane", "bicycle", "bird")[:classes]))
    return made


@pytest.mark.parametrize("task", ["voc_cls", "voc_seg"])
def test_a_validation_split_of_one_image_is_told_before_training(bench: Bench, tmp_path: Path, task: str) -> None:
    root = own(tmp_path / "d", 15)
    write_list(root, "train", [f"p{place:02}" for place in range(11)])
    write_list(root, "val", [f"p{place:02}" for place in range(11, 15)])
    for kind in ("Main", "Segmentation"):
        (root / "ImageSets" / kind / "test.txt").unlink()
    asked = ("run", *SMALL, "--downstream", task, "--data", root, "--out", tmp_path / "runs", "--set", OFFICIAL, "--tune", 2)
    done = bench(*asked)
    assert done.code == 2
    assert "--tune chooses on the validation split, which has 1 image of d" in done.err
    assert "With all labels it has 1 image and" in done.err
    assert not (tmp_path / "runs" / "studies").exists() and not (tmp_path / "runs" / "pretrained").exists()


def test_the_sentence_names_the_classes_and_the_share_that_would_do(bench: Bench, tmp_path: Path) -> None:
    root = own(tmp_path / "d", 80, 3)
    asked = ("run", *SMALL, "--downstream", "voc_cls", "--data", root, "--out", tmp_path / "runs", "--tune", 2, "--plan")
    assert bench(*asked).code == 0
    few = bench(*asked, "--labels", "0.05")
    assert few.code == 2
    assert "which at 5 % of the labels has 2 images of d and not an image with and one without each scored class" in few.err
    assert "10 % of the labels would do: --labels 0.1" in few.err or "100 % of the labels would do: --labels 1" in few.err


def test_a_class_that_only_training_has_cannot_be_chosen_for(bench: Bench, tmp_path: Path) -> None:
    root = own(tmp_path / "d", 40)
    (root / "Annotations" / "p00.xml").write_text("<annotation><object><name>bird</name></object></annotation>")
    save_mask(np.full((24, 32), 3), root / "SegmentationClass" / "p00.png")
    (root / "classes.txt").write_text("aeroplane\nbicycle\nbird\n")
    asked = ("run", *SMALL, "--data", root, "--out", tmp_path / "runs", "--plan")
    for task in ("voc_cls", "voc_seg"):
        assert bench(*asked, "--downstream", task).code == 0
        done = bench(*asked, "--downstream", task, "--tune", 2)
        assert done.code == 2 and "(lacking: bird). With all labels it has 10 images and lacks bird all the same" in done.err
        assert f"bench data prepare d --root {root} --score aeroplane,bicycle`" in done.err
    assert bench("data", "prepare", "d", "--root", root, "--score", "aeroplane,bicycle").code == 0
    again = ("run", *SMALL, "--data", "d", "--out", tmp_path / "runs", "--plan", "--downstream", "all", "--tune", 2)
    assert bench(*again).code == 0


def test_synthetic_data_are_warned_of_only(bench: Bench, tmp_path: Path) -> None:
    root = own(tmp_path / "d", 40)
    (root / "classes.txt").write_text("aeroplane\nbicycle\nbird\n")
    (root / "SYNTHETIC.txt").write_text("")
    done = bench("run", *SMALL, "--data", root, "--out", tmp_path / "runs", "--plan", "--downstream", "voc_cls", "--tune", 2)
    assert done.code == 0 and "warning: --tune chooses" in done.out


def labelled(labels: list[tuple[int, ...]], **members: list[int]) -> tuple[Dataset, Splits]:
    images = tuple(ImageFile(f"i{place}", f"i{place}.png", labels=one) for place, one in enumerate(labels))
    dataset = Dataset(name="mine", kind="csv", root=Path(), classes=("cat", "dog"), scored=("cat", "dog"), images=images)
    named = {name: tuple(f"i{place}" for place in members.get(name, [])) for name in ("train", "val", "test")}
    return dataset, Splits(scheme="own", dataset="mine", data_fingerprint="f" * 64, subset="labels", members=named)


def test_a_small_test_split_and_classes_that_nothing_teaches_are_warned_of() -> None:
    said: list[str] = []
    dataset, splits = labelled([(1, 0)] * 30 + [(0, 1)], train=list(range(20)), val=[20, 21], test=[29, 30])
    choice.check_scored(dataset, splits, (1.0,), said.append)
    assert said == [
        "warning: the test split of mine has 2 images, so its scores say little",
        "warning: no training image of mine shows dog, and test images do",
    ]
    said.clear()
    dataset, splits = labelled([(1, 0)] * 29 + [(0, 1)] * 31, train=list(range(28)) + [59], val=[28], test=list(range(29, 59)))
    choice.check_scored(dataset, splits, (1.0, 0.1), said.append)
    assert len(said) == 1 and said[0].startswith("warning: 10 % of the labels of mine are 3 training images, and none shows")


def test_test_images_that_show_no_scored_class_stop_the_command() -> None:
    dataset, splits = labelled([(1, 0)] * 20 + [(0, 0)] * 30, train=list(range(18)), val=[18, 19], test=list(range(20, 50)))
    with pytest.raises(DataError, match=r"the 30 test images of mine show none of the scored classes \(cat, dog\)"):
        choice.check_scored(dataset, splits, (1.0,), print)
