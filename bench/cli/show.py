"""`bench show`: a run's settings, scores, cost and provenance, and the command that makes the run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import completion
from bench.cli.common import add, warn
from bench.cli.options import Out, Plugins
from bench.text import printable_json, shell

EXAMPLE = "bench show cgan_color-voc_seg-0a1b2c3d4e5f"


def show(
    run: Annotated[
        str, typer.Argument(help="A run's id, or the beginning of it.", autocompletion=completion.completer(completion.runs))
    ],
    out: Out = Path("runs"),
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole record as JSON.")] = False,
) -> None:
    """Print a run's settings, scores, cost and provenance, and the exact command that makes the run again."""
    from rich.console import Console

    from bench.cli.screen import print_rows
    from bench.experiment import reproduction

    add(plugin)
    one = reproduction.find(out, run)
    if as_json:
        Console(highlight=False, soft_wrap=True).print(printable_json(one.model_dump_json(indent=2)), markup=False)
        return
    print_rows(*reproduction.description(one))
    print()
    print(shell(reproduction.command(one)))
    changed = reproduction.changed_since(one)
    if changed:
        warn(f"the command would make a run with another id: {changed}")
