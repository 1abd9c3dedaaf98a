"""The command line: parse, call, print. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

import typer

from bench import __version__
from bench.cli.options import (
    CheckpointSeconds,
    Compiled,
    Data,
    Device,
    Downstream,
    Labels,
    Out,
    Plugins,
    Precision,
    Pretext,
    PretrainData,
    ProtocolName,
    ScheduleNames,
    Seed,
    Seeds,
    Settings,
    Size,
    SpaceText,
    Storage,
    Threads,
    TransferNames,
    TrunkName,
    Vary,
    Workers,
    names,
)
from bench.errors import BenchError, DataError, MachineError, UsageError
from bench.text import printable, printable_json, shell

EXIT_CODES = (
    "Exit codes: 0 done, 1 failure, 2 usage, 3 bad data, 4 environment (disk, permission, memory), 5 finished with failed runs, "
    "130 interrupted, 143 terminated."
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compare self-supervised pretext tasks: pretrain, transfer, fine-tune, score, and print the paper's Table 4.",
    epilog=EXIT_CODES,
)
data_app = typer.Typer(no_args_is_help=True, help="Prepare, verify and list data sets.")
app.add_typer(data_app, name="data")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"pretext-bench {__version__}")
        raise typer.Exit


_in_use = ExitStack()
"""Keeps `bench clean` out of the folders that this command uses."""


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Reach no other machine; PRETEXT_BENCH_OFFLINE=1 does the same.")
    ] = False,
) -> None:
    from bench.storage import offline as guard

    if offline or guard.is_forbidden():
        guard.forbid()
    context.with_resource(_in_use)


@app.command(epilog="Example: bench run --pretext random_init,cgan_color --downstream voc_seg --seeds 3 --tune 8")
def run(
    pretext: Pretext,
    downstream: Downstream,
    protocol: ProtocolName = None,
    data: Data = None,
    pretrain_data: PretrainData = None,
    trunk: TrunkName = None,
    size: Size = None,
    seed: Seed = None,
    seeds: Seeds = None,
    vary: Vary = "all",
    schedule: ScheduleNames = None,
    transfer: TransferNames = "all",
    labels: Labels = "1",
    settings: Settings = None,
    rates: Annotated[str, typer.Option(help="The learning rate of each phase by comma, instead of the protocol's.")] = "",
    trials: Annotated[
        int | None, typer.Option("--tune", help="Search the learning rates of every row with N trials first; 0 does not.", min=0)
    ] = None,
    space: SpaceText = "",
    storage: Storage = "",
    device: Device = "auto",
    threads: Threads = None,
    workers: Workers = None,
    checkpoint_seconds: CheckpointSeconds = 30.0,
    precision: Precision = "auto",
    compiled: Compiled = False,
    log: Annotated[str, typer.Option(help="tensorboard: event files beside every run, live.")] = "",
    out: Out = Path("runs"),
    plugin: Plugins = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would run and how long it would take; train nothing.")] = False,
) -> None:
    """Run every pretext task on every downstream task: pretrain or reuse the trunk, fine-tune, score once, leave a record.

    The same command again resumes what was interrupted and prints what is finished.
    """
    _begin(plugin, out)
    _check_places(data, pretrain_data, storage)
    from bench.cli.screen import Screen
    from bench.config import Asked
    from bench.experiment import grid

    asked = Asked(
        pretext=pretext,
        downstream=downstream,
        protocol=protocol,
        data=data,
        pretrain_data=pretrain_data,
        trunk=trunk,
        size=size,
        seed=seed,
        seeds=seeds,
        vary=vary,
        schedule=schedule,
        transfer=transfer,
        labels=labels,
        set=tuple(settings or ()),
        rates=rates,
        tune=trials or 0,
        space=space,
        storage=storage,
        device=device,
        threads=threads,
        workers=workers,
        checkpoint_seconds=checkpoint_seconds,
        precision=precision,
        compile=compiled,
        log=log,
    )
    search = asked.search()
    with Screen() as screen:
        session = grid.open_session(asked.request(), asked.options(), out, screen)
        if plan:
            from bench.experiment.plan import show

            show(session, screen, search)
        else:
            grid.run_grid(session, screen, search)


@app.command(epilog="Example: bench tune --pretext all --downstream voc_seg --trials 20")
def tune(
    pretext: Pretext,
    downstream: Downstream,
    trials: Annotated[int, typer.Option(help="Finished trials of every pretext task on every downstream task.", min=1)],
    space: SpaceText = "",
    storage: Storage = "",
    protocol: ProtocolName = None,
    data: Data = None,
    pretrain_data: PretrainData = None,
    trunk: TrunkName = None,
    size: Size = None,
    seed: Seed = None,
    schedule: ScheduleNames = None,
    transfer: TransferNames = "all",
    labels: Labels = "1",
    settings: Settings = None,
    device: Device = "auto",
    threads: Threads = None,
    workers: Workers = None,
    checkpoint_seconds: CheckpointSeconds = 30.0,
    precision: Precision = "auto",
    compiled: Compiled = False,
    out: Out = Path("runs"),
    plugin: Plugins = None,
) -> None:
    """Search the learning rates of every cell on the validation part, with one budget, space, sampler and pruner for all.

    Start it several times to use several processes: together they finish exactly the trials asked for. `bench run --tune N`
    with the same options then takes the rates from here.
    """
    _begin(plugin, out)
    _check_places(data, pretrain_data, storage)
    from bench.cli.screen import Screen
    from bench.config import Asked
    from bench.experiment import grid
    from bench.experiment.tuning import Search

    asked = Asked(
        pretext=pretext,
        downstream=downstream,
        protocol=protocol,
        data=data,
        pretrain_data=pretrain_data,
        trunk=trunk,
        size=size,
        seed=seed,
        schedule=schedule,
        transfer=transfer,
        labels=labels,
        set=tuple(settings or ()),
        device=device,
        threads=threads,
        workers=workers,
        checkpoint_seconds=checkpoint_seconds,
        precision=precision,
        compile=compiled,
    )
    with Screen() as screen:
        session = grid.open_session(asked.request(), asked.options(), out, screen)
        grid.tune_grid(session, screen, Search.parse(trials, space, storage))


@app.command(epilog="Example: bench report --metric map_voc,miou_voc --html")
def report(
    out: Out = Path("runs"),
    metric: Annotated[
        str | None,
        typer.Option(help="Metric ids for the columns, recomputed from the predictions; the protocols' main ones when left out."),
    ] = None,
    runs: Annotated[
        str | None,
        typer.Option(help="Only these runs, by the beginnings of their ids, in one table; refused when they cannot share one."),
    ] = None,
    baseline: Annotated[
        str,
        typer.Option(help="The row to compare with: l1_color, random_init:one-phase or a row's label; else random_init."),
    ] = "",
    with_published: Annotated[bool, typer.Option("--with-published", help="Published numbers in a table of their own.")] = False,
    compare_paper: Annotated[bool, typer.Option("--compare-paper", help="Ours beside the paper's Table 4.")] = False,
    html: Annotated[bool, typer.Option("--html", help="Write report.html too: tables, curves and images.")] = False,
) -> None:
    """Print Table 4 with intervals, paired differences, costs and Table 3 from the records, and write the files beside them.

    leaderboard.csv, per_run.csv, per_class.csv, agreement.csv (bench list columns), table4.md and table4.tex. The CSV files
    always hold the protocols' metrics.
    """
    from bench import record
    from bench.cli.screen import Screen, drawn
    from bench.storage import files
    from results import look_log
    from results.cache import Cache
    from results.report import Wanted, make

    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is no folder.")
    _hold(out)
    records = record.read(out)
    if not records:
        raise UsageError(f"{out} holds no finished runs yet; start with: bench run --pretext cgan_color --downstream voc_seg")
    wanted = Wanted(names(metric or ""), names(runs or ""), baseline, with_published, compare_paper, html)
    kept = out / "cache" / "report.json"
    cache = Cache.read(kept)
    before = look_log.read(out)
    made = make(records, out, wanted, shell(["bench", *sys.argv[1:]]), cache, before)
    for problem in made.problems:
        _warn(problem)
    if cache.changed:
        with suppress(MachineError):  # it saves time and nothing else
            files.publish_file(kept, cache.text())
    unwritten = None
    try:
        for name, text in made.files.items():
            files.publish_file(out / name, text)
        if not wanted.runs:  # a table of chosen runs says so itself
            look_log.keep(out, before, before.with_boards(made.boards, look_log.now()), out / "locks" / "looks.lock", _warn)
    except MachineError as error:
        unwritten = error
    screen = Screen()
    for table in made.tables:
        screen.table(drawn(table))
        screen.echo("")
    if unwritten is not None:
        raise unwritten
    screen.echo(f"wrote {', '.join(made.files)} in {out}")


@app.command("plan-seeds", epilog="Example: bench plan-seeds --points 1,3 --metric map_voc,miou_voc")
def plan_seeds(
    points: Annotated[str, typer.Option(help="Differences in points of a metric, by comma.")] = "1,3",
    metric: Annotated[str, typer.Option(help="Metric ids; the protocols' main ones when left out.")] = "",
    baseline: Annotated[str, typer.Option(help="The row to compare with, as for bench report.")] = "",
    out: Out = Path("runs"),
) -> None:
    """Say how many seeds would show a difference of some points, from how much the runs in --out vary.

    Each row needs two seeds at least. Seeds that are added because of what a table showed make its p values too small: say
    beforehand how many there will be.
    """
    from bench import record
    from bench.cli.options import numbers
    from bench.cli.screen import Screen, drawn
    from results import board, power
    from results.cache import Cache
    from results.predictions import reader

    wanted = numbers("--points", points)
    if not wanted or not all(0 < one <= 100 for one in wanted):
        raise UsageError(f"--points takes points above 0 and at most 100 by comma, but got {points!r}.")
    _hold(out)
    records = record.read(out)
    cache = Cache.read(out / "cache" / "report.json")
    boards = board.boards(records, reader(out), names(metric), baseline, cache=cache) if records else []
    tables = [table for one in boards if (table := power.table(one, wanted)) is not None]
    if not tables:
        raise UsageError(f"{out} holds no two rows with two seeds in common; the deviation over seeds is not known yet.")
    screen = Screen()
    for table in tables:
        screen.table(drawn(table))
        screen.echo("")


@app.command(epilog="Example: bench study results/studies/voc_mini")
def study(
    place: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder with a study.toml, or such a file.")],
    only: Annotated[str, typer.Option(help="Only these of its parts, by comma.")] = "",
    seeds: Seeds = None,
    trials: Annotated[int | None, typer.Option("--tune", help="Trials of every cell, instead of the study's.", min=0)] = None,
    settings: Settings = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    threads: Threads = None,
    workers: Workers = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of trunks and runs; runs/ and the folder's name when left out.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="Folder of the records and tables; the study's own when left out and nothing is changed.")
    ] = None,
    plugin: Plugins = None,
    html: Annotated[
        bool, typer.Option("--html", help="Write a page for each table too, with the images that lie in --out.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would run and how long it would take; train nothing.")] = False,
) -> None:
    """Run what is missing of a study, keep its records without images beside it, and write its tables from them.

    A study is a file with grids and tables (bench/study.py has an example). What its records already hold is not run again and
    needs no data. Several processes share the work.
    """
    from bench.cli.screen import Screen
    from bench.experiment import grid, study
    from bench.storage import files

    changes = study.Changes(seeds, trials, tuple(settings or ()))
    file = study.find(place)
    if changes and into is None:
        raise UsageError("--seeds, --tune and --set make another study of it; name a folder for its records with --into.")
    read = study.load(file, changes, study.Spread(device, threads, workers))
    folder = into or study.own_folder(file)
    runs = out or Path("runs") / study.own_folder(file.resolve()).name
    _begin(plugin, runs)
    files.make_folder(folder)
    with Screen() as screen:
        if plan:
            study.plan(read, runs, folder, names(only), screen)
            return
        failed = study.run(read, runs, folder, names(only), screen)
        written, wrong = study.tables(read, folder, screen, runs if html else None, shell(["bench", *sys.argv[1:]]))
        screen.echo(f"wrote {len(written)} files in {folder}")
    if failed or wrong:
        summary = BenchError("; ".join([*failed, *wrong]))
        summary.exit_code = grid.SOME_FAILED
        raise summary


@app.command("metrics", epilog="Example: bench metrics miou_voc")
def metrics_(
    metric: Annotated[str | None, typer.Argument(help="One metric; all when left out.")] = None,
) -> None:
    """Explain every metric: id and version, formula, source, a worked example."""
    from rich.console import Console

    from bench import metrics

    console = Console(highlight=False, soft_wrap=True)
    for one in [metrics.get(metric)] if metric else metrics.METRICS.values():
        console.print(f"{one.key}: {one.title}, computed from {one.needs}", style="bold", markup=False)
        console.print(metrics.explanation(one), markup=False)
        console.print()


@app.command("list", epilog="Example: bench list pretexts")
def list_(
    what: Annotated[
        str | None,
        typer.Argument(help="pretexts, downstreams, protocols, trunks, metrics, runs or columns; the first two when left out."),
    ] = None,
    out: Out = Path("runs"),
    plugin: Plugins = None,
) -> None:
    """List what there is, by name."""
    from bench.cli import listing
    from bench.cli.screen import print_rows

    _add(plugin)
    for name in [what] if what else ["pretexts", "downstreams"]:
        if not what:
            print(f"{name}:")
        print_rows(*listing.rows(name, out))


@app.command(epilog="Example: bench show cgan_color-voc_seg-0a1b2c3d4e5f")
def show(
    run: Annotated[str, typer.Argument(help="A run's id, or the beginning of it.")],
    out: Out = Path("runs"),
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole record, as it is on the disk.")] = False,
) -> None:
    """Print where a run came from, what it scored and cost, and the exact command that makes it again."""
    from rich.console import Console

    from bench.cli.screen import print_rows
    from bench.experiment import reproduction

    _add(plugin)
    one = reproduction.find(out, run)
    if as_json:
        Console(highlight=False, soft_wrap=True).print(printable_json(one.model_dump_json(indent=2)), markup=False)
        return
    print_rows(*reproduction.story(one))
    print()
    try:
        print(shell(reproduction.command(one)))
    except DataError as error:  # an earlier run, which no command makes any more
        _warn(str(error))
        return
    changed = reproduction.changed_since(one)
    if changed:
        _warn(f"the command makes another run than this one: {changed}")


@app.command(epilog="Example: bench reproduce cgan_color-voc_seg-0a1b2c3d4e5f")
def reproduce(
    run: Annotated[str, typer.Argument(help="A run's id, or the beginning of it.")],
    out: Out = Path("runs"),
    into: Annotated[Path | None, typer.Option(help="Folder for the new run; OUT/reproduced/RUN when left out.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="How far a metric may be off; without it no bit on such a CPU and 0.02 elsewhere.", min=0)
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    workers: Workers = None,
    plugin: Plugins = None,
) -> None:
    """Make a run again from its record alone, pretraining included, and compare weights, predictions and metrics.

    The threads are the record's when left out: on a processor of the same kind, with as many threads and the same torch, the
    result is equal to the bit. Busy it says what differs, and compares metrics.
    """
    from bench.cli.screen import Screen, print_rows
    from bench.experiment import grid, reproduction
    from bench.storage import files

    _begin(plugin, out)
    one = reproduction.find(out, run)
    was = one.provenance["machine"]
    threads = threads if threads is not None else was["threads"]
    precision = was["precision"] if was["type"] == "cpu" else "auto"
    folder = into or out / "reproduced" / one.id
    if into is None:
        files.remove_folder(folder)
    _use(folder)
    with Screen() as screen:
        options = grid.Options(device, threads, workers, precision=precision, compiled=was.get("compiled", False))
        made = reproduction.reproduce(one, folder, options, screen)
    compared = reproduction.compare(one, made, tolerance)
    print_rows(*compared.rows)
    if not compared.equal:
        raise BenchError(compared.verdict)
    print(compared.verdict)


@app.command(epilog="Example: bench doctor --out /scratch/runs")
def doctor(
    out: Out = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="The checks as JSON.")] = False,
) -> None:
    """Say what this machine promises, and leave with 4 and the remedy when the main job could not run on it."""
    from bench.cli.screen import print_rows
    from bench.maintenance import doctor

    checks = doctor.examine(out)
    if as_json:
        print(doctor.as_json(checks))
    else:
        print_rows(*doctor.rows(checks))
    problem = doctor.problem_of(checks)
    if problem is not None:
        raise problem


@app.command(epilog="Example: bench clean cache packs")
def clean(
    kinds: Annotated[
        list[str] | None, typer.Argument(metavar="[KIND]...", help="What to remove, or all; when left out, nothing is.")
    ] = None,
    out: Out = Path("runs"),
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be removed; remove nothing.")] = False,
) -> None:
    """Say how much room is taken by what no record needs, and remove the kinds that are named.

    Records stay with all that they refer to, and so do splits and prepared data sets.
    """
    from bench.cli.screen import print_rows
    from bench.maintenance import clean
    from bench.storage.disk import amount

    if plan or not kinds:
        print_rows(*clean.rows(clean.survey(kinds or (), out)))
        return
    with clean.alone(kinds, out):
        found = clean.survey(kinds, out)
        freed = clean.remove(found)
    print_rows(*clean.rows(found))
    print(f"freed {amount(freed)}")


@data_app.command(epilog="Example: bench data prepare voc2012 --root ~/data/VOCdevkit")
def prepare(
    name: Annotated[str, typer.Argument(help="voc2012, voc2007, coco2014, coco2017, demo, or a name of your own with --root.")],
    root: Annotated[
        Path | None, typer.Option(help="Take this folder (VOCdevkit, COCO or any images) and download nothing.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Leave out files whose names match, for example 'animalweb_*'.")
    ] = None,
    score: Annotated[str | None, typer.Option(help="The classes that tests can judge, by comma; all when left out.")] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out images that do not decode, or whose mask does not; each is named.")
    ] = False,
) -> None:
    """Download a data set or take a folder, verify it by decoding every image, and put it under its name."""
    from bench.cli.screen import Screen
    from bench.data import catalogue, download
    from bench.storage import files

    _use()
    with Screen() as screen:
        if name == catalogue.DEMO_LABELLED and root is None:
            made = [catalogue.open_dataset(demo, screen.echo) for demo in (catalogue.DEMO_LABELLED, catalogue.DEMO_UNLABELLED)]
        else:
            folder = root if root is not None else download.fetch(name, files.home() / "downloads", screen)
            screen.echo(f"reading and decoding every image of {name}")
            found = catalogue.read(folder, _set_name(name), exclude or (), names(score or ""))
            made = [catalogue.register(found, skip_broken, screen.echo)]
        for dataset in made:
            left_out = f" ({len(dataset.broken):,} left out)" if dataset.broken else ""
            screen.echo(
                f"{dataset.name} is ready: {len(dataset.images):,} images{left_out}, fingerprint {dataset.fingerprint[:12]}"
            )


@data_app.command(epilog="Example: bench data verify ~/data/VOCdevkit")
def verify(
    path: Annotated[str, typer.Argument(help="A prepared set's name or a folder.")],
) -> None:
    """Decode every image and mask; for a prepared set, compare with what was prepared."""
    from bench.cli.screen import Screen
    from bench.data import catalogue
    from bench.storage import files

    _hold(files.home())
    screen = Screen()
    checked = catalogue.verify(path)
    screen.echo(f"{checked.name}: {len(checked.images):,} images decode, fingerprint {checked.fingerprint[:12]}")


@data_app.command("list", epilog="Example: bench data list")
def list_data() -> None:
    """List the prepared data sets: what, where, how many images, which fingerprint."""
    from bench.cli import listing
    from bench.cli.screen import print_rows

    print_rows(*listing.data())


def _set_name(name: str) -> str:
    if not name or not all(character.isalnum() or character in "_-." for character in name) or name.startswith("."):
        raise UsageError(f"a data set's name is letters, digits, '_', '-' and '.', but got {name!r}.")
    return name


def _begin(plugins: list[Path] | None, out: Path) -> None:
    """Take the plug-ins, and fail early where nothing can be written."""
    _add(plugins)
    _use(out)


def _use(*folders: Path) -> None:
    """Make the home folder and some others, fail where they cannot be written, and keep `bench clean` out of them."""
    from bench.storage import files

    for folder in (files.home(), *folders):
        _hold(files.make_folder(folder))


def _hold(folder: Path) -> None:
    """Keep `bench clean` out of a folder until this command ends."""
    from bench.storage import locks

    _in_use.enter_context(locks.using(folder, _warn))


def _warn(text: str) -> None:
    print(f"bench: {printable(text)}", file=sys.stderr)


def _check_places(data: str | None, pretrain_data: str | None, storage: str) -> None:
    """Fail before anything is loaded for data that is not here and a database that may not be reached."""
    from bench.data import catalogue
    from bench.storage import offline

    catalogue.check_prepared(data, pretrain_data)
    offline.check_storage(storage)


def _add(plugins: list[Path] | None) -> None:
    from bench import registry

    for path in plugins or ():
        registry.add_plugin(path)
