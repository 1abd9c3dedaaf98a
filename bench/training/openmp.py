"""OpenMP's threads: how long one that waits for the others spins before it sleeps. Torch reads it when it is imported.

Threads of libgomp, which torch's Linux wheels use, spin for about 300,000 rounds. Where another program has one of the
processors, they burn the time that it needs, and a training step on two threads is many times slower.
`python -m tests.benchmarks loaded` measures what 10,000 rounds change on an idle machine and beside busy neighbours.
"""

from __future__ import annotations

import os

SPINS = "10000"
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def spin_less() -> None:
    """Let waiting threads sleep sooner, unless the user set one of the variables that say how they wait."""
    if not any(os.environ.get(name) for name in VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = SPINS


def waiting() -> str:
    """Say what is set."""
    return ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES if os.environ.get(name)) or "nothing is set"
