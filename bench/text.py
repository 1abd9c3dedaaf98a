"""Text from files and names, made safe to show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping

Echo = Callable[[str], object]
"""Prints a line for the user."""

Rows = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Columns, and rows of text."""

LONG = 100
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return a text with spaces for control characters, which move the cursor, break a line or reverse its order.

    >>> printable("a\\x1b[2Jb\\r\\nc")
    'a [2Jb  c'
    """
    return _CONTROL.sub(" ", text)


def some(names: Iterable[str], most: int = 5) -> str:
    """Return the first names in one line, with an ellipsis where there are more.

    >>> some("abc"), some("abcdefg")
    ('a, b, c', 'a, b, c, d, e, ...')
    """
    shown = list(names)
    return ", ".join(shown[:most]) + (", ..." if len(shown) > most else "")


def is_text(name: str) -> bool:
    """Tell whether a file's name is text in UTF-8; the bytes of another encoding come as lone surrogates.

    >>> is_text("caf\\u00e9"), is_text("caf\\udce9")
    (True, False)
    """
    return not any("\ud800" <= character <= "\udfff" for character in name)


def quoted(value: object) -> str:
    """Return a value as an error shows it: in quotation marks, and cut when it is long.

    >>> quoted("cat"), len(quoted("a" * 1000))
    ("'cat'", 103)
    """
    text = repr(value)
    return text if len(text) <= LONG else f"{text[:LONG]}..."


def plain(value: object) -> str:
    """Return a JSON value for a reader: without brackets, braces and quotation marks.

    >>> plain({"fit": ["train", "val"], "lr": 0.001, "flip": True, "void": None})
    'fit train, val; lr 0.001; flip yes; void none'
    """
    if isinstance(value, bool | None):
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {plain(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    return str(value)


def printable_lines(text: str) -> str:
    """Return a text of several lines with spaces for control characters; the lines stay.

    >>> printable_lines("a\\x1b[2J\\nb")
    'a [2J\\nb'
    """
    return "\n".join(map(printable, text.split("\n")))


def printable_json(text: str) -> str:
    """Return JSON with every control character but line ends written as an escape, also those that JSON allows.

    >>> printable_json('["a\\x9b2J"]')
    '["a\\\\u009b2J"]'
    """
    return "\n".join(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", line) for line in text.split("\n"))


def duration(seconds: float) -> str:
    """Return a number of seconds in the units that a person counts in, rounded as an estimate is.

    >>> [duration(one) for one in (0.4, 75, 754, 5_000, 30_000, 100_000, 975_656, 9e9)]
    ['1 s', '75 s', '13 min', '83 min', '8 h 20 min', '28 h', '11 days', '285 years']
    """
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    if minutes < 100:
        return f"{round(minutes)} min"
    if hours < 10:
        return f"{round(minutes) // 60} h {round(minutes) % 60} min"
    if hours < 48:
        return f"{round(hours)} h"
    return f"{round(days):,} days" if days < 730 else f"{round(days / 365.25):,} years"


def hours(seconds: float) -> str:
    """Return device-hours as text.

    >>> hours(5400), hours(36)
    ('1.50 device-hours', '0.0100 device-hours')
    """
    found = seconds / 3600
    return f"{found:,.0f} device-hours" if found >= 100 else f"{found:.{2 if found >= 1 else 4}f} device-hours"


def shell(words: Iterable[str]) -> str:
    """Return a command as it is typed into a shell; control characters are written as escapes of bash and zsh.

    >>> print(shell(["bench", "run", "--data", "a b", "x\\x1b[2J'"]))
    bench run --data 'a b' $'x\\u001b[2J\\''
    """
    return " ".join(_ansi_quoted(word) if _CONTROL.search(word) else shlex.quote(word) for word in words)


def _ansi_quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", escaped) + "'"
