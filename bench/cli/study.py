"""`bench study`: run the grids of a study's file and write its tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.common import begin
from bench.cli.document import PlanJson, alone, check_plan
from bench.cli.options import Plan, Plugins, checked, configured
from bench.config import names
from bench.errors import SomeFailed, UsageError
from bench.text import shell

if TYPE_CHECKING:
    from bench.cli.screen import Screen
    from bench.experiment import plan as planning

EXAMPLE = "bench study results/studies/voc_mini"


@configured("seeds", "tune", "settings", "device", "threads", "workers")
def study(
    place: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder with a study.toml, or the file of a study.")],
    options: dict[str, Any],
    only: Annotated[str, typer.Option(help="Only these parts of the study, separated by commas.")] = "",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of trunks and runs; runs/NAME when left out, after the study's folder.", callback=checked),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            help="Folder of records and tables; the study's own when left out. --seeds, --tune and --set need one.",
            callback=checked,
        ),
    ] = None,
    plugin: Plugins = None,
    html: Annotated[bool, typer.Option("--html", help="Write a page for each table, too, with the images in --out.")] = False,
    plan: Plan = False,
    as_json: PlanJson = False,
) -> None:
    """Run the missing runs of a study, keep the records without images beside its file, and write its tables from them.

    A study is a file with grids and tables. Runs that the records already hold are not run again and need no data. Several
    processes can share the work. Options given here override those of every part of the study.
    """
    from bench.cli.screen import Screen
    from bench.experiment import study, study_file
    from bench.storage import files

    began = time.monotonic()
    check_plan(plan, as_json)
    file = study_file.find(place)
    if into is None and any(name in options for name in study_file.RESULTS):
        raise UsageError("--seeds, --tune and --set change a study's results; name another folder for the records with --into.")
    read = study_file.load(file, options)
    folder = into or study_file.own_folder(file)
    runs = out or Path("runs") / study_file.own_folder(file.resolve()).name
    with alone(as_json) as publish, Screen() as screen:
        begin(plugin, runs)
        files.make_folder(folder)
        if plan:
            from bench.experiment.plan import ANSWER

            made = study.plan(read, runs, folder, names(only), screen, began + ANSWER)
            if as_json:
                from bench.experiment.plan_data import study_data

                parts = dict(made)
                publish(study_data(parts, [name for name in names(only) or read.parts if name not in parts]))
            else:
                _print_plan(made, screen)
            return
        failed = study.run(read, runs, folder, names(only), screen)
        written, wrong = study.tables(read, folder, screen, runs if html else None, shell(["bench", *sys.argv[1:]]))
        screen.echo(f"wrote {len(written)} files in {folder}")
    if failed or wrong:
        raise SomeFailed("; ".join([*failed, *wrong]))


def _print_plan(made: Iterable[tuple[str, planning.Plan]], screen: Screen) -> None:
    """Print the plan of each part once it is made, then where times are from and how long all parts take."""
    from bench.cli.plan_text import print_plan
    from bench.experiment.plan_words import origins, total

    seconds, timed = [], {}
    for name, planned in made:
        screen.echo(f"{name}:")
        print_plan(planned, screen, of_study=True)
        screen.echo("")
        seconds.append(planned.seconds)
        timed[id(planned.times)] = planned.times
    for text in (text for times in timed.values() for text in origins(times)):
        screen.echo(text)
    if len(seconds) > 1:
        screen.echo(f"the {len(seconds)} parts together: {total(sum(seconds))}; work that they share is counted once")
