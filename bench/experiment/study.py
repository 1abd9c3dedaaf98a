"""Studies: a file says which grids answer a question and which tables show the answer, and a folder keeps the records.

    title = "Does it work on real images?"

    [options]                       # of `bench run`, for every part
    data = "voc_mini"
    seeds = 3

    [parts.main]                    # a grid; its own options override the common ones
    pretext = ["random_init", "cgan_color"]
    downstream = ["voc_cls", "voc_seg"]

    [parts.more_seeds]
    like = "main"                   # the options of that part, overridden by its own
    seeds = 5

    [fingerprints]                  # the beginnings of the data sets' fingerprints, as `bench data list` shows them
    voc_mini = "eca465a28cff"

    [tables.main]                   # a report of some parts, in a folder of this name
    parts = ["main"]
    selection = true                            # what choosing on the test split would have added
    sensitivity = true                          # how rows change places from one protocol to another
    metrics = ["acc_keras", "miou_paper"]       # the protocols' own when left out
    baseline = "random_init:one-phase"          # as `bench report --baseline`

A study that will add seeds later must say so before its first seed is run, above all tables: `looks = [3, 5, 10]`, the numbers of
seeds. Each look at the results then gets its share of the significance level, so that several looks reject no more often than one
would (`results.statistics.at_look`).

A study that is to confirm something names a preregistration, a file with its grids and its confirmatory comparisons that is fixed
before the first run (`bench.preregistration`).

Beside the file lie `records/`, an output folder that holds records and predictions without images, and a folder for each table.
Runs in `records/` are not computed again, and a finished part needs no data set: the same command rebuilds the tables from the
records and from the list of looks beside them (`looks.json`). When a plug-in has a new version, the parts that use it are run
again, except for the runs whose ids are still the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bench import registry
from bench.config import RunConfig
from bench.errors import TRACEBACK, BenchError, DataError, Interrupted, StorageError, UsageError, explained, unknown
from bench.experiment import registered
from bench.experiment.grid import run_grid
from bench.experiment.jobs import STATISTICS_VERSION
from bench.experiment.plan import AT_LEAST, Plan
from bench.experiment.plan import plan as plan_session
from bench.experiment.resolve import Grid, resolve
from bench.experiment.search import is_searched, same_search, search_of
from bench.experiment.session import Screen, Session, open_session
from bench.experiment.start import announce
from bench.experiment.step_times import StepTimes
from bench.experiment.study_file import RECORDS, Study
from bench.experiment.tuning import path_of
from bench.preregistration import KEY
from bench.record import Record, paths, read_one, record_path
from bench.schema import Schema, canonical
from bench.storage import files, locks, offline, seal
from bench.text import Echo, plain
from results.predictions import files_of, read_file
from results.protocols import readable

PARTS = "parts.json"


class _FinishedPart(Schema):
    """A finished part: a digest of its configuration and the ids of its runs."""

    config: str
    runs: tuple[str, ...]


class _Parts(Schema):
    """The finished parts of a study by name, as `parts.json` lists them."""

    parts: dict[str, _FinishedPart] = {}


def run(study: Study, out: Path, into: Path, only: Sequence[str], screen: Screen, keeps: bool = True) -> list[str]:
    """Run what is missing of all parts, or of those in `only`, and copy a part's records below `into` once it is finished.

    All parts are resolved before the first is run, so that a mistake in the last is told at once. The records of a part that
    fails or is stopped are kept, but the part is not listed as finished; the others go on after a failure, and the reasons of
    failed parts are returned. A worker of a launch `keeps` no part.
    """
    failed = []
    for name, config in to_do(study, out, into, only, screen):
        session = replace(open_session(config, out, screen), preregistration=sha256_of(study))
        made: list[Record] = []
        try:
            copy_reusable(into, session)
            if not keeps:
                run_grid(session)
                continue
            announce(session)
            try:
                run_grid(session, made)
            except BaseException:
                _publish(into, out, made)
                raise
            publish_part(into, out, name, config, made)
        except (Interrupted, StorageError):
            raise
        except Exception as error:
            if os.environ.get(TRACEBACK) and not isinstance(error, BenchError):
                raise
            failed.append(f"{name}: {explained(error)}")
            screen.echo(f"  {failed[-1]}")
    return failed


def to_do(study: Study, out: Path, into: Path, only: Sequence[str], screen: Screen) -> Iterator[tuple[str, RunConfig]]:
    """Yield (name, configuration) of the parts to run, with a line about each, once all of them are known to be in order.

    Where there are some, the output folder `out` is claimed for the study's preregistration.
    """
    grids = {}
    for name, config in _to_do(study, into, only, screen):
        offline.check_storage(config.storage)
        with _about(name, into):
            grids[name] = resolve(config, screen.echo)
            _check_data(study, grids[name])
    if study.preregistration is not None:
        registered.check(study.preregistration, grids)
        if grids:
            registered.claim(study.preregistration, out)
    for name, config in _to_do(study, into, only, screen, tell=True):
        asked = {**config.meaning(), "settings": list(map(readable, config.settings))}
        screen.echo(f"{name}: {plain({field: value for field, value in asked.items() if value})}")
        yield name, config


def sha256_of(study: Study) -> str:
    """Return the SHA-256 of a study's preregistration; "" where it has none."""
    return study.preregistration.sha256 if study.preregistration is not None else ""


