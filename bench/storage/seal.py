"""A seal on every JSON file that the program writes and reads again: its first key is the SHA-256 of all that follows.

A flipped bit in a number is a valid number; with the seal it is a damaged file. The file stays plain JSON for other readers.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bench.errors import DataError

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

    DataError says that `path` is not `what`, why, and the way out: it cannot be read, has no seal, or was changed.
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
    """Return what `read` gives as Python's own values; DataError, too, when the seal fits and the rest is no JSON."""
    content = read(path, what, way_out)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not {what} of this version; {way_out}.") from error


def read_model(model: type[M], path: Path, what: str, way_out: str) -> M:
    """Return what a sealed file holds as a pydantic model; DataError when it cannot be read or is not of this version."""
    content = load(path, what, way_out)  # pydantic's own reader of JSON takes three times the memory
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"][:3])
        reason = problem["msg"].removeprefix("Value error, ")
        said = f"{where}: {reason}" if where else reason
        raise DataError(f"{path} is not {what} of this version: {said}; {way_out}.") from error
