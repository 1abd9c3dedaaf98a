"""`bench status`: how far the work in an output folder is, and whose log has a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.document import alone
from bench.cli.options import Out
from bench.text import duration, hours

if TYPE_CHECKING:
    from bench.launch.status import Status

EXAMPLE = "bench status --out runs"
COUNTS = {"finished": "finished", "begun": "at work", "waiting": "waiting", "failed": "failed"}


def status(
    run: Annotated[
        str | None, typer.Argument(help="The id of a run, a trunk or a search, or its beginning: say whose log has it.")
    ] = None,
    out: Out = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say of the last launch what is done, at work, waiting and failed, and when it will be done.

    Where nothing was launched, say what is finished, what is at work now, and what failed.
    """
    from bench.launch import status as statuses

    with alone(as_json) as publish:
        if run is not None:
            found = statuses.find(out, run)
            if as_json:
                publish([vars(one) for one in found])
            for one in found if not as_json else ():
                print(f"{one.id}: {one.state}{''.join(f'{chr(10)}  {log}' for log in one.logs)}")
            return
        now = statuses.of(out)
        if as_json:
            publish(statuses.data(now))
        else:
            _print(now, statuses.data(now))


def _print(status: Status, told: dict[str, Any]) -> None:
    from bench.cli.screen import print_rows

    launch = status.launch
    if launch is None:
        print(f"nothing was launched in {status.out}; {told['finished']:,} runs are finished, {told['failed']:,} failed")
    else:
        print(f"launch {launch.id} by {launch.launcher}, begun {launch.created}, logs in {launch.folder}")
        if status.problem:
            print(f"the workers' states are not known: {status.problem}")
        codes = launch.measured.get("codes", {})
        rows: list[tuple[str, ...]] = [
            (str(one.number), _state(one.state, codes.get(str(one.number), one.code)), one.where) for one in status.workers
        ]
        print_rows(("Worker", "State", "Where"), rows)
        print()
        what = "searches" if any(part.planned.searches_only for part in status.parts) else "runs"
        counts = ", ".join(f"{told[name]:,} {said}" for name, said in COUNTS.items())
        print(f"{told['total']:,} {what}: {counts}")
        if launch.measured:
            spent = launch.measured
            print(f"measured: {hours(3600 * spent['device_hours'])} of training in {duration(spent['wall_seconds'])}")
    if status.at_work:
        print()
        print_rows(
            ("At work", "What", "By", "For"), [(one.id, one.kind, one.by, duration(one.seconds)) for one in status.at_work]
        )
    for failed in status.failed:
        print(f"failed: {failed.id}: {failed.reason}{f' (log {failed.log})' if failed.log else ''}")
    if launch is not None and told["until"]:
        print(_end(status, told))


def _state(state: str, code: int | None) -> str:
    return state if code is None else f"{state}, exit code {code}"


def _end(status: Status, told: dict[str, Any]) -> str:
    alive = sum(one.state != "ended" for one in status.workers)
    if not alive and not status.problem:
        return "no worker is left; the same command goes on from here"
    left = f"about {duration(told['seconds_left'])} left"
    return f"{left} ({duration(told['seconds_of_work_left'])} of work for {alive} workers), until {told['until']}"
