"""What is done to a valid file: flipped bits, cuts, and edits that know how the file is built.

A mutation takes a source of chance and the bytes of a valid file and returns other bytes; it never reads a clock or a disk, so
a case is the same on every machine. Texts are edited as texts, numbers in binary headers as numbers with their check sums put
right, so that a reader is reached behind the first line of its defence.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

Mutation = Callable[[random.Random, bytes], bytes]


Mutations = Mapping[str, Mutation]


NUMBERS = (0, 1, -1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


DEEP = 200_000
"""Levels of nesting that no recursive reader survives."""


def flip(rng: random.Random, content: bytes) -> bytes:
    """Flip a bit, sometimes up to eight."""
    broken = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8)) if broken else 0):
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
    return bytes(broken)


def head(rng: random.Random, content: bytes) -> bytes:
    """Flip a bit among the first bytes, where headers are."""
    part = min(len(content), 64)
    return flip(rng, content[:part]) + content[part:]


def cut(rng: random.Random, content: bytes) -> bytes:
    """Keep the beginning."""
    return content[: rng.choice((0, 1, rng.randrange(len(content) + 1), rng.randrange(len(content) + 1), len(content) - 1))]


def drop(rng: random.Random, content: bytes) -> bytes:
    """Leave a stretch out."""
    first = rng.randrange(len(content) + 1)
    return content[:first] + content[first + rng.choice((1, 4, 64, 512)) :]


def repeat(rng: random.Random, content: bytes) -> bytes:
    """Write a stretch twice."""
    first = rng.randrange(len(content) + 1)
    after = first + rng.choice((1, 4, 64, 512))
    return content[:after] + content[first:]


def blank(rng: random.Random, content: bytes) -> bytes:
    """Set a stretch to zeros or ones, as a lost block of a disk reads."""
    first, length = rng.randrange(len(content) + 1), rng.choice((1, 4, 64, 512, 4096))
    return content[:first] + rng.choice((b"\0", b"\xff")) * len(content[first : first + length]) + content[first + length :]


def noise(rng: random.Random, content: bytes) -> bytes:
    """Overwrite a stretch by random bytes."""
    first, length = rng.randrange(len(content) + 1), rng.choice((1, 4, 16, 256))
    return content[:first] + rng.randbytes(len(content[first : first + length])) + content[first + length :]


def grow(rng: random.Random, content: bytes) -> bytes:
    """Write something behind the end."""
    return content + rng.choice((b"\0", b"\0" * 4096, rng.randbytes(64), content, b"\n", b"{}"))


def number(rng: random.Random, content: bytes) -> bytes:
    """Overwrite two, four or eight bytes by a number that is easily forgotten."""
    width, order = rng.choice((2, 4, 8)), rng.choice(("little", "big"))
    first = rng.randrange(max(1, min(len(content), rng.choice((64, len(content))))))
    written = (rng.choice(NUMBERS) % 2 ** (8 * width)).to_bytes(width, order)
    return content[:first] + written + content[first + width :]


BYTES: Mutations = {
    "flip": flip, "head": head, "cut": cut, "drop": drop, "repeat": repeat, "blank": blank, "noise": noise, "grow": grow,
    "number": number,
}  # fmt: skip


# Texts

STRANGE = (
    "", " ", "\0", "\ufeff", "\ud800", "\u2028", "\x1b[2J", "../../etc/passwd", "/etc/passwd", "a" * 100_000, "é", "%s",
    "<script>", "-1", "0", "1e999", "nan", "NaN", "Infinity", "9" * 5000, "1" * 30, "0x10", "1_000", "٣", "true", "null",
    "[]", "{}", "'", '"',
)  # fmt: skip


def encoding(rng: random.Random, content: bytes) -> bytes:
    """Write the text in another encoding, or with a mark in front."""
    text = content.decode("utf-8", errors="replace")
    return rng.choice(
        (
            lambda: text.encode("utf-8-sig"),
            lambda: text.encode("utf-16"),
            lambda: text.encode("utf-16-le"),
            lambda: text.encode("utf-32"),
            lambda: text.encode("utf-7"),
            lambda: text.replace("\n", "\r\n").encode(),
            lambda: text.replace("\n", "\r").encode(),
            lambda: text.replace("e", "é").encode("latin-1", errors="replace"),
            lambda: b"\xef\xbb\xbf" * 2 + content,
        )
    )()


def line(rng: random.Random, content: bytes) -> bytes:
    """Leave out, repeat, move, join or spoil a line."""
    lines = content.split(b"\n")
    place, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    what = rng.randrange(6)
    if what == 0:
        del lines[place]
    elif what == 1:
        lines.insert(other, lines[place])
    elif what == 2:
        lines[place], lines[other] = lines[other], lines[place]
    elif what == 3:
        lines[place : place + 2] = [b" ".join(lines[place : place + 2])]
    elif what == 4:
        lines[place] = _utf8(rng.choice(STRANGE))
    else:
        lines[place] += _utf8(rng.choice(STRANGE))
    return b"\n".join(lines)


def word(rng: random.Random, content: bytes) -> bytes:
    """Replace a word or a number by something strange."""
    words = list(re.finditer(rb"[\w.+-]+", content))
    if not words:
        return content
    found = rng.choice(words)
    return content[: found.start()] + _utf8(rng.choice(STRANGE)) + content[found.end() :]


def mark(rng: random.Random, content: bytes) -> bytes:
    """Replace a mark (a bracket, a comma, a quote) by another, or leave it out."""
    marks = [place for place, byte in enumerate(content) if byte in b"{}[]()<>,:;=\"'/\n"]
    if not marks:
        return content
    place = rng.choice(marks)
    return content[:place] + rng.choice((b"", b"{", b"}", b"[", b"]", b",", b":", b'"', b"<", b">", b"\n")) + content[place + 1 :]


def _utf8(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


TEXT: Mutations = {"encoding": encoding, "line": line, "word": word, "mark": mark}


# JSON

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, -(10**30), 0.5, -0.0, 1e308, float("nan"), float("inf"), float("-inf"),
    *STRANGE, [], {}, [[]], [None], {"": None}, [1] * 1000,
)  # fmt: skip


def value(rng: random.Random, content: bytes) -> bytes:
    """Replace a value somewhere in the tree by something strange."""
    return _edited(rng, content, lambda owner, key: owner.__setitem__(key, rng.choice(VALUES)))


def entry(rng: random.Random, content: bytes) -> bytes:
    """Leave an entry out, move it, repeat it, or give it another key."""

    def change(owner: Any, key: Any) -> None:
        if isinstance(owner, list):
            rng.choice((lambda: owner.pop(key), lambda: owner.insert(0, owner[key]), lambda: rng.shuffle(owner)))()
            return
        kept = owner.pop(key)
        if rng.random() < 0.5:
            owner[rng.choice((*STRANGE, key.upper(), key + "s", *owner))] = kept

    return _edited(rng, content, change)


def nudge(rng: random.Random, content: bytes) -> bytes:
    """Change a number or a text a little, so that it stays one of its kind."""

    def change(owner: Any, key: Any) -> None:
        old = owner[key]
        if isinstance(old, bool):
            owner[key] = not old
        elif isinstance(old, int | float):
            owner[key] = rng.choice((old + 1, old - 1, -old, old * 10, old / 3, float(old), str(old)))
        elif isinstance(old, str) and old:
            place = rng.randrange(len(old))
            owner[key] = old[:place] + rng.choice(("", "0", "f", "é", old[place] * 2)) + old[place + 1 :]
        elif isinstance(old, list):
            owner[key] = rng.choice((old[:-1], old * 2, old[::-1]))
        else:
            owner[key] = [old]

    return _edited(rng, content, change)


def deep(rng: random.Random, content: bytes) -> bytes:
    """Put a value nested beyond every stack, or a number of more digits than Python reads, in the place of another."""
    start, end = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    middle = rng.choice((b"", b"1")) if start == b"[" else b"1"
    levels = rng.choice((400, 990, DEEP))
    inner = rng.choice(
        (start * levels + middle + end * levels, start * levels, b"9" * 10_000, b"-" + b"1" * 5000, b"1e" + b"9" * 400)
    )
    places = [found.end() for found in re.finditer(rb": ?|\[|, ?", content)]
    place = rng.choice(places) if places else 0
    after = re.compile(rb"[,}\]]").search(content, place)
    return content[:place] + inner + content[after.start() if after else len(content) :]


def twice(rng: random.Random, content: bytes) -> bytes:
    """Write a key twice in an object, with two values."""
    keys = list(re.finditer(rb'"[^"]*" ?: ?', content))
    if not keys:
        return content
    found = rng.choice(keys)
    return (
        content[: found.start()] + found[0] + rng.choice((b"null", b"0", b'""', b"[]", b"1e3")) + b", " + content[found.start() :]
    )


def _edited(rng: random.Random, content: bytes, change: Callable[[Any, Any], object]) -> bytes:
    try:
        tree = json.loads(content)
    except ValueError:
        return content
    places: list[tuple[Any, Any]] = []
    _walk(tree, places)
    if places:
        change(*rng.choice(places))
    return json.dumps(tree, ensure_ascii=rng.random() < 0.9).encode(errors="surrogatepass")


def _walk(tree: Any, places: list[tuple[Any, Any]]) -> None:
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, below in pairs:
        places.append((tree, key))
        _walk(below, places)


JSON: Mutations = {
    "value": value,
    "entry": entry,
    "nudge": nudge,
    "deep": deep,
    "twice": twice,
    "encoding": encoding,
    "mark": mark,
}


def some_line(inner: Mutations) -> Mutation:
    """Return a mutation of one line of a file whose lines are JSON, by one of some mutations."""

    def change(rng: random.Random, content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        place = rng.randrange(len(lines))
        ending = b"\n" if lines[place].endswith(b"\n") else b""
        lines[place] = inner[rng.choice(list(inner))](rng, lines[place].rstrip(b"\n")) + ending
        return b"".join(lines)

    return change
