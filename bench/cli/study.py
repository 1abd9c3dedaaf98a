"""`bench study`: run the grids of a study's file and write its tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.cluster import LaunchPlan
from bench.cli.common import begin
from bench.cli.document import PlanJson, alone, check_plan
from bench.cli.launching import NONE, Wanted, is_worker, run_study
from bench.cli.options import Plan, Plugins, checked, configured
from bench.config import names
from bench.errors import SomeFailed, UsageError
from bench.text import shell

if TYPE_CHECKING:
    from bench.cli.screen import Screen
    from bench.experiment import plan as planning
    from bench.experiment.study_file import Study

EXAMPLE = "bench study results/studies/voc_mini"


@configured("seeds", "tune", "settings", "device", "devices", "threads", "workers")
def study(
    place: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder with a study.toml, or the file of a study.")],
    options: dict[str, Any],
    launch: Wanted = NONE,
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
    _check_devices(options, launch)
    launch.check(plan)
    file = study_file.find(place)
    read = study_file.load(file, options)
    folder = into or study_file.own_folder(file)
    changed = [name for name in study_file.RESULTS if name in options]
    if changed and folder.resolve() == study_file.own_folder(file).resolve():
        raise UsageError(
            "--seeds, --tune and --set change a study's results; with --into name a folder other than the study's own."
        )
    runs = out or Path("runs") / study_file.own_folder(file.resolve()).name
    with alone(as_json) as publish, Screen() as screen:
        begin(plugin, runs, launches=bool(launch.launcher))
        files.make_folder(folder)
        if plan:
            from bench.experiment.plan import ANSWER

            made = study.plan(read, runs, folder, names(only), screen, began + ANSWER)
            _tell_plan(made, launch, read, publish if as_json else None, screen, names(only))
            return
        if launch.launcher:
            wrong = run_study(launch, read, runs, folder, names(only), screen)
        else:
            wrong = study.run(read, runs, folder, names(only), screen, keeps=not is_worker())
        if not (is_worker() or launch.detach):
            wrong += _write_tables(read, folder, screen, runs if html else None)
    if wrong:
        raise SomeFailed("; ".join(wrong))


def _check_devices(options: dict[str, Any], launch: Wanted) -> None:
    """Raise UsageError for several devices of one run: the processes of a run cannot read a study's records while they change."""
    from bench.training.devices import named

    several = len(named(options.get("devices", ""), options.get("device", "auto"))) > 1
    if several and launch.launcher != "local":
        raise UsageError("bench study gives a run one device: --launcher local has a worker on each of --devices.")


def _write_tables(read: Study, folder: Path, screen: Screen, images: Path | None) -> list[str]:
    """Write the tables of a study, and print them where it has a preregistration; return the reasons of those that failed."""
    from bench.cli.screen import drawn
    from bench.experiment import study_tables

    made = study_tables.write(read, folder, screen, images, shell(["bench", *sys.argv[1:]]))
    if made.confirmatory is not None:
        screen.table(drawn(made.confirmatory))
        for name, table in ((name, table) for name, found in made.exploratory.items() for table in found):
            screen.table(drawn(replace(table, title=f"Exploratory, {name}. {table.title}")))
    screen.echo(f"wrote {len(made.files)} files in {folder}")
    return made.failed


def _tell_plan(
    made: Iterable[tuple[str, planning.Plan]],
    launch: Wanted,
    read: Study,
    publish: Callable[[Any], None] | None,
    screen: Screen,
    only: Sequence[str],
) -> None:
    """Print the plans of a study's parts, with what a launch of them costs where one is asked for; as JSON with `publish`."""
    parts: dict[str, planning.Plan] = {}

    def kept() -> Iterator[tuple[str, planning.Plan]]:
        for name, one in made:
            parts[name] = one
            yield name, one

    if publish is None:
        _print_plan(kept(), screen)
    else:
        parts |= dict(made)
    of_launch = None
    if launch.is_asked and parts:
        first = next(iter(parts.values())).session
        of_launch = LaunchPlan(launch, first.config, first.out, list(parts.values()))
    if publish is not None:
        from bench.experiment.plan_data import study_data

        told = study_data(parts, [name for name in only or read.parts if name not in parts])
        publish({**told, **({"launch": of_launch.data()} if of_launch else {})})
    elif of_launch is not None:
        for line in of_launch.lines():
            screen.echo(line)


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
