"""What the shell completes: names of tasks, protocols, data sets, runs, metrics, and the choices of an option.

The user waits for each of these, so nothing here imports torch or numpy, or opens a data set or a record: the names are those of
files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from bench.config import RunConfig
from bench.protocol import Family

Names = Callable[[typer.Context], Iterable[str]]
"""Returns the names that a parameter can have, given what is typed before it."""


def completer(names: Names, several: bool = False) -> Callable[..., list[str]]:
    """Return a function with which Typer completes one of `names`, or with `several` the last of a list with commas.

    Where the names cannot be told, for example in a folder that cannot be read, nothing is completed.
    """

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        try:
            known = [name for name in names(ctx) if name.startswith(last) and name not in before.split(",")]
        except Exception:  # the user is typing, and no error could be shown
            return []
        return [f"{before}{comma}{name}" for name in known]

    return complete


def of_field(name: str) -> Callable[..., list[str]] | None:
    """Return the completer of a field of `RunConfig`; None for a field without names."""
    annotation = RunConfig.model_fields[name].annotation
    if name in _FIELDS:
        return completer(_FIELDS[name], several=name in ("pretext", "downstream"))
    choices = _choices(annotation)
    return completer(lambda _: choices, several=get_origin(annotation) is tuple) if choices else None


def _choices(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((found for part in get_args(annotation) if (found := _choices(part))), ())


def _plugins(kind: str) -> Names:
    def names(ctx: typer.Context) -> list[str]:
        from bench import registry

        groups = ["all", "every", *get_args(Family)[:-1]] if kind == "pretexts" else ["all"]
        own = (Path(one).stem for one in ctx.params.get("plugin") or ())
        return list(dict.fromkeys((*groups, *registry.found(kind), *own)))

    return names


def _protocols(ctx: typer.Context) -> list[str]:
    from bench import registry

    return list(dict.fromkeys(name for task in registry.found("downstreams") for name in registry.apart(task)))


def data_sets(_: typer.Context) -> list[str]:
    """Return the names of the prepared data sets, and of the demo data."""
    from bench.storage import files

    return sorted({"demo", *(index.parent.name for index in (files.home() / "data").glob("*/index.json"))})


def archives(_: typer.Context) -> list[str]:
    """Return the names of the data sets that can be downloaded, and of the demo data."""
    from bench.data.download import ARCHIVES

    return [*ARCHIVES, "demo"]


def runs(ctx: typer.Context) -> list[str]:
    """Return the ids of the finished runs in --out."""
    out = ctx.params.get("out") or "runs"
    return sorted(record.parent.name for record in Path(out, "runs").glob("*/record.json"))


def metrics(_: typer.Context) -> list[str]:
    """Return the ids of the metrics, from the text of their table: to import it takes longer than all else here."""
    return re.findall(r'^    Metric\(\s*"(\w+)"', Path(__file__).parents[1].joinpath("metrics.py").read_text(), re.MULTILINE)


_FIELDS: dict[str, Names] = {
    "pretext": _plugins("pretexts"),
    "downstream": _plugins("downstreams"),
    "protocol": _protocols,
    "data": data_sets,
    "pretrain_data": data_sets,
    "device": lambda _: ("auto", "cpu", "cuda"),
}
