"""`bench run` and `bench tune`: run or tune a grid of pretext and downstream tasks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.cluster import LaunchPlan
from bench.cli.common import begin, check_places, on_several
from bench.cli.document import PlanJson, alone, check_plan
from bench.cli.launching import NONE, Wanted, is_worker, of_head, run_launched
from bench.cli.options import Out, Plan, Plugins, config_of, configured, fields
from bench.errors import SomeFailed, UsageError

if TYPE_CHECKING:
    from bench.cli.screen import Screen
    from bench.experiment import plan as planning
    from bench.experiment.session import Session
    from bench.record import Record

RUN_EXAMPLE = "bench run --pretext random_init,cgan_color --downstream voc_seg --seeds 3 --tune 8"
TUNE_EXAMPLE = "bench tune --pretext all --downstream voc_seg --trials 20"


@configured(*fields())
def run(
    options: dict[str, Any],
    launch: Wanted = NONE,
    out: Out = Path("runs"),
    plugin: Plugins = None,
    plan: Plan = False,
    as_json: PlanJson = False,
    audit: Annotated[
        bool, typer.Option("--audit", help="Load the weights of --init, hold them against real images, and train nothing.")
    ] = False,
) -> None:
    """Run every pretext task on every downstream task: pretrain or reuse the trunk, fine-tune, score once, write a record.

    Given again, the same command resumes interrupted runs and prints finished ones.
    """
    began = time.monotonic()
    check_plan(plan, as_json)
    launch.check(plan)
    config = config_of(options)
    if audit and (plan or not config.init):
        raise UsageError("--audit is for the weights of --init, and trains nothing; --plan stands alone.")
    if not launch.launcher:
        config = on_several(config, works=not (plan or audit))
    from bench.cli.screen import Screen

    with alone(as_json) as publish, Screen() as screen:
        begin(plugin, out, launches=bool(launch.launcher))
        check_places((*config.labelled_data, config.pretrain_data), config.storage)
        from bench.experiment.session import open_session

        if launch.launcher and not (plan or audit):
            run_launched(launch, config, out, screen)
            return
        session = open_session(of_head(launch, config), out, screen, planning=plan or audit)
        if audit:
            from bench.experiment.pretraining import audit as look_at

            look_at(session)
            return
        if not plan:
            _run(session, screen)
            return
        planned = _planned(session, began)
        of_launch = LaunchPlan(launch, config, out, [planned]) if launch.is_asked else None
        if as_json:
            from bench.experiment.plan_data import plan_data

            publish({**plan_data(planned), **({"launch": of_launch.data()} if of_launch else {})})
        else:
            from bench.cli.plan_text import print_plan

            print_plan(planned, screen)
            for line in of_launch.lines() if of_launch else ():
                screen.echo(line)


def _planned(session: Session, began: float) -> planning.Plan:
    from bench.experiment.plan import ANSWER, AT_LEAST, plan
    from bench.experiment.step_times import StepTimes

    return plan(session, StepTimes(session.machine, began + ANSWER, AT_LEAST))


def _run(session: Session, screen: Screen) -> None:
    """Run the jobs of a session and show the table of those that were finished, also when others failed."""
    from bench.cli.ending import show
    from bench.experiment.grid import run_grid
    from bench.experiment.start import announce
    from bench.experiment.together import follow, leading

    if not session.machine.world.leads:
        follow(session)
        return
    if is_worker():
        with leading(session):
            run_grid(session)
        return
    announce(session)
    made: list[Record] = []
    try:
        with leading(session):
            run_grid(session, made)
    except SomeFailed:
        show(made, session.out, screen)
        raise
    show(made, session.out, screen)


@configured(*fields(without=("seeds", "vary", "rates", "tune", "log")))
def tune(
    options: dict[str, Any],
    trials: Annotated[int, typer.Option(help="Finished trials of every pretext task on every downstream task.", min=1)],
    launch: Wanted = NONE,
    out: Out = Path("runs"),
    plugin: Plugins = None,
) -> None:
    """Search the learning rates of every cell on the validation split, with one budget, space, sampler and pruner for all.

    Start the command several times to use several processes: together they finish exactly as many trials as asked for.
    `bench run --tune N` with the same options then uses the rates that were found.
    """
    config = config_of({**options, "tune": trials})
    if not launch.launcher:
        config = on_several(config)
    from bench.cli.screen import Screen

    with Screen() as screen:
        begin(plugin, out, launches=bool(launch.launcher))
        check_places((*config.labelled_data, config.pretrain_data), config.storage)
        if launch.launcher:
            run_launched(launch, config, out, screen, searches=True)
            return
        from bench.experiment.grid import tune_grid
        from bench.experiment.session import open_session
        from bench.experiment.start import announce
        from bench.experiment.together import follow, leading

        session = open_session(config, out, screen)
        if not session.machine.world.leads:
            follow(session)
            return
        if not is_worker():
            announce(session, runs=False)
        with leading(session):
            tune_grid(session)
