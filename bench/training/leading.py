"""Whether this process is one of several that work on a run together, and which: torchrun's engine says it."""

from __future__ import annotations

import os


def launched() -> bool:
    """Tell whether torchrun, or this program by torchrun's engine, started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def leads() -> bool:
    """Tell whether this process runs a command, and not only takes part in what another one leads."""
    return not launched() or os.environ.get("RANK", "0") == "0"


def here() -> tuple[int, int]:
    """Return this process's number on its machine, and how many of the processes are there."""
    return int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
