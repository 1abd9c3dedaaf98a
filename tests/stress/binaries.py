"""Mutations of arrays, archives and files of tensors."""

from __future__ import annotations

import io
import random
import re
import struct
import zipfile

from tests.stress.image_files import zeros
from tests.stress.mutations import BYTES, JSON, Mutations

# Arrays and archives


def npy_header(rng: random.Random, content: bytes) -> bytes:
    """Write another header over the same numbers."""
    start = 10 + struct.unpack_from("<H", content, 8)[0]
    header, data = content[10:start].decode("latin-1"), content[start:]
    shape = rng.choice(
        (
            "()",
            "(0,)",
            "(-1, 4)",
            f"({10**18}, 3)",
            f"({2**40},)",
            "(2, 3",
            "(1.5,)",
            "(None,)",
            "'x'",
            "[3]",
            "(True, 2)",
            f"({'9' * 5000},)",
        )
    )
    kind = rng.choice(("|O", "<f8", "|u1", "<U999999999", "|V0", "<M8[ns]", "x", "", "[('a','|u1')]", ">c16", "<i1"))
    new = rng.choice(
        (
            lambda: re.sub(r"'shape': \([^)]*\)", f"'shape': {shape}", header),
            lambda: re.sub(r"'descr': '[^']*'", f"'descr': '{kind}'", header),
            lambda: header.replace("False", rng.choice(("True", "None", "1"))),
            lambda: "(" * rng.choice((50, 90, 60_000 // 2)) + header,
            lambda: "{" + "[" * 300 + "]" * 300 + "}",
            lambda: header.replace("'shape'", "'shapes'"),
            lambda: "__import__('os').system('true')",
            lambda: header[: rng.randrange(len(header))],
        )
    )()
    version = rng.choice((b"\1\0", b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\t\t"))
    text = new.encode("latin-1", errors="replace")[:65_000]
    length = struct.pack("<H" if version[:1] == b"\1" else "<I", len(text) if rng.random() < 0.9 else rng.choice((0, 65_535)))
    return b"\x93NUMPY" + version + length + text + data


def member(rng: random.Random, content: bytes) -> bytes:
    """Drop, repeat, rename or spoil an array of an archive, its check sums put right."""
    members = _members(content)
    place = rng.randrange(len(members))
    name, data = members[place]
    what = rng.randrange(6)
    if what == 0:
        del members[place]
    elif what == 1:
        members.append((name, rng.choice(members)[1]))
    elif what == 2:
        members[place] = (
            rng.choice(("", "../../x.npy", "/etc/x.npy", "x.npy", name.removesuffix(".npy"), "a" * 5000, "é.npy")),
            data,
        )
    elif what == 3:
        members[place] = (name, npy_header(rng, data))
    elif what == 4:
        members[place] = (name, BYTES[rng.choice(list(BYTES))](rng, data))
    else:
        members[place] = (name, rng.choice(members)[1])
    return _archive(members)


def bomb(rng: random.Random, content: bytes) -> bytes:
    """Put an array of a gigabyte of zeros, small when it is packed, in the place of another."""
    members = _members(content)
    name, data = members[rng.randrange(len(members))]
    start = 10 + struct.unpack_from("<H", data, 8)[0]
    count = 1 << 30
    header = re.sub(rb"\([^)]*\)", f"({count},)".encode(), data[10:start], count=1).rstrip()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    first = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header
    # The raw deflate stream: a stored block of the header, then the megabyte of zeros, repeated.
    stored = b"\0" + struct.pack("<HH", len(first), len(first) ^ 0xFFFF) + first
    packed = stored + zeros(count)[2:-4]
    whole = _archive([other for other in members if other[0] != name])
    return _with_raw_member(whole, name, packed, count + len(first))


def _with_raw_member(archive: bytes, name: str, packed: bytes, size: int) -> bytes:
    """Return an archive with one more member whose packed bytes are given; its CRC-32 is not right, its sizes are."""
    end = archive.rfind(b"PK\5\6")
    count, length, start = struct.unpack_from("<HII", archive, end + 10)
    text = name.encode()
    fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, 0, len(packed), size, len(text), 0)
    local = b"PK\3\4" + fields + text + packed
    central = b"PK\1\2" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, start) + text
    directory = archive[start : start + length] + central
    tail = struct.pack("<HHHHIIH", 0, 0, count + 1, count + 1, len(directory), start + len(local), 0)
    return archive[:start] + local + directory + b"PK\5\6" + tail


def _members(content: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(entry.filename, archive.read(entry)) for entry in archive.infolist()]


def _archive(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def tensor_header(rng: random.Random, content: bytes) -> bytes:
    """Edit the JSON in front of the tensors, or the length that it is said to have."""
    (length,) = struct.unpack_from("<Q", content)
    header, data = content[8 : 8 + length], content[8 + length :]
    if rng.random() < 0.2:
        return struct.pack("<Q", rng.choice((0, 1, length + 1, 10**8 + 1, 2**63, 2**64 - 1))) + header + data
    edited = JSON[rng.choice(list(JSON))](rng, header)
    return struct.pack("<Q", len(edited)) + edited + data


NPY: Mutations = {"header": npy_header}


NPZ: Mutations = {"member": member, "bomb": bomb}


TENSORS: Mutations = {"header": tensor_header}
