"""A report: tables for the screen and files to write beside the runs, all from the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import metrics
from bench.errors import UsageError
from bench.record import Record
from results import (
    board,
    csv_files,
    lowshot,
    probe_sheets,
    published,
    representations,
    selection,
    sensitivity,
    sheets,
    table_sheets,
    tables,
    variation,
    watched,
)
from results.against import against
from results.cache import Cache
from results.choices import choices
from results.latex import latex
from results.looks import Looks
from results.predictions import ON_TEST, files_of, reader, verify
from results.scores import Reader

PAGE = "report.html"
ASKED = ("selection", "sensitivity", "variation")
"""The tables that have a CSV file where they are asked for."""
FILES = (PAGE, "table4.md", "table4.tex", *csv_files.SCHEMAS, *(f"{name}.csv" for name in ASKED))
"""The names of all files that a report may have."""
FEWER = 500
"""Resamples of a metric that no table shows: it serves a remark below the table, and average precisions take long."""


@dataclass(frozen=True)
class Wanted:
    """What a report shall show: metric ids, runs by the beginnings of their ids, the row to compare with, and what to add."""

    metrics: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    baseline: str = ""
    with_published: bool = False
    compare_paper: bool = False
    html: bool = False
    images: Path | None = None
    """The output folder with the page's images, where it is not the runs' own."""
    shown_only: bool = False
    """Whether leaderboard.csv holds the metrics that are shown; otherwise it holds the protocols' main ones."""
    looks: tuple[int, ...] = ()
    """The numbers of seeds at which interim looks were declared."""
    selection: bool = False
    """Whether to add what choosing a probe's settings on the test split would have reported."""
    sensitivity: bool = False
    """Whether to add how alike the columns of a task order the same rows."""
    variation: bool = False
    """Whether to add how the variation of a complete grid's runs is divided among what they differ in."""


@dataclass(frozen=True)
class Report:
    """Tables in the order to be read, and the text of each file by its name."""

    tables: list[tables.Table]
    files: dict[str, str]
    problems: list[str]
    """What was left out because it is damaged."""
    boards: list[board.Board]
    sheets: dict[str, sheets.Sheet]
    """The values of all tables by name: those of the CSV files, of `table_sheets` and of `probe_sheets`."""

    def plain(self) -> dict[str, Any]:
        """Return the report as JSON values: each table as a list of objects, and the notes of each board."""
        notes = [
            {"board": number, "title": one.title, "notes": list(one.notes)} for number, one in enumerate(self.boards, start=1)
        ]
        found = {name: sheet.plain() for name, sheet in self.sheets.items()}
        return {"boards": notes, **found, "warnings": self.problems}


def make(
    records: Sequence[Record],
    out: Path,
    wanted: Wanted,
    command: str,
    cache: Cache | None = None,
    looks: Looks = Looks(),
) -> Report:
    """Return the report of some records, whose predictions lie below `out`; what `cache` knows is not computed again.

    `looks` are the earlier interim looks at the same folder. UsageError for a metric, a run or a baseline that does not exist;
    DataError for runs that cannot stand in one column, and for damaged predictions.
    """
    for name in wanted.metrics:
        metrics.get(name)
    chosen = board.select(records, wanted.runs) if wanted.runs else list(records)
    source = _Source(chosen, out, wanted, Cache() if cache is None else cache)
    verify(out, chosen, source.cache)
    boards = source.boards(wanted.metrics)
    if wanted.metrics and not any(one.columns for one in boards):
        raise UsageError(f"no run here is of a task that {', '.join(wanted.metrics)} can judge (bench metrics).")
    others = _by_metric(source, boards)
    boards = [
        looks.note(replace(one, notes=(*one.notes, *against(one, [other[place] for other in others]))), wanted.looks)
        for place, one in enumerate(boards)
    ]
    kinds = (tables.table4, tables.differences, tables.searches, tables.costs)
    main = [table for one in boards for kind in kinds if (table := kind(one)) is not None]
    of_probes, probes_sheets = _of_probes(source, boards)
    table3 = tables.table3(chosen)
    papers = _with_papers_metrics(source, boards) if wanted.compare_paper else []
    added = [published.paper_table(papers)] if wanted.compare_paper else []
    added += published.published_tables() if wanted.with_published else []
    added = [*of_probes, *table3, *added]
    shown = [*main, *added]
    files = {"table4.md": tables.markdown(shown), "table4.tex": latex(shown)}
    found = {**_sheets(source, boards, papers), **probes_sheets}
    if not wanted.runs:
        files |= {name: sheets.csv_text(found[name.removesuffix(".csv")]) for name in csv_files.SCHEMAS}
        files |= {f"{name}.csv": sheets.csv_text(found[name]) for name in ASKED if name in found}
    problems: list[str] = []
    if wanted.html:
        from results.page import page

        files[PAGE] = page(boards, added, wanted.images or out, command, problems)
    return Report(shown, files, problems, boards, found)


