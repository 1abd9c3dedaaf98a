"""The script `bench`: run the command line and turn our errors into one sentence and an exit code."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

STOPS = (signal.SIGINT, signal.SIGTERM)
LOST = 4
"""The exit code of one of several processes that has something to say that the first one may not know."""


def main() -> None:
    """Run `bench` and leave with its exit code."""
    from bench.storage import parent
    from bench.training import openmp

    openmp.spin_less()  # before torch is imported
    parent.end_with_parent()
    from bench.errors import TRACEBACK, BenchError, Interrupted, explained, let_workers_end
    from bench.text import printable

    def stop(number: int, _: FrameType | None) -> NoReturn:
        raise _Stopped(number)

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the terminal does not have is a question mark, and no error
    try:
        for number in STOPS:
            signal.signal(number, stop)
        from bench.cli.app import call

        call()
    except _Stopped as stopped:
        let_workers_end()
        told: BenchError = Interrupted(stopped.number)
        _leave(str(told), told.exit_code)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        let_workers_end()
        if os.environ.get(TRACEBACK) and not isinstance(error, BenchError):
            raise
        told = explained(error)
        _leave(printable(str(told)), told.exit_code)
    finally:  # what Python calls on its way out is ended by a signal, not by an exception
        for number in STOPS:
            signal.signal(number, signal.SIG_DFL)


class _Stopped(BaseException):
    """SIGINT or SIGTERM came while nothing was trained; what trains makes a checkpoint first (`machine.stoppable`)."""

    def __init__(self, number: int) -> None:
        self.number = number


def _leave(sentence: str, code: int) -> NoReturn:
    from bench.training import leading

    if not leading.leads() and code != LOST:  # the first process says it
        sys.exit(code)
    with contextlib.suppress(OSError):
        print(f"bench: {sentence}", file=sys.stderr, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
