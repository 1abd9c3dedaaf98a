"""Readers, packs and splits on small real files, whole and broken."""

import io
import json
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from bench.data import catalogue, demo, packs, splits, voc
from bench.data.dataset import VOC_CLASSES, decode, decode_mask, voc_palette
from bench.errors import DataError
from bench.storage import seal


def quiet(*_: object) -> None:
    pass


def devkit(root: Path) -> Path:
    return root / "VOCdevkit" / "VOC2012"


def pack(root: Path, resize: str = "squash", size: int = 32) -> packs.Pack:
    rule = packs.PackRule(size=size, resize=resize)  # type: ignore[arg-type]
    return packs.open_pack(packs.Order(catalogue.open_dataset(str(root), quiet), "SegmentationClass", rule), quiet, quiet)


def write_voc(root: Path, sizes: list[tuple[int, int]]) -> Path:
    """Write images of some (width, height) with a mask that has class 1 on its left half and void in its last row."""
    folder = devkit(root)
    for name in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Main", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for place, (width, height) in enumerate(sizes):
        mask = np.zeros((height, width), dtype=np.uint8)
        mask[:, : width // 2] = 1
        mask[-1] = 255
        Image.fromarray(np.full((height, width, 3), 100 + place, dtype=np.uint8)).save(folder / "JPEGImages" / f"p{place}.png")
        image = Image.fromarray(mask, mode="P")
        image.putpalette(voc_palette().tobytes())
        image.save(folder / "SegmentationClass" / f"p{place}.png")
        objects = "".join(
            f"<object><name>{name}</name><difficult>{flag}</difficult></object>" for name, flag in (("aeroplane", 0), ("cat", 1))
        )
        (folder / "Annotations" / f"p{place}.xml").write_text(f"<annotation>{objects}</annotation>")
    return root


def test_voc_labels_keep_difficult_objects_apart(tmp_path: Path) -> None:
    dataset = catalogue.open_dataset(str(write_voc(tmp_path / "v", [(40, 30)])), quiet)
    assert dataset.classes == VOC_CLASSES
    labels = dataset.labels(["p0"])[0]
    assert labels[VOC_CLASSES.index("aeroplane")] == 1
    assert labels[VOC_CLASSES.index("cat")] == -1
    assert np.abs(labels).sum() == 2


@pytest.mark.parametrize(("flags", "label"), [("0", 1), ("1", -1), ("01", 1), ("10", 1), ("11", -1)])
def test_one_ordinary_object_makes_a_class_present(tmp_path: Path, flags: str, label: int) -> None:
    objects = "".join(f"<object><name>cat</name><difficult>{flag}</difficult></object>" for flag in flags)
    (tmp_path / "a.xml").write_text(f"<annotation>{objects}</annotation>")
    assert voc.read_labels(tmp_path / "a.xml", ("cat", "dog")) == (label, 0)


def test_voc_is_found_at_every_level_with_its_official_lists(voc: Path) -> None:
    found = [catalogue.read(path, "v") for path in (voc, voc / "VOCdevkit", devkit(voc))]
    assert len({dataset.root for dataset in found}) == 1
    assert {name: len(ids) for name, ids in found[0].lists["Main"].items()} == {"train": 24, "val": 16, "trainval": 40}
    assert found[0].synthetic and len(found[0].classes) == 8 and found[0].scored == found[0].classes


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
    dataset = catalogue.open_dataset(str(tmp_path / "d"), quiet)
    split = splits.open_splits(dataset, scheme, subset)
    pack_folder = packs.Order(dataset, subset, packs.PackRule(size=64), tuple(split.ids("train"))).folder
    assert (dataset.fingerprint[:16], split.fingerprint[:16], pack_folder.name) == known


def test_a_pack_has_another_folder_when_anything_that_makes_it_changes(
    drawn: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packs are found by their folder, so a default must not be left out of its name as it is left out of an id."""
    dataset, rule = catalogue.open_dataset(str(drawn["demo"]), quiet), packs.PackRule(size=64)
    changes = [{"size": 32}, {"resize": "crop"}, {"interpolation": "nearest"}]
    orders = [packs.Order(dataset, "images", rule.model_copy(update=change)) for change in ({}, *changes)]
    orders += [packs.Order(dataset, "SegmentationClass", rule), packs.Order(dataset, "images", rule, ("1",))]
    names = {order.folder.name.rpartition("-")[2] for order in orders}
    monkeypatch.setattr(packs, "PACK_VERSION", packs.PACK_VERSION + 1)
    names.add(orders[0].folder.name.rpartition("-")[2])
    assert len(names) == len(orders) + 1


def test_scored_classes_are_read_from_a_file_beside_the_images(voc: Path) -> None:
    (devkit(voc) / "scored_classes.txt").write_text("ring\ndisc\n")
    assert catalogue.open_dataset(str(voc), quiet).scored == ("disc", "ring")
    (devkit(voc) / "scored_classes.txt").write_text("dog\n")
    with pytest.raises(DataError, match="no class 'dog' to score"):
        catalogue.open_dataset(str(voc), quiet)


def test_coco_lists_the_images_of_its_json_by_part(tmp_path: Path) -> None:
    for part, count in (("train2014", 3), ("val2014", 2)):
        (tmp_path / part).mkdir()
        names = [f"{part}_{place}.jpg" for place in range(count)]
        for name in [*names, "not listed.jpg"]:
            Image.new("RGB", (8, 8)).save(tmp_path / part / name)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        images = [{"id": place, "file_name": name} for place, name in enumerate(names)]
        text = json.dumps({"images": images, "annotations": [], "categories": []})
        (tmp_path / "annotations" / f"instances_{part}.json").write_text(text)
    dataset = catalogue.open_dataset(str(tmp_path), quiet)
    assert dataset.kind == "coco"
    assert [image.split for image in dataset.images] == ["train"] * 3 + ["val"] * 2
    split = splits.open_splits(dataset, "pretraining", "images")
    assert (len(split.ids("train")), len(split.ids("test"))) == (3, 2)
    (tmp_path / "train2014" / "train2014_1.jpg").unlink()
    with pytest.raises(DataError, match=r"lists 'train2014_1\.jpg'"):
        catalogue.open_dataset(str(tmp_path), quiet)


def test_a_folder_of_images_is_a_data_set_and_files_can_be_left_out(tmp_path: Path) -> None:
    for name in ("a/x.jpg", "a/y.PNG", "b_1.jpg", "b_2.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    assert len(catalogue.read(tmp_path, "f").images) == 4
    assert [p.id for p in catalogue.read(tmp_path, "f", exclude=["b_*"]).images] == ["a/x.jpg", "a/y.PNG"]
    with pytest.raises(DataError, match="has no labels"):
        splits.open_splits(catalogue.read(tmp_path, "f"), "official", "labels")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: shutil.rmtree(d / "JPEGImages"), "no images|not a VOC"),
        (
            lambda d: (d / "Annotations" / "demo_000003.xml").write_text("<annotation><obj"),
            r"demo_000003\.xml is not a VOC annotation",
        ),
        (
            lambda d: (d / "Annotations" / "demo_000003.xml").write_text("<a><object><name>dog</name></object></a>"),
            r"demo_000003\.xml has an object of class 'dog'",
        ),
        (lambda d: (d / "JPEGImages" / "demo_000001.jpg").unlink(), "names 'demo_000001'"),
    ],
)
def test_half_a_voc_is_refused(voc: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(devkit(voc))
    with pytest.raises(DataError, match=message):
        catalogue.open_dataset(str(voc), quiet)


def test_a_pack_has_every_image_resized_as_pillow_does(voc: Path) -> None:
    made = pack(voc)
    assert made.images.shape == (40, 32, 32, 3)
    rows = made.images.read(np.array([5, 0]))
    path = devkit(voc) / "JPEGImages" / f"{made.manifest.ids[5]}.jpg"
    assert np.array_equal(rows[0], np.asarray(Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)))
    assert np.array_equal(np.load(made.folder / "images.npy")[[5, 0]], rows)
    assert pack(voc).folder == made.folder


def test_letterbox_keeps_proportions_and_the_masks_at_full_resolution(tmp_path: Path) -> None:
    made = pack(write_voc(tmp_path / "v", [(100, 50), (20, 30)]), "letterbox")
    assert made.manifest.content == ((16, 32), (30, 20))
    assert made.manifest.original == ((50, 100), (30, 20))
    assert made.masks is not None and made.truth is not None
    assert made.truth.shape == (2, 128, 128)
    masks, truth = made.masks.read([0, 1]), made.truth.read([0, 1])
    assert (masks[0, 16:] == 254).all() and (masks[0, :15, :16] == 1).all() and (masks[0, :15, 16:32] == 0).all()
    assert (truth[0, :49, :50] == 1).all() and (truth[0, 50:] == 254).all() and (truth[1, :, 20:] == 254).all()


def test_crop_keeps_every_pixel(tmp_path: Path) -> None:
    made = pack(write_voc(tmp_path / "v", [(100, 50), (20, 30)]), "crop")
    assert made.images.shape == (2, 128, 128, 3)
    assert made.manifest.content == ((50, 100), (30, 20))
    assert (made.images.read([0])[0, :50, :100] == 100).all()


def test_a_truncated_image_stops_the_pack_and_names_the_file(voc: Path) -> None:
    path = devkit(voc) / "JPEGImages" / "demo_000007.jpg"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match=r"demo_000007\.jpg does not decode"):
        pack(voc)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"demo_000007\.jpg does not decode"):
        pack(voc)


def test_a_mask_of_another_size_or_with_a_strange_id_stops_the_pack(voc: Path) -> None:
    path = devkit(voc) / "SegmentationClass" / "demo_000007.png"
    Image.new("L", (63, 64)).save(path)
    with pytest.raises(DataError, match=r"demo_000007\.png is 63x64, but its image .*demo_000007\.jpg is 64x64"):
        pack(voc)
    Image.fromarray(np.full((64, 64), 9, dtype=np.uint8)).save(path)
    with pytest.raises(DataError, match=r"demo_000007\.png has class id 9 in 4096 pixels; ids are 0 to 8"):
        pack(voc)


def test_an_rgb_mask_is_read_through_the_voc_palette_or_refused(tmp_path: Path) -> None:
    ids = np.array([[0, 1], [20, 255]], dtype=np.uint8)
    Image.fromarray(voc_palette()[ids]).save(tmp_path / "m.png")
    assert np.array_equal(decode_mask(tmp_path / "m.png", 20, (2, 2), tmp_path), ids)
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match="colour #010203"):
        decode_mask(tmp_path / "m.png", 20, (2, 2), tmp_path)


def test_the_voc_palette_is_vocs() -> None:
    assert voc_palette()[[0, 1, 2, 15, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192],
    ]  # fmt: skip


def test_a_damaged_pack_is_noticed(voc: Path) -> None:
    made = pack(voc)
    with (made.folder / "images.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(DataError, match=r"images\.npy is damaged"):
        pack(voc)


@pytest.mark.parametrize(
    ("file", "match"),
    [
        ("images.npy", r"images\.npy is damaged: row \d+ has another CRC-32; remove its folder"),
        ("masks.npy", r"masks\.npy is damaged: row \d+ has another CRC-32; remove its folder"),
        ("images.crc32", r"images\.crc32 is damaged: its SHA-256 is not the one in the manifest"),
        ("manifest.json", r"manifest\.json is damaged: its SHA-256 is not the one it begins with"),
    ],
)
def test_a_flipped_bit_in_a_pack_is_noticed_before_an_image_is_used(file: str, match: str, voc: Path) -> None:
    made = pack(voc)
    content = bytearray((made.folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (made.folder / file).write_bytes(content)
    with pytest.raises(DataError, match=match):
        for rows in (opened := pack(voc)).images, opened.masks:
            assert rows is not None
            rows.read(np.arange(40))


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


def test_a_json_of_ones_own_does_not_hide_images(tmp_path: Path) -> None:
    for name in ("images/a.jpg", "images/b.jpg", "annotations/instances_some_subset.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name) if name.endswith("jpg") else (tmp_path / name).write_text("{}")
    dataset = catalogue.read(tmp_path, "mine")
    assert (dataset.kind, len(dataset.images)) == ("folder", 2)


def test_a_known_name_takes_its_year_and_nothing_else(voc: Path, tmp_path: Path) -> None:
    shutil.copytree(devkit(voc), voc / "VOCdevkit" / "VOC2007")
    assert catalogue.read(voc, "voc2007").root.name == "VOC2007"
    assert catalogue.read(voc, "voc2012").root.name == "VOC2012"
    with pytest.raises(DataError, match="holds VOC2007, VOC2012; name the folder of one"):
        catalogue.read(voc, "mine")
    with pytest.raises(DataError, match="has the layout voc, but coco2014 has coco"):
        catalogue.register(catalogue.read(devkit(voc), "coco2014"))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    shutil.rmtree(voc / "VOCdevkit" / "VOC2007")
    with pytest.raises(DataError, match="not a VOC2007 data set"):
        catalogue.read(voc, "voc2007")


@pytest.mark.parametrize(("name", "mode"), [("a.jpg", "L"), ("a.jpg", "CMYK"), ("a.png", "RGBA"), ("a.png", "P"), ("a.png", "1")])
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, name: str, mode: str) -> None:
    Image.new(mode, (10, 20)).save(tmp_path / name)
    assert decode(tmp_path / name).mode == "RGB"


def test_sixteen_bits_keep_their_greys_and_phones_their_up(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.abs(np.asarray(decode(tmp_path / "deep.png"))[..., 0].astype(int) - deep // 257).max() == 0
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (10, 20)).save(tmp_path / "phone.jpg", exif=exif)
    assert decode(tmp_path / "phone.jpg").size == (10, 20)
    assert decode(tmp_path / "phone.jpg", upright=True).size == (20, 10)


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
    with pytest.raises(DataError, match="split of the scheme official"):
        splits.open_splits(catalogue.open_dataset(str(voc), quiet), "official", "labels")


def test_a_split_is_the_same_under_another_name(voc: Path) -> None:
    found = [splits.open_splits(catalogue.read(voc, name), "official", "labels") for name in ("one", "two")]
    assert found[0].fingerprint == found[1].fingerprint


def test_the_demo_data_are_chosen_only_when_something_is_missing_and_it_is_said(voc: Path) -> None:
    assert catalogue.defaults(None)[:2] == ("demo", "demo_unlabelled")
    assert "VOC 2012 and COCO are not prepared" in catalogue.defaults(None)[2]
    catalogue.register(catalogue.read(voc, "voc2012"))
    assert "COCO is not prepared" in catalogue.defaults(None)[2]
    assert catalogue.defaults("/some/images") == ("voc2012", "/some/images", "")


def test_an_empty_list_and_a_name_listed_twice_are_refused(voc: Path) -> None:
    path = devkit(voc) / "ImageSets" / "Segmentation" / "val.txt"
    ids = path.read_text()
    path.write_text("")
    with pytest.raises(DataError, match=r"needs train\.txt and val\.txt"):
        splits.open_splits(catalogue.open_dataset(str(voc), quiet), "official", "SegmentationClass")
    path.write_text(ids + ids.splitlines()[0])
    with pytest.raises(DataError, match=r"val\.txt names 'demo_\d+' twice"):
        splits.open_splits(catalogue.open_dataset(str(voc), quiet), "official", "SegmentationClass")


def test_a_file_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "caf\udce9.jpg")
    with pytest.raises(DataError, match="which cannot be printed"):
        catalogue.open_dataset(str(tmp_path), quiet)


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of 1-bit grey that says a size, with some chunks."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), *chunks, (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("what", ["image", "mask"])
@pytest.mark.parametrize("side", [9_500, 50_000])
def test_an_image_that_would_fill_the_memory_is_refused_by_its_size(tmp_path: Path, side: int, what: str) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, (b"IDAT", zlib.compress(bytes(1 << 20)))))
    with pytest.raises(DataError, match=rf"bomb\.png has more than 89,478,485 pixels, the most for an? {what}"):
        decode(path) if what == "image" else decode_mask(path, 20, (side, side), path)


def test_a_mask_of_another_size_is_not_decoded_to_find_that_out(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    path.write_bytes(png(9_000, 9_000, (b"IDAT", b"no pixels")))
    with pytest.raises(DataError, match=r"m\.png is 9000x9000, but its image .* is 8x8"):
        decode_mask(path, 20, (8, 8), tmp_path / "p.jpg")


def test_pillow_warns_of_no_file_without_its_name(tmp_path: Path) -> None:
    """Its warnings name a tag; on a screen between thousands of images nobody can act on them."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 10, 10)).save(buffer, "JPEG")
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 1, 0x0112, 2, 1 << 20, 1 << 20)
    content = buffer.getvalue()
    (tmp_path / "a.jpg").write_bytes(content[:2] + struct.pack(">HH", 0xFFE1, len(exif) + 2) + exif + content[2:])
    (tmp_path / "b.png").write_bytes(png(10_000, 9_500))
    code = (
        "from pathlib import Path\nfrom bench.data.dataset import decode\n"
        f"print(decode(Path({str(tmp_path / 'a.jpg')!r}), True).size)"
        f"\ntry: decode(Path({str(tmp_path / 'b.png')!r}))\nexcept Exception as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("(8, 8)\n") and "b.png has more than 89,478,485 pixels" in done.stdout
    assert done.stderr == ""


def test_a_file_that_runs_a_program_to_be_read_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    with Image.open(path) as image:
        assert image.format == "EPS"  # which Pillow gives to Ghostscript
    with pytest.raises(DataError, match=r"a\.jpg does not decode as an image: it is none of JPEG, PNG"):
        decode(path)


def test_an_image_is_turned_upright_and_read_from_16_bits(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40).save(tmp_path / "t.png", exif=exif)
    assert np.asarray(decode(tmp_path / "t.png", upright=True))[..., 0].tolist() == [[120, 0], [160, 40], [200, 80]]
    assert decode(tmp_path / "t.png").size == (3, 2)
    for deep in (np.array([[0, 257, 65535]], dtype=np.uint16), np.array([[-5, 300, 65535]], dtype=np.int32)):
        Image.fromarray(deep).save(tmp_path / "d.tif")
        assert np.asarray(decode(tmp_path / "d.tif"))[..., 0].tolist() == [[0, 1, 255]]


def test_an_image_whose_white_is_not_known_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match=r"f\.tif has floating-point pixels"):
        decode(tmp_path / "f.tif")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<?xml version="1.0" encoding="rot13"?><annotation/>', "not a text encoding"),
        ('<!DOCTYPE a [<!ENTITY b "cat">]><annotation><object><name>&b;</name></object></annotation>', "document type"),
        ("<annotation><object><name>cat</name><difficult>?</difficult></object></annotation>", "it must be 0 or 1"),
        (
            f"<annotation><object><name>{'cat' * 1000}</name></object></annotation>",
            "an object of class 'catcat.{,110} which is not",
        ),
    ],
)
def test_an_annotation_is_refused_in_a_short_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"a\.xml .*{message}"):
        voc.read_labels(path, ("cat", "dog"))


