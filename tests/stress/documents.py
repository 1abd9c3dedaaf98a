"""Mutations of XML files and of Python files."""

from __future__ import annotations

import random
import re

from tests.stress.mutations import DEEP, STRANGE, Mutations, _utf8, encoding, mark, word

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
