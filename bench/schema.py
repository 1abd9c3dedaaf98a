"""Frozen, validated data with one canonical JSON form, from which every id is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_jsonable_python

from bench.errors import UsageError, unknown
from bench.text import quoted


class Frozen(BaseModel):
    """A value: it cannot change, and a field that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, cache_strings="keys")

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON, as 64 hexadecimal digits."""
        return hashlib.sha256(canonical(self.model_dump(mode="json")).encode()).hexdigest()

    def differences(self, other: Self) -> dict[str, Any]:
        """Return the fields whose values are not those of `other`, as JSON values, in alphabetical order."""
        names = sorted(name for name in type(self).model_fields if getattr(self, name) != getattr(other, name))
        return {name: to_jsonable_python(getattr(self, name)) for name in names}

    def with_changes(self, changes: Mapping[str, Any], what: str) -> Self:
        """Return a copy with `changes` applied and validated; `what` names this object in the error."""
        for name in changes:
            if name not in type(self).model_fields:
                raise unknown(f"setting of {what}", name, type(self).model_fields)
        try:
            return type(self).model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"])
            raise UsageError(f"{what}: {field}: {problem['msg']}, but got {quoted(problem['input'])}.") from error


def added_field(default: Any) -> Any:
    """Return a field that came after records had been made: with its default it is in no JSON and so in no id."""
    return Field(default=default, exclude_if=lambda value: bool(value == default))


def canonical(value: Any) -> str:
    """Return the JSON that equal values share: sorted keys, no spaces, no NaN."""
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(fields: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON of `fields`; an iterator is hashed as a list, an item at a time."""
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
