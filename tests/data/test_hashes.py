"""Hashes of images: a photograph is found again when it was saved anew, resized or mirrored, and others are not taken for it."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from bench.data import catalogue, hashes, inspection
from bench.data.dataset import Dataset, decode
from bench.errors import DataError
from tests.benchmarks.common import photographs
from tests.data.made import quiet


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> list[Image.Image]:
    """Give images with the coarse and fine structure of photographs, no two alike."""
    return [decode(path) for path in photographs(tmp_path_factory.mktemp("taken") / "all", 24, 160, 120)]


def rows(images: list[Image.Image]) -> hashes.Hashes:
    return np.frombuffer(b"".join(map(hashes.hash_of, images)), dtype=hashes.Hash)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


@pytest.mark.parametrize(
    ("change", "equal"),
    [
        (lambda image: image.copy(), True),
        (lambda image: jpeg(image, 40), False),
        (lambda image: image.resize((64, 64)), False),
        (lambda image: jpeg(image.resize((320, 240)), 75), False),
        (ImageOps.mirror, False),
        (lambda image: jpeg(ImageOps.mirror(image).resize((80, 60)), 75), False),
    ],
    ids=["as it is", "JPEG 40", "64x64", "twice as large", "mirrored", "mirrored, smaller, JPEG 75"],
)
def test_a_changed_copy_is_found_and_no_other_image_is(
    taken: list[Image.Image], change: Callable[[Image.Image], Image.Image], equal: bool
) -> None:
    found = hashes.compare(rows(taken), rows([change(taken[5])]))
    assert (found.equal.tolist(), found.near.tolist()) == ([equal], [not equal])
    assert np.flatnonzero(found.trained).tolist() == [5]


def test_blocks_of_pairs_give_what_every_pair_by_itself_gives(taken: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in the middle of a block, and a slow comparison of bits that shares nothing with the quick one."""
    ours, theirs = rows(taken), rows([jpeg(ImageOps.mirror(image), 50) for image in taken[::-1]])
    monkeypatch.setattr(hashes, "_BLOCK", 5 * len(taken))

    def bits(one: int, other: int) -> int:
        return bin(int(one) ^ int(other)).count("1")

    slow = [
        any(
            all(bits(a[kind][0], b[kind][side]) <= hashes.MOST_BITS for kind in ("phash", "dhash"))
            for a in ours
            for side in (0, 1)
        )
        for b in theirs
    ]
    found = hashes.compare(ours, theirs)
    assert found.near.tolist() == slow == [True] * len(taken)
    assert found.trained.all()


def test_images_of_hardly_more_than_one_colour_are_like_no_other() -> None:
    noise = np.random.default_rng(0).integers(0, 3, (60, 60, 3), dtype=np.uint8)
    plain = [Image.new("RGB", (60, 60), "white"), Image.new("RGB", (60, 60), "black"), Image.fromarray(noise + 100)]
    found = hashes.compare(rows(plain), rows(plain))
    assert found.plain.all() and not (found.equal | found.near).any() and not found.trained.any()


def test_a_file_turned_by_its_exif_orientation_is_the_photograph_that_it_shows(taken: list[Image.Image], tmp_path: Path) -> None:
    turned, exif = taken[0].rotate(90, expand=True), Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    assert hashes.hash_file(tmp_path / "turned.png") == hashes.hash_of(taken[0])


def test_the_drawn_images_of_the_demo_are_not_taken_for_each_other(drawn: dict[str, Path]) -> None:
    both = [catalogue.open_dataset(str(drawn[name]), quiet) for name in ("demo_unlabelled", "demo")]
    found = hashes.compare(*(hashes.open_hashes(dataset, quiet) for dataset in both))
    assert not (found.equal | found.near).any() and len(found.plain) == 40


def test_preparing_hashes_what_it_decodes_and_a_path_is_hashed_when_it_is_asked_for(
    drawn: dict[str, Path], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = catalogue.register(catalogue.read(drawn["demo"], "mine"))
    assert hashes.path_of(prepared).is_file() and hashes.path_of(prepared).is_relative_to(home)
    said: list[str] = []
    of_path = catalogue.open_dataset(str(drawn["demo"]), quiet)
    assert not hashes.path_of(of_path).is_file()
    made = hashes.open_hashes(of_path, said.append)
    assert len(said) == 1 and "hashing 40 images" in said[0]
    assert (made == hashes.open_hashes(prepared, said.append)).all() and len(said) == 1
    decoded: list[Path] = []
    monkeypatch.setattr(hashes, "decode", lambda path, upright: decoded.append(path) or decode(path, upright))
    monkeypatch.setattr(inspection, "decode", lambda path: pytest.fail("decoded a second time"))
    catalogue.register(catalogue.read(drawn["demo_unlabelled"], "other"))
    assert len(decoded) == len(set(decoded)) == 48


def test_an_image_that_does_not_decode_is_refused_where_it_is_used_and_not_where_it_is_hashed(
    drawn: dict[str, Path], voc: Path
) -> None:
    path = next(voc.rglob("demo_000003.jpg"))
    path.write_bytes(path.read_bytes()[:900])
    found = hashes.open_hashes(catalogue.open_dataset(str(voc), quiet), quiet)
    assert np.flatnonzero(found["plain"]).tolist() == [3]


def test_hashes_that_were_changed_or_are_of_other_images_are_refused(drawn: dict[str, Path]) -> None:
    dataset = catalogue.open_dataset(str(drawn["demo"]), quiet)
    hashes.open_hashes(dataset, quiet)
    path = hashes.path_of(dataset)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"version": 1', b'"version": 2'))
    with pytest.raises(DataError, match="is damaged: its SHA-256 is not the one it begins with; remove it to have it made again"):
        hashes.open_hashes(dataset, quiet)
    path.write_bytes(content)
    other: Dataset = dataset.model_copy(update={"images": dataset.images[:-1]})
    with pytest.raises(DataError, match="is not the file of hashes of "):
        hashes.open_hashes(other, quiet)
