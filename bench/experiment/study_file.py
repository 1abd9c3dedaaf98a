"""Reads a study's file: its grids, called parts, and its tables (`bench.experiment.study` has an example)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, field_validator

from bench import metrics
from bench.config import RunConfig
from bench.errors import DataError, UsageError, unknown
from bench.schema import Schema, complaint
from bench.text import LONG, quoted

FILE = "study.toml"
MOST = 1 << 20
"""The most bytes of a study's file."""
RECORDS = "records"
RESULTS = ("seeds", "tune", "set")
"""The options that change a study's results when a command gives them, so that the records need another folder."""


def _plain(name: str) -> str:
    if not name or not all(character.isascii() and (character.isalnum() or character in "_-") for character in name):
        raise ValueError("a name has ASCII letters, digits, '_' and '-' only")
    if name == RECORDS:
        raise ValueError(f"{RECORDS} is the folder of the records and names no part or table")
    return name


Name = Annotated[str, AfterValidator(_plain)]


class Table(Schema):
    """A report of some parts' runs, as `bench report` makes it."""

    parts: tuple[Name, ...] = Field(min_length=1)
    metrics: tuple[str, ...] = ()
    baseline: str = ""
    leave_out: tuple[str, ...] = ()
    """The rows that this table leaves out: `pretext` or `pretext:schedule`."""
    selection: bool = False
    """Whether it shows what choosing on the test split would have added (`bench report --selection`)."""
    sensitivity: bool = False
    """Whether it shows how rows change places from one protocol to another (`bench report --sensitivity`)."""


class Study(Schema):
    """The content of a study's file: grids (parts) by name, and tables of their runs."""

    title: str
    parts: dict[Name, RunConfig] = Field(min_length=1)
    tables: dict[Name, Table] = {}
    fingerprints: dict[str, str] = {}
    """The beginnings of the data sets' fingerprints, by the names that the data sets are prepared under."""
    looks: tuple[Annotated[int, Field(ge=2)], ...] = ()
    """The numbers of seeds at which the results are looked at, as declared beforehand."""

    @field_validator("looks")
    @classmethod
    def _grow(cls, looks: tuple[int, ...]) -> tuple[int, ...]:
        if list(looks) != sorted(set(looks)):
            raise ValueError("each look must have more seeds than the one before")
        return looks


def find(place: Path) -> Path:
    """Return the path of the study's file, given it or its folder; UsageError when there is none."""
    path = place / FILE if place.is_dir() else place
    if not path.is_file():
        raise UsageError(f"{place} has no {FILE}; name a folder with one, or the file of a study itself.")
    return path


def own_folder(file: Path) -> Path:
    """Return the folder of a study's records and tables: that of `study.toml`, or for another file a folder of its name."""
    return file.parent if file.name == FILE else file.with_suffix("")


def load(path: Path, given: Mapping[str, Any] | None = None) -> Study:
    """Return the study in a file; DataError names what is wrong in the file.

    The `given` options override those of every part; a `set` among them is added to the part's own.
    """
    try:
        if path.stat().st_size > MOST:
            raise DataError(f"{path} is larger than {MOST:,} bytes, the most of a study's file.")
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a study: {' '.join(str(error).split())[:200]}.") from error
    try:
        common = _options(content.pop("options", {}), "options")
        parts = {name: _options(own, f"parts.{name}") for name, own in _mapping(content.get("parts", {}), "parts").items()}
        content["parts"] = {name: _changed({**common, **_own(name, parts)}, given or {}) for name in parts}
        study = Study.model_validate(content)
        for name, table in study.tables.items():
            for part in set(table.parts) - study.parts.keys():
                raise unknown("part", part, study.parts, f" in tables.{name}")
            for metric in table.metrics:
                metrics.get(metric)
    except ValidationError as error:
        raise DataError(f"{path}: {complaint(error)}.") from error
    except UsageError as error:
        raise DataError(f"{path}: {error}") from error
    return study


def _changed(options: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part's options, overridden by those that a command gives; a `set` is added to the part's own."""
    changed = {**options, **{name: value for name, value in given.items() if name != "set"}}
    if "seeds" in given:
        changed.pop("seed", None)
    if given.get("tune") == 0:
        changed.pop("space", None)
        changed.pop("storage", None)
    if given.get("set"):
        own = changed.get("set", [])
        changed["set"] = [*own, *given["set"]] if isinstance(own, list) else own
    return changed


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{name[:LONG]} must be a table of options, but got {quoted(value)}.")
    return value


OPTIONS = {"like", *(field.alias or name for name, field in RunConfig.model_fields.items())}
"""The names of a part's options: those of `bench run`, and `like`, which names a part to take options from."""


def _options(value: Any, name: str) -> dict[str, Any]:
    """Return a table of options by their names in Python; UsageError for an option given both with '-' and with '_'."""
    options: dict[str, Any] = {}
    for spelled, given in _mapping(value, name).items():
        option = spelled.replace("-", "_")
        if option not in OPTIONS:
            raise unknown("option", spelled, OPTIONS, f" in {name[:LONG]}")
        if option in options:
            raise UsageError(f"{name[:LONG]} has {quoted(spelled)} twice.")
        options[option] = given
    return options


def _own(name: str, parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a part's options: those of the part named by `like`, overridden by its own."""
    own = dict(parts[name])
    like = own.pop("like", None)
    if like is None:
        return own
    if not isinstance(like, str) or like not in parts:
        raise unknown("part", str(like), parts, f", which parts.{name} is like")
    if "like" in parts[like]:
        raise UsageError(f"parts.{name} is like {like}, itself like {quoted(parts[like]['like'])}; name the latter.")
    return {**parts[like], **own}
