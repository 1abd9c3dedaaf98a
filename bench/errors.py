"""Errors that a user can act on: each is one sentence, with an exit code that a script can test.

`EXIT_CODES` lists the codes.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import signal
import traceback
from collections.abc import Iterable

from bench.text import quoted

EXIT_CODES = (
    "Exit codes: 0 done, 1 failure, 2 usage, 3 bad data, 4 environment (disk, permission, memory, network), "
    "5 finished with failed runs or tables, 130 interrupted (SIGINT), 143 terminated (SIGTERM)."
)
MANY = 30
"""More names than this are not all listed."""


class BenchError(Exception):
    """What went wrong, in one sentence; the process ends with `exit_code`."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows of the error: its sentence, and with `TRACEBACK` set everything."""
        if os.environ.get(TRACEBACK):
            raise AttributeError  # a notebook then does what it does with other errors
        return [f"{type(self).__name__}: {self}"]


class UsageError(BenchError):
    """Something was asked for that does not exist or does not fit together."""

    exit_code = 2


class DataError(BenchError):
    """A data set, an image, a mask, a checkpoint or a record that cannot be used as it is."""

    exit_code = 3


class MachineError(BenchError):
    """The machine does not allow it: disk, permission, memory, network."""

    exit_code = 4


class StorageError(MachineError):
    """The database that all searches of a command share does not work: the command ends, since no other search can run."""


class OutOfMemory(MachineError):
    """The memory of the machine or of a GPU ran out."""


class LostProcess(MachineError):
    """One of the processes that work on a run together failed alone or was killed: the command ends, and all of them with it."""


class SomeFailed(BenchError):
    """Some runs or tables of a command failed; the others are finished."""

    exit_code = 5


class Diverged(BenchError):
    """A loss that is not a number: the learning rate is too high, or the task is broken.

    `images` counts the images trained on until then: of pretraining, or of all phases of fine-tuning.
    """

    images = 0


class Interrupted(BenchError):
    """The user or the system asked to stop; what is finished so far is on the disk."""

    def __init__(self, signal_number: int) -> None:
        super().__init__("stopped; the same command goes on from here")
        self.exit_code = 128 + signal_number


TRACEBACK = "PRETEXT_BENCH_TRACEBACK"
"""The environment variable with which an unexpected error shows where it came from."""


GPU_ERROR = re.compile(
    "cuda error|cuda call failed|cuda unknown|cuda-capable|cuda driver|nvidia driver|"
    "cudnn|cublas|cusolver|unable to find an engine",
    re.IGNORECASE,
)
"""What the errors of CUDA, its driver and its libraries say."""


def out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, of the machine or of a GPU: torch has several errors for it."""
    texts = (
        "out of memory",
        "can't allocate memory",
        "cannot allocate memory",
        "not enough memory",
        "bad_alloc",
        "bad allocation",
        "cublas_status_alloc_failed",
        "cudnn_status_alloc_failed",
    )
    said = str(error).lower()
    if said.rstrip(". \n").endswith("could not create a primitive"):  # oneDNN; a wrong shape ends in 'primitive descriptor'
        return True
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(text in said for text in texts))


def _gpu_failed(error: BaseException) -> bool:
    """Tell whether an error comes from CUDA, its driver or its libraries; torch's own errors name the tensors instead."""
    kinds = isinstance(error, RuntimeError) or type(error).__name__ == "DeferredCudaCallError"
    return kinds and GPU_ERROR.search(str(error)) is not None


def let_workers_end() -> None:
    """Ignore the ends of data workers from now on: once one has died, torch raises an error for each, wherever the program is."""
    with contextlib.suppress(ValueError):  # signals are the main thread's alone
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def explained(error: Exception) -> BenchError:
    """Return any error as one that a user can act on, with one sentence and an exit code.

    Once a data worker has died, the ends of the others are ignored.
    """
    if isinstance(error, BenchError):
        return error
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):  # torch raises it wherever the process then is
        let_workers_end()
        return MachineError(f"a data worker died ({_first_line(error)}); run again, or with --workers 0.")
    if isinstance(error, RuntimeError) and "DataLoader timed out" in str(error):
        return MachineError(f"the data workers sent no images in time ({_first_line(error)}); run again, or with --workers 0.")
    if out_of_memory(error):
        return OutOfMemory("out of memory; choose a smaller --size, trunk or batch size.")
    if type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
        return MachineError(f"the networks cannot be compiled here ({_first_line(error)}); run without --compile.")
    if _gpu_failed(error):
        return MachineError(
            f"the GPU failed ({_first_line(error)}): its memory may be full, its driver may not fit torch, or a task gave a "
            "wrong index; try a smaller batch size, ask `bench doctor`, or find the place with --device cpu."
        )
    if isinstance(error, OSError):
        return MachineError(f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}.")
    frames = traceback.extract_tb(error.__traceback__)
    place = next((frame for frame in reversed(frames) if "site-packages" not in frame.filename), None)
    where = f" at {place.filename}, line {place.lineno}" if place else ""
    said = " ".join(str(error).split())[:300]
    return BenchError(f"unexpected {type(error).__name__}{where}: {said}; set {TRACEBACK}=1 for the traceback.")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200].rstrip(". ")


def unknown(kind: str, name: str, known: Iterable[str], owner: str = "") -> UsageError:
    """Return the error for a name that does not exist: the name, those that exist, and the nearest of them.

    `owner` follows the name, for example " of voc_seg".
    """
    names, what = sorted(known), f"unknown {kind} {quoted(name)}{owner}"
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    if len(names) > MANY:
        close = difflib.get_close_matches(name, names, n=5, cutoff=0.3)
        return UsageError(f"{what}{hint} Of {len(names)} the nearest: {', '.join(close) or 'none'}.")
    return UsageError(f"{what}{hint} Known: {', '.join(names) or 'none'}.")
