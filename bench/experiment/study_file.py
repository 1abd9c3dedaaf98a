"""Reads a study's file: its grids, called parts, and its tables (`bench.experiment.study` has an example)."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, field_validator

from bench import metrics
from bench.config import RunConfig
from bench.errors import DataError, UsageError, unknown
from bench.preregistration import KEY, Preregistration
from bench.schema import Schema, complaint
from bench.storage import files
from bench.text import LONG, quoted

FILE = "study.toml"
MOST = 1 << 20
"""The most bytes of a study's file."""
RECORDS, CONFIRMATORY = "records", "confirmatory"
OURS = {RECORDS: "the folder of the records", CONFIRMATORY: "the folder of the confirmatory comparisons"}
RESULTS = ("seeds", "tune", "set")
"""The options that change a study's results when a command gives them, so that the records need another folder."""


def _plain(name: str) -> str:
    if not name or not all(character.isascii() and (character.isalnum() or character in "_-") for character in name):
        raise ValueError("a name has ASCII letters, digits, '_' and '-' only")
    if name in OURS:
        raise ValueError(f"{name} is {OURS[name]} and names no part or table")
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
    variation: bool = False
    """Whether it divides the variation of its runs among what they differ in (`bench report --variation`)."""


class Study(Schema):
    """The content of a study's file: grids (parts) by name, and tables of their runs."""

    title: str
    parts: dict[Name, RunConfig] = Field(min_length=1)
    tables: dict[Name, Table] = {}
    fingerprints: dict[str, str] = {}
    """The beginnings of the data sets' fingerprints, by the names that the data sets are prepared under."""
    looks: tuple[Annotated[int, Field(ge=2)], ...] = ()
    """The numbers of seeds at which the results are looked at, as declared beforehand."""
    preregistration: Preregistration | None = None
    """What was asked before the first run; None where nothing is confirmatory."""

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
    """Return the study in a file, with the grids of its preregistration; DataError names what is wrong in which file.

    The `given` options override those of every part; a `set` among them is added to the part's own. Where they change results,
    nothing is confirmatory.
    """
    content = _content(path)
    registered = content.pop(KEY, None)
    before = _registered(path, registered) if registered is not None else None
    with _naming(path):
        found = before.grids if before else {}
        own = _grids(content, found)
        twice = next((name for name in own if name in found), None)
        if twice:
            raise UsageError(f"parts.{twice} is a part of {registered} too; give it another name.")
        content["parts"] = {name: _changed(options, given or {}) for name, options in {**found, **own}.items()}
        if before is not None:
            added = _mapping(content.get("fingerprints", {}), "fingerprints")
            again = next((name for name in added if name in before.fingerprints), None)
            if again:
                raise UsageError(f"the fingerprint of {again} is in {registered}, so it cannot be in {path.name} too.")
            content["fingerprints"] = {**before.fingerprints, **added}
            content[KEY] = None if set(given or {}) & set(RESULTS) else before.preregistration
        study = Study.model_validate(content)
        for name, table in study.tables.items():
            for part in set(table.parts) - study.parts.keys():
                raise unknown("part", part, study.parts, f" in tables.{name}")
            for metric in table.metrics:
                metrics.get(metric)
    return study


@dataclass(frozen=True)
class _Registered:
    """What a preregistration's file holds: the preregistration, the options of its grids, and fingerprints."""

    preregistration: Preregistration
    grids: dict[str, dict[str, Any]]
    fingerprints: dict[str, Any]


def _registered(study: Path, name: Any) -> _Registered:
    """Return what the preregistration beside a study's file holds; DataError names what is wrong in it."""
    with _naming(study):
        if not isinstance(name, str) or not name or Path(name).name != name:
            raise UsageError(f"{KEY} must be the name of a file beside {study.name}, but got {quoted(name)}.")
    path = study.parent / name
    content = _content(path)
    with _naming(path):
        grids = _grids(content, {})
        fingerprints = _mapping(content.pop("fingerprints", {}), "fingerprints")
        content["parts"], content["sha256"] = tuple(grids), files.sha256(path)
        found = Preregistration.model_validate(content)
        for one in found.comparisons:
            metrics.get(one.metric)
    return _Registered(found, grids, fingerprints)


def _content(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds; DataError where it cannot be read."""
    try:
        if not path.is_file():
            raise DataError(f"{path} is not a file.")
        if path.stat().st_size > MOST:
            raise DataError(f"{path} is larger than {MOST:,} bytes, the most of a study's file.")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a study: {' '.join(str(error).split())[:200]}.") from error


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn an error in the block into one that names the file that is wrong."""
    try:
        yield
    except ValidationError as error:
        raise DataError(f"{path}: {complaint(error)}.") from error
    except UsageError as error:
        raise DataError(f"{path}: {error}") from error


def _grids(content: dict[str, Any], before: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the options of a file's parts by name, taken out of its content; a part may be like one of those `before`."""
    common = _options(content.pop("options", {}), "options")
    parts = {name: _options(own, f"parts.{name}") for name, own in _mapping(content.pop("parts", {}), "parts").items()}
    known = {**before, **parts}
    return {name: {**({} if one.get("like") in before else common), **_own(name, known)} for name, one in parts.items()}


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
