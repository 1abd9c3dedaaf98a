"""What several commands need: loading plug-ins, checking and locking folders, printing warnings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.text import printable

in_use = ExitStack()
"""The claims on the folders that this command uses, which keep `bench clean` out of them."""


def begin(plugins: Sequence[Path] | None, out: Path) -> None:
    """Add plug-ins and claim the output folder; MachineError when nothing can be written there."""
    add(plugins)
    use(out)


def add(plugins: Sequence[Path] | None) -> None:
    """Add the plug-ins in some files."""
    from bench import registry

    for path in plugins or ():
        registry.add_plugin(path)


def use(*folders: Path) -> None:
    """Create the home folder and others and keep `bench clean` out; MachineError when nothing can be written there."""
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


def check_places(data: Sequence[str | None], storage: str) -> None:
    """Raise MachineError, before anything is loaded, for data that is not prepared or a database that --offline forbids."""
    from bench.data import catalogue
    from bench.storage import offline

    catalogue.check_prepared(*data)
    offline.check_storage(storage)
