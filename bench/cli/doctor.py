"""`bench doctor`: check this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Out

EXAMPLE = "bench doctor --out /scratch/runs"


def doctor(
    out: Out = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Check this machine; exit with code 4 and say what to do when the main job could not run on it."""
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
