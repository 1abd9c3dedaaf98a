"""One run on several devices of this machine: torchrun's engine starts the command again, once for each device."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Sequence

from bench.errors import Interrupted, MachineError
from bench.storage import parent

CODES = (0, 1, 2, 3, 4, 5, 130, 143)


def run_on(count: int, words: Sequence[str]) -> int:
    """Run `bench` with these words in `count` processes that work together, and return the exit code of the first that fails.

    0 where none does. Interrupted after a signal, once all of them have ended. MachineError where they cannot be started.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # what failed says so itself
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=uuid.uuid4().hex,
        local_addr="localhost",
        max_restarts=0,
        monitor_interval=0.2,
    )
    os.environ[parent.FOLLOWS] = str(os.getpid())  # if this process is killed, the others end
    try:
        elastic_launch(config, sys.executable)("-m", "bench", *words)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        if code < 0:
            raise MachineError(
                f"a process of this run was killed by signal {-code}; the same command goes on from the last checkpoint."
            ) from error
        if code not in CODES:
            raise MachineError(f"a process of this run ended with exit code {code}; run it again, and it goes on.") from error
        return code
    except SignalException as stopped:
        raise Interrupted(int(stopped.sigval)) from stopped
    return 0
