"""Sealed JSON: the first key of records, indexes and other files that the program reads again is the SHA-256 of the rest.

A number with a flipped bit is still a valid number; the seal shows that the file is damaged. Other programs can read the file as
plain JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bench.errors import DataError
from bench.schema import complaint

M = TypeVar("M", bound=BaseModel)
_SEAL = re.compile(rb'\{"sha256": "([0-9a-f]{64})",')


def sealed(text: str) -> str:
    """Return the text of a JSON object with its seal as the first key.

    >>> sealed('{"score": 0.5}')[:29]
    '{"sha256": "df0c56f3e57a6f8c6'
    """
    rest = text.removeprefix("{")
    return f'{{"sha256": "{hashlib.sha256(rest.encode()).hexdigest()}",{rest}'


def read(path: Path, what: str, way_out: str) -> bytes:
    """Return the JSON object in a sealed file, without the seal.

    DataError when the file cannot be read, has no seal, or was changed. The error calls the file `what`, for example "a record",
    and ends with `way_out`, which says what the user can do.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} is not {what}: {error.strerror}; {way_out}.") from error
    seal = _SEAL.match(content)
    if seal is None:
        raise DataError(f"{path} is not {what} of this version: it does not begin with its SHA-256; {way_out}.")
    rest = memoryview(content)[seal.end() :]
    if hashlib.sha256(rest).hexdigest().encode() != seal[1]:
        raise DataError(f"{path} is damaged: its SHA-256 is not the one it begins with; {way_out}.")
    return b"".join((b"{", rest))


def load(path: Path, what: str, way_out: str) -> Any:
    """Return the content of a sealed file as Python values; DataError as in `read`, and when the text is no JSON."""
    content = read(path, what, way_out)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not {what} of this version; {way_out}.") from error


def read_model(model: type[M], path: Path, what: str, way_out: str) -> M:
    """Return the content of a sealed file as a pydantic model; DataError when it cannot be read or does not fit the model."""
    content = load(path, what, way_out)  # pydantic's own JSON parser takes three times the memory
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path} is not {what} of this version: {complaint(error, with_input=False)}; {way_out}.") from error