def test_a_list_of_windows_is_read_and_one_of_strange_names_is_refused(voc: Path) -> None:
    path = devkit(voc) / "ImageSets" / "Main" / "train.txt"
    lists = catalogue.read(voc, "v").lists
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert catalogue.read(voc, "v").lists == lists
    path.write_text("a" * 100_000)
    with pytest.raises(DataError, match=r"train\.txt names 'a{99}\.\.\. and 0 more images"):
        catalogue.read(voc, "v")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("scored_classes.txt", "dog\n", r"scored_classes\.txt: .* no class 'dog' to score"),
        ("scored_classes.txt", "\n", r"scored_classes\.txt names no class"),
        ("classes.txt", "", r"classes\.txt names no class"),
        ("classes.txt", "disc\ndisc\n", r"classes\.txt names the class 'disc' twice"),
    ],
)
def test_a_list_of_classes_is_refused_by_its_name(voc: Path, file: str, text: str, message: str) -> None:
    (devkit(voc) / file).write_text(text)
    with pytest.raises(DataError, match=message):
        catalogue.read(voc, "v")


def test_a_mask_has_ids_for_253_classes_and_no_more(voc: Path) -> None:
    path = devkit(voc) / "classes.txt"
    path.write_text(path.read_text() + "".join(f"class {n}\n" for n in range(246)))
    with pytest.raises(DataError, match=r"classes\.txt names 254 classes; a mask in SegmentationClass has ids for 253 at most"):
        catalogue.read(voc, "v")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": ' + "[" * 100_000, "is nested too deeply"),
        ('{"images": [{"id": ' + "1" * 5000 + "}]}", "is not a COCO annotation file"),
        ('{"photographs": []}', "it has no 'images'"),
        ('{"images": []}', "lists no images"),
        ('{"images": [3]}', "is not a COCO annotation file"),
        ('{"images": [{"id": 1, "file_name": "../val2014/a.jpg"}]}', "which is no file name below a folder"),
        ('{"images": [{"id": 1, "file_name": "/a.jpg"}]}', "which is no file name below a folder"),
        ('{"images": [{"id": 1, "file_name": 3}]}', "lists 3, which is no file name"),
        ('{"images": [{"id": 1, "file_name": "' + "a" * 5000 + '.jpg"}]}', "does not hold it"),
        ('{"images": [{"id": 1, "file_name": "a\\u0000.jpg"}]}', "does not hold it"),
        (
            '{"images": [{"id": 2, "file_name": "a.jpg"}, {"id": 1, "file_name": "a.jpg"}]}',
            "lists 'a.jpg', and a is listed already",
        ),
    ],
)
def test_a_coco_file_is_refused_by_its_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "annotations" / "instances_train2014.json"
    for folder in ("annotations", "train2014"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "train2014" / "a.jpg")
    path.write_text(text)
    with pytest.raises(DataError, match=rf"instances_train2014\.json .*{message}") as refused:
        catalogue.read(tmp_path, "c")
    assert len(str(refused.value)) < 500


