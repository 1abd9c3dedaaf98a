"""The tables of a study, from the records beside its file alone: those of its parts, and its confirmatory comparisons apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError, UsageError, unknown
from bench.experiment.session import Screen
from bench.experiment.study import check_fingerprint, finished_parts, is_done, lock_of
from bench.experiment.study_file import CONFIRMATORY, RECORDS, Study
from bench.record import Record, read_one, record_path
from bench.storage import files
from results import look_log
from results.predictions import reader

if TYPE_CHECKING:
    from results.cache import Cache
    from results.tables import Table


CONFIRMED = ("confirmatory.csv", "confirmatory.md", "confirmatory.svg")
"""The files of the confirmatory comparisons."""
OF_RUNS = ("per_run.csv", "per_class.csv")
"""The files that say the same in every table of the same runs; the first of these tables has them."""


@dataclass
class Written:
    """The files of a study's tables, the tables to be read, and what failed; `confirmatory` is None without a preregistration."""

    files: list[Path] = field(default_factory=list)
    confirmatory: Table | None = None
    exploratory: dict[str, list[Table]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def write(study: Study, into: Path, screen: Screen, images: Path | None = None, command: str = "") -> Written:
    """Write the tables whose parts are finished, from the records below `into` alone.

    The same records and looks give the same bytes. The files of a table that waits for a part are out of date and are removed.
    With `images`, an output folder, each table gets a page with that folder's images and the `command` that makes the page again;
    without `images`, an earlier page is removed.
    """
    from results import figures, tables
    from results.cache import Cache
    from results.report import FILES, PAGE, Wanted, make

    drawn = [f"{name}.svg" for name in figures.NAMES]

    kept, written = finished_parts(into), Written()
    for name in CONFIRMED:
        (into / CONFIRMATORY / name).unlink(missing_ok=True)
    known: dict[str, Record] = {}
    first_of: dict[tuple[str, ...], str] = {}
    cache, before, shown = Cache(), look_log.read(into / RECORDS), []
    done = {name for name, config in study.parts.items() if is_done(into, config, kept.get(name))}
    for name, table in study.tables.items():
        lacking = [part for part in table.parts if part not in done]
        if lacking:
            screen.echo(f"table {name} waits for {', '.join(lacking)}")
            for file in (*FILES, *drawn):
                (into / name / file).unlink(missing_ok=True)
            continue
        screen.doing(f"comparing the rows of the table {name}")
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
                selection=table.selection,
                sensitivity=table.sensitivity,
                variation=table.variation,
            )
            made = make(records, into / RECORDS, wanted, command, cache, before)
        except BenchError as error:
            written.failed.append(f"tables.{name}: {error}")
            continue
        for problem in made.problems:
            screen.echo(problem)
        if PAGE not in made.files:
            (into / name / PAGE).unlink(missing_ok=True)
        known_sheets = [sheet for sheet in figures.NAMES if sheet in made.sheets]
        found = {f"{sheet}.svg": figures.figure(sheet, made.sheets[sheet].plain()) for sheet in known_sheets}
        repeated = OF_RUNS if first_of.setdefault(tuple(record.id for record in records), name) != name else ()
        for file in (*(file for file in drawn if not found.get(file)), *repeated):
            (into / name / file).unlink(missing_ok=True)
        every = {**made.files, **{file: text for file, text in found.items() if text}}
        every = {file: text for file, text in every.items() if file not in repeated}
        written.files += [files.publish_file(into / name / file, text) for file, text in every.items()]
        written.exploratory[name] = [tables.table4(board) for board in made.boards]
        shown += made.boards
    look_log.keep(into / RECORDS, before, before.with_boards(shown, look_log.now(), study.looks), lock_of(into), screen.echo)
    if study.preregistration is not None:
        try:
            of_parts = {name: kept[name].runs for name in study.preregistration.parts if name in done}
            runs_of = {name: [_read(study, into, run) for run in runs] for name, runs in of_parts.items()}
            _confirm(study, into, runs_of, cache, written)
        except BenchError as error:
            written.failed.append(f"{CONFIRMATORY}: {error}")
    return written


def _confirm(study: Study, into: Path, runs: dict[str, list[Record]], cache: Cache, written: Written) -> None:
    """Write the confirmatory comparisons, with the reason of each that is refused."""
    from results import confirmatory, figures, sheets, tables

    registered = study.preregistration
    assert registered is not None
    seeds = {name: study.parts[name].all_seeds for name in registered.parts}
    found = confirmatory.compare(registered, runs, seeds, reader(into / RECORDS), cache)
    written.confirmatory = confirmatory.table(registered, found)
    lines = confirmatory.lines(found)
    figure = figures.figure(CONFIRMATORY, lines.plain())
    texts = sheets.csv_text(lines), tables.markdown([written.confirmatory]), figure
    made = {name: text for name, text in zip(CONFIRMED, texts, strict=True) if text}
    written.files += [files.publish_file(into / CONFIRMATORY / name, text) for name, text in made.items()]


def _read(study: Study, into: Path, run: str) -> Record:
    record = read_one(record_path(into / RECORDS, run))
    for facts in filter(None, (record.data, record.pretrain.data)):
        check_fingerprint(study, facts.name, facts.fingerprint)
    return record


def _without(left_out: Sequence[str], records: Sequence[Record]) -> list[Record]:
    """Return the records without those named, as `pretext` or `pretext:schedule`; UsageError for a name that fits none."""
    names = {record.id: (record.pretext, f"{record.pretext}:{record.job.schedule}") for record in records}
    every = {name for pair in names.values() for name in pair}
    for name in left_out:
        if name not in every:
            raise unknown("row to leave out", name, every)
    found = [record for record in records if not set(names[record.id]) & set(left_out)]
    if not found:
        raise UsageError("every row is left out.")
    return found
