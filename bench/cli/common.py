"""What several commands need: loading plug-ins, checking and locking folders, printing warnings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from bench.config import MachineConfig
from bench.text import printable

C = TypeVar("C", bound=MachineConfig)
in_use = ExitStack()
"""The claims on the folders that this command uses, which keep `bench clean` out of them."""


def begin(plugins: Sequence[Path] | None, out: Path, launches: bool = False) -> None:
    """Add plug-ins and claim the output folder; MachineError when nothing can be written there, or locks do not work there.

    A command that `launches` workers needs no locks itself: it divides the work where there are none.
    """
    add(plugins)
    use(out)
    if launches:
        return
    from bench.launch import sharing
    from bench.storage import files, launched, shared

    if launched.here() is None:
        for folder, option in ((out, "--out"), (files.home(), "$PRETEXT_BENCH_HOME")):
            shared.check(folder, option, warn)
    in_use.enter_context(sharing.member())


def on_several(config: C, works: bool = True) -> C:
    """Run this command in a process for each of --devices, where it `works` and has several, and leave with its exit code.

    Else return the configuration: of the first device where nothing is trained.
    """
    from bench.training import leading

    if not config.devices or leading.launched():
        return config
    from bench.training import devices, processes

    named = devices.named(config.devices, config.device)
    if not works:
        return config.model_copy(update={"devices": "", "device": named[0]})
    if len(named) > 1:
        sys.exit(processes.run_on(len(named), sys.argv[1:]))
    return config


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
