"""What a prepared data set is known by, and the demo data."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from bench.data import catalogue, demo, packs, splits
from bench.data.fingerprint import fingerprinted
from bench.errors import DataError
from bench.storage import seal
from tests.data.made import devkit, quiet


def test_the_fingerprint_follows_the_content_and_not_the_place(voc: Path, tmp_path: Path) -> None:
    first = catalogue.open_dataset(str(voc), quiet).fingerprint
    moved = Path(shutil.copytree(voc, tmp_path / "moved"))
    assert catalogue.open_dataset(str(moved), quiet).fingerprint == first
    file = next((devkit(moved) / "JPEGImages").iterdir())
    file.write_bytes(file.read_bytes() + b"\0")
    assert catalogue.open_dataset(str(moved), quiet).fingerprint != first


FOLDER = {f"{below}{n:02}.jpg": f"{below}{n}" for below in ("", "a/", "a b/", "é/") for n in range(5)}


VOC = {
    f"VOCdevkit/VOC2012/{name.format(n)}": text.format(n, ("cat", "dog")[n % 2])
    for n in range(12)
    for name, text in (
        ("JPEGImages/{:02}.jpg", "p{}"),
        ("SegmentationClass/{:02}.png", "m{}"),
        ("Annotations/{:02}.xml", "<annotation><object><name>{1}</name></object></annotation>"),
    )
} | {"VOCdevkit/VOC2012/ImageSets/Main/train.txt": "00\n01\n"}


@pytest.mark.parametrize(
    ("files", "scheme", "subset", "known"),
    [
        (FOLDER, "pretraining", "images", ("b2bb87eeaee52f7f", "eda626fee5cff074", "d-images-squash64-3842f67063b5b211")),
        (
            VOC,
            "paper-70-20-10",
            "SegmentationClass",
            ("b43692ebdabae6e3", "397b0cc891c86d78", "d-SegmentationClass-squash64-b0ca83dc5982995c"),
        ),
    ],
)
def test_data_are_known_by_what_they_were_always_known_by(
    files: dict[str, str], scheme: str, subset: str, known: tuple[str, str, str], tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_text(text)
    dataset = fingerprinted(catalogue.read(tmp_path / "d", "d"))
    split = splits.open_splits(dataset, scheme, subset)
    pack_folder = packs.Order(dataset, subset, packs.PackRule(size=64), tuple(split.ids("train"))).folder
    assert (dataset.fingerprint[:16], split.fingerprint[:16], pack_folder.name) == known


def test_a_prepared_set_is_verified_against_what_it_was(voc: Path) -> None:
    catalogue.register(catalogue.read(voc, "mine"))
    assert catalogue.verify("mine").fingerprint == catalogue.prepared()["mine"].fingerprint
    path = devkit(voc) / "JPEGImages" / "demo_000007.jpg"
    Image.new("RGB", (64, 64)).save(path)
    with pytest.raises(DataError, match="has changed since it was prepared"):
        catalogue.verify("mine")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"demo_000007\.jpg does not decode"):
        catalogue.verify(str(voc))


def test_the_demo_data_are_the_same_every_time_and_colour_follows_the_class(drawn: dict[str, Path], tmp_path: Path) -> None:
    from bench.data import demo

    again = demo.make(tmp_path, 48, 24, 16)
    for name, root in drawn.items():
        first = {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        second = {path.relative_to(again[name]): path.read_bytes() for path in sorted(again[name].rglob("*")) if path.is_file()}
        assert first == second
    lightness: dict[int, list[float]] = {}
    hues: dict[int, list[float]] = {}
    for place in range(200):
        image, mask, _ = demo.draw(np.random.default_rng(place))
        for kind in range(1, 9):
            if (mask == kind).sum() > 50:
                light, a, b = np.median(rgb2lab(np.asarray(image))[mask == kind], axis=0)
                hues.setdefault(kind, []).append(float(np.degrees(np.arctan2(b, a)) % 360))
                lightness.setdefault(kind, []).append(float(light))
    means = [np.mean(lightness[kind]) for kind in range(1, 9)]
    medians = [np.median(hues[kind]) for kind in range(1, 9)]
    assert np.std(means) < np.mean([np.std(values) for values in lightness.values()]) / 4
    assert min(np.diff(medians)) > 15
    assert max(np.std(values) for values in hues.values()) < 12


def test_the_demo_data_are_chosen_only_when_something_is_missing_and_it_is_said(voc: Path) -> None:
    assert catalogue.defaults(None)[:2] == ("demo", "demo_unlabelled")
    assert "VOC 2012 and COCO are not prepared" in catalogue.defaults(None)[2]
    catalogue.register(catalogue.read(voc, "voc2012"))
    assert "COCO is not prepared" in catalogue.defaults(None)[2]
    assert catalogue.defaults("/some/images") == ("voc2012", "/some/images", "")


def test_an_index_whose_seal_fits_and_whose_rest_is_no_json_is_refused(voc: Path, home: Path) -> None:
    catalogue.register(catalogue.read(voc, "mine"))
    path = home / "data" / "mine" / "index.json"
    for rest in ("{" + "[" * 100_000, '{"a": ' + "1" * 5000 + "}", "{}"):
        path.write_text(seal.sealed(rest))
        with pytest.raises(DataError, match=r"mine/index\.json is not an index of this version"):
            catalogue.open_dataset("mine", quiet)


def test_a_damaged_index_of_the_demo_data_is_made_anew_with_a_word(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "make", partial(demo.make, unlabelled_count=30, train=12, val=8))
    made = catalogue.open_dataset("demo", quiet)
    index = home / "data" / "demo" / "index.json"
    index.write_text(index.read_text().replace("demo_", "dem0_"))
    said: list[str] = []
    assert catalogue.open_dataset("demo", said.append).fingerprint == made.fingerprint
    assert "index.json is damaged" in said[0] and "made anew" in said[0]
