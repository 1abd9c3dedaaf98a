"""A worker ends with the process that watches over it, so that no worker is left computing where its node was given up."""

from __future__ import annotations

import ctypes
import os
import signal

FOLLOWS = "PRETEXT_BENCH_FOLLOWS"
"""The variable with the id of the process whose end is a worker's end."""
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """Have SIGTERM sent to this process when the one that `FOLLOWS` names dies; nothing where there is no such variable.

    The variable is removed, since it is not for the processes that this one starts.
    """
    parent = os.environ.pop(FOLLOWS, "")
    if not parent:
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before
        os.kill(os.getpid(), signal.SIGTERM)
