"""Text that comes from files and names, made fit to be shown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable

Echo = Callable[[str], object]
"""Prints a line for the user."""

Rows = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Columns, and rows of text."""

LONG = 100
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Replace control characters, which move a terminal's cursor, break a row of a file or turn its order, by spaces.

    >>> printable("a\\x1b[2Jb\\r\\nc")
    'a [2Jb  c'
    """
    return _CONTROL.sub(" ", text)


def quoted(value: object) -> str:
    """Return a value from a file or a command as an error shows it: not at any length.

    >>> quoted("cat"), len(quoted("a" * 1000))
    ("'cat'", 103)
    """
    text = repr(value)
    return text if len(text) <= LONG else f"{text[:LONG]}..."


def printable_lines(text: str) -> str:
    """Do so in a text of several lines, and leave the lines.

    >>> printable_lines("a\\x1b[2J\\nb")
    'a [2J\\nb'
    """
    return "\n".join(map(printable, text.split("\n")))


def printable_json(text: str) -> str:
    """Write the control characters that JSON need not escape as JSON escapes them, line ends aside.

    >>> printable_json('["a\\x9b2J"]')
    '["a\\\\u009b2J"]'
    """
    return "\n".join(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", line) for line in text.split("\n"))


def shell(words: Iterable[str]) -> str:
    """Return a command as it is typed into a shell; control characters are written out, as bash and zsh read them.

    >>> print(shell(["bench", "run", "--data", "a b", "x\\x1b[2J'"]))
    bench run --data 'a b' $'x\\u001b[2J\\''
    """
    return " ".join(_ansi_quoted(word) if _CONTROL.search(word) else shlex.quote(word) for word in words)


def _ansi_quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", escaped) + "'"
