"""A study: a file that says which grids answer a question and which tables show it, and a folder that keeps what came of it.

    title = "Does it work on real pictures?"

    [options]                       # of `bench run`, for every part
    data = "voc_mini"
    seeds = 3

    [parts.main]                    # a grid; its own options go before the common ones
    pretext = ["random_init", "cgan_color"]
    downstream = ["voc_cls", "voc_seg"]

    [fingerprints]                  # the data sets that are meant, as `bench data list` shows them
    voc_mini = "eca465a28cff"

    [tables.main]                   # a report of some parts, in a folder of this name
    parts = ["main"]
    metrics = ["acc_keras", "miou_paper"]       # the protocols' own when left out
    baseline = "random_init:one-phase"          # as `bench report --baseline`

Beside the file lie `records/`, an output folder that holds records and predictions without pictures, and a folder for each table.
What is in `records/` is not computed again, and needs no data set: the same command rebuilds the tables from it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from bench import network, seal, store
from bench.asked import Asked
from bench.desk import Desk
from bench.errors import BenchError, DataError, UsageError, unknown
from bench.frozen import Frozen, canonical
from bench.grid import SOME_FAILED, open_desk, run_grid
from bench.screen import Screen
from bench.text import LONG, quoted
from results.record import Record, predictions_path, read, read_predictions

FILE = "study.toml"
MOST = 1 << 20
"""Bytes that a study's file may have."""
RECORDS = "records"
PARTS = "parts.json"


def _plain(name: str) -> str:
    if not name or not all(character.isascii() and (character.isalnum() or character in "_-") for character in name):
        raise ValueError("a name is ASCII letters, digits, '_' and '-'")
    if name == RECORDS:
        raise ValueError(f"{RECORDS} is the folder of the records")
    return name


Name = Annotated[str, AfterValidator(_plain)]


class Table(Frozen):
    """A report of some parts' runs, as `bench report` makes it."""

    parts: tuple[Name, ...] = Field(min_length=1)
    metrics: tuple[str, ...] = ()
    baseline: str = ""
    leave_out: tuple[str, ...] = ()
    """Rows that this table is without, `pretext` or `pretext:schedule`."""


class Study(Frozen):
    """A study's file: grids by name, and tables of them."""

    title: str
    parts: dict[Name, Asked] = Field(min_length=1)
    tables: dict[Name, Table] = {}
    fingerprints: dict[str, str] = {}
    """What the data sets' fingerprints begin with, by the name they are prepared under."""


class _Kept(Frozen):
    """Which runs a part came to, and what was asked for."""

    asked: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Changes:
    """What a command changes in every part of a study, to run it smaller or larger: its results go to another folder."""

    seeds: str | None = None
    tune: int | None = None
    settings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self != Changes()

    def of(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return a part's options with the changes."""
        changed = dict(options)
        if self.seeds is not None:
            changed = {name: value for name, value in changed.items() if name != "seed"} | {"seeds": self.seeds}
        if self.tune is not None:
            changed["tune"] = self.tune
        if self.settings:
            own = changed.get("set", [])
            changed["set"] = [*own, *self.settings] if isinstance(own, list) else own
        return changed


@dataclass(frozen=True)
class Spread:
    """How a command spreads the work over a machine; None leaves it to the study's file."""

    device: str | None = None
    threads: int | None = None
    workers: int | None = None


def find(place: Path) -> Path:
    """Return the study's file of a folder or a path; UsageError when there is none."""
    path = place / FILE if place.is_dir() else place
    if not path.is_file():
        raise UsageError(f"{place} has no {FILE}; a study is a folder with one, or such a file.")
    return path


def load(path: Path, changes: Changes = Changes(), spread: Spread = Spread()) -> Study:
    """Read a study's file; DataError says what in it cannot be used."""
    try:
        if path.stat().st_size > MOST:
            raise DataError(f"{path} is larger than {MOST:,} bytes, which no study is.")
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a study: {' '.join(str(error).split())[:200]}.") from error
    try:
        common = _mapping(content.pop("options", {}), "options")
        parts = _mapping(content.get("parts", {}), "parts")
        content["parts"] = {
            name: _asked(changes.of({**common, **_mapping(own, f"parts.{name}")}), spread) for name, own in parts.items()
        }
        study = Study.model_validate(content)
        for asked in study.parts.values():
            asked.request()
            asked.search()
        for name, table in study.tables.items():
            for part in set(table.parts) - study.parts.keys():
                raise unknown(f"part in tables.{name}", part, study.parts)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])[:LONG]
        what = problem["msg"].removeprefix("Value error, ")
        raise DataError(f"{path}: {where or 'the file'}: {what}, but got {quoted(problem['input'])}.") from error
    except UsageError as error:
        raise DataError(f"{path}: {error}") from error
    return study


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{name[:LONG]} is a table of options, but got {quoted(value)}.")
    return value


def _asked(options: Mapping[str, Any], spread: Spread) -> dict[str, Any]:
    given = {name.replace("-", "_"): value for name, value in options.items()}
    over = {name: value for name, value in vars(spread).items() if value is not None}
    return {**given, **over}


