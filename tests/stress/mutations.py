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


# XML


def element(rng: random.Random, content: bytes) -> bytes:
    """Rename, drop, repeat or empty an element."""
    text = content.decode(errors="replace")
    tags = list(re.finditer(r"<(\w+)>[^<]*</\1>", text)) or list(re.finditer(r"<\w+>", text))
    if not tags:
        return content
    tag = rng.choice(tags)
    name = tag[1] if tag.re.groups else "object"
    new = rng.choice(
        ("", tag[0] * 2, f"<{name}/>", f"<{name}></{name}>", tag[0].replace(name, rng.choice(("x", "é", "name", "object"))))
    )
    strange = rng.choice(STRANGE)
    new = rng.choice((new, f"<{name}>{strange}</{name}>", f"<{name}><![CDATA[{strange}]]></{name}>", f"<{name}><b/>1</{name}>"))
    return _utf8(text[: tag.start()] + new + text[tag.end() :])


def doctype(rng: random.Random, content: bytes) -> bytes:
    """Put a document type with entities in front: of many levels, of a file, of itself."""
    levels = rng.choice((3, 8, 12, 30))
    laughs = '<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, levels))
    kind = rng.choice(
        (
            laughs,
            f'<!ENTITY a{levels - 1} "{"x" * 50_000}">',
            f'<!ENTITY a{levels - 1} SYSTEM "file:///etc/passwd">',
            f'<!ENTITY a{levels - 1} "&a{levels - 1};">',
            '<!ENTITY % p SYSTEM "http://127.0.0.1:9/x"> %p;',
            "<!ATTLIST object name CDATA 'cat'>",
        )
    )
    text = content.decode(errors="replace")
    used = re.sub(r"<name>[^<]*", f"<name>{rng.choice((1, 1, 5000)) * f'&a{levels - 1};'}", text, count=1)
    return _utf8(f"<!DOCTYPE annotation [{kind}]>{used}")


def declaration(rng: random.Random, content: bytes) -> bytes:
    """Say another version or encoding than the file has."""
    names = ("utf-8", "utf-16", "latin-1", "x-unknown", "utf-7", "idna", "rot13", "base64", "cp037", "", "a" * 1000, "shift_jis")
    return f'<?xml version="{rng.choice(("1.0", "1.1", "9"))}" encoding="{rng.choice(names)}"?>'.encode() + content


def nested(rng: random.Random, content: bytes) -> bytes:
    """Nest elements deeper than any stack, or give one very many attributes."""
    inner = rng.choice(
        (
            b"<object>" * DEEP + b"</object>" * DEEP,
            b"<object>" * DEEP,
            b"<object " + b" ".join(b'a%d="1"' % place for place in range(20_000)) + b"/>",
            b"<object a='1' a='2'/>",
            b"<object/>" * 100_000,
            b"<!--" + b"-" * 100_000 + b"-->",
            b"<x:object/>",
            b"&#0;&#xd800;&#x110000;",
        )
    )
    place = content.find(b"<object>")
    return content[:place] + inner + content[place:]


XML: Mutations = {
    "element": element, "doctype": doctype, "declaration": declaration, "nested": nested, "encoding": encoding,
    "word": word, "mark": mark,
}  # fmt: skip


def some_line(inner: Mutations) -> Mutation:
    """Return a mutation of one line of a file whose lines are JSON, by one of some mutations."""

    def change(rng: random.Random, content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        place = rng.randrange(len(lines))
        ending = b"\n" if lines[place].endswith(b"\n") else b""
        lines[place] = inner[rng.choice(list(inner))](rng, lines[place].rstrip(b"\n")) + ending
        return b"".join(lines)

    return change


# Python

PYTHON_LINES = (
    "raise SystemExit(7)", "raise ValueError('\\ud800')", "import no_such_module", "raise RecursionError", "raise MemoryError",
    "def f(): return f()\nf()", "assert False", "1 / 0", "class A(Pretext): pass", "class Rotation(Downstream): pass",
    "Pretext = int", "__name__ = 'x'", "__file__ = None", "del Rotation", "import sys; sys.exit('no')", "raise StopIteration",
    "raise GeneratorExit",
    "class E(Exception):\n    def __str__(self): raise ValueError\nraise E", "raise Exception('a\\nb\\nc')",
    "raise BaseException('x')", "async def f(): await 1", "from __future__ import braces", "x = " + "9" * 5000,
    "import bench.cli.app", "Rotation.version = 'x'", "__all__ = 3", "Rotation.__module__ = 'x'",
)  # fmt: skip


def statement(rng: random.Random, content: bytes) -> bytes:
    """Add a line that fails, leaves, or hides what should be found."""
    return content + rng.choice(PYTHON_LINES).encode() + b"\n"


def expression(rng: random.Random, content: bytes) -> bytes:
    """Add an expression that no parser has room for."""
    depth = rng.choice((90, 300, 5_000, DEEP))
    return content + rng.choice(
        (
            b"x = " + b"(" * depth + b")" * depth,
            b"x = " + b"-" * depth + b"1",
            b"x = " + b"not " * depth + b"1",
            b"x = a" + b".b" * depth,
            b"x = " + b" + ".join([b"1"] * depth),
            b"x = " + b"[" * depth,
            b"# coding: no-such\n",
            b"\0",
            b"x = f'" + b"{" * depth,
            b"\n" + b"".join(b" " * n + b"if 1:\n" for n in range(120)) + b" " * 121 + b"pass\n",
        )
    )


PYTHON: Mutations = {
    "statement": statement,
    "expression": expression,
    "coding": lambda rng, content: (
        b"# -*- coding: %s -*-\n" % rng.choice((b"no-such", b"utf-16", b"rot13", b"latin-1")) + content
    ),
}
