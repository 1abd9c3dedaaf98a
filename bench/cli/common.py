"""What several commands need: loading plug-ins, checking and locking folders, printing warnings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import MachineError
from bench.text import printable

if TYPE_CHECKING:
    from bench.record import Record
    from results.looks import Looks
    from results.report import Report, Wanted

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


def check_places(data: str | None, pretrain_data: str | None, storage: str) -> None:
    """Raise MachineError, before anything is loaded, for data that is not prepared or a database that --offline forbids."""
    from bench.data import catalogue
    from bench.storage import offline

    catalogue.check_prepared(data, pretrain_data)
    offline.check_storage(storage)


def report_of(records: Sequence[Record], out: Path, wanted: Wanted, command: str) -> tuple[Report, Looks]:
    """Return the report of some records and the looks before it, computed with the cache of an output folder, which is kept."""
    from bench.storage import files
    from results import look_log
    from results.cache import Cache, path_in
    from results.report import make

    cache, before = Cache.read(path_in(out)), look_log.read(out)
    made = make(records, out, wanted, command, cache, before)
    if cache.changed:
        with suppress(MachineError):  # the cache only saves time
            files.publish_file(path_in(out), cache.text())
    return made, before


def keep_look(made: Report, out: Path, before: Looks) -> None:
    """Add the look at a report's boards to the looks before it; MachineError when that cannot be written."""
    from results import look_log

    look_log.keep(out, before, before.with_boards(made.boards, look_log.now()), out / "locks" / "looks.lock", warn)
