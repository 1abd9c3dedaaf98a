"""Mutations of image files: PNG, JPEG, TIFF, WebP and BMP."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

from tests.stress.mutations import BYTES, NUMBERS, Mutations, flip


def png_chunk(rng: random.Random, content: bytes) -> bytes:
    """Drop, repeat, move, rename or spoil a chunk, with its check sum put right."""
    chunks = _png_chunks(content)
    place = rng.randrange(len(chunks))
    what = rng.randrange(6)
    kind, data = chunks[place]
    if what == 0:
        del chunks[place]
    elif what == 1:
        chunks.insert(rng.randrange(len(chunks) + 1), chunks[place])
    elif what == 2:
        chunks.insert(rng.randrange(len(chunks)), chunks.pop(place))
    elif what == 3:
        chunks[place] = (
            rng.choice((b"IDAT", b"PLTE", b"tRNS", b"IEND", b"acTL", b"fcTL", b"fdAT", b"eXIf", b"\0\0\0\0", b"zTXt")),
            data,
        )
    elif what == 4:
        chunks[place] = (kind, BYTES[rng.choice(list(BYTES))](rng, data or b"\0"))
    else:
        chunks.insert(1, rng.choice(_EXTRA)(rng))
    return _png(chunks)


def png_header(rng: random.Random, content: bytes) -> bytes:
    """Say another size, depth, kind of colour or interlace, with the check sum put right."""
    chunks = _png_chunks(content)
    width, height, *kinds = struct.unpack(">IIBBBBB", chunks[0][1][:13].ljust(13, b"\0"))
    what = rng.randrange(4)
    if what == 0:
        width, height = rng.choice(((0, 1), (1, 0), (2**31 - 1, 1), (1, 2**31 - 1), (2**32 - 1, 2**32 - 1), (width + 1, height)))
    elif what == 1:
        width, height = rng.choice(
            ((30_000, 30_000), (65_535, 65_535), (9_000, 9_000), (width, height + 1), (width * 2, height // 2))
        )
    elif what == 2:
        kinds[0], kinds[1] = rng.choice((1, 2, 4, 8, 16, 3, 255)), rng.choice((0, 2, 3, 4, 6, 1, 255))
    else:
        kinds[rng.randrange(2, 5)] = rng.choice((0, 1, 2, 255))
    chunks[0] = (b"IHDR", struct.pack(">IIBBBBB", width, height, *kinds))
    return _png(chunks)


def png_pixels(rng: random.Random, content: bytes) -> bytes:
    """Spoil the pixels themselves, or their number, and compress them as they were."""
    chunks = _png_chunks(content)
    pixels = zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"))
    pixels = BYTES[rng.choice(list(BYTES))](rng, pixels)
    packed = zlib.compress(pixels)
    whole = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
    return _png([*whole[:-1], (b"IDAT", packed), whole[-1]])


def png_bomb(rng: random.Random, content: bytes) -> bytes:
    """A few kilobytes that unpack to gigabytes: as pixels, as a text, as a colour profile."""
    what = rng.randrange(3)
    chunks = _png_chunks(content)
    if what == 0:
        side = rng.choice((9_000, 40_000, 100_000))
        header = struct.pack(">IIBBBBB", side, side, rng.choice((1, 8)), 0, 0, 0, 0)
        return _png([(b"IHDR", header), (b"IDAT", zeros(1 << 30)), (b"IEND", b"")])
    bomb = zeros(1 << 30)
    data = b"a\0\0" + bomb if what == 1 else b"icc\0\0" + bomb
    chunks.insert(1, (b"zTXt" if what == 1 else b"iCCP", data))
    return _png(chunks)


def zeros(count: int) -> bytes:
    """Return a zlib stream of `count` zeros without making them all: one flushed megabyte, many times."""
    packer = zlib.compressobj(9)
    first = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + block * ((count >> 20) - 1) + b"\x03\x00" + struct.pack(">I", ((count % 65521) << 16) | 1)


def _png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], 8
    while place + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def exif(rng: random.Random) -> bytes:
    """Return a broken EXIF block, little endian, with an orientation in it."""
    entries = [
        struct.pack(
            "<HHII",
            0x0112,
            rng.choice((1, 2, 3, 4, 5, 7, 12, 0, 99)),
            rng.choice((0, 1, 2, 2**31, 2**32 - 1)),
            rng.choice((1, 6, 8, 9, 2**31)),
        )
        for _ in range(rng.choice((1, 1, 3)))
    ]
    entries.append(
        struct.pack(
            "<HHII", rng.choice((0x8769, 0x8825, 0x927C, 0x0100)), rng.choice((4, 7, 13)), 1, rng.choice((8, 10_000, 2**32 - 1))
        )
    )
    count = rng.choice((len(entries), len(entries), 65_535))
    body = (
        b"II*\0"
        + struct.pack("<IH", rng.choice((8, 8, 0, 2**31)), count)
        + b"".join(entries)
        + struct.pack("<I", rng.choice((0, 8, 2**31)))
    )
    return b"Exif\0\0" + (body if rng.random() < 0.8 else flip(rng, body))


_EXTRA: tuple[Callable[[random.Random], tuple[bytes, bytes]], ...] = (
    lambda rng: (b"eXIf", exif(rng)[6:]),
    lambda rng: (b"tRNS", rng.randbytes(rng.choice((0, 1, 2, 5, 6, 300)))),
    lambda rng: (b"acTL", struct.pack(">II", rng.choice((0, 1, 2**32 - 1)), rng.choice((0, 2**31)))),
    lambda rng: (b"fcTL", struct.pack(">IIIIIHHBB", 0, 2**31 - 1, rng.choice((1, 2**31 - 1)), 0, 0, 1, 1, rng.choice((0, 9)), 1)),
    lambda rng: (b"iTXt", b"XML:com.adobe.xmp\0" + rng.randbytes(40)),
    lambda rng: (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<tiff:Orientation>9</tiff:Orientation>"),
    lambda rng: (b"zTXt", b"a\0" + rng.choice((b"\0", b"\1")) + rng.randbytes(40)),
    lambda rng: (b"iCCP", b"a\0\0" + rng.randbytes(40)),
    lambda rng: (b"gAMA", b""),
    lambda rng: (b"cHRM", rng.randbytes(31)),
    lambda rng: (b"pHYs", rng.randbytes(8)),
    lambda rng: (b"sRGB", b""),
    lambda rng: (b"IHDR", rng.randbytes(13)),
)


def jpeg_segment(rng: random.Random, content: bytes) -> bytes:
    """Drop, repeat, move or spoil a segment before the scan, its length put right or not."""
    segments, rest = _jpeg_segments(content)
    place = rng.randrange(len(segments))
    what = rng.randrange(5)
    if what == 0:
        del segments[place]
    elif what == 1:
        segments.insert(rng.randrange(len(segments) + 1), segments[place])
    elif what == 2:
        segments.insert(rng.randrange(len(segments)), segments.pop(place))
    elif what == 3:
        segments[place] = (segments[place][0], BYTES[rng.choice(list(BYTES))](rng, segments[place][1] or b"\0")[:60_000])
    else:
        segments[place] = (
            rng.choice((0xC0, 0xC2, 0xC3, 0xC4, 0xC9, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE)),
            segments[place][1],
        )
    return _jpeg(segments, rest)


def jpeg_frame(rng: random.Random, content: bytes) -> bytes:
    """Say another size, number of colours or sampling in the frame."""
    segments, rest = _jpeg_segments(content)
    for place, (kind, data) in enumerate(segments):
        if kind in (0xC0, 0xC1, 0xC2):
            frame = bytearray(data)
            what = rng.randrange(4)
            if what == 0:
                frame[1:5] = struct.pack(
                    ">HH", *rng.choice(((0, 0), (0, 64), (65_535, 65_535), (65_500, 65_500), (1, 65_535), (9_000, 9_000)))
                )
            elif what == 1:
                frame[5] = rng.choice((0, 1, 2, 4, 5, 255))
            elif what == 2:
                frame[7 + 3 * rng.randrange(frame[5])] = rng.choice((0x00, 0x11, 0x44, 0x41, 0x14, 0x33, 0xFF))
            else:
                frame[0] = rng.choice((0, 1, 12, 16, 255))
            segments[place] = (kind, bytes(frame))
    return _jpeg(segments, rest)


def jpeg_notes(rng: random.Random, content: bytes) -> bytes:
    """Add notes that are read before the pixels: EXIF, several images in one file, profiles, Photoshop's, XMP."""
    segments, rest = _jpeg_segments(content)
    kinds = ((0xB000, 7, 4, 0x30303130), (0xB001, 4, 1, rng.choice((2, 2**31))))
    kinds += ((0xB002, 7, rng.choice((16, 32, 2**31)), rng.choice((0, 50, 2**31))),)
    index = b"".join(struct.pack("<HHII", *kind) for kind in kinds)
    notes = rng.choice(
        (
            (0xE1, exif(rng)),
            (0xE1, exif(rng)),
            (
                0xE1,
                b"http://ns.adobe.com/xap/1.0/\0"
                + rng.choice((b"<tiff:Orientation>6</tiff:Orientation>", b'tiff:Orientation="9"', b"\xff")),
            ),
            (
                0xE2,
                b"MPF\0II*\0\x08\0\0\0" + struct.pack("<H", rng.choice((3, 65_535))) + index + b"\0\0\0\0" + rng.randbytes(32),
            ),
            (0xE2, b"ICC_PROFILE\0" + bytes((rng.choice((0, 1, 255)), rng.choice((0, 2, 255)))) + rng.randbytes(30)),
            (0xED, b"Photoshop 3.0\0008BIM" + struct.pack(">H", rng.choice((0x03ED, 0x0404))) + rng.randbytes(12)),
            (0xEE, b"Adobe\0" + rng.randbytes(rng.choice((0, 3, 7)))),
            (0xE0, b"JFIF\0" + rng.randbytes(rng.choice((0, 2, 9)))),
        )
    )
    segments.insert(rng.randrange(2), notes)
    return _jpeg(segments, rest)


