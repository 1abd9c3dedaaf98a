"""Text that comes from files and names, made fit to be shown."""

from __future__ import annotations

import re

LONG = 100
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def printable(text: str) -> str:
    """Replace control characters, which move a terminal's cursor or break a row of a file, by spaces.

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
