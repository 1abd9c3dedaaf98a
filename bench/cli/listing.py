"""`bench list`: plug-ins, protocols, trunks, metrics, runs and columns by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli.common import add, warn
from bench.cli.completion import completer
from bench.cli.document import AsJson, alone
from bench.cli.options import Out, Plugins
from bench.errors import unknown
from bench.text import Rows

EXAMPLE = "bench list pretexts"
Item = dict[str, Any]
"""An entry of a list, as JSON values by key."""


@dataclass(frozen=True)
class Listing:
    """A list: the entries that are in it, given the output folder, and the heading and text of each column of its table."""

    items: Callable[[Path], list[Item]]
    columns: Mapping[str, str | Callable[[Item], str]]
    """Of each heading the entry's key, or what makes the text."""

    def rows(self, items: list[Item]) -> Rows:
        """Return the headings and the rows of the table of some entries."""
        texts = [tuple(item[of] if isinstance(of, str) else of(item) for of in self.columns.values()) for item in items]
        return tuple(self.columns), texts


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
    as_json: AsJson = False,
) -> None:
    """List pretext tasks, downstream tasks, protocols, trunks, metrics, runs or CSV columns by name."""
    names = [what] if what else ["pretexts", "downstreams"]
    for name in names:
        if name not in LISTS:
            raise unknown("list", name, LISTS)
    with alone(as_json) as publish:
        add(plugin)
        found = {name: LISTS[name].items(out) for name in names}
        if what == "runs" and not found["runs"]:
            warn(f"{out} holds no finished runs yet")
        if as_json:
            publish(found)
        else:
            _show(found, titled=what is None)


def _show(found: Mapping[str, list[Item]], titled: bool) -> None:
    from bench.cli.screen import print_rows
    from results.protocols import explanations

    for name, items in found.items():
        if titled:
            print(f"{name}:")
        print_rows(*LISTS[name].rows(items))
    said = explanations(one["protocol"] for one in found.get("runs", ()))
    if said:
        print()
        print_rows(("Protocol", "What it is"), [(name, what) for name, _, what in (text.partition(" is ") for text in said)])


def _plugins(kind: str) -> list[Item]:
    from bench import registry

    return [{"name": name, "summary": summary} for name, summary in registry.summaries(kind).items()]


def _pretexts() -> list[Item]:
    from bench import registry

    return [{**one, **registry.facts(one["name"])} for one in _plugins("pretexts")]


def _protocols() -> list[Item]:
    from bench import registry

    found = [
        {"name": name, "downstream": task, "metrics": list(protocol.metrics), "summary": protocol.summary}
        for task in registry.summaries("downstreams")
        for name, protocol in registry.protocols(task).items()
    ]
    return sorted(found, key=lambda one: (one["name"], one["downstream"]))


TRUNKS = {
    "unet": "the paper's U-Net: depth from the image's size (8 at 256 px), width 64",
    "unet:depth=6,width=32": "a smaller U-Net for smaller images",
    "timm:ENCODER": "a timm encoder with random weights and a U-Net decoder, for example timm:resnet18",
    "timm:vit_tiny_patch16_224": "a plain vision transformer of timm with a light pyramid decoder",
    "NAME,preprocessing=rgb": "the trunk NAME with colour as its input instead of lightness (preprocessing=l, the paper's)",
    "unet:preprocessing=l+ab": "a U-Net whose encoder is two of half the width, one that sees lightness and one that sees ab",
}


def _metrics() -> list[Item]:
    from bench.metrics import METRICS

    return [{"id": one.key, "title": one.title, "needs": one.needs} for one in METRICS.values()]


def _runs(out: Path) -> list[Item]:
    from bench import record
    from results.csv_files import main_scores

    records = record.read(out)
    return [{**line, "data_title": one.data.short} for one, line in zip(records, main_scores(records).plain(), strict=True)]


def _protocol_of(run: Item) -> str:
    from results.protocols import short

    return short(run["protocol"])


def _score_of(run: Item) -> str:
    return f"{run['metric']} {'undefined' if run['value'] is None else format(run['value'], '.4f')}"


def _columns() -> Iterator[Item]:
    from results.csv_files import SCHEMAS
    from results.probe_sheets import PROBE_TABLES
    from results.table_sheets import TABLES

    for file, schema in {**SCHEMAS, **TABLES, **PROBE_TABLES}.items():
        yield from ({"file": file, "column": name, "meaning": meaning} for name, meaning in schema.items())


def _data() -> list[Item]:
    from bench.data import catalogue, layouts, lists

    return [
        {
            "name": name,
            "layout": layouts.of(found),
            "tasks": lists.tasks_for(found),
            "images": len(found.images),
            "left_out": len(found.broken),
            "fingerprint": found.fingerprint,
            "classes": list(found.classes),
            "scored": list(found.scored),
            "splits": {split: len(ids) for split, ids in found.given.items()},
            "grouped_by": found.grouped_by,
            "root": str(found.root),
        }
        for name, found in catalogue.prepared().items()
    ]


def _images_of(data: Item) -> str:
    return f"{data['images']:,}" + (f" ({data['left_out']:,} left out)" if data["left_out"] else "")


def _classes_of(data: Item) -> str:
    classes, scored = len(data["classes"]), len(data["scored"])
    return "-" if not classes else str(classes) if scored == classes else f"{scored} of {classes} scored"


_NAMED = {"Name": "name", "What it is": "summary"}
LISTS = {
    "pretexts": Listing(
        lambda _: _pretexts(),
        {
            "Name": "name",
            "Family": "family",
            "Trains": "trains",
            "Labels used": "supervision",
            "What it is": "summary",
            "Paper": lambda one: one["paper"].partition(", https")[0],
        },
    ),
    "downstreams": Listing(lambda _: _plugins("downstreams"), _NAMED),
    "protocols": Listing(
        lambda _: _protocols(),
        {
            "Protocol": "name",
            "Downstream": "downstream",
            "Metrics": lambda one: ", ".join(one["metrics"][:2]),
            "What it is": "summary",
        },
    ),
    "trunks": Listing(lambda _: [{"name": name, "summary": summary} for name, summary in TRUNKS.items()], _NAMED),
    "metrics": Listing(lambda _: _metrics(), {"Metric": "id", "What it is": "title", "Computed from": "needs"}),
    "runs": Listing(
        _runs,
        {
            "Run": "run_id",
            "Schedule": "schedule",
            "Protocol": _protocol_of,
            "Data": "data_title",
            "Seed": lambda one: str(one["seed"]),
            "Main metric": _score_of,
            "Fine-tuning": lambda one: f"{one['seconds']:.0f} s",
        },
    ),
    "columns": Listing(lambda _: list(_columns()), {"File": "file", "Column": "column", "What it is": "meaning"}),
}
"""The lists of `bench list` by name."""
DATA = Listing(
    lambda _: _data(),
    {
        "Name": "name",
        "Layout": "layout",
        "Tasks": lambda one: ", ".join(one["tasks"]) or "-",
        "Images": _images_of,
        "Fingerprint": lambda one: one["fingerprint"][:12],
        "Classes": _classes_of,
        "Where": "root",
    },
)
"""The prepared data sets, of `bench data list`."""
