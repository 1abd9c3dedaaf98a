"""A plan as JSON values: what was chosen and why, the work, how long it takes, and what takes less."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.experiment.plan import Plan
from bench.experiment.plan_words import warning, with_protocol
from bench.experiment.session import chosen
from bench.experiment.step_times import StepTimes
from bench.text import shell


def plan_data(planned: Plan) -> dict[str, Any]:
    """Return the plan of a command. Seconds are those that are left on this machine, without packing and files.

    - chosen: name, value and why of each choice
    - lines: kind (trunk, search or run), name, state as the screen says it, the number of pieces and of those left, seconds
    - seconds: of all lines together
    - offers: protocol, seconds and command, for other protocols
    - step_times: where the time of a step of each kind is from
    - warnings: that it takes days, and steps that could not be timed
    """
    offers = [
        {
            "protocol": name,
            "seconds": _rounded(seconds),
            "command": shell(with_protocol(["bench", *planned.session.command], name)),
        }
        for name, seconds in planned.others.items()
        if seconds and planned.seconds
    ]
    warnings = [*_not_timed([planned.times]), *_of_days(planned, of_study=False)]
    return {**_work(planned), "offers": offers, "step_times": planned.times.origins, "warnings": warnings}


def study_data(parts: Mapping[str, Plan], finished: Iterable[str]) -> dict[str, Any]:
    """Return the plans of the parts of a study that are to be run, and the names of those that are `finished`.

    Each part has its chosen, lines, seconds and warnings. Work that parts share is counted in the first of them alone.
    """
    times = list({id(planned.times): planned.times for planned in parts.values()}.values())
    plans = [{"part": name, **_work(one), "warnings": _of_days(one, of_study=True)} for name, one in parts.items()]
    return {
        "parts": plans,
        "finished": list(finished),
        "seconds": _rounded(sum(planned.seconds for planned in parts.values())),
        "step_times": {name: origin for one in times for name, origin in one.origins.items()},
        "warnings": _not_timed(times),
    }


def _work(planned: Plan) -> dict[str, Any]:
    lines = [
        {
            "kind": line.kind,
            "name": line.name.strip(),
            "state": line.state,
            "pieces": line.pieces,
            "left": line.left,
            "seconds": _rounded(line.seconds),
        }
        for line in planned.lines
    ]
    choices = [{"name": one.name, "value": one.value, "why": one.why} for one in chosen(planned.session)]
    return {"chosen": choices, "lines": lines, "seconds": _rounded(planned.seconds)}


def _not_timed(times: Iterable[StepTimes]) -> list[str]:
    return [f"a step could not be timed: {problem}" for one in times for problem in one.problems]


def _of_days(planned: Plan, of_study: bool) -> list[str]:
    """Return the warning of a plan that takes days, without the command, which is among the offers."""
    return [text.removeprefix("warning: ").rstrip(":") for text in warning(planned, of_study)[:1]]


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
