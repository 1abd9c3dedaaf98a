"""Finds the image files that a table names: with or without folders and suffix, in either form of accented letters."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence


class Files:
    """Finds the image file that a cell names, with or without folders and suffix."""

    def __init__(self, names: Iterable[str]) -> None:
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for name in names:
            last = _normal(name).rpartition("/")[2]
            for key in dict.fromkeys((last, _bare(last))):
                self.by_name[key].append(name)

    def find(self, text: str) -> list[str]:
        """Return the files that a text may name: one when it is clear, none when there is none."""
        wanted = [part for part in _normal(text.replace("\\", "/")).split("/") if part not in ("", ".")]
        if not wanted:
            return []
        found = [name for name in self.by_name.get(wanted[-1], ()) if _agree(wanted, _normal(name).split("/"))]
        whole = "/".join(wanted)
        exact = [name for name in found if whole in (_normal(name), _bare(_normal(name)))]
        return exact if len(exact) == 1 else found


def _normal(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _bare(name: str) -> str:
    """Return a name without its suffix."""
    before, _, after = name.rpartition(".")
    return before if before and "/" not in after else name


def _agree(wanted: Sequence[str], parts: Sequence[str]) -> bool:
    """Tell whether one of two paths ends with the other, whose last parts are known to agree."""
    both = min(len(wanted), len(parts)) - 1
    return both == 0 or wanted[-both - 1 : -1] == parts[-both - 1 : -1]
