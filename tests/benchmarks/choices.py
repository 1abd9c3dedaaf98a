"""What each choice of the step brings on this machine: the bare step with and without it, in processes taken in turns."""

from __future__ import annotations

import subprocess
import sys

from tests.benchmarks.common import Figure

ROUNDS = 2
SIZES = {"64 px, width 16": (64, 6, 16, 16, 16, 24), "256 px, width 64": (256, 8, 64, 64, 4, 2)}
CHOICES = ("plain", "freed memory kept", "channels last", "compiled", "bf16")
ONE = """
import sys, time, torch
from bench import machine
choice, size, depth, width, critic, batch, steps = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(torch.get_num_threads())
if choice == "freed memory kept":
    machine._keep_freed_memory()
import tests.benchmarks.step as step
from bench import discriminator, trunk
if choice == "channels last":
    made, judge = step.make_trunk, step.PatchDiscriminator
    step.make_trunk = lambda name: made(name).to(memory_format=torch.channels_last)
    step.PatchDiscriminator = lambda *given: judge(*given).to(memory_format=torch.channels_last)
if choice == "compiled":
    made, judge = step.make_trunk, step.PatchDiscriminator
    def compiled(network):
        network.compile()
        return network
    step.make_trunk = lambda name: compiled(made(name))
    step.PatchDiscriminator = lambda *given: compiled(judge(*given))
precision = "bf16" if choice == "bf16" else "fp32"
once = lambda: step.bare(size, f"unet:depth={depth},width={width}", critic, batch, steps, precision=precision)
started = time.perf_counter()
once()
print(time.perf_counter() - started, max(once(), once()))
"""


def measure() -> list[Figure]:
    """Return images/s of each choice, the best of some rounds, and what a first step costs where networks are compiled."""
    from bench.training.machine import has_amx

    found: list[Figure] = []
    chosen = [choice for choice in CHOICES if choice != "bf16" or has_amx()]
    for name, numbers in SIZES.items():
        best = dict.fromkeys(chosen, 0.0)
        first = dict.fromkeys(chosen, 0.0)
        for _ in range(ROUNDS):
            for choice in chosen:
                command = [sys.executable, "-c", ONE, choice, *map(str, numbers)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                warm, rate = map(float, done.stdout.split()[-2:])
                best[choice], first[choice] = max(best[choice], rate), warm
        found += [Figure(f"{choice}, {name}", rate, "images/s") for choice, rate in best.items()]
        found += [Figure(f"first {numbers[-1]} steps compiled, {name}", first["compiled"], "s")]
        found += [Figure(f"{choice} against plain, {name}", best[choice] / best["plain"], "times") for choice in chosen[1:]]
    return found
