"""Data sets of Hugging Face on the disk, written as images and a table: held against the library's own reader."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from bench.data import catalogue, exports
from bench.errors import DataError
from tests.data.exported import CLASS, NAMES, agree, hugging_face, noise
from tests.data.made import quiet


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRETEXT_BENCH_HOME", str(tmp_path / "home"))


LABELS: dict[str, tuple[Callable[[int], Any], Any, Callable[[Any], list[str]]]] = {
    "class": (lambda n: n % 4, CLASS, lambda found: [NAMES[found]]),
    "classes": (lambda n: [n % 4, (n + 1) % 4], datasets.Sequence(CLASS), lambda found: [NAMES[one] for one in found]),
    "text": (lambda n: NAMES[n % 4], datasets.Value("string"), lambda found: [found]),
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("form", ["saved", "one", "parquet"])
def test_hugging_face(tmp_path: Path, rng: np.random.Generator, kind: str, form: str) -> None:
    label, feature, names = LABELS[kind]
    parts = {split: hugging_face(rng, count, label, feature) for split, count in (("train", 6), ("validation", 4), ("test", 5))}
    parts = {"train": parts["train"]} if form == "one" else parts
    root = tmp_path / "set"
    if form == "saved":
        datasets.DatasetDict(parts).save_to_disk(str(root))
    elif form == "one":
        parts["train"].save_to_disk(str(root))
    else:
        (root / "data").mkdir(parents=True)
        for split, part in parts.items():
            for shard in range(2):
                part.shard(2, shard, contiguous=True).to_parquet(str(root / "data" / f"{split}-{shard:05d}-of-00002.parquet"))
    split_names = {"train": "train", "validation": "val", "test": "test"}
    theirs = {split_names[split]: [(row["image"], names(row["label"])) for row in part] for split, part in parts.items()}
    agree(root, theirs, tuple(sorted(NAMES)) if kind == "text" else NAMES)


def test_encoded_images_keep_their_bytes_and_others_become_png(tmp_path: Path, rng: np.random.Generator) -> None:
    paths = []
    for place, suffix in enumerate(("jpg", "png", "webp", "bmp", "tif", "gif")):
        paths.append(tmp_path / f"{place}.{suffix}")
        Image.fromarray(noise(rng, 8, 9, 3)).save(paths[-1])
    features = datasets.Features({"picture": datasets.Image(), "kind": CLASS})
    whole = datasets.Dataset.from_dict({"picture": [str(path) for path in paths], "kind": [0, 1, 2, 3, 0, 1]}, features=features)
    whole.save_to_disk(str(tmp_path / "set"))
    dataset = agree(tmp_path / "set", {"": [(row["picture"], [NAMES[row["kind"]]]) for row in whole]}, NAMES)
    written = sorted(dataset.path(image) for image in dataset.images)
    assert [path.suffix for path in written] == [".jpg", ".png", ".webp", ".bmp", ".tif", ".png"]
    assert [path.read_bytes() for path in written[:5]] == [path.read_bytes() for path in paths[:5]]


def test_rows_without_a_label_are_images_without_one(tmp_path: Path, rng: np.random.Generator) -> None:
    hugging_face(rng, 4, lambda n: -1 if n == 1 else n, CLASS).save_to_disk(str(tmp_path / "set"))
    folder = exports.export(tmp_path / "set", "mine", quiet)
    assert folder is not None
    dataset = catalogue.read(folder, "mine")
    assert [image.label for image in dataset.images] == [0, None, 2, 3] and dataset.single


@pytest.mark.parametrize(
    ("feature", "column", "label", "message"),
    [
        (
            datasets.Value("float32"),
            "label",
            0.5,
            r"needs one column of labels, .*image \(Image\), label \(float32\), note \(string\)",
        ),
        (datasets.Value("string"), "kind", "a", r"needs one column of labels, .*kind \(string\)"),
        (datasets.Image(), "label", None, "has 2 columns of the feature Image"),
    ],
)
def test_a_column_that_cannot_be_told_is_refused_with_all_columns(
    tmp_path: Path, rng: np.random.Generator, feature: Any, column: str, label: Any, message: str
) -> None:
    hugging_face(rng, 3, lambda n: label, feature, column).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(DataError, match=message):
        exports.export(tmp_path / "set", "mine", quiet)


def test_splits_that_are_no_train_validation_and_test_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    parts = {name: hugging_face(rng, 3, lambda n: n, CLASS) for name in ("train", "unsupervised")}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(DataError, match="has the splits train, unsupervised, which are not one each of"):
        exports.export(tmp_path / "set", "mine", quiet)


def test_an_export_that_breaks_off_leaves_nothing(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "set"
    whole = hugging_face(rng, 3, lambda n: n, CLASS).cast_column("image", datasets.Image(decode=False))

    def broken(row: dict[str, Any], place: int) -> dict[str, Any]:
        return {"image": {"bytes": b"no image" if place == 2 else row["image"]["bytes"], "path": None}}

    whole.map(broken, with_indices=True).cast_column("image", datasets.Image()).save_to_disk(str(root))
    with pytest.raises(DataError, match="image 2, does not decode as an image"):
        exports.export(root, "mine", quiet)
    assert not list((tmp_path / "home" / "exported").iterdir())
