"""Try a GPU in under 8 minutes: the doctor, results beside the processor's, a run that is stopped and resumed, memory, speed.

What is found is printed, and written to gpu.csv and gpu.md.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch

from tests.benchmarks.common import Figure, workplace
from tests.gpu import commands, equality, report, speed
from tests.gpu.report import Part

PARTS: dict[str, tuple[Callable[[Path], Iterable[str | Figure]], float]] = {
    "doctor": (commands.doctor, 20),
    "equality": (equality.compare, 90),
    "resume": (commands.resume, 60),
    "memory": (commands.exhaust, 50),
    "speed": (speed.measure, 250),
}
"""Each part, and the seconds after which it is ended; what it has found by then is kept."""


def main(words: list[str] | None = None) -> int:
    """Try the parts that are named, or all, and return an exit code: 0, 1 when a part failed, 4 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all when left out")
    parser.add_argument("--out", type=Path, help="where gpu.csv and gpu.md go: runs/gpu when left out")
    given = parser.parse_args(words)
    unknown = [name for name in given.parts if name not in PARTS]
    if unknown:
        parser.error(f"there is no {unknown[0]}; there are {', '.join(PARTS)}")
    if not torch.cuda.is_available():
        print(f"There is no GPU here: torch {torch.__version__} sees no CUDA device. Nothing was tried.")
        return 4
    print(report.machine())
    found = [tried(name) for name in given.parts or PARTS]
    failed = [part.name for part in found if part.failure]
    print(f"Failed: {', '.join(failed)}." if failed else "Nothing failed.")
    out = given.out or (None if report.is_stand_in() else Path("runs") / "gpu")
    if out is not None:
        print(f"Wrote {' and '.join(map(str, report.write(out, found)))}.")
    return 1 if failed else 0


def tried(name: str) -> Part:
    """Try a part and print what it finds, also when it fails or takes too long."""
    print(f"\n{name}", flush=True)
    began = time.perf_counter()
    work, most = PARTS[name]
    part = Part(name)
    try:
        with workplace() as folder, limited(most):
            for one in work(folder):
                part.found.append(one)
                print(f"  {report.line(one)}", flush=True)
    except TimeoutError:
        part.failure = f"ended after {most:.0f} s"
        print(f"  {part.failure}")
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        part.failure = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    part.seconds = time.perf_counter() - began
    print(f"  {part.seconds:.0f} s", flush=True)
    return part


@contextmanager
def limited(most: float) -> Iterator[None]:
    """Raise TimeoutError in a block that takes more seconds."""

    def end(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, most)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.exit(main())
