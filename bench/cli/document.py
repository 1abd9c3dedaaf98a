"""`--json`: standard output is one JSON document, and whatever else is said meanwhile goes to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Annotated, Any

import typer
from pydantic_core import to_jsonable_python

from bench.errors import UsageError
from bench.text import printable_json

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document; progress, notes and warnings go to standard error.")
]

PlanJson = Annotated[bool, typer.Option("--json", help="With --plan: print the plan as one JSON document.")]


def check_plan(plan: bool, as_json: bool) -> None:
    """Raise UsageError where JSON is asked for and no plan: the results of runs are printed by other commands."""
    if as_json and not plan:
        raise UsageError("--json prints a plan, so it needs --plan; for the results of runs ask bench report --json.")


@contextmanager
def alone(wanted: bool) -> Iterator[Callable[[Any], None]]:
    """Give a function that prints a value as a JSON document.

    Where JSON is `wanted`, all that is printed otherwise meanwhile goes to standard error, also by plug-ins.
    """
    out = sys.stdout

    def publish(value: Any) -> None:
        print(text(value), file=out, flush=True)

    if not wanted:
        yield publish
        return
    with redirect_stdout(sys.stderr):
        yield publish


def text(value: Any) -> str:
    """Return a value as a JSON document: in ASCII, so that every terminal and pipe takes it; a number that is not finite is null.

    >>> print(text({"a": float("nan"), "b": "\\u00e9"}))
    {
      "a": null,
      "b": "\\u00e9"
    }
    """
    return printable_json(json.dumps(to_jsonable_python(value, inf_nan_mode="null"), indent=2, allow_nan=False))