def test_an_index_whose_seal_fits_and_whose_rest_is_no_json_is_refused(voc: Path, home: Path) -> None:
    catalogue.register(catalogue.read(voc, "mine"))
    path = home / "data" / "mine" / "index.json"
    for rest in ("{" + "[" * 100_000, '{"a": ' + "1" * 5000 + "}", "{}"):
        path.write_text(seal.sealed(rest))
        with pytest.raises(DataError, match=r"mine/index\.json is not an index of this version"):
            catalogue.open_dataset("mine", quiet)


def test_a_header_that_numpy_cannot_read_is_a_damaged_pack(voc: Path) -> None:
    path = pack(voc).folder / "images.npy"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(", b" ", 1))
    with pytest.raises(DataError, match=r"images\.npy is not a pack's array"):
        pack(voc)


def test_a_damaged_index_of_the_demo_data_is_made_anew_with_a_word(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "make", partial(demo.make, unlabelled_count=30, train=12, val=8))
    made = catalogue.open_dataset("demo", quiet)
    index = home / "data" / "demo" / "index.json"
    index.write_text(index.read_text().replace("demo_", "dem0_"))
    said: list[str] = []
    assert catalogue.open_dataset("demo", said.append).fingerprint == made.fingerprint
    assert "index.json is damaged" in said[0] and "made anew" in said[0]
