"""Packs: every image resized once, and what is noticed about a damaged one."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import catalogue, packs
from bench.data.batches import SplitData
from bench.errors import DataError
from tests.data.made import devkit, quiet, write_voc


def pack(root: Path, resize: str = "squash", size: int = 32) -> packs.Pack:
    rule = packs.PackRule(size=size, resize=resize)  # type: ignore[arg-type]
    return packs.open_pack(packs.Order(catalogue.open_dataset(str(root), quiet), "SegmentationClass", rule), quiet, quiet)


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


def test_a_header_that_numpy_cannot_read_is_a_damaged_pack(voc: Path) -> None:
    path = pack(voc).folder / "images.npy"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(", b" ", 1))
    with pytest.raises(DataError, match=r"images\.npy is not a pack's array"):
        pack(voc)


def test_flipping_a_letterboxed_image_moves_its_padding_too(tmp_path: Path) -> None:
    """A tall image lies at the left of its square, and a flipped one at the right."""
    made = pack(write_voc(tmp_path / "v", [(20, 40)]), "letterbox", 32)
    flipped = (SplitData(made, np.array([0]), augmentation="flip", size=32, seed=seed) for seed in range(8))
    images = np.concatenate([split[0, np.array([0])]["images"] for split in flipped])
    left, right = (images[..., columns].reshape(len(images), -1).any(axis=1) for columns in (slice(0, 8), slice(24, 32)))
    assert (left ^ right).all() and left.any() and right.any()
