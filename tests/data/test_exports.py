"""Data sets of torchvision, medmnist and Hugging Face, written as images and a table: held against those libraries' own readers.

The files are small and made here in the true formats; where a reader checks the MD5 of the official files, the tests put that
check aside, and one test shows that it is otherwise there.
"""

import csv
import pickle
from pathlib import Path

import datasets
import medmnist
import numpy as np
import pytest
import torchvision
from PIL import Image
from scipy.io import savemat

from bench.data import catalogue, exports
from bench.errors import DataError, UsageError
from tests.data.exported import CLASS, NAMES, Theirs, agree, hugging_face, noise
from tests.data.made import quiet


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRETEXT_BENCH_HOME", str(tmp_path / "home"))


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("cifar", "stl10", "flowers102"):
        place = getattr(torchvision.datasets, module)
        monkeypatch.setattr(place, "check_integrity", lambda path, md5=None: Path(path).is_file())


def cifar(root: Path, rng: np.random.Generator, name: str) -> tuple[str, ...]:
    """Write batches as https://www.cs.toronto.edu/~kriz/cifar.html says: rows of 3072 bytes, red, green and blue planes."""
    reader = getattr(torchvision.datasets, name)
    folder, key = root / reader.base_folder, "labels" if name == "CIFAR10" else "fine_labels"
    folder.mkdir()
    for batch, _ in reader.train_list + reader.test_list:
        content = {"data": noise(rng, 5, 3072), key: rng.integers(0, len(NAMES), 5).tolist()}
        (folder / batch).write_bytes(pickle.dumps(content))
    (folder / reader.meta["filename"]).write_bytes(pickle.dumps({reader.meta["key"]: list(NAMES)}))
    return NAMES


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.usefixtures("unchecked")
def test_cifar(tmp_path: Path, rng: np.random.Generator, name: str, inside: bool) -> None:
    reader, classes = getattr(torchvision.datasets, name), cifar(tmp_path, rng, name)
    theirs = {split: [(i, [NAMES[n]]) for i, n in reader(tmp_path, train=split == "train")] for split in ("train", "test")}
    dataset = agree(tmp_path / reader.base_folder if inside else tmp_path, theirs, classes)
    assert dataset.single and all(image.file.endswith(".png") for image in dataset.images)


def stl10(root: Path, rng: np.random.Generator) -> tuple[str, ...]:
    """Write the binary files of STL10: planes in columns, labels from 1 on (https://cs.stanford.edu/~acoates/stl10)."""
    folder = root / "stl10_binary"
    folder.mkdir()
    for split, count in (("train", 4), ("test", 3)):
        noise(rng, count, 3, 96, 96).tofile(folder / f"{split}_X.bin")
        rng.integers(1, len(NAMES) + 1, count, dtype=np.uint8).tofile(folder / f"{split}_y.bin")
    noise(rng, 2, 3, 96, 96).tofile(folder / "unlabeled_X.bin")
    (folder / "class_names.txt").write_text("\n".join(NAMES) + "\n")
    (folder / "fold_indices.txt").write_text("0 1\n")
    return NAMES


@pytest.mark.usefixtures("unchecked")
def test_the_labelled_part_of_stl10(tmp_path: Path, rng: np.random.Generator) -> None:
    classes = stl10(tmp_path, rng)
    parts = {split: torchvision.datasets.STL10(tmp_path, split=split) for split in ("train", "test")}
    agree(tmp_path, {split: [(image, [NAMES[number]]) for image, number in part] for split, part in parts.items()}, classes)


