"""Masks and class names of a user's own: no class is guessed, shifted or called void without a word."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import catalogue
from bench.data.dataset import VOC_CLASSES
from bench.errors import DataError, UsageError
from bench.metrics import voc_palette
from tests.data.made import save_mask, write_own
from tests.data.own import Change, ids_of, opened, prepared, rewrite

BINARY = [
    lambda ids: Image.fromarray(((ids > 0) * 255).astype(np.uint8)),
    lambda ids: Image.fromarray(((ids > 0) * 255).astype(np.uint8)).convert("P"),
]


@pytest.mark.parametrize("change", BINARY)
def test_masks_of_0_and_255_are_refused_until_255_is_given_a_meaning(tmp_path: Path, change: Change) -> None:
    root = write_own(tmp_path / "d", classes=1)
    (root / "classes.txt").write_text("aeroplane\n")
    rewrite(root, change)
    for read in (opened, prepared):
        with pytest.raises(DataError, match=r"class 1 \(aeroplane\).* occur in none of the 20 masks.*255 \(void\).*--map 255=1"):
            read(root)
    dataset = prepared(root, "255=1")
    assert ids_of(dataset) == {0, 1} and dataset.findings == {}
    assert catalogue.verify("mine").fingerprint == dataset.fingerprint


def test_masks_of_1_bit_are_ids_0_and_1(tmp_path: Path) -> None:
    root = write_own(tmp_path, classes=1)
    rewrite(root, lambda ids: Image.fromarray(ids > 0))
    assert ids_of(opened(root)) == {0, 1}


@pytest.mark.parametrize("text", ["255", "255=21", "256=1", "300=x", "#fff=1", "red=1", "=1", "255=-1"])
def test_a_map_that_cannot_be_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="--map takes VALUE=ID"):
        prepared(write_own(tmp_path), text)


@pytest.mark.parametrize("texts", [("1=2", "1=0"), ("index", "#ffffff=1")])
def test_maps_that_contradict_each_other_are_refused(tmp_path: Path, texts: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"two meanings|give one"):
        prepared(write_own(tmp_path), *texts)


def test_grey_png_of_4_bits_and_rgba_and_16_bits_are_read_by_their_values(tmp_path: Path) -> None:
    from torchvision.io import decode_image  # not Pillow's reading

    root = write_own(tmp_path, void=False)
    rewrite(root, lambda ids: Image.fromarray(ids.astype(np.uint16)))
    assert ids_of(opened(root)) == {0, 1}
    rewrite(root, lambda ids: Image.fromarray(np.dstack([voc_palette()[ids], np.full(ids.shape, 255, np.uint8)])))
    assert ids_of(opened(root)) == {0, 1}
    path = root / "SegmentationClass" / "p00.png"
    path.write_bytes(grey_of_4_bits(np.tile(np.arange(2).repeat(16), (24, 1))))
    assert decode_image(str(path)).unique().tolist() == [0, 17]
    assert ids_of(opened(root)) == {0, 1}


def grey_of_4_bits(ids: np.ndarray) -> bytes:
    """Write a grey PNG of 4 bits by hand, as Pillow does not write them."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = ids.shape
    rows = b"".join(b"\0" + bytes((row[0::2] * 16 + row[1::2]).astype(np.uint8)) for row in ids)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 4, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_turned_photographs_with_masks_are_counted(tmp_path: Path) -> None:
    root = write_own(tmp_path)
    path = root / "JPEGImages" / "p00.jpg"
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(path).save(path, exif=exif)
    assert opened(root).mask_findings["masked images with an EXIF orientation, read as they are stored, not upright"] == 1


def test_masks_of_background_alone_are_refused_without_the_option_that_does_not_help(tmp_path: Path) -> None:
    root = write_own(tmp_path)
    rewrite(root, lambda ids: Image.fromarray(ids * 0))
    with pytest.raises(DataError, match=r"whose pixels are 0 \(background\)\.$"):
        opened(root)


@pytest.mark.parametrize("text", ["<html><body/></html>", "<annotation><broken", '<annotation xmlns="a"/>'])
def test_an_annotation_that_is_none_is_refused_and_left_out_when_asked(tmp_path: Path, text: str) -> None:
    root = write_own(tmp_path / "d")
    (root / "Annotations" / "p03.xml").write_text(text)
    with pytest.raises(DataError, match=r"p03\.xml is not a VOC annotation"):
        opened(root)
    said: list[str] = []
    found = catalogue.read(root, "mine", catalogue.Choices(skip_broken=True), said.append)
    dataset = catalogue.register(found, skip_broken=True)
    assert dataset.broken == ("JPEGImages/p03.jpg",) and "p03.xml" in said[0] and len(dataset.images) == 19
    assert catalogue.verify("mine").fingerprint == dataset.fingerprint


def test_a_map_of_another_meaning_is_another_data_set(tmp_path: Path) -> None:
    root = write_own(tmp_path / "d", classes=1)
    assert prepared(root).fingerprint != prepared(root, "255=0").fingerprint
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.jpg")
    with pytest.raises(UsageError, match="has no masks"):
        prepared(tmp_path / "photos", "255=1")


