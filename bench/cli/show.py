"""`bench show`: a run's settings, scores, cost and provenance, and the command that makes the run again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import completion
from bench.cli.common import add, warn
from bench.cli.document import alone
from bench.cli.options import Out, Plugins
from bench.text import printable_lines, shell

EXAMPLE = "bench show cgan_color-voc_seg-0a1b2c3d4e5f"


def show(
    run: Annotated[
        str, typer.Argument(help="A run's id, or the beginning of it.", autocompletion=completion.completer(completion.runs))
    ],
    out: Out = Path("runs"),
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole record as JSON.")] = False,
    source: Annotated[bool, typer.Option("--source", help="Print the text of the plug-ins that the run was made with.")] = False,
) -> None:
    """Print a run's settings, scores, cost and provenance, and the exact command that makes the run again."""
    from bench.cli.screen import print_rows
    from bench.experiment import needs, reproduction

    with alone(as_json) as publish:
        add(plugin)
        one = reproduction.find(out, run)
        if as_json:
            publish(one.model_dump(mode="json"))
            return
    if source:
        for text in needs.sources(one):  # a file gets every byte, a terminal nothing that moves its cursor
            sys.stdout.write(printable_lines(text) if sys.stdout.isatty() else text)
        return
    print_rows(*reproduction.description(one))
    print()
    print(shell(reproduction.command(one)))
    lacking = [plugin.file for plugin in needs.plugins(one) if not plugin.is_known]
    changed = reproduction.changed_since(one)
    if lacking:
        warn(f"the command needs {' and '.join(lacking)}, which is not here; bench reproduce says how to go on")
    elif changed:
        warn(f"the command would make a run with another id: {changed}")
