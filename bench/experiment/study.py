"""A study: a file that says which grids answer a question and which tables show it, and a folder that keeps what came of it.

    title = "Does it work on real images?"

    [options]                       # of `bench run`, for every part
    data = "voc_mini"
    seeds = 3

    [parts.main]                    # a grid; its own options go before the common ones
    pretext = ["random_init", "cgan_color"]
    downstream = ["voc_cls", "voc_seg"]

    [parts.more_seeds]
    like = "main"                   # the options of that part, with its own before them
    seeds = 5

    [fingerprints]                  # the data sets that are meant, as `bench data list` shows them
    voc_mini = "eca465a28cff"

    [tables.main]                   # a report of some parts, in a folder of this name
    parts = ["main"]
    metrics = ["acc_keras", "miou_paper"]       # the protocols' own when left out
    baseline = "random_init:one-phase"          # as `bench report --baseline`

A study that means to add seeds says so before the first of them has run, above all tables: `looks = [3, 5, 10]`. The p values at
each look then count their share of the level, so that several looks reject no more often than one (`results.statistics.at_look`).

Beside the file lie `records/`, an output folder that holds records and predictions without images, and a folder for each table.
What is in `records/` is not computed again, and needs no data set: the same command rebuilds the tables from it, and from the
list of looks that lies there (`looks.json`). A part whose plug-ins have a new version is run again, all but the runs that are the
same.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, field_validator

from bench import metrics, registry
from bench.cli.screen import Screen
from bench.config import Asked
from bench.errors import TRACEBACK, BenchError, DataError, Interrupted, UsageError, explained, unknown
from bench.experiment.grid import open_session, run_grid
from bench.experiment.resolve import STATISTICS_VERSION, Grid, resolve
from bench.experiment.session import Session
from bench.experiment.tuning import Search, path_of, study_of
from bench.record import Record, paths, read_one
from bench.schema import Frozen, canonical
from bench.storage import files, locks, offline, seal
from bench.text import LONG, quoted
from results import look_log
from results.predictions import predictions_path, read_predictions

FILE = "study.toml"
MOST = 1 << 20
"""Bytes that a study's file may have."""
RECORDS = "records"
PARTS = "parts.json"
PAGE = "report.html"
FILES = (PAGE, "table4.md", "table4.tex", "leaderboard.csv", "per_run.csv", "per_class.csv", "agreement.csv")


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
    looks: tuple[Annotated[int, Field(ge=2)], ...] = ()
    """The numbers of seeds at which the results are looked at, as declared beforehand."""

    @field_validator("looks")
    @classmethod
    def _grow(cls, looks: tuple[int, ...]) -> tuple[int, ...]:
        if list(looks) != sorted(set(looks)):
            raise ValueError("each look has more seeds than the one before")
        return looks


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
        if self.tune == 0:
            changed = {name: value for name, value in changed.items() if name not in ("space", "storage")}
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


def own_folder(file: Path) -> Path:
    """Return where a study's records and tables lie: beside `study.toml`, and in a folder of its name for another file."""
    return file.parent if file.name == FILE else file.with_suffix("")


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
        common = _options(content.pop("options", {}), "options")
        parts = {name: _options(own, f"parts.{name}") for name, own in _mapping(content.get("parts", {}), "parts").items()}
        content["parts"] = {name: _asked(changes.of({**common, **_own(name, parts)}), spread) for name in parts}
        study = Study.model_validate(content)
        for asked in study.parts.values():
            asked.request()
            asked.search()
        for name, table in study.tables.items():
            for part in set(table.parts) - study.parts.keys():
                raise unknown(f"part in tables.{name}", part, study.parts)
            for metric in table.metrics:
                metrics.get(metric)
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


def _options(value: Any, name: str) -> dict[str, Any]:
    """Return a table of options by their names in Python; UsageError for one that is given in both spellings."""
    options: dict[str, Any] = {}
    for spelled, given in _mapping(value, name).items():
        option = spelled.replace("-", "_")
        if option in options:
            raise UsageError(f"{name[:LONG]} has {quoted(spelled)} twice.")
        options[option] = given
    return options


