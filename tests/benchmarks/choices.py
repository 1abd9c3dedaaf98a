"""What each choice of the step brings on this machine: the bare step with and without it, in processes taken in turns."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch

from bench.training import machine
from tests.benchmarks import step
from tests.benchmarks.common import Figure

ROUNDS = 2
SIZES = {"64 px, width 16": (64, 6, 16, 16, 16, 24), "256 px, width 64": (256, 8, 64, 64, 4, 2)}
"""Side, depth and width of the trunk, width of the discriminator, batch size, steps."""
CHOICES = ("plain", "freed memory kept", "channels last", "compiled", "bf16")


def one(choice: str, size: int, depth: int, width: int, critic: int, batch: int, steps: int) -> tuple[float, float]:
    """Return the seconds of the first steps with a choice, and the images/s after them: the better of two rounds."""
    torch.set_num_threads(torch.get_num_threads())
    if choice == "freed memory kept":
        machine._keep_freed_memory()
    changes: dict[str, Callable[[torch.nn.Module], torch.nn.Module]] = {
        "channels last": lambda network: network.to(memory_format=torch.channels_last),
        "compiled": _compiled,
    }

    def changed(make: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: changes.get(choice, lambda network: network)(make(*given))

    def once() -> float:
        precision = "bf16" if choice == "bf16" else "fp32"
        return step.bare(size, f"unet:depth={depth},width={width}", critic, batch, steps, precision=precision)

    networks = {name: changed(getattr(step, name)) for name in ("make_trunk", "PatchDiscriminator")}
    with patch.multiple(step, **networks):
        started = time.perf_counter()
        once()
        return time.perf_counter() - started, max(once(), once())


def _compiled(network: torch.nn.Module) -> torch.nn.Module:
    network.compile()
    return network


def measure() -> list[Figure]:
    """Return images/s of each choice, the best of some rounds, and what a first step costs where networks are compiled."""
    found: list[Figure] = []
    chosen = [choice for choice in CHOICES if choice != "bf16" or machine.has_amx()]
    for name, numbers in SIZES.items():
        best = dict.fromkeys(chosen, 0.0)
        first = dict.fromkeys(chosen, 0.0)
        for _ in range(ROUNDS):
            for choice in chosen:
                command = [sys.executable, "-m", __name__, choice, *map(str, numbers)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                warm, rate = map(float, done.stdout.split()[-2:])
                best[choice], first[choice] = max(best[choice], rate), warm
        found += [Figure(f"{choice}, {name}", rate, "images/s") for choice, rate in best.items()]
        found += [Figure(f"first {numbers[-1]} steps compiled, {name}", first["compiled"], "s")]
        found += [Figure(f"{choice} against plain, {name}", best[choice] / best["plain"], "times") for choice in chosen[1:]]
    return found


if __name__ == "__main__":
    print(*one(sys.argv[1], *map(int, sys.argv[2:])))
