"""What several commands do before they work: plug-ins, folders, warnings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.text import printable

in_use = ExitStack()
"""Keeps `bench clean` out of the folders that this command uses."""


def begin(plugins: Sequence[Path] | None, out: Path) -> None:
    """Take the plug-ins, and fail early where nothing can be written."""
    add(plugins)
    use(out)


def add(plugins: Sequence[Path] | None) -> None:
    """Take the plug-ins of some files."""
    from bench import registry

    for path in plugins or ():
        registry.add_plugin(path)


def use(*folders: Path) -> None:
    """Make the home folder and some others, fail where they cannot be written, and keep `bench clean` out of them."""
    from bench.storage import files

    for folder in (files.home(), *folders):
        hold(files.make_folder(folder))


def hold(folder: Path) -> None:
    """Keep `bench clean` out of a folder until this command ends."""
    from bench.storage import locks

    in_use.enter_context(locks.using(folder, warn))


def warn(text: str) -> None:
    """Print a line on standard error."""
    print(f"bench: {printable(text)}", file=sys.stderr)


def check_places(data: str | None, pretrain_data: str | None, storage: str) -> None:
    """Fail before anything is loaded for data that is not here and a database that may not be reached."""
    from bench.data import catalogue
    from bench.storage import offline

    catalogue.check_prepared(data, pretrain_data)
    offline.check_storage(storage)