def _own(name: str, parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a part's options: its own, and those of the part that it is like."""
    own = dict(parts[name])
    like = own.pop("like", None)
    if like is None:
        return own
    if not isinstance(like, str) or like not in parts:
        raise unknown(f"part that parts.{name} is like", str(like), parts)
    if "like" in parts[like]:
        raise UsageError(f"parts.{name} is like {like}, which is like {quoted(parts[like]['like'])}: name that one.")
    return {**parts[like], **own}


def _asked(options: Mapping[str, Any], spread: Spread) -> dict[str, Any]:
    return {**options, **{name: value for name, value in vars(spread).items() if value is not None}}


def run(study: Study, out: Path, into: Path, only: Sequence[str], screen: Screen) -> list[str]:
    """Run what is missing of some parts, or all, and keep their records below `into`, a part as soon as it is done.

    All are opened before the first is run, so that a mistake in the last is told at once. A part that fails is not kept, and the
    others go on; what was wrong is returned.
    """
    for name, asked in _to_do(study, into, only, screen):
        offline.check_storage(asked.storage)
        with _about(name, into):
            _check_data(study, resolve(asked.request(), screen.echo))
    failed = []
    for name, asked in _to_do(study, into, only, screen, tell=True):
        screen.echo(f"{name}: {canonical(asked.meaning())}")
        session = open_session(asked.request(), asked.options(), out, screen)
        try:
            _copy_known(into, session, asked.search())
            _keep(into, out, name, asked, run_grid(session, screen, asked.search()))
        except Interrupted:
            raise
        except Exception as error:
            if os.environ.get(TRACEBACK) and not isinstance(error, BenchError):
                raise
            failed.append(f"{name}: {explained(error)}")
            screen.echo(f"  {failed[-1]}")
    return failed


def plan(study: Study, out: Path, into: Path, only: Sequence[str], screen: Screen) -> None:
    """Say what is missing of some parts, or all, and how long it would take."""
    from bench.experiment.plan import show

    planned: dict[str, int] = {}
    seconds = []
    for name, asked in _to_do(study, into, only, screen, tell=True):
        screen.echo(f"{name}:")
        with _about(name, into):
            session = open_session(asked.request(), asked.options(), out, screen)
            _check_data(study, session.grid)
        seconds.append(show(session, screen, asked.search(), planned, _known(into, session, asked.search())))
    if len(seconds) > 1:
        screen.echo(f"{sum(seconds):,.0f} s of training in the {len(seconds)} parts together, what they share once")


@contextmanager
def _about(part: str, into: Path) -> Iterator[None]:
    """Say of a part that cannot be opened that it would have to be run, since its records are not all there."""
    try:
        yield
    except (UsageError, DataError) as error:
        raise type(error)(f"{part} is to be run, since {into / RECORDS} lacks runs of it: {error}") from error


def _check_data(study: Study, grid: Grid) -> None:
    """Raise DataError when a data set of a known name has other images than the study's."""
    for dataset in filter(None, (grid.data, grid.pretrain_data)):
        _check_fingerprint(study, dataset.name, dataset.fingerprint)


def _check_fingerprint(study: Study, name: str, fingerprint: str) -> None:
    meant = study.fingerprints.get(name, "")
    if not fingerprint.startswith(meant):
        raise DataError(
            f"{name} has the fingerprint {fingerprint[:12]}, and this study means {meant}: "
            "other images, classes or labels were prepared under that name."
        )


def _to_do(study: Study, into: Path, only: Sequence[str], screen: Screen, tell: bool = False) -> Iterator[tuple[str, Asked]]:
    """Give the parts whose records are not all there, one after the other."""
    for name in only:
        if name not in study.parts:
            raise unknown("part", name, study.parts)
    for name, asked in study.parts.items():
        if only and name not in only:
            continue
        kept = _kept(into).get(name)
        if kept is not None and _is_done(into, asked, kept):
            if tell:
                screen.echo(f"{name}: {len(kept.runs)} runs, finished before")
        else:
            yield name, asked


def _is_done(into: Path, asked: Asked, kept: _Kept | None) -> bool:
    """Tell whether the records are those of what is asked now, and all there."""
    return kept is not None and kept.asked == _digest(asked) and all(_record_of(into, run).is_file() for run in kept.runs)


def tables(
    study: Study, into: Path, screen: Screen, images: Path | None = None, command: str = ""
) -> tuple[list[Path], list[str]]:
    """Write the tables whose parts are done, from the records below `into` alone; return the files, and what went wrong.

    The same records and looks give the same bytes. What lies in the folder of a table that waits is of another time, and is
    removed; so is a page that is not asked for. With `images`, an output folder, each table has one, with the images that lie
    there and the `command` that makes it again.
    """
    from results.cache import Cache
    from results.report import Wanted, make

    kept, written, failed = _kept(into), [], []
    known: dict[str, Record] = {}
    cache, before, shown = Cache(), look_log.read(into / RECORDS), []
    for name, table in study.tables.items():
        lacking = [part for part in table.parts if not _is_done(into, study.parts[part], kept.get(part))]
        if lacking:
            screen.echo(f"table {name} waits for {', '.join(lacking)}")
            for file in FILES:
                (into / name / file).unlink(missing_ok=True)
            continue
        try:
            runs = sorted({run for part in table.parts for run in kept[part].runs})
            known |= {run: _read(study, into, run) for run in runs if run not in known}
            records = _without(table.leave_out, [known[run] for run in runs])
            wanted = Wanted(
                table.metrics,
                baseline=table.baseline,
                html=images is not None,
                images=images,
                shown_only=True,
                looks=study.looks,
            )
            made = make(records, into / RECORDS, wanted, command, cache, before)
        except BenchError as error:
            failed.append(f"tables.{name}: {error}")
            continue
        for problem in made.problems:
            screen.echo(problem)
        if PAGE not in made.files:
            (into / name / PAGE).unlink(missing_ok=True)
        written += [files.publish_file(into / name / file, text) for file, text in made.files.items()]
        shown += made.boards
    look_log.keep(into / RECORDS, before, before.with_boards(shown, look_log.now(), study.looks), _lock(into), screen.echo)
    return written, failed


def _read(study: Study, into: Path, run: str) -> Record:
    record = read_one(_record_of(into, run))
    for facts in filter(None, (record.data, record.pretrain.data)):
        _check_fingerprint(study, facts.name, facts.fingerprint)
    return record


def _without(left_out: Sequence[str], records: Sequence[Record]) -> list[Record]:
    """Return the records that no name, `pretext` or `pretext:schedule`, leaves out; UsageError for a name that fits none."""
    names = {record.id: (record.pretext, f"{record.pretext}:{record.schedule}") for record in records}
    every = {name for pair in names.values() for name in pair}
    for name in left_out:
        if name not in every:
            raise unknown("row to leave out", name, every)
    found = [record for record in records if not set(names[record.id]) & set(left_out)]
    if not found:
        raise UsageError("every row is left out.")
    return found


def _digest(asked: Asked) -> str:
    """Return a digest of what is asked for, and of the versions that its plug-ins have here where they are not the first."""
    request = asked.request()
    names = {"pretexts": request.pretexts, "downstreams": request.downstreams}
    versions = {
        name: version for kind in names for name in registry.names(kind, names[kind])
        if (version := registry.load(kind, name).version) != 1
    }  # fmt: skip
    if set(request.transfers) - {"all"}:
        versions["statistics"] = STATISTICS_VERSION
    return files.sha256_bytes(canonical({**asked.meaning(), **({"versions": versions} if versions else {})}).encode())


def _known(into: Path, session: Session, search: Search | None) -> list[Record]:
    """Return the records of a study that a grid asks for: by the runs' ids, or by the searches that chose their rates."""
    jobs = session.grid.jobs
    runs = {job.id for job in jobs}
    searches = {(study_of(job, search, jobs).id, search.trials) for job in jobs} if search else set()
    found = []
    for path in paths(into / RECORDS):
        try:
            record = read_one(path)
        except DataError as error:  # of another part, or it is made again and then named
            session.echo(f"not used: {error}")
            continue
        tuning = record.tuning
        if record.id in runs or (tuning is not None and (tuning.study, tuning.budget) in searches):
            found.append(record)
    return found


def _copy_known(into: Path, session: Session, search: Search | None) -> None:
    """Copy the runs and searches of a grid that the study's records hold to the output folder, so that none is made again."""
    for record in _known(into, session, search):

        def fill(folder: Path, record: Record = record) -> None:
            made = _record_of(into, record.id)
            (folder / predictions_path(into, record).name).write_bytes(read_predictions(into / RECORDS, record))
            (folder / made.name).write_bytes(made.read_bytes())

        files.publish_folder(session.out / "runs" / record.id, fill, "record.json")
        tuning = record.tuning
        if tuning is not None and not path_of(tuning.study, tuning.budget, session.out).is_file():
            files.publish_json(path_of(tuning.study, tuning.budget, session.out), tuning.model_dump(mode="json"))


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


def _record_of(into: Path, run: str) -> Path:
    return into / RECORDS / "runs" / run / "record.json"


def _lock(into: Path) -> Path:
    """Return the lock of a study's records, which is not beside them; two commands on them may have other output folders."""
    place = files.sha256_bytes(str(into.resolve()).encode())[:16]
    return files.home() / "locks" / f"study-{place}.lock"


def _keep(into: Path, out: Path, name: str, asked: Asked, records: Sequence[Record]) -> None:
    """Copy the records of a part and what they were scored from, then list them; DataError where another record is kept."""
    with locks.lock(_lock(into), lambda text: None):
        for record in records:
            made, there = out / "runs" / record.id / "record.json", _record_of(into, record.id)

            def fill(folder: Path, record: Record = record, made: Path = made) -> None:
                (folder / predictions_path(out, record).name).write_bytes(read_predictions(out, record))
                (folder / made.name).write_bytes(made.read_bytes())

            files.publish_folder(there.parent, fill, there.name)
            if there.read_bytes() != made.read_bytes():
                raise DataError(f"{there} is of another run of the same id than {made}; remove the folder of one of them.")
        kept = _kept(into)
        kept[name] = _Kept(asked=_digest(asked), runs=tuple(sorted(record.id for record in records)))
        files.publish_json(into / RECORDS / PARTS, {"parts": {part: one.model_dump(mode="json") for part, one in kept.items()}})
