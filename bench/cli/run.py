"""`bench run` and `bench tune`: run or tune a grid of pretext and downstream tasks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli.common import begin, check_places
from bench.cli.options import Out, Plan, Plugins, config_of, configured, fields

RUN_EXAMPLE = "bench run --pretext random_init,cgan_color --downstream voc_seg --seeds 3 --tune 8"
TUNE_EXAMPLE = "bench tune --pretext all --downstream voc_seg --trials 20"


@configured(*fields())
def run(options: dict[str, Any], out: Out = Path("runs"), plugin: Plugins = None, plan: Plan = False) -> None:
    """Run every pretext task on every downstream task: pretrain or reuse the trunk, fine-tune, score once, write a record.

    Given again, the same command resumes interrupted runs and prints finished ones.
    """
    began = time.monotonic()
    config = config_of(options)
    begin(plugin, out)
    check_places(config.labelled_data, config.pretrain_data, config.storage)
    from bench.cli.plan_text import print_plan
    from bench.cli.screen import Screen
    from bench.experiment.session import open_session

    with Screen() as screen:
        session = open_session(config, out, screen, planning=plan)
        if plan:
            from bench.experiment.plan import ANSWER
            from bench.experiment.plan import plan as make_plan
            from bench.experiment.step_times import StepTimes

            print_plan(make_plan(session, StepTimes(session.machine, began + ANSWER)), screen)
        else:
            from bench.experiment.grid import run_grid

            run_grid(session)


@configured(*fields(without=("seeds", "vary", "rates", "tune", "log")))
def tune(
    options: dict[str, Any],
    trials: Annotated[int, typer.Option(help="Finished trials of every pretext task on every downstream task.", min=1)],
    out: Out = Path("runs"),
    plugin: Plugins = None,
) -> None:
    """Search the learning rates of every cell on the validation split, with one budget, space, sampler and pruner for all.

    Start the command several times to use several processes: together they finish exactly as many trials as asked for.
    `bench run --tune N` with the same options then uses the rates that were found.
    """
    config = config_of({**options, "tune": trials})
    begin(plugin, out)
    check_places(config.labelled_data, config.pretrain_data, config.storage)
    from bench.cli.screen import Screen
    from bench.experiment.grid import tune_grid
    from bench.experiment.session import open_session

    with Screen() as screen:
        tune_grid(open_session(config, out, screen))
