"""`Schema`: immutable, validated data with one canonical JSON form, from which every id is computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, to_jsonable_python

from bench.errors import UsageError, unknown
from bench.text import LONG, quoted


class Schema(BaseModel):
    """An immutable pydantic model; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, cache_strings="keys")

    defaults_version: ClassVar[int] = 1
    """To be raised when a default changes: ids leave defaults out, so an old id would otherwise stand for other settings."""

    told_only: ClassVar[frozenset[str]] = frozenset()
    """Fields that only describe: they change no result and are in no id."""

    def identity(self) -> dict[str, Any]:
        """Return the fields that ids are computed from, as JSON values: those that do not have their default.

        A field that is added with a default therefore changes no id until it is set. A field whose default is computed is always
        in the id, since its default may change unnoticed.
        """
        found = {name: identity_of(value) for name, value in self._set_apart()}
        return {**found, "defaults_version": self.defaults_version} if self.defaults_version > 1 else found

    def _set_apart(self) -> Iterator[tuple[str, Any]]:
        for name, always, default in _fields_of(type(self)):
            value = getattr(self, name)
            if always or value != default:
                yield name, value

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON of `identity`, as 64 hexadecimal digits."""
        return hashlib.sha256(canonical(self.identity()).encode()).hexdigest()

    def differences(self, other: Self) -> dict[str, Any]:
        """Return the fields that differ from `other`, as JSON values in alphabetical order, without those in `told_only`."""
        fields = type(self).model_fields.keys() - self.told_only
        names = sorted(name for name in fields if getattr(self, name) != getattr(other, name))
        return {name: to_jsonable_python(getattr(self, name)) for name in names}

    def with_changes(self, changes: Mapping[str, Any], what: str) -> Self:
        """Return a copy with `changes` applied and validated; `what` names this object in the error."""
        fields = type(self).model_fields
        for name, value in changes.items():
            if name not in fields:
                raise unknown("setting", name, fields, f" of {what}")
            if isinstance(value, bool) and fields[name].annotation in (int, float, int | None):  # pydantic takes true for 1
                raise UsageError(f"{what}: {name} takes a number, but got {canonical(value)}.")
        try:
            return type(self).model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            raise UsageError(f"{what}: {complaint(error)}.") from error


_TAKES = {
    "int": "a whole number", "float": "a number", "finite": "a finite number", "bool": "true or false", "string": "a text",
    "tuple": "a list", "list": "a list", "dict": "a table of settings", "model": "a table of settings",
}  # fmt: skip
"""What a field takes, by the first word of pydantic's type of error."""
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def complaint(error: ValidationError, name: str = "", with_input: bool = True) -> str:
    """Return the first thing that is wrong in plain words: the field, what it takes, and what was given.

    `name` replaces the field's own name, for example by that of an option. What was given is left out on request, and when it
    is a table of settings.
    """
    problem = error.errors()[0]
    where = name or ".".join(str(part)[:LONG] for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{where} is missing"
    if problem["type"] == "extra_forbidden":
        return f"{where} is not known"
    said = _takes(problem)
    given = "" if not with_input or isinstance(problem["input"], Mapping) else f", but got {quoted(problem['input'])}"
    return f"{where}{said}{given}" if where else said.removeprefix(": ").strip()


def _takes(problem: ErrorDetails) -> str:
    """Return what the field of an error takes, as the rest of a sentence; a rule of our own as it is written."""
    limits = problem.get("ctx", {})
    kind = problem["type"].partition("_")[0]
    for name, words in _LIMITS.items():
        if name in limits:
            return f" takes {words} {limits[name]:g}"
    if problem["type"] == "literal_error":
        return f" takes {limits['expected']}"
    if problem["type"] in ("too_short", "too_long"):
        short = problem["type"] == "too_short"
        count = limits["min_length"] if short else limits["max_length"]
        return f" takes {'at least' if short else 'at most'} {count} value{'s' * (count != 1)}"
    if kind in _TAKES:
        return f" takes {_TAKES[kind]}"
    return f": {problem['msg'].removeprefix('Value error, ')[:300]}"


@cache
def _fields_of(schema: type[Schema]) -> list[tuple[str, bool, Any]]:
    """Return the name of each field that may be in the identity, whether it always is, and its default."""
    fields = ((name, field) for name, field in schema.model_fields.items() if name not in schema.told_only)
    return [(name, field.is_required() or field.default_factory is not None, field.default) for name, field in fields]


def identity_of(value: Any) -> Any:
    """Return a value as JSON values, every `Schema` in it by its identity."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Schema):
        return value.identity()
    if isinstance(value, Mapping):
        return {str(key): identity_of(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [identity_of(item) for item in value]
    return to_jsonable_python(value)


def canonical(value: Any) -> str:
    """Return a value as canonical JSON, the same text for equal values: sorted keys, no spaces, no NaN."""
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(fields: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON of `fields`; an iterator is hashed as a list, one item at a time."""
    digest = hashlib.sha256(b"{")
    for number, name in enumerate(sorted(fields)):
        digest.update(f"{',' if number else ''}{canonical(name)}:".encode())
        value = fields[name]
        if not isinstance(value, Iterator):
            digest.update(canonical(value).encode())
            continue
        digest.update(b"[")
        for place, item in enumerate(value):
            digest.update(f"{',' if place else ''}{canonical(item)}".encode())
        digest.update(b"]")
    digest.update(b"}")
    return digest.hexdigest()