@dataclass(frozen=True)
class _Source:
    """What every board of a report is made from."""

    records: list[Record]
    out: Path
    wanted: Wanted
    cache: Cache

    @property
    def read(self) -> Reader:
        """The predictions of the runs."""
        return reader(self.out)

    def boards(self, chosen: Sequence[str] = (), resamples: int = board.RESAMPLES) -> list[board.Board]:
        """Return the boards with the `chosen` metrics, or with each protocol's main one; a single board of chosen runs."""
        if self.wanted.runs:
            return [board.one_board(self.records, self.read, chosen, self.wanted.baseline, resamples, self.cache)]
        looks = self.wanted.looks
        return board.boards(self.records, self.read, chosen, self.wanted.baseline, resamples, self.cache, looks)


def _of_probes(source: _Source, boards: Sequence[board.Board]) -> tuple[list[tables.Table], dict[str, sheets.Sheet]]:
    """Return the tables about probes, for each board and then those that were asked for, and the values of these tables."""
    wanted, read, cache = source.wanted, source.read, source.cache
    samples, levels = lowshot.samples(boards, read, cache), list(representations.levels(boards))
    seen = list(watched.seen(boards))
    made: list[tables.Table] = []
    for one in boards:
        of_one = choices(one), lowshot.table(one, samples), representations.table(one, levels), watched.table(one, seen)
        made += filter(None, of_one)
    found = probe_sheets.of_probes(samples, levels, seen)
    if wanted.selection:
        verify(source.out, [one for one in source.records if ON_TEST in files_of(one)], cache, ON_TEST)
        inflations = selection.inflations(boards, read, reader(source.out, ON_TEST), cache)
        made.append(selection.table(boards, inflations))
        found |= probe_sheets.inflations(inflations)
    if wanted.sensitivity:
        compared = sensitivity.sensitivities(boards, read, cache, wanted.looks)
        made.append(sensitivity.table(compared))
        found |= probe_sheets.sensitivities(compared)
    if wanted.variation:
        shares, without = variation.variation(source.records, read, cache)
        made.append(variation.table(shares, without))
        found |= probe_sheets.variations(shares)
    return made, found


def _sheets(source: _Source, boards: Sequence[board.Board], papers: Sequence[board.Board]) -> dict[str, sheets.Sheet]:
    """Return the values of all tables by name; those of a CSV file have the protocols' metrics unless runs were chosen."""
    wanted = source.wanted
    own = source.boards() if wanted.metrics and not (wanted.shown_only or wanted.runs) else boards
    found = {
        "table4": table_sheets.table4(boards),
        "searches": table_sheets.searches(boards),
        "table3": csv_files.table3(source.records),
        "leaderboard": csv_files.leaderboard(own),
        "per_run": csv_files.per_run(source.records),
        "per_class": csv_files.per_class(source.records),
        "agreement": csv_files.agreement(own),
    }
    found |= {"beside_paper": table_sheets.beside(papers)} if wanted.compare_paper else {}
    return {**found, **({"published": table_sheets.published_numbers()} if wanted.with_published else {})}


def _by_metric(source: _Source, boards: Sequence[board.Board]) -> list[list[board.Board]]:
    """Return the same boards once for each metric of the runs' protocols, with p values corrected over that metric alone.

    A metric that no table shows has `FEWER` resamples.
    """
    known = {metric.key for metric in metrics.METRICS.values()}  # a record may have an earlier version of a metric
    shown = {column.metric for one in boards for column in one.columns}
    every = dict.fromkeys(name for record in source.records for name in record.metric_ids if name in known)
    return [source.boards((name,), board.RESAMPLES if name in shown else FEWER) for name in every]


def _with_papers_metrics(source: _Source, boards: list[board.Board]) -> list[board.Board]:
    """Return boards that have the paper's metrics, computed from the predictions where no table shows both."""
    papers = ["acc_keras", "miou_paper"]
    shown = {column.metric for one in boards for column in one.columns}
    if {metrics.get(name).key for name in papers} <= shown:
        return boards
    return source.boards(papers)
