"""`bench report`: tables, CSV files and an HTML page from the records."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import completion
from bench.cli.common import hold, warn
from bench.cli.document import AsJson, alone
from bench.cli.options import Out
from bench.config import names
from bench.errors import MachineError
from bench.text import shell

if TYPE_CHECKING:
    from results.looks import Looks
    from results.report import Report, Wanted

EXAMPLE = "bench report --metric map_voc,miou_voc --html"


def report(
    out: Out = Path("runs"),
    metric: Annotated[
        str | None,
        typer.Option(
            help="Metric ids for the columns, recomputed from the predictions; the protocols' main ones when left out.",
            autocompletion=completion.completer(completion.metrics, several=True),
        ),
    ] = None,
    runs: Annotated[
        str | None,
        typer.Option(
            help="Only these runs, by the beginnings of their ids, in one table; an error if they do not compare.",
            autocompletion=completion.completer(completion.runs, several=True),
        ),
    ] = None,
    baseline: Annotated[
        str,
        typer.Option(help="The row to compare with: l1_color, random_init:one-phase or a row's label; else random_init."),
    ] = "",
    with_published: Annotated[bool, typer.Option("--with-published", help="Add a table of published numbers.")] = False,
    compare_paper: Annotated[bool, typer.Option("--compare-paper", help="Put our scores beside the paper's Table 4.")] = False,
    selection: Annotated[
        bool, typer.Option("--selection", help="Add what choosing a probe's settings on the test split would have reported.")
    ] = False,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Add how alike fine-tuning and probes order the same rows, by Kendall's tau.")
    ] = False,
    variation: Annotated[
        bool, typer.Option("--variation", help="Add what share of a grid's variation is due to seeds, schedules, searches, ...")
    ] = False,
    html: Annotated[bool, typer.Option("--html", help="Write report.html too: tables, curves and images.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print Table 4 with intervals, paired differences, costs and Table 3 from the records, and write them as files.

    The files are leaderboard.csv, per_run.csv, per_class.csv, agreement.csv and table3.csv (see bench list columns), table4.md
    and table4.tex, in --out, and a CSV file for each of --selection, --sensitivity and --variation. The first four always have
    the protocols' metrics. With --json the values of all tables are printed, and the files are written all the same.
    """
    from results.report import Wanted

    chosen = names(metric or ""), names(runs or "")
    wanted = Wanted(
        *chosen, baseline, with_published, compare_paper, html, selection=selection, sensitivity=sensitivity, variation=variation
    )
    _publish(out, wanted, as_json)


def _publish(out: Path, wanted: Wanted, as_json: bool) -> None:
    """Print the report of an output folder, or its values, and write its files."""
    from bench.cli.screen import Screen
    from results import folder

    hold(out)
    records = folder.records_in(out)
    with alone(as_json) as publish:
        with Screen() as screen:
            screen.doing("comparing the rows of the tables")
            made, before = folder.report_of(records, out, wanted, shell(["bench", *sys.argv[1:]]))
        for problem in made.problems:
            warn(problem)
        unwritten = _written(made, out, before, not wanted.runs)
        if as_json:
            publish({**made.plain(), "files": [] if unwritten else list(made.files)})
        else:
            _show(made)
    if unwritten is not None:
        raise unwritten
    if not as_json:
        Screen().echo(f"wrote {', '.join(made.files)} in {out}")


def _show(made: Report) -> None:
    from bench.cli.screen import Screen, drawn

    screen = Screen()
    for table in made.tables:
        screen.table(drawn(table))
        screen.echo("")


def _written(made: Report, out: Path, before: Looks, looked: bool) -> MachineError | None:
    """Write the files of a report and, if it counts as a look, the log of looks; return why that failed, None where it did not.

    What was computed is shown all the same. A table of chosen runs is no look; it says itself that runs were chosen.
    """
    from bench.storage import files
    from results import folder

    try:
        for name, text in made.files.items():
            files.publish_file(out / name, text)
        if looked:
            folder.keep_look(made, out, before, warn)
    except MachineError as error:
        return error
    return None
