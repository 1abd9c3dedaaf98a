"""`Schema`: immutable, validated data with one canonical JSON form, from which every id is computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_jsonable_python

from bench.errors import UsageError, unknown
from bench.text import quoted


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
        for name in changes:
            if name not in type(self).model_fields:
                raise unknown("setting", name, type(self).model_fields, f" of {what}")
        try:
            return type(self).model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"])
            raise UsageError(f"{what}: {field}: {problem['msg']}, but got {quoted(problem['input'])}.") from error


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