def run(study: Study, out: Path, into: Path, only: Sequence[str], screen: Screen) -> BenchError | None:
    """Run what is missing of some parts, or all, and keep their records below `into`, a part as soon as it is done.

    A part with runs that failed is not kept, and the others go on; the error that tells of it is returned.
    """
    failed = []
    for name, asked in _to_do(study, into, only, screen):
        screen.say(f"{name}: {canonical(asked.meaning())}")
        network.check_storage(asked.storage)
        search = asked.search()
        desk = _open(study, asked, out, screen)
        try:
            _keep(into, out, name, asked, run_grid(desk, screen, search))
        except BenchError as error:
            if error.exit_code != SOME_FAILED:
                raise
            failed.append(f"{name}: {error}")
    if not failed:
        return None
    summary = BenchError("; ".join(failed))
    summary.exit_code = SOME_FAILED
    return summary


def plan(study: Study, out: Path, into: Path, only: Sequence[str], screen: Screen) -> None:
    """Say what is missing of some parts, or all, and how long it would take."""
    from bench.plan import show

    for name, asked in _to_do(study, into, only, screen):
        screen.say(f"{name}:")
        show(_open(study, asked, out, screen), screen, asked.search())


def _open(study: Study, asked: Asked, out: Path, screen: Screen) -> Desk:
    """Open a part's grid; DataError when a data set of a known name has other pictures than the study's."""
    desk = open_desk(asked.request(), asked.options(), out, screen)
    for dataset in filter(None, (desk.grid.data, desk.grid.pretrain_data)):
        meant = study.fingerprints.get(dataset.name, "")
        if not dataset.fingerprint.startswith(meant):
            raise DataError(
                f"{dataset.name} has the fingerprint {dataset.fingerprint[:12]}, and this study means {meant}: "
                "other pictures, classes or labels were prepared under that name."
            )
    return desk


def _to_do(study: Study, into: Path, only: Sequence[str], screen: Screen) -> Iterator[tuple[str, Asked]]:
    """Give the parts whose records are not all there, one after the other."""
    for name in only:
        if name not in study.parts:
            raise unknown("part", name, study.parts)
    for name, asked in study.parts.items():
        if only and name not in only:
            continue
        kept = _kept(into).get(name)
        if kept is not None and kept.asked == _digest(asked) and not _missing(into, kept):
            screen.say(f"{name}: {len(kept.runs)} runs, finished before")
        else:
            yield name, asked


def tables(study: Study, into: Path, screen: Screen) -> list[Path]:
    """Write the tables whose parts are all there, from the records below `into` alone; return the files.

    The same records give the same bytes.
    """
    from results.cache import Cache
    from results.report import Wanted, make

    kept, written = _kept(into), []
    known = {record.id: record for record in read(into / RECORDS)}
    cache = Cache()
    for name, table in study.tables.items():
        lacking = [part for part in table.parts if part not in kept]
        if lacking:
            screen.say(f"table {name} waits for {', '.join(lacking)}")
            continue
        runs = dict.fromkeys(run for part in table.parts for run in kept[part].runs)
        records = [known[run] for run in sorted(runs) if run in known and not _left_out(known[run], table)]
        wanted = Wanted(table.metrics, (), table.baseline, shown_only=True)
        made = make(records, into / RECORDS, wanted, "", cache)
        for problem in made.problems:
            screen.say(problem)
        written += [store.publish_file(into / name / file, text) for file, text in made.files.items()]
    return written


def _left_out(record: Record, table: Table) -> bool:
    return bool({record.pretext, f"{record.pretext}:{record.schedule}"} & set(table.leave_out))


def _digest(asked: Asked) -> str:
    return store.sha256_bytes(canonical(asked.meaning()).encode())


def _kept(into: Path) -> dict[str, _Kept]:
    path = into / RECORDS / PARTS
    if not path.is_file():
        return {}
    way_out = "remove it, and the study's runs are looked for again"
    found = seal.load(path, "the list of a study's runs", way_out)
    try:
        return {str(name): _Kept.model_validate(kept) for name, kept in found["parts"].items()}
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not of this version; {way_out}.") from error


def _missing(into: Path, kept: _Kept) -> list[str]:
    return [run for run in kept.runs if not (into / RECORDS / "runs" / run / "record.json").is_file()]


def _keep(into: Path, out: Path, name: str, asked: Asked, records: Sequence[Record]) -> None:
    """Copy the records of a part and what they were scored from, then list them; what is there stays as it is."""
    for record in records:
        whole = out / "runs" / record.id / "record.json"

        def fill(folder: Path, record: Record = record, whole: Path = whole) -> None:
            (folder / predictions_path(out, record).name).write_bytes(read_predictions(out, record))
            (folder / whole.name).write_bytes(whole.read_bytes())

        store.publish_folder(into / RECORDS / "runs" / record.id, fill, whole.name)
    with store.lock(out / "locks" / "study.lock", lambda text: None):
        kept = _kept(into)
        kept[name] = _Kept(asked=_digest(asked), runs=tuple(sorted(record.id for record in records)))
        store.publish_json(into / RECORDS / PARTS, {"parts": {part: one.model_dump(mode="json") for part, one in kept.items()}})
