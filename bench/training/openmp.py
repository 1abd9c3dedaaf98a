"""OpenMP's waiting threads: how long a thread spins before it sleeps. Torch reads the setting when it is imported.

Threads of libgomp, which torch's Linux wheels use, spin for about 300,000 rounds. When another program uses one of the
processors, spinning threads take the time that the program needs, and a training step on two threads is many times slower.
`python -m tests.benchmarks loaded` measures the effect of 10,000 rounds on an idle machine and beside busy programs.
"""

from __future__ import annotations

import os

SPINS = "10000"
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def spin_less() -> None:
    """Let waiting threads sleep after `SPINS` rounds, unless the user set one of `VARIABLES`."""
    if not any(os.environ.get(name) for name in VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = SPINS


def waiting() -> str:
    """Return the variables that are set, as text."""
    return ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES if os.environ.get(name)) or "nothing is set"