def flowers(root: Path, rng: np.random.Generator) -> tuple[str, ...]:
    folder = root / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    for number in range(1, 10):
        Image.fromarray(noise(rng, 12, 10 + number, 3)).save(folder / "jpg" / f"image_{number:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([[77, 1, 102, 5, 5, 9, 1, 2, 3]], dtype=np.uint8)})
    savemat(
        folder / "setid.mat", {"trnid": np.array([[9, 2, 4]]), "valid": np.array([[1, 3]]), "tstid": np.array([[5, 6, 7, 8]])}
    )
    return tuple(torchvision.datasets.Flowers102.classes)


@pytest.mark.usefixtures("unchecked")
def test_flowers_with_the_files_as_they_are(tmp_path: Path, rng: np.random.Generator) -> None:
    classes = flowers(tmp_path, rng)
    parts = {split: torchvision.datasets.Flowers102(tmp_path, split=split) for split in ("train", "val", "test")}
    dataset = agree(tmp_path, {split: [(i, [classes[n]]) for i, n in part] for split, part in parts.items()}, classes)
    own = {path.read_bytes() for path in (tmp_path / "flowers-102" / "jpg").iterdir()}
    assert {dataset.path(image).read_bytes() for image in dataset.images} == own


def test_pets(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = tmp_path / "oxford-iiit-pet"
    for name in ("images", "annotations/trimaps"):
        (folder / name).mkdir(parents=True)
    breeds = (("Abyssinian", 1, 1), ("american_bulldog", 2, 2), ("Birman", 3, 1))
    for split, numbers in (("trainval", range(1, 4)), ("test", range(4, 6))):
        rows = [(f"{breed}_{number}", label, kind) for breed, label, kind in breeds for number in numbers]
        (folder / "annotations" / f"{split}.txt").write_text("".join(f"{one} {label} {kind} 1\n" for one, label, kind in rows))
        for one, _, _ in rows:
            Image.fromarray(noise(rng, 9, 14, 3)).save(folder / "images" / f"{one}.jpg")
    reader = torchvision.datasets.OxfordIIITPet
    parts = {"train": reader(tmp_path, split="trainval"), "test": reader(tmp_path, split="test")}
    classes = ("Abyssinian", "American Bulldog", "Birman")
    agree(tmp_path, {split: [(i, [part.classes[n]]) for i, n in part] for split, part in parts.items()}, classes)


@pytest.mark.parametrize("below", ["", "eurosat", "eurosat/2750"])
def test_eurosat_has_one_split_and_so_no_column_of_splits(tmp_path: Path, rng: np.random.Generator, below: str) -> None:
    classes = tuple(
        "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop Residential River SeaLake".split()
    )
    for number, name in enumerate(classes):
        (tmp_path / "eurosat" / "2750" / name).mkdir(parents=True)
        for place in range(1, 2 + number % 2):
            Image.fromarray(noise(rng, 8, 8, 3)).save(tmp_path / "eurosat" / "2750" / name / f"{name}_{place}.jpg")
    whole = torchvision.datasets.EuroSAT(tmp_path)
    dataset = agree(tmp_path / below, {"": [(image, [classes[number]]) for image, number in whole]}, classes)
    assert (dataset.root / "labels.csv").read_text().splitlines()[:2] == ["file,label", "images/000000.jpg,AnnualCrop"]


def write_npz(root: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, name: str, side: int) -> None:
    about = medmnist.INFO[name.partition("_")[0]]
    counts, classes = {"train": 5, "val": 3, "test": 4}, len(about["label"])
    content = {}
    for split, count in counts.items():
        content[f"{split}_images"] = noise(rng, count, side, side, *([3] if about["n_channels"] == 3 else []))
        several = rng.integers(0, 2, (count, classes)) * (np.arange(count)[:, None] > 0)
        one = rng.integers(0, classes, (count, 1), dtype=np.uint8)
        content[f"{split}_labels"] = several if "multi-label" in about["task"] else one
    np.savez(root / f"{name}.npz", **content)
    monkeypatch.setitem(about, "n_samples", counts)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("dermamnist", 28),
        ("pathmnist_64", 64),
        ("chestmnist", 28),
        ("bloodmnist", 28),
        ("breastmnist_128", 128),
        ("retinamnist", 28),
    ],
)
def test_medmnist(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, name: str, side: int) -> None:
    write_npz(tmp_path, rng, monkeypatch, name, side)
    about = medmnist.INFO[name.partition("_")[0]]
    classes = tuple(about["label"].values())
    theirs: Theirs = {}
    for split in ("train", "val", "test"):
        part = getattr(medmnist, about["python_class"])(split=split, root=str(tmp_path), size=side)
        numbers = [np.flatnonzero(target) if "multi-label" in about["task"] else target for _, target in part]
        theirs[split] = [(image, [classes[n] for n in some]) for (image, _), some in zip(part, numbers, strict=True)]
    folder = exports.export(tmp_path, "mine", quiet)
    assert folder is not None
    if name == "chestmnist":  # images without a finding are of no class, which is told
        with (folder / "labels.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["label"].split(";") if row["label"] else [] for row in rows] == [
            names for part in theirs.values() for _, names in part
        ]
        dataset = catalogue.read(folder, "mine")
        assert not dataset.single and dataset.findings == {"rows of labels.csv without a label": 3}
        labels = dataset.labels([image.id for image in dataset.images])
        assert labels.shape == (12, 14) and labels.sum() == sum(len(names) for part in theirs.values() for _, names in part)
    else:
        agree(tmp_path, theirs, classes)


