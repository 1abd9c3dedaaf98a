"""Masks and class names of a user's own: no class is guessed, shifted or called void without a word."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import catalogue
from bench.data.dataset import VOC_CLASSES, Dataset
from bench.data.masks import read_mask
from bench.errors import DataError, UsageError
from bench.metrics import voc_palette
from tests.data.made import quiet, save_mask, write_own

Change = Callable[[np.ndarray], Image.Image]


def rewrite(root: Path, change: Change) -> None:
    for path in sorted((root / "SegmentationClass").iterdir()):
        change(np.array(Image.open(path))).save(path)


def opened(root: Path) -> Dataset:
    return catalogue.open_dataset(str(root), quiet)


def prepared(root: Path, *values: str) -> Dataset:
    return catalogue.register(catalogue.read(root, "mine", catalogue.Choices(mask_values=values)))


def ids_of(dataset: Dataset, identity: str = "p00") -> set[int]:
    image = next(image for image in dataset.images if image.id == identity)
    mask = read_mask(dataset, "SegmentationClass", identity, (32, 24), dataset.path(image))
    return set(np.unique(mask.ids).tolist())


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


def test_other_values_and_colours_are_refused_with_the_option_that_maps_them(tmp_path: Path) -> None:
    root = write_own(tmp_path / "d", classes=2)
    rewrite(root, lambda ids: Image.fromarray((ids % 255 * 100).astype(np.uint8)))
    with pytest.raises(DataError, match=r"class id 100 .*--map 100=ID"):
        opened(root)
    assert ids_of(prepared(root, "100=1", "200=2")) == {0, 1}
    rewrite(root, lambda ids: Image.fromarray(np.repeat((ids[..., None] > 0) * np.uint8(255), 3, axis=2)))
    with pytest.raises(DataError, match=r"colour #ffffff, .*--map '#ffffff=ID'"):
        opened(root)
    for path in (root / "Annotations").iterdir():
        path.write_text("<annotation><object><name>aeroplane</name></object></annotation>")
    assert ids_of(prepared(root, "#ffffff=1")) == {0, 1}


@pytest.mark.parametrize("text", ["255", "255=21", "256=1", "300=x", "#fff=1", "red=1", "=1", "255=-1"])
def test_a_map_that_cannot_be_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="--map takes VALUE=ID"):
        prepared(write_own(tmp_path), text)


@pytest.mark.parametrize("texts", [("1=2", "1=0"), ("index", "#ffffff=1")])
def test_maps_that_contradict_each_other_are_refused(tmp_path: Path, texts: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"two meanings|give one"):
        prepared(write_own(tmp_path), *texts)


def test_a_map_of_a_value_does_not_stop_a_renumbered_palette_from_being_read_by_its_colours(tmp_path: Path) -> None:
    root = write_own(tmp_path / "d")
    cats(root)
    rewrite(root, lambda ids: compacted(np.where((ids > 0) & (ids < 255), 8, ids)))
    dataset = prepared(root, "255=0")
    assert ids_of(dataset) == {0, 8} and dataset.by_colour == 20


def cats(root: Path) -> None:
    for path in (root / "Annotations").iterdir():
        path.write_text("<annotation><object><name>cat</name></object></annotation>")


def test_own_colours_that_each_image_numbers_anew_are_refused_and_mapped_by_colour(tmp_path: Path) -> None:
    root = write_own(tmp_path / "d")
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)])

    def anew(ids: np.ndarray) -> Image.Image:
        plain = np.where(ids == 255, 0, ids)
        used = np.unique(plain)
        return save_as(np.searchsorted(used, plain).astype(np.uint8), colours[used])

    rewrite(root, anew)
    with pytest.raises(DataError, match=r"the index 1 has the colour #ff0000 .* and #00ff00 .*--map '#ff0000=ID'"):
        opened(root)
    dataset = prepared(root, "#ff0000=1", "#00ff00=2", "#0000ff=3")
    assert [max(ids_of(dataset, f"p{place:02}")) for place in range(6)] == [1, 2, 3, 1, 2, 3]


def test_own_colours_of_which_some_are_vocs_at_other_indices_are_refused(tmp_path: Path) -> None:
    root = write_own(tmp_path / "d")
    palette = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 128), (128, 0, 0)])  # the last two are VOC's ids 4 and 1
    rewrite(root, lambda ids: save_as(np.where(ids == 255, 0, ids).astype(np.uint8), palette))
    with pytest.raises(DataError, match=r"a colour of no class, #ff0000 at the index 1.*--map index"):
        opened(root)
    assert {max(ids_of(prepared(root, "index"), f"p{place:02}")) for place in range(3)} == {1, 2, 3}


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


@pytest.mark.parametrize("text", ["0 background\n1 aeroplane", "1: aeroplane", "0,aeroplane"])
def test_numbered_names_are_refused_and_comments_left_out(tmp_path: Path, text: str) -> None:
    root = write_own(tmp_path, classes=1)
    (root / "classes.txt").write_text(text)
    with pytest.raises(DataError, match="has a number before a name"):
        opened(root)
    (root / "classes.txt").write_text("# my classes\naeroplane\n")
    assert opened(root).classes == ("aeroplane",)


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


def compacted(ids: np.ndarray) -> Image.Image:
    """Renumber the palette of a mask as programs that make PNG files smaller do."""
    used = np.unique(ids)
    image = Image.fromarray(np.searchsorted(used, ids).astype(np.uint8), mode="P")
    image.putpalette(voc_palette()[used].tobytes())
    return image


@pytest.mark.parametrize("classes", ["", "a\nb\nc\nd\ne\nf\ng\ncat\n"])
def test_a_renumbered_palette_is_read_by_its_colours_and_said(tmp_path: Path, classes: str) -> None:
    root = write_own(tmp_path / "d")
    name = "cat" if classes else VOC_CLASSES[7]
    for path in (root / "Annotations").iterdir():
        path.write_text(f"<annotation><object><name>{name}</name></object></annotation>")
    if classes:
        (root / "classes.txt").write_text(classes)
    rewrite(root, lambda ids: Image.fromarray(np.where((ids > 0) & (ids < 255), 8, ids).astype(np.uint8)))
    whole = opened(root)
    rewrite(root, compacted)
    dataset = opened(root)
    assert ids_of(dataset) == ids_of(whole) == {0, 8, 255}
    assert dataset.mask_findings["masks read by the colours of their palettes"] == dataset.by_colour == 20
    assert prepared(root).fingerprint == dataset.fingerprint != whole.fingerprint


def test_a_palette_with_colours_of_other_classes_and_of_none_is_refused(tmp_path: Path) -> None:
    root = write_own(tmp_path / "d")
    palette = voc_palette()
    palette[1], palette[255] = palette[2], (1, 2, 3)
    rewrite(root, lambda ids: save_as(ids, palette))
    with pytest.raises(DataError, match=r"index 1 has VOC's colour of the id 2.*index 255 has a colour of no class.*--map index"):
        opened(root)
    assert ids_of(prepared(root, "index")) == {0, 1, 255}


def save_as(ids: np.ndarray, palette: np.ndarray) -> Image.Image:
    image = Image.fromarray(ids, mode="P")
    image.putpalette(palette.astype(np.uint8).tobytes())
    return image


@pytest.mark.parametrize(
    "palette",
    [
        np.zeros((256, 3)),
        np.repeat(np.arange(256)[:, None], 3, axis=1),
        np.concatenate([voc_palette()[:21], np.zeros((235, 3))]),
        np.random.default_rng(0).integers(1, 128, (256, 3)) * 2 + 1,
    ],
    ids=["black", "grey", "VOC without void", "own colours"],
)
def test_a_palette_that_names_no_other_class_leaves_the_indices(tmp_path: Path, palette: np.ndarray) -> None:
    root = write_own(tmp_path)
    rewrite(root, lambda ids: save_as(ids, palette))
    dataset = opened(root)
    assert ids_of(dataset) == {0, 1, 255} and dataset.by_colour == 0
    save_mask(np.full((24, 32), 255) - 254 * (np.arange(32) < 9), root / "SegmentationClass" / "p00.png", palette)
    assert ids_of(opened(root)) == {1, 255}


def test_own_ids_without_names_are_not_called_aeroplane(tmp_path: Path) -> None:
    root = write_own(tmp_path)
    for path in (root / "Annotations").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"nothing tells the names of their classes.*classes\.txt"):
        opened(root)
    (root / "classes.txt").write_text("leaf\nstem\nroot\n")
    assert opened(root).classes == ("leaf", "stem", "root")


def test_masks_of_vocs_own_file_names_need_no_names(tmp_path: Path) -> None:
    root = write_own(tmp_path, names="2007_{:06}")
    for path in (root / "Annotations").iterdir():
        path.unlink()
    assert opened(root).classes == VOC_CLASSES


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
    }
    for path in (root / "SegmentationClass").glob("*.png"):
        path.rename(path.with_suffix(".PNG"))
    with pytest.raises(DataError, match="has 22 files, but none is named like an image"):
        opened(root)


def test_masks_of_a_set_that_an_earlier_version_prepared_are_looked_at(tmp_path: Path) -> None:
    root = write_own(tmp_path / "d", classes=1)
    dataset = prepared(root)
    catalogue._save(catalogue._index("mine").parent, dataset.model_copy(update={"surveyed": False}))
    said: list[str] = []
    assert catalogue.open_dataset("mine", said.append).surveyed and said == ["looking at the masks of mine (once)"]
    assert catalogue.open_dataset("mine", pytest.fail).fingerprint == dataset.fingerprint
