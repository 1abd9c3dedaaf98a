"""Puts the command line together from the commands' files. Slow imports are left to the commands that need them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bench import __version__
from bench.cli import (
    clean,
    data,
    doctor,
    export,
    listing,
    metrics,
    plan_seeds,
    report,
    reproduce,
    run,
    show,
    status,
    study,
    usage,
)
from bench.cli.common import in_use
from bench.errors import EXIT_CODES

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compare self-supervised pretext tasks: pretrain, transfer, fine-tune, score, and print the paper's Table 4.",
    epilog=EXIT_CODES,
)
data_app = typer.Typer(no_args_is_help=True, help="Prepare, verify and list data sets.")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pretext-bench {__version__}")
        raise typer.Exit


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
    context.with_resource(in_use)


for command, name, example in (
    (run.run, "run", run.RUN_EXAMPLE),
    (run.tune, "tune", run.TUNE_EXAMPLE),
    (report.report, "report", report.EXAMPLE),
    (plan_seeds.plan_seeds, "plan-seeds", plan_seeds.EXAMPLE),
    (study.study, "study", study.EXAMPLE),
    (status.status, "status", status.EXAMPLE),
    (metrics.metrics, "metrics", metrics.EXAMPLE),
    (listing.list_, "list", listing.EXAMPLE),
    (show.show, "show", show.EXAMPLE),
    (reproduce.reproduce, "reproduce", reproduce.EXAMPLE),
    (export.export, "export", export.EXAMPLE),
    (doctor.doctor, "doctor", doctor.EXAMPLE),
    (clean.clean, "clean", clean.EXAMPLE),
):
    app.command(name, epilog=f"Example: {example}")(command)
for command, name, example in (
    (data.prepare, "prepare", data.PREPARE_EXAMPLE),
    (data.verify, "verify", data.VERIFY_EXAMPLE),
    (data.list_data, "list", data.LIST_EXAMPLE),
):
    data_app.command(name, epilog=f"Example: {example}")(command)
app.add_typer(data_app, name="data")


def call() -> None:
    """Run the command that was typed and leave with its exit code; a UsageError says what is wrong with the command line."""
    try:
        code = app(standalone_mode=False)
    except Exception as error:
        if not usage.is_parsers(error):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            sys.exit(2)
        raise usage.in_words(error) from error
    if isinstance(code, int) and code:
        sys.exit(code)
