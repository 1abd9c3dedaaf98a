"""`bench doctor`: what this machine promises."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Out

EXAMPLE = "bench doctor --out /scratch/runs"


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
