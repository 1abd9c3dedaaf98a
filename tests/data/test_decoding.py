"""Images and masks as they are read from files of every kind."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import catalogue
from bench.data.dataset import decode
from bench.data.masks import decode_mask
from bench.errors import DataError
from bench.metrics import voc_palette
from tests.data.made import devkit


def test_an_rgb_mask_is_read_through_the_voc_palette_or_refused(tmp_path: Path) -> None:
    ids = np.array([[0, 1], [20, 255]], dtype=np.uint8)
    Image.fromarray(voc_palette()[ids]).save(tmp_path / "m.png")
    assert np.array_equal(decode_mask(tmp_path / "m.png", 20, (2, 2), tmp_path).ids, ids)
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match="colour #010203"):
        decode_mask(tmp_path / "m.png", 20, (2, 2), tmp_path)


def test_the_voc_palette_is_vocs() -> None:
    assert voc_palette()[[0, 1, 2, 15, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192],
    ]  # fmt: skip


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


def test_a_mask_has_ids_for_253_classes_and_no_more(voc: Path) -> None:
    path = devkit(voc) / "classes.txt"
    path.write_text(path.read_text() + "".join(f"class {n}\n" for n in range(246)))
    with pytest.raises(DataError, match=r"classes\.txt names 254 classes; a mask in SegmentationClass has ids for 253 at most"):
        catalogue.read(voc, "v")
