"""What a command says before its work begins: how long it takes, and what takes less where that is days."""

from __future__ import annotations

import time

from bench.experiment.plan import DAY, others_of, plan
from bench.experiment.plan_words import total, warning
from bench.experiment.session import Session, chosen
from bench.experiment.step_times import StepTimes

AT_START = 2.0
"""Seconds in which steps are timed before the work begins."""
SAID = {"protocol": "protocol {}", "size": "{}", "trunk": "trunk {}", "threads": "threads {}"}
"""What was chosen and is said at the start; device, precision and data are said with the number of runs."""


def announce(session: Session, runs: bool = True) -> None:
    """Say what was chosen and how long the work takes, and note its pieces for the time left; nothing when all is done.

    Without `runs` only searches and their trunks are made. When the work takes more than a day, what takes less is offered.
    """
    made = plan(session, StepTimes(session.machine, time.monotonic() + AT_START), others=False, runs=runs)
    if not made.seconds:
        return
    rows = {one.name: one for one in chosen(session)}
    words = [text.format(rows[name].text) + f" ({rows[name].why})" for name, text in SAID.items()]
    session.echo(f"{', '.join(words)}: {total(made.seconds)}")
    if made.seconds > DAY:
        made.others = others_of(made)
    for text in warning(made):
        session.echo(text)
    session.remaining.pieces.update(made.pieces)
