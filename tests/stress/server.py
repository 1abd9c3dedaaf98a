"""Commands of `bench` as processes of their own that begin at once: a server that has imported everything forks for each.

Each child is a real process with the machine's faults in it (`faults.c`): it can be killed, lose its disk or its memory. The
server reads one JSON line for a command and answers with the child's process id, then with how it ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

COUNT, FAIL_ONCE, FAIL_FROM, KILL, CLOCK = range(5)
SOURCE = Path(__file__).with_name("faults.c")
ROOT = SOURCE.parents[2]
MODULES = (
    "bench.__main__", "bench.cli.app", "bench.cli.listing", "bench.data.catalogue", "bench.data.demo", "bench.data.download",
    "bench.experiment.grid", "bench.experiment.plan", "bench.experiment.reproduction", "bench.experiment.tuning",
    "bench.storage.journal", "downstream.voc_cls", "downstream.voc_seg",
    "iterstrat.ml_stratifiers", "jinja2", "lightning.fabric", "optuna.samplers", "pretexts.cgan_color",
    "pretexts.inpainting", "pretexts.l1_color", "pretexts.random_init", "pycocotools.coco", "results.page",
    "results.report", "rich.progress", "scipy.stats.qmc", "torch.utils.data",
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """What happens to the operation `number` that changes a file below `folders`: see `faults.c`."""

    mode: int
    number: int = 0
    folders: tuple[Path, ...] = ()
    seconds: int = 0


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code or minus the signal, what it printed, how long it took, and its counted operations."""

    code: int
    out: str
    err: str
    seconds: float
    operations: int


class Server:
    """The client's side of the server; `with Server(folder) as server: server.run("list")`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        library = folder / "faults.so"
        build = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(build, check=True)
        single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        environment = {**os.environ, **single, "LD_PRELOAD": str(library), "COLUMNS": "200"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.stress.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            cwd=ROOT,
        )

    def __enter__(self) -> Server:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def run(
        self,
        *arguments: object,
        home: Path,
        fault: Fault | None = None,
        meanwhile: Callable[[int], object] = lambda process: None,
        limits: Mapping[int, int] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a command to its end; `meanwhile` is called with its process id while it runs."""
        out, err, count = (self.folder / name for name in ("out", "err", "count"))
        command = {
            "arguments": [str(argument) for argument in arguments],
            "environment": {"PRETEXT_BENCH_HOME": str(home), **(environment or {})},
            "fault": [fault.mode, fault.number, fault.seconds, "\n".join(map(str, fault.folders))] if fault else None,
            "limits": list((limits or {}).items()),
            "files": [str(out), str(err), str(count)],
        }
        assert self.process.stdin is not None and self.process.stdout is not None
        started = time.monotonic()
        print(json.dumps(command), file=self.process.stdin, flush=True)
        process = int(self.process.stdout.readline())
        try:
            meanwhile(process)
        except BaseException:
            os.kill(process, signal.SIGKILL)
            raise
        finally:
            code = int(self.process.stdout.readline())
        operations = int(count.read_text() or 0) if fault and code >= 0 else 0
        return Ended(code, out.read_text(), err.read_text(), time.monotonic() - started, operations)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Give a server, or skip where there is no C compiler for its faults."""
    try:
        subprocess.run(["cc", "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no C compiler (cc) to build the faults with")
    with Server(folder) as server:
        yield server


def main() -> None:
    """Import everything once, then fork for each command."""
    import importlib

    for module in MODULES:
        importlib.import_module(module)
    import torch

    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if not child:
            _become(command)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(command: Mapping[str, Any]) -> None:
    """Be a process that runs one command; never returns."""
    out, err, count = command["files"]
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(command["environment"])
    sys.argv = ["bench", *command["arguments"]]
    sys.stdin = open(0)  # noqa: SIM115
    sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
    for limit, value in command["limits"]:
        resource.setrlimit(limit, (value, value))
    code: Any = 0
    library = ctypes.CDLL(None)
    if command["fault"]:
        mode, number, seconds, folders = command["fault"]
        library.faults_arm(mode, ctypes.c_long(number), ctypes.c_long(seconds), folders.encode())
    try:
        from bench.__main__ import main as bench

        bench()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    Path(count).write_text(str(library.faults_count()))
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