@pytest.mark.parametrize("first", ["background", "__background__", "_background_", "Background", "__ignore__\n_background_"])
def test_background_in_the_first_line_is_id_0_and_shifts_nothing(tmp_path: Path, first: str) -> None:
    root = write_own(tmp_path)
    (root / "classes.txt").write_text(f"{first}\naeroplane\nbicycle\nbird\n")
    dataset = opened(root)
    assert dataset.classes == ("aeroplane", "bicycle", "bird")
    assert list(dataset.findings.values()) == [len(first.split())]


@pytest.mark.parametrize("names", ["aeroplane\nbackground", "aeroplane\nvoid", "aeroplane\n__ignore__", "background"])
def test_a_reserved_name_elsewhere_is_refused(tmp_path: Path, names: str) -> None:
    root = write_own(tmp_path, classes=1)
    (root / "classes.txt").write_text(names)
    with pytest.raises(DataError, match=r"classes\.txt names (.* in the wrong place|no class but)"):
        opened(root)


def test_own_ids_without_names_are_not_called_aeroplane(tmp_path: Path) -> None:
    root = write_own(tmp_path)
    for path in (root / "Annotations").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"nothing tells the names of their classes.*classes\.txt"):
        opened(root)
    (root / "classes.txt").write_text("leaf\nstem\nroot\n")
    assert opened(root).classes == ("leaf", "stem", "root")


@pytest.mark.parametrize(("below", "names"), [("d", "2007_{:06}"), ("VOC2007", "{:06}")])
def test_masks_of_vocs_own_file_names_need_no_names(tmp_path: Path, below: str, names: str) -> None:
    root = write_own(tmp_path / below, names=names)
    for path in (root / "Annotations").iterdir():
        path.unlink()
    assert opened(root).classes == VOC_CLASSES


def test_six_digits_alone_are_not_vocs_own_file_names(tmp_path: Path) -> None:
    root = write_own(tmp_path / "d", names="{:06}")
    said: list[str] = []
    catalogue.open_dataset(str(root), said.append)
    assert said == ["reading d: 20 images (once); the classes are VOC's twenty"]
    for path in (root / "Annotations").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="nothing tells the names of their classes"):
        opened(root)


def test_one_stray_pixel_does_not_make_0_and_255_a_class(tmp_path: Path) -> None:
    root = write_own(tmp_path / "d", classes=1)
    rewrite(root, BINARY[0])
    mask = np.array(Image.open(root / "SegmentationClass" / "p00.png"))
    mask[0, 0] = 1
    Image.fromarray(mask).save(root / "SegmentationClass" / "p00.png")
    with pytest.raises(DataError, match=r"19 of 20 masks whose pixels are 0 \(background\) and 255 \(void\).*--map 255=1"):
        opened(root)
    for place in range(12):
        save_mask(np.ones((24, 32)), root / "SegmentationClass" / f"p{place:02}.png")
    assert opened(root).mask_findings["masks that show void and no class"] == 8


def test_a_folder_whose_masked_images_are_all_left_out_has_no_masks_to_refuse(tmp_path: Path) -> None:
    root = write_own(tmp_path / "d", 4)
    for place in range(1, 4):
        (root / "SegmentationClass" / f"p{place:02}.png").unlink()
    for path in (root / "ImageSets").rglob("*.txt"):
        path.unlink()
    found = catalogue.read(root, "mine", catalogue.Choices(exclude=["p00*"]))
    assert len(catalogue.register(found).images) == 3


def test_masks_that_contradict_the_annotations_are_refused_and_few_are_counted(tmp_path: Path) -> None:
    root = write_own(tmp_path / "d")
    (root / "classes.txt").write_text("bicycle\naeroplane\nbird\n")
    with pytest.raises(DataError, match=r"14 of 20 masks have a class that the image's annotation lacks.*order of classes\.txt"):
        opened(root)
    (root / "classes.txt").write_text("aeroplane\nbicycle\nbird\n")
    (root / "Annotations" / "p00.xml").write_text("<annotation/>")
    assert opened(root).mask_findings == {"masks with a class that the annotation has not": 1}
    assert opened(root).findings == {"annotations without an object": 1}


def test_an_annotation_of_another_class_names_classes_txt(tmp_path: Path) -> None:
    root = write_own(tmp_path)
    (root / "Annotations" / "p00.xml").write_text("<annotation><object><name>leaf</name></object></annotation>")
    with pytest.raises(DataError, match=r"class 'leaf', which is not one of VOC's twenty classes; name your own in classes\.txt"):
        opened(root)


def test_what_lies_beside_images_and_masks_is_counted(tmp_path: Path) -> None:
    root = write_own(tmp_path)
    (root / "classes.txt").write_text("aeroplane\nbicycle\nbird\n")
    for name in ("JPEGImages/a.tif", "JPEGImages/._p00.jpg", "SegmentationClass/p00.jpg", "Annotations/q.xml"):
        (root / name).write_text("")
    (root / "JPEGImages" / "more").mkdir()
    save_mask(np.ones((4, 4)), root / "SegmentationClass" / "q.png")
    assert opened(root).findings == {
        "files or folders in JPEGImages that are no .jpg or .jpeg or .png file": 2,
        "annotations without an image": 1,
        "files or folders in SegmentationClass that are not named ID.png": 1,
        "masks in SegmentationClass without an image": 1,
        "hidden files": 1,
    }
    for path in (root / "SegmentationClass").glob("*.png"):
        path.rename(path.with_suffix(".PNG"))
    with pytest.raises(DataError, match="has 22 files, but none is named like an image"):
        opened(root)
