"""Try a GPU: the doctor, results beside the processor's, a run that is stopped and resumed, memory that runs out, speed."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from tests.benchmarks.common import workplace
from tests.gpu import commands, equality, speed

PARTS: dict[str, Callable[[Path], list[str]]] = {
    "doctor": commands.doctor,
    "equality": equality.compare,
    "resume": commands.resume,
    "memory": commands.exhaust,
    "speed": speed.measure,
}


def main(words: list[str] | None = None) -> int:
    """Try the parts that are named, or all, and return an exit code: 0, 1 when a part failed, 4 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all when left out")
    asked = parser.parse_args(words).parts
    unknown = [name for name in asked if name not in PARTS]
    if unknown:
        parser.error(f"there is no {unknown[0]}; there are {', '.join(PARTS)}")
    if not torch.cuda.is_available():
        print(f"There is no GPU here: torch {torch.__version__} sees no CUDA device. Nothing was tried.")
        return 4
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    failed = [name for name in asked or PARTS if not tried(name)]
    print(f"Failed: {', '.join(failed)}." if failed else "Nothing failed.")
    return 1 if failed else 0


def tried(name: str) -> bool:
    """Try a part, print what it finds, and tell whether it succeeded."""
    print(f"\n{name}", flush=True)
    began = time.perf_counter()
    try:
        with workplace() as folder:
            lines = PARTS[name](folder)
    except Exception:
        traceback.print_exc(file=sys.stdout)
        return False
    print("\n".join(f"  {line}" for line in (*lines, f"{time.perf_counter() - began:.0f} s")), flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
