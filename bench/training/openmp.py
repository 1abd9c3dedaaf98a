"""How long a waiting thread of OpenMP spins before it sleeps. OpenMP reads the setting once, when torch is imported.

Threads of libgomp, the OpenMP of torch's Linux wheels, spin for about 300,000 rounds by default. When another program uses one of
the processors, spinning threads take processor time from it and from the thread that they wait for, and a training step on two
threads becomes many times slower.
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


def settings_text() -> str:
    """Return which of `VARIABLES` are set and to what, as text."""
    return ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES if os.environ.get(name)) or "nothing is set"
