"""What the reference pages are made of: the settings of a model with what is said of them, tables and text as Markdown."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from bench import probe as probes
from bench import protocol as settings_of_tasks


def fields(model: BaseModel) -> dict[str, Any]:
    """Return every field of a model as a JSON value, those too that a canonical JSON leaves out while they have their default."""
    return {name: plain(getattr(model, name)) for name in type(model).model_fields}


def plain(value: Any) -> Any:
    """Return a value as JSON values."""
    return to_jsonable_python(value)


def comments(model: type[BaseModel]) -> dict[str, str]:
    """Return what is said of each field, and the values that it takes.

    That is its description, the comment behind it in the source, or the text of the type that it is of.
    """
    types, beside = texts_of_types(), dict[str, str]()
    for one in reversed(model.__mro__):  # a field that a class defines anew has that class's comment, or none
        if one is not BaseModel and issubclass(one, BaseModel):
            said = dict(re.findall(r"^    (\w+):.*?  # (.+)$", inspect.getsource(one), re.MULTILINE))
            beside |= {name: said.get(name) or types.get(str(of), "") for name, of in inspect.get_annotations(one).items()}
    found = {}
    for name, field in model.model_fields.items():
        allowed = [one for one in get_args(field.annotation) if isinstance(one, str)]
        parts = [field.description or beside.get(name, ""), f"one of: {', '.join(allowed)}" if allowed else ""]
        found[name] = "; ".join(filter(None, parts))
    return found


def texts_of_types() -> dict[str, str]:
    """Return the text below each type of the settings of tasks and probes, on one line and without its full stop."""
    found: dict[str, str] = {}
    for line, text in pairwise(
        part for module in (settings_of_tasks, probes) for part in ast.parse(inspect.getsource(module)).body
    ):
        if isinstance(line, ast.Assign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            said = " ".join(str(text.value.value).split()).removesuffix(".")
            found |= {target.id: said[:1].lower() + said[1:] for target in line.targets if isinstance(target, ast.Name)}
    return found


def short(value: Any) -> Any:
    """Return a JSON value with its numbers rounded to three digits.

    >>> short([5, 3.1622776601683795, 1e-05])
    [5, 3.16, 1e-05]
    """
    if isinstance(value, list):
        return [short(part) for part in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in line) + " |" for line in lines) + "\n"


def code(value: Any) -> str:
    """Return a value as code: a text as it is typed, anything else as JSON."""
    return f"`{value if isinstance(value, str | Path) else json.dumps(value)}`"


def prose(text: str) -> str:
    """Return plain text as Markdown: what would be markup is escaped, code between backticks stays, indented lines are code."""
    lines = []
    for line in text.splitlines():
        pieces = re.split(r"(`[^`]*`)", line)
        lines.append("".join(one if one.startswith("`") else re.sub(r"([\\*_<>\[\]{}#])", r"\\\1", one) for one in pieces))
    return re.sub(r"https?://[^\s,;)]*[^\s,;).]", lambda found: f"<{found[0].replace(chr(92), '')}>", "\n".join(lines))