def test_an_export_is_made_once_until_the_source_changes(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_npz(tmp_path, rng, monkeypatch, "dermamnist", 28)
    told: list[str] = []
    first = exports.export(tmp_path, "my data/1", told.append)
    assert first is not None and first.parent == tmp_path / "home" / "exported" and first.name.startswith("my_data_1-")
    assert exports.export(tmp_path, "my data/1", told.append) == first and len(told) == 1
    write_npz(tmp_path, rng, monkeypatch, "dermamnist", 28)
    second = exports.export(tmp_path, "my data/1", told.append)
    assert second != first and len(told) == 2 and first.is_dir()


def test_files_that_are_not_the_official_ones_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    cifar(tmp_path, rng, "CIFAR10")
    with pytest.raises(
        DataError, match=r"holds CIFAR10, which its own reader refuses \(.*corrupted.*\); unpack the official files"
    ):
        exports.export(tmp_path, "mine", quiet)
    np.savez(tmp_path / "dermamnist.npz", train_images=noise(rng, 2, 28, 28, 3), train_labels=np.zeros((2, 1)))
    with pytest.raises(UsageError, match="holds CIFAR10, dermamnist; name the folder of one"):
        exports.export(tmp_path, "mine", quiet)
    (tmp_path / "alone").mkdir()
    (tmp_path / "dermamnist.npz").rename(tmp_path / "alone" / "dermamnist.npz")
    with pytest.raises(DataError, match="holds dermamnist, which its own reader refuses"):
        exports.export(tmp_path / "alone", "mine", quiet)


def test_volumes_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "organmnist3d.npz", train_images=np.zeros((1, 28, 28, 28), dtype=np.uint8))
    with pytest.raises(DataError, match="holds volumes"):
        exports.export(tmp_path, "mine", quiet)


def test_another_folder_is_none_of_them(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    np.savez(tmp_path / "mnist.npz", x=np.zeros(3))
    datasets.Dataset.from_dict({"path": ["a.png"], "label": ["cat"]}).to_parquet(str(tmp_path / "metadata.parquet"))
    assert not exports.looks_like(tmp_path) and exports.export(tmp_path, "mine", quiet) is None


@pytest.mark.parametrize("name", ["medmnist", "datasets"])
def test_a_library_that_is_not_installed_is_named(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "medmnist":
        np.savez(tmp_path / "dermamnist.npz", x=np.zeros(3))
    else:
        hugging_face(rng, 3, lambda n: n, CLASS).save_to_disk(str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(UsageError, match=rf"library {name}, which is not installed: pip install 'pretext-bench\[datasets\]'"):
        exports.export(tmp_path, "mine", quiet)
