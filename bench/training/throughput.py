"""The speed of a trunk's forward and backward pass on this machine's CPU, timed for half a second, and how much it computes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version

import torch

from bench import __version__
from bench.errors import DataError, MachineError
from bench.models.trunk import make_trunk
from bench.schema import digest_of
from bench.storage import files, seal

BATCH, SECONDS = 4, 0.5


def images_per_second(trunk: str, size: int, threads: int | None = None, precision: str = "fp32") -> float:
    """Return the images/s of a trunk's forward and backward pass on the processor, for `size` x `size` images.

    Without `threads`, as many as torch uses now. The number of threads and torch's random state are restored afterwards.
    """
    with _threads(threads), torch.random.fork_rng(devices=[]):
        network = make_trunk(trunk)
        images = torch.rand(BATCH, network.preprocessing.channels, size, size)

        def step() -> None:
            network.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                activation = network(images)
            activation.float().square().mean().backward()

        step()
        steps, started = 0, time.perf_counter()
        while not steps or time.perf_counter() - started < SECONDS:
            step()
            steps += 1
        return steps * BATCH / (time.perf_counter() - started)


@lru_cache(maxsize=64)
def amount_of(trunk: str, size: int) -> tuple[int, int]:
    """Return the floating-point operations of a trunk's forward pass on one image of `size` px, and its number of weights.

    Nothing is computed: shapes alone go through the network. Both are kept below the home folder, since counting imports torch's
    compiler, which takes seconds.
    """
    what = {"trunk": trunk, "size": size, "torch": torch.__version__, "timm": version("timm"), "program": __version__}
    path = files.home() / "steps" / f"amount-{digest_of(what)[:16]}.json"
    try:
        known = seal.load(path, "an amount of work", "remove it, and it is counted again")
        return int(known["operations"]), int(known["weights"])
    except (DataError, KeyError, TypeError):
        operations, weights = _counted(trunk, size)
    with contextlib.suppress(MachineError):  # a plan needs no disk
        files.publish_json(path, {**what, "operations": operations, "weights": weights})
    return operations, weights


def _counted(trunk: str, size: int) -> tuple[int, int]:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = make_trunk(trunk).eval()
        network(torch.empty(1, network.preprocessing.channels, size, size))
    return counter.get_total_flops(), sum(parameter.numel() for parameter in network.parameters())


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