def plan(study: Study, out: Path, into: Path, only: Sequence[str], screen: Screen, until: float) -> Iterator[tuple[str, Plan]]:
    """Yield (name, plan) for each unfinished part, or for those in `only`; work that parts share is counted once.

    Steps are timed `until` then, by the monotonic clock.
    """
    if study.preregistration is not None:
        silent: Echo = lambda text: None  # noqa: E731 - the notes on a grid are told when it is planned
        grids = {name: resolve(config, silent) for name, config in _to_do(study, into, only, screen)}
        registered.check(study.preregistration, grids)
    done: dict[str, int] = {}
    times: dict[str, StepTimes] = {}  # one for each kind of machine, so that parts share what was timed
    for name, config in _to_do(study, into, only, screen, tell=True):
        with _about(name, into):
            session = open_session(config, out, screen, planning=True)
            _check_data(study, session.grid)
        timed = times.setdefault(str(session.machine.describe()), StepTimes(session.machine, until, AT_LEAST))
        yield name, plan_session(session, timed, done, reusable_records(into, session))


@contextmanager
def _about(part: str, into: Path) -> Iterator[None]:
    """Turn an error on opening a part into one that says why the part was opened: it is not finished."""
    try:
        yield
    except (UsageError, DataError) as error:
        raise type(error)(f"part {part} is not finished in {into / RECORDS}, so it must be run: {error}") from error


def _check_data(study: Study, grid: Grid) -> None:
    """Raise DataError when a data set's fingerprint is not the one that the study declares for its name."""
    for dataset in filter(None, (*grid.data.values(), grid.pretrain_data)):
        check_fingerprint(study, dataset.name, dataset.fingerprint)


def check_fingerprint(study: Study, name: str, fingerprint: str) -> None:
    """Raise DataError when a fingerprint is not the one that the study declares for a data set's name."""
    meant = study.fingerprints.get(name, "")
    if not fingerprint.startswith(meant):
        raise DataError(
            f"{name} has the fingerprint {fingerprint[:12]}, but this study declares {meant}: "
            "other images, classes or labels were prepared under that name."
        )


def _to_do(study: Study, into: Path, only: Sequence[str], screen: Screen, tell: bool = False) -> Iterator[tuple[str, RunConfig]]:
    """Yield (name, configuration) of the parts in `only`, or of all, that are not finished; with `tell`, print the others."""
    for name in only:
        if name not in study.parts:
            raise unknown("part", name, study.parts)
    for name, config in study.parts.items():
        if only and name not in only:
            continue
        kept = finished_parts(into).get(name)
        if kept is not None and is_done(into, config, kept):
            if tell:
                screen.echo(f"{name}: {len(kept.runs)} runs, finished before")
        else:
            yield name, config


def is_done(into: Path, config: RunConfig, kept: _FinishedPart | None) -> bool:
    """Tell whether a part's records are complete and were made with the part's present configuration."""
    return (
        kept is not None
        and kept.config == _digest(config)
        and all(record_path(into / RECORDS, run).is_file() for run in kept.runs)
    )


