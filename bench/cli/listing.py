"""`bench list`: plug-ins, protocols, trunks, metrics, runs and columns by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.common import add, warn
from bench.cli.completion import completer
from bench.cli.options import Out, Plugins
from bench.errors import unknown
from bench.text import Rows

EXAMPLE = "bench list pretexts"
LISTS = ("pretexts", "downstreams", "protocols", "trunks", "metrics", "runs", "columns")


def list_(
    what: Annotated[
        str | None,
        typer.Argument(
            help="pretexts, downstreams, protocols, trunks, metrics, runs or columns; the first two when left out.",
            autocompletion=completer(lambda _: LISTS),
        ),
    ] = None,
    out: Out = Path("runs"),
    plugin: Plugins = None,
) -> None:
    """List pretext tasks, downstream tasks, protocols, trunks, metrics, runs or CSV columns by name."""
    from bench.cli.screen import print_rows

    add(plugin)
    for name in [what] if what else ["pretexts", "downstreams"]:
        if not what:
            print(f"{name}:")
        print_rows(*rows(name, out))
    if what == "runs" and (changed := _changed_protocols(out)):
        print()
        print_rows(("Protocol", "What it is"), changed)


def rows(what: str, out: Path) -> Rows:
    """Return the columns and rows of one list; UsageError for a list that does not exist."""
    lists: dict[str, Callable[[str], Rows]] = {
        "pretexts": _plugins,
        "downstreams": _plugins,
        "protocols": lambda _: _protocols(),
        "trunks": lambda _: _trunks(),
        "metrics": lambda _: _metrics(),
        "runs": lambda _: _runs(out),
        "columns": lambda _: _columns(),
    }
    if what not in lists:
        raise unknown("list", what, lists)
    return lists[what](what)


def data() -> Rows:
    """Return the prepared data sets as columns and rows."""
    from bench.data import catalogue

    found: list[tuple[str, ...]] = [
        (
            name,
            dataset.kind,
            f"{len(dataset.images):,}" + (f" ({len(dataset.broken):,} left out)" if dataset.broken else ""),
            dataset.fingerprint[:12],
            _scored(dataset.classes, dataset.scored),
            str(dataset.root),
        )
        for name, dataset in catalogue.prepared().items()
    ]
    return ("Name", "Layout", "Images", "Fingerprint", "Classes", "Where"), found


def _scored(classes: tuple[str, ...], scored: tuple[str, ...]) -> str:
    return "-" if not classes else str(len(classes)) if len(scored) == len(classes) else f"{len(scored)} of {len(classes)} scored"


def _plugins(kind: str) -> Rows:
    from bench import registry

    return ("Name", "What it is"), list(registry.summaries(kind).items())


def _protocols() -> Rows:
    from bench import registry

    found = []
    for downstream in registry.summaries("downstreams"):
        for name, protocol in registry.protocols(downstream).items():
            found.append((name, downstream, ", ".join(protocol.metrics[:2]), protocol.summary))
    return ("Protocol", "Downstream", "Metrics", "What it is"), sorted(found)


def _trunks() -> Rows:
    return ("Name", "What it is"), [
        ("unet", "the paper's U-Net: depth from the image's size (8 at 256 px), width 64"),
        ("unet:depth=6,width=32", "a smaller U-Net for smaller images"),
        ("timm:ENCODER", "a timm encoder with a feature pyramid and a U-Net decoder, for example timm:resnet18"),
        ("NAME,preprocessing=rgb", "the trunk NAME with colour as its input instead of lightness (preprocessing=l, the paper's)"),
    ]


def _metrics() -> Rows:
    from bench.metrics import METRICS

    return ("Metric", "What it is", "Computed from"), [(m.key, m.title, m.needs) for m in METRICS.values()]


def _columns() -> Rows:
    from results.csv_files import SCHEMAS

    return ("File", "Column", "What it is"), [(file, *column) for file, schema in SCHEMAS.items() for column in schema.items()]


def _runs(out: Path) -> Rows:
    from bench import record
    from results.protocols import short

    found: list[tuple[str, ...]] = []
    for one in record.read(out):
        name = one.metric_ids[0]
        value = one.metrics[name]
        score = "undefined" if value is None else f"{value:.4f}"
        found.append(
            (
                one.id,
                one.job.schedule,
                short(one.job.protocol),
                one.data.short,
                str(one.job.seed),
                f"{name} {score}",
                f"{one.cost.seconds:.0f} s",
            )
        )
    if not found:
        warn(f"{out} holds no finished runs yet")
    return ("Run", "Schedule", "Protocol", "Data", "Seed", "Main metric", "Fine-tuning"), found


def _changed_protocols(out: Path) -> list[tuple[str, ...]]:
    """Return the short name of each changed protocol among the runs of a folder, and what it is."""
    from bench import record
    from results.protocols import explanations

    said = (text.partition(" is ") for text in explanations(one.job.protocol for one in record.read(out)))
    return [(name, what) for name, _, what in said]
