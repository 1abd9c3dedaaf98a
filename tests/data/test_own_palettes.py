"""Palettes of a user's own masks: renumbered, with own colours, with none; indices and colours are never mixed silently."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.dataset import VOC_CLASSES
from bench.errors import DataError
from bench.metrics import voc_palette
from tests.data.made import save_mask, write_own
from tests.data.own import ids_of, opened, prepared, rewrite, save_as


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


def test_the_void_index_stays_void_whatever_colour_a_repeated_palette_gives_it(tmp_path: Path) -> None:
    root = write_own(tmp_path)
    repeated = np.resize(voc_palette()[:21], (256, 3))
    assert tuple(repeated[255]) == tuple(voc_palette()[3])
    rewrite(root, lambda ids: save_as(ids, repeated))
    assert ids_of(opened(root)) == {0, 1, 255} and opened(root).by_colour == 0


def test_grey_masks_beside_renumbered_palettes_are_refused(tmp_path: Path) -> None:
    root = write_own(tmp_path)
    cats(root)
    rewrite(root, lambda ids: compacted(np.where((ids > 0) & (ids < 255), 8, ids)))
    assert opened(root).by_colour == 20
    path = root / "SegmentationClass" / "p03.png"
    Image.fromarray(np.array(Image.open(path))).save(path)
    with pytest.raises(DataError, match=r"p00\.png has colours of VOC's classes at other indices, and .*p03\.png has no colours"):
        opened(root)