def _digest(config: RunConfig) -> str:
    """Return a digest of a part's configuration, its plug-ins' versions above 1, and `STATISTICS_VERSION` where it matters."""
    names = {"pretexts": [name.partition(":")[0] for name in config.pretext], "downstreams": config.tasks}
    versions = {
        name: version for kind in names if names[kind] for name in registry.names(kind, names[kind])
        if (version := registry.load(kind, name).version) != 1
    }  # fmt: skip
    if set(config.transfer) - {"all"}:
        versions["statistics"] = STATISTICS_VERSION
    return files.sha256_bytes(canonical({**config.meaning(), **({"versions": versions} if versions else {})}).encode())


def reusable_records(into: Path, session: Session) -> list[Record]:
    """Return the study's records that a grid can reuse: those of the grid's own runs, and those that hold one of its searches."""
    jobs, trials = session.grid.jobs, session.config.tune
    runs = {job.id for job in jobs}
    cells = {same_search(job, session.config): job for job in jobs if is_searched(job, session.config)}.values()
    searches = {(search_of(job, session.config, jobs).id, trials) for job in cells} if trials else set()
    found = []
    for path in paths(into / RECORDS):
        try:
            record = read_one(path)
        except DataError as error:  # of another part, or of a run that is made again
            session.echo(f"a record is not used: {error}")
            continue
        tuning = record.tuning
        if record.id in runs or (tuning is not None and (tuning.study, tuning.budget) in searches):
            found.append(record)
    return found


def copy_reusable(into: Path, session: Session) -> None:
    """Copy a grid's runs and searches from the study's records to the output folder, so that they are not made again.

    UsageError for a record that was not made under the study's preregistration.
    """
    for record in reusable_records(into, session):
        if session.preregistration and record.provenance.get(KEY) != session.preregistration:
            raise UsageError(
                f"{record_path(into / RECORDS, record.id).parent} was not made under this preregistration; remove it, or give "
                "another --into."
            )
        _copy_run(into / RECORDS, record, session.out)
        tuning = record.tuning
        if tuning is not None and not path_of(tuning.study, tuning.budget, session.out).is_file():
            files.publish_json(path_of(tuning.study, tuning.budget, session.out), tuning.model_dump(mode="json"))


def finished_parts(into: Path) -> dict[str, _FinishedPart]:
    """Return the parts whose records are kept below `into`, by name."""
    path = into / RECORDS / PARTS
    if not path.is_file():
        return {}
    return seal.read_model(_Parts, path, "the list of a study's runs", "remove the file, and the list is made again").parts


def _copy_run(out: Path, record: Record, into: Path) -> Path:
    """Copy a run's record and predictions from an output folder to another, unless they are there; return the record's path."""
    made, there = record_path(out, record.id), record_path(into, record.id)

    def fill(folder: Path) -> None:
        for file in files_of(record):
            (folder / file).write_bytes(read_file(out, record, file))
        (folder / made.name).write_bytes(made.read_bytes())

    files.publish_folder(there.parent, fill, there.name)
    return there


def lock_of(into: Path) -> Path:
    """Return the lock file of a study's records: in the home folder, since commands may have different output folders."""
    place = files.sha256_bytes(str(into.resolve()).encode())[:16]
    return files.home() / "locks" / f"study-{place}.lock"


def publish_part(into: Path, out: Path, name: str, config: RunConfig, records: Sequence[Record]) -> None:
    """Copy a part's records and predictions into the study, then list the part as finished.

    DataError when the study holds another record under the same id.
    """
    with locks.lock(lock_of(into), lambda text: None, needed=False):  # a plain command does not begin where there are none
        _publish(into, out, records)
        kept = finished_parts(into)
        kept[name] = _FinishedPart(config=_digest(config), runs=tuple(sorted(record.id for record in records)))
        files.publish_json(into / RECORDS / PARTS, _Parts(parts=kept).model_dump(mode="json"))


def _publish(into: Path, out: Path, records: Sequence[Record]) -> None:
    """Copy records and predictions into the study; DataError when it holds another record under the same id."""
    for record in records:
        made, there = record_path(out, record.id), _copy_run(out, record, into / RECORDS)
        if there.read_bytes() != made.read_bytes():
            raise DataError(f"{there} and {made} are different records of one id; remove the folder of one of them.")
