"""A bench on which self-supervised pretext tasks, and other ways to initialise a network, are compared fairly."""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

__version__ = "0.1.0"


class _Siblings:
    """Finds the packages that lie beside this one, whatever folders of these names the working directory has."""

    NAMES = ("pretexts", "downstream", "results")

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return where one of these packages lies; None for any other module."""
        beside = [str(Path(__file__).resolve().parent.parent)]
        return PathFinder.find_spec(name, beside, target) if path is None and name in cls.NAMES else None


if _Siblings not in sys.meta_path:
    sys.meta_path.insert(0, _Siblings)
