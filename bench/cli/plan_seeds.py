"""`bench plan-seeds`: how many seeds are needed to show a difference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.common import hold
from bench.cli.options import Out
from bench.config import names, numbers
from bench.errors import UsageError

EXAMPLE = "bench plan-seeds --points 1,3 --metric map_voc,miou_voc"


def plan_seeds(
    points: Annotated[str, typer.Option(help="Differences in points of a metric, separated by commas.")] = "1,3",
    metric: Annotated[str, typer.Option(help="Metric ids; the protocols' main ones when left out.")] = "",
    baseline: Annotated[str, typer.Option(help="The row to compare with, as for bench report.")] = "",
    comparisons: Annotated[
        int, typer.Option(min=1, help="How many comparisons are corrected together; each then needs 5 % divided by them.")
    ] = 1,
    out: Out = Path("runs"),
) -> None:
    """Print how many seeds are needed to show a difference of some points, given how much the runs in --out vary over seeds.

    Each row needs at least two seeds. Decide on the number of seeds beforehand: seeds that are added because of what a table
    showed make its p values too small.
    """
    from bench import record
    from bench.cli.screen import Screen, drawn
    from results import board, power
    from results.cache import Cache, path_in
    from results.predictions import reader

    wanted = numbers("--points", points)
    if not wanted or not all(0 < one <= 100 for one in wanted):
        raise UsageError(f"--points takes comma-separated numbers above 0 and at most 100, but got {points!r}.")
    hold(out)
    records = record.read(out)
    cache = Cache.read(path_in(out))
    boards = board.boards(records, reader(out), names(metric), baseline, cache=cache) if records else []
    tables = [table for one in boards if (table := power.table(one, wanted, comparisons)) is not None]
    if not tables:
        raise UsageError(f"{out} holds no two rows with two seeds in common, from which to estimate; run more seeds first.")
    screen = Screen()
    for table in tables:
        screen.table(drawn(table))
        screen.echo("")
