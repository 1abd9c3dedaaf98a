"""`bench metrics`: every metric and every probe explained."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli.completion import completer
from bench.cli.completion import metrics as metric_names

EXAMPLE = "bench metrics miou_voc"


def metrics(
    metric: Annotated[
        str | None, typer.Argument(help="One metric or probe; all when left out.", autocompletion=completer(metric_names))
    ] = None,
) -> None:
    """Explain every metric (id and version, formula, source, a worked example) and every probe of --evaluate."""
    from rich.console import Console

    from bench import metrics, probe
    from bench.errors import unknown

    console = Console(highlight=False, soft_wrap=True)

    def show(title: str, text: str) -> None:
        console.print(title, style="bold", markup=False)
        console.print(text, markup=False)
        console.print()

    if metric and metric.partition("@")[0] not in {**metrics.METRICS, **probe.PROBES}:
        raise unknown("metric or probe", metric, [*metrics.METRICS, *probe.PROBES])
    chosen = [metrics.get(metric)] if metric and metric not in probe.PROBES else [] if metric else metrics.METRICS.values()
    for one in chosen:
        show(f"{one.key}: {one.title}, computed from {one.needs}", metrics.explanation(one))
    for name in [metric] if metric in probe.PROBES else [] if metric else probe.PROBES:
        assert name is not None, "a probe has a name"
        needed = probe.PROBES[name].needs
        show(f"{name}: a probe of frozen features, for tasks with {needed}", probe.explanation(name))
