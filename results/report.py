"""Everything a report is made of: tables for the screen and files beside the runs, all from the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import metrics
from bench.errors import UsageError
from bench.record import Record
from results import board, leaderboards, published, tables
from results.against import against
from results.cache import Cache
from results.looks import Looks
from results.predictions import reader, verify
from results.scores import Reader

FEWER = 500
"""Resamples of a metric that is only held against the shown ones: what it says is a remark, and average precisions take long."""


@dataclass(frozen=True)
class Wanted:
    """What a report should show: metric ids, runs, the row to compare with, and what to add."""

    metrics: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    baseline: str = ""
    with_published: bool = False
    compare_paper: bool = False
    html: bool = False
    images: Path | None = None
    """Where the page's images lie, where that is not the runs' folder."""
    shown_only: bool = False
    """Whether the leaderboard holds the metrics that are shown, and not the protocols' own."""
    looks: tuple[int, ...] = ()
    """The numbers of seeds at which it was declared that one would look."""


@dataclass(frozen=True)
class Report:
    """Tables in the order to be read, and files by name."""

    tables: list[tables.Table]
    files: dict[str, str]
    problems: list[str]
    """What was left out because it is damaged."""
    boards: list[board.Board]


def make(
    records: Sequence[Record],
    out: Path,
    wanted: Wanted,
    command: str,
    cache: Cache | None = None,
    looks: Looks = Looks(),
) -> Report:
    """Return the report of some records, whose predictions lie below `out`; what `cache` knows is not computed again.

    `looks` are earlier ones at the same folder.

    UsageError for a metric, a run or a baseline that does not exist, DataError for runs that cannot stand in one column or whose
    predictions are damaged.
    """
    for name in wanted.metrics:
        metrics.get(name)
    cache = Cache() if cache is None else cache
    read = reader(out)
    chosen = board.select(records, wanted.runs) if wanted.runs else list(records)
    verify(out, chosen, cache)
    if wanted.runs:
        boards = [board.one_board(chosen, read, wanted.metrics, wanted.baseline, cache=cache)]
    else:
        boards = board.boards(chosen, read, wanted.metrics, wanted.baseline, cache=cache, looks=wanted.looks)
    if wanted.metrics and not any(one.columns for one in boards):
        raise UsageError(f"no run here is of a task that {', '.join(wanted.metrics)} can judge (bench metrics).")
    others = _by_metric(chosen, boards, read, wanted, cache)
    boards = [
        looks.note(replace(one, notes=(*one.notes, against(one, [other[place] for other in others]))), wanted.looks)
        for place, one in enumerate(boards)
    ]
    kinds = (tables.table4, tables.differences, tables.searches, tables.costs)
    main = [table for one in boards for kind in kinds if (table := kind(one)) is not None]
    main += tables.table3(chosen)
    added = [published.paper_table(_with_papers_metrics(chosen, boards, wanted, read, cache))] if wanted.compare_paper else []
    added += [published.published_table()] if wanted.with_published else []
    own = (
        board.boards(chosen, read, (), wanted.baseline, cache=cache, looks=wanted.looks)
        if wanted.metrics and not (wanted.runs or wanted.shown_only)
        else boards
    )
    files = {
        "table4.md": tables.markdown([*main, *added]),
        "table4.tex": tables.latex([*main, *added]),
    }
    if not wanted.runs:
        files |= {
            "leaderboard.csv": leaderboards.csv_text(leaderboards.leaderboard(own)),
            "per_run.csv": leaderboards.csv_text(leaderboards.per_run(chosen)),
            "per_class.csv": leaderboards.csv_text(leaderboards.per_class(chosen)),
            "agreement.csv": leaderboards.csv_text(leaderboards.agreement(own)),
        }
    problems: list[str] = []
    if wanted.html:
        from results.page import page

        files["report.html"] = page(boards, [*tables.table3(chosen), *added], wanted.images or out, command, problems)
    return Report([*main, *added], files, problems, boards)


def _by_metric(
    records: Sequence[Record], boards: Sequence[board.Board], read: Reader, wanted: Wanted, cache: Cache
) -> list[list[board.Board]]:
    """Return the same boards once for each metric of the runs' protocols, with p values corrected over that metric alone.

    A metric that no table shows has the first `FEWER` of the resamples.
    """
    known = {metric.key for metric in metrics.METRICS.values()}  # an earlier record may have another version of one
    shown = {column.metric for one in boards for column in one.columns}
    every = {
        name: board.RESAMPLES if name in shown else FEWER for record in records for name in record.metric_ids if name in known
    }
    if wanted.runs:
        return [[board.one_board(records, read, (name,), wanted.baseline, count, cache)] for name, count in every.items()]
    return [board.boards(records, read, (name,), wanted.baseline, count, cache, wanted.looks) for name, count in every.items()]


def _with_papers_metrics(
    records: Sequence[Record], boards: list[board.Board], wanted: Wanted, read: Reader, cache: Cache
) -> list[board.Board]:
    """Return boards that have the paper's metrics, recomputed where the protocol's main ones are others."""
    papers = ["acc_keras", "miou_paper"]
    shown = {column.metric for one in boards for column in one.columns}
    if {metrics.get(name).key for name in papers} <= shown:
        return boards
    return board.boards(records, read, papers, wanted.baseline, cache=cache, looks=wanted.looks)