def _jpeg_segments(content: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    segments, place = [], 2
    while content[place : place + 1] == b"\xff" and content[place + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", content, place + 2)
        segments.append((content[place + 1], content[place + 4 : place + 2 + length]))
        place += 2 + length
    return segments, content[place:]


def _jpeg(segments: list[tuple[int, bytes]], rest: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(struct.pack(">BBH", 0xFF, kind, len(data) + 2) + data for kind, data in segments) + rest


def tiff_entry(rng: random.Random, content: bytes) -> bytes:
    """Give an entry of the directory another tag, type, number or value, or add one."""
    order = "<" if content[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", content, 4)
    (count,) = struct.unpack_from(order + "H", content, start)
    place = start + 2 + 12 * rng.randrange(count)
    tag, kind, number_of, found = struct.unpack_from(order + "HHII", content, place)
    what = rng.randrange(4)
    if what == 0:
        tag = rng.choice(
            (256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339, 347, 34665, 65_535)
        )
    elif what == 1:
        kind = rng.choice((0, 1, 2, 3, 4, 5, 7, 9, 11, 12, 13, 16, 99))
    elif what == 2:
        number_of = rng.choice((0, 1, 2, 3, 65_535, 2**31, 2**32 - 1))
    else:
        found = rng.choice((0, 1, 2, 3, 4, 5, 7, 8, 16, 32, 32_773, 34_712, 30_000, 65_535, 2**31, 2**32 - 1))
    return content[:place] + struct.pack(order + "HHII", tag, kind, number_of, found) + content[place + 12 :]


def tiff_sizes(rng: random.Random, content: bytes) -> bytes:
    """Say a width and a height that no memory holds."""
    order = "<" if content[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", content, 4)
    (count,) = struct.unpack_from(order + "H", content, start)
    broken = bytearray(content)
    side = rng.choice((20_000, 65_535, 2**31 - 1, 2**32 - 1, 0))
    for place in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from(order + "H", content, place)[0] in (256, 257):
            struct.pack_into(order + "HII", broken, place + 2, 4, 1, side)
    return bytes(broken)


def webp_sizes(rng: random.Random, content: bytes) -> bytes:
    """Put a canvas of the largest size, with frames or without, before the image; or spoil a chunk."""
    body = content[12:]
    flags = rng.choice((0x00, 0x02, 0x08, 0x10, 0x20, 0xFF))
    side = rng.choice((16_383, 16_384, 2**24 - 1)) - 1
    canvas = bytes((flags, 0, 0, 0)) + side.to_bytes(3, "little") + side.to_bytes(3, "little")
    extra = b"VP8X" + struct.pack("<I", 10) + canvas
    if flags & 2:
        extra += b"ANIM" + struct.pack("<IIH", 6, 0, rng.choice((0, 65_535)))
        frame = bytes(6) + side.to_bytes(3, "little") * 2 + b"\1\0\0\0" + body
        body = b"ANMF" + struct.pack("<I", len(frame)) + frame
    if flags & 8:
        note = exif(rng)
        body += b"EXIF" + struct.pack("<I", len(note)) + note
    whole = extra + body
    return b"RIFF" + struct.pack("<I", len(whole) + 4) + b"WEBP" + whole


def bmp_header(rng: random.Random, content: bytes) -> bytes:
    """Give a field of the header another number."""
    place, kind = rng.choice(
        ((10, "I"), (14, "I"), (18, "i"), (22, "i"), (26, "H"), (28, "H"), (30, "I"), (34, "I"), (46, "I"), (50, "I"))
    )
    limit = 2 ** (16 if kind == "H" else 32)
    written = struct.pack("<" + kind.upper(), rng.choice((*NUMBERS, 3, 4, 16, 24, 30_000, -30_000)) % limit)
    return content[:place] + written + content[place + len(written) :]


def disguise(rng: random.Random, content: bytes) -> bytes:
    """Put another kind of file under the name: PostScript, a font, a film, a page, an archive."""
    others = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99999 99999\n%%EndComments\n/x 1e9 def showpage\n%%EOF\n",
        b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\xf7\0\0" + bytes(768) + b",\0\0\0\0\xff\xff\xff\xff\0\x08\0;",
        b"P6 99999 99999 255\n" + bytes(64),
        b"P4\n" + b"9" * 400 + b" 1\n",
        b"\0\0\1\0\1\0\0\0\0\0\1\0\x20\0" + struct.pack("<II", 2**31, 22),
        b"icns" + struct.pack(">I", 2**31) + b"ic09" + struct.pack(">I", 8),
        b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64),
        b"\xff\x4f\xff\x51" + bytes(64),
        b"8BPS\0\1" + bytes(64),
        b"<html><body>404 Not Found</body></html>",
        b"\0\0\0\x20ftypavif" + bytes(64),
        b"SIMPLE  =                    T" + b" " * 50 + b"END".ljust(80),
        b"\x59\xa6\x6a\x95" + struct.pack(">IIIIIII", 60_000, 60_000, 24, 0, 1, 0, 0),
        b"PK\3\4" + content,
    )
    return rng.choice(others)


PNG: Mutations = {"chunk": png_chunk, "header": png_header, "pixels": png_pixels, "bomb": png_bomb, "disguise": disguise}


JPEG: Mutations = {"segment": jpeg_segment, "frame": jpeg_frame, "notes": jpeg_notes, "disguise": disguise}


TIFF: Mutations = {"entry": tiff_entry, "sizes": tiff_sizes}


WEBP: Mutations = {"sizes": webp_sizes}


BMP: Mutations = {"fields": bmp_header}
