"""`bench clean`: what no record needs, and its removal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Out

EXAMPLE = "bench clean cache packs"


def clean(
    kinds: Annotated[
        list[str] | None, typer.Argument(metavar="[KIND]...", help="What to remove, or all; when left out, nothing is.")
    ] = None,
    out: Out = Path("runs"),
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be removed; remove nothing.")] = False,
) -> None:
    """Say how much room is taken by what no record needs, and remove the kinds that are named.

    Records stay with all that they refer to, and so do splits and prepared data sets.
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
