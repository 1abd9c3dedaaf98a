"""`bench clean`: list and remove what no record needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Out

EXAMPLE = "bench clean cache packs"


def clean(
    kinds: Annotated[
        list[str] | None, typer.Argument(metavar="[KIND]...", help="What to remove, or all; nothing is removed when left out.")
    ] = None,
    out: Out = Path("runs"),
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be removed; remove nothing.")] = False,
) -> None:
    """Print how much room is taken by files that no record needs, and remove the kinds that are named.

    Records and everything that they refer to stay, and so do splits and prepared data sets.
    """
    from bench.cli.screen import print_rows
    from bench.maintenance import clean
    from bench.storage.disk import amount

    if plan or not kinds:
        print_rows(*clean.rows(clean.survey(kinds or (), out)))
        return
    with clean.alone(kinds, out):
        found = clean.survey(kinds, out)
        freed = clean.remove(found)
    print_rows(*clean.rows(found))
    print(f"freed {amount(freed)}")
