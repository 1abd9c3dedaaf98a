"""`bench metrics`: every metric explained."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli.completion import completer
from bench.cli.completion import metrics as metric_names

EXAMPLE = "bench metrics miou_voc"


def metrics(
    metric: Annotated[
        str | None, typer.Argument(help="One metric; all when left out.", autocompletion=completer(metric_names))
    ] = None,
) -> None:
    """Explain every metric: id and version, formula, source, a worked example."""
    from rich.console import Console

    from bench import metrics

    console = Console(highlight=False, soft_wrap=True)
    for one in [metrics.get(metric)] if metric else metrics.METRICS.values():
        console.print(f"{one.key}: {one.title}, computed from {one.needs}", style="bold", markup=False)
        console.print(metrics.explanation(one), markup=False)
        console.print()
