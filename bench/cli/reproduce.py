"""`bench reproduce`: make a run again from its record and compare the two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import completion
from bench.cli.common import begin, use
from bench.cli.options import Out, Plugins, checked, configured, machine_of
from bench.errors import BenchError

EXAMPLE = "bench reproduce cgan_color-voc_seg-0a1b2c3d4e5f"


@configured("device", "threads", "workers")
def reproduce(
    run: Annotated[
        str, typer.Argument(help="A run's id, or the beginning of it.", autocompletion=completion.completer(completion.runs))
    ],
    options: dict[str, Any],
    out: Out = Path("runs"),
    into: Annotated[
        Path | None, typer.Option(help="Folder for the new run; OUT/reproduced/RUN when left out.", callback=checked)
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="How much a metric may differ; when left out, not by a bit on an equal CPU, 0.02 elsewhere.", min=0),
    ] = None,
    plugin: Plugins = None,
    trust_plugin: Annotated[
        bool, typer.Option("--trust-plugin", help="Run the plug-ins whose text the record holds; the text is shown first.")
    ] = False,
) -> None:
    """Make a run again from its record alone, pretraining included, and compare weights, predictions and metrics.

    The number of threads is the record's when left out. On a processor of the same kind, with as many threads and the same torch,
    the result is equal to the bit. Elsewhere the command prints what differs, and compares metrics.

    A run of somebody else needs its data sets, prepared under any name, and its plug-ins. A plug-in that is not given with
    --plugin is taken from the record. That is code of somebody else: it is shown, and run only with --trust-plugin.
    """
    from bench.cli.screen import Screen, print_rows
    from bench.experiment import needs, reproduction
    from bench.storage import files

    machine = machine_of(options)
    one = reproduction.find(out, run)
    begin(plugin, out)
    missing = needs.from_record(one, trust_plugin, Screen().echo)
    folder = into or out / "reproduced" / one.id
    if into is None:
        files.remove(folder)
    use(folder)
    needs.add(missing, folder)
    with Screen() as screen:
        made = reproduction.reproduce(one, folder, machine, screen)
    compared = reproduction.compare(one, made, tolerance)
    print_rows(*compared.rows)
    if not compared.equal:
        raise BenchError(compared.verdict)
    print(compared.verdict)
