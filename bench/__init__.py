"""A bench on which self-supervised pretext tasks, and other ways to initialise a network, are compared fairly.

`bench.run`, `tune`, `report`, `leaderboard`, `export`, `load_trunk` and `embed` are the bench from Python (`bench.python`).
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.python import embed, export, leaderboard, load_trunk, report, run, tune

__version__ = "0.1.0"
__all__ = ["__version__", "embed", "export", "leaderboard", "load_trunk", "report", "run", "tune"]


def __getattr__(name: str) -> Any:
    """Return a function of `bench.python`, which is imported only when it is used."""
    if name in __all__:
        return getattr(importlib.import_module("bench.python"), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the functions of `bench.python` too."""
    return sorted({*globals(), *__all__})


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
