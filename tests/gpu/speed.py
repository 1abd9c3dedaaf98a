"""The main step's speed and memory on a GPU, as it is, compiled and as a CUDA graph, and what the GPU does in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.data import demo
from bench.experiment.pretraining import make_pretext
from bench.experiment.session import Session
from bench.training import checkpoint
from tests.benchmarks import gpu
from tests.benchmarks.common import Figure, ratio, seconds
from tests.benchmarks.step import bare, session

STAND_IN = "stand-in"
"""How the names of GPUs begin that are not there (`tests.standin`)."""


@dataclass(frozen=True)
class Sizes:
    """What is measured: a size in pixels, a trunk, batch sizes, images in an epoch, and the options of fine-tuning."""

    size: int = 256
    trunk: str = "unet"
    network: str = "unet:depth=8,width=64"
    batches: tuple[int, ...] = (32, 128)
    images: int = 2048
    steps: int = 20
    side: int = 8192
    finetuning: tuple[tuple[str, object], ...] = (("protocol", "paper"),)

    @property
    def papers(self) -> bool:
        """Whether these are the paper's."""
        return (self.size, self.trunk) == (256, "unet")


def measure(folder: Path, sizes: Sizes = Sizes()) -> Iterator[Figure | str]:
    """Yield the figures as they are measured; AssertionError at the end names what could not be measured.

    They are the card's rate of matrix products; of pretraining images/s, milliseconds a step, the share of that rate, memory and
    the paper's pretraining; the input alone; fine-tuning; a checkpoint; and the operators that take most of the time. What is
    compiled comes last, since compiling takes a minute.
    """
    labelled = str(demo.make(folder / "drawn", 2, 24, 16)["demo"])
    many = gpu.images(folder / "images", sizes.images)
    rate = products(sizes.side)
    yield Figure("matrix products in bf16", rate / 1e12, "TFLOP/s")

    def case(batch: int, compiled: bool) -> list[Figure]:
        figures, speed = gpu.pretraining(folder, many, batch, compiled, sizes.size, sizes.trunk, data=labelled)
        name = f"batch {batch}{', compiled' if compiled else ''}"
        share = [Figure(f"{name}, share of the matrix rate", 100 * speed * gpu.FLOP / rate, "%")] if sizes.papers else []
        return [*figures, *share, ratio(f"{name}, epoch against bare step", speed / floors.get(batch, float("nan")), 0.90)]

    def steps(batch: int, graph: bool) -> list[Figure]:
        speed = bare(sizes.size, sizes.network, 64, batch, sizes.steps, "cuda", "bf16", graph)
        if not graph:
            floors[batch] = speed
        return [Figure(f"bare step, batch {batch}{', CUDA graph' if graph else ''}", speed, "images/s")]

    def opened(name: str) -> Session:
        settings = f"recipe.batch_size={sizes.batches[0]}"
        return session(folder / name, many, "cgan_color", sizes.size, sizes.trunk, settings, device="cuda", data=labelled)

    floors: dict[int, float] = {}
    stand_in = torch.cuda.get_device_name().startswith(STAND_IN)
    works: list[Callable[[], list[Figure]]] = [
        *(lambda batch=batch, graph=graph: steps(batch, graph) for batch in sizes.batches for graph in (False, True)),
        *(lambda batch=batch: case(batch, False) for batch in sizes.batches),
        lambda: [gpu.reading(opened("reading"), sizes.batches[0])],
        lambda: gpu.top_operators(opened("profiled"), not stand_in),
        lambda: gpu.protocols(folder, ("paper",), **dict(sizes.finetuning)),
        lambda: saving(folder, opened("saving")),
        *(lambda batch=batch: case(batch, True) for batch in sizes.batches),
    ]
    failed = []
    for work in works:
        try:
            yield from work()
        except TimeoutError:
            raise
        except Exception as error:
            failed.append(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
            yield f"not measured: {failed[-1]}"
    assert not failed or stand_in, "; ".join(failed)


def products(side: int) -> float:
    """Return the floating-point operations a second of products of two bf16 matrices: what a network could reach at most."""
    one, other = (torch.randn(side, side, device="cuda").to(torch.bfloat16) for _ in range(2))

    def several() -> None:
        for _ in range(20):
            one @ other
        torch.cuda.synchronize()

    several()
    return 20 * 2 * side**3 / seconds(several)


def saving(folder: Path, made: Session) -> list[Figure]:
    """Return the bytes of a checkpoint of a pretext task with Adam's moments, and the seconds that it takes."""
    pretext = made.machine.place(make_pretext(made.grid.jobs[0].pretrain))
    optimizers = pretext.optimizers()
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    began = time.perf_counter()
    path = checkpoint.save(folder / "checkpoint", pretext, optimizers, {"step": 1})
    taken = time.perf_counter() - began
    return [Figure("a checkpoint", path.stat().st_size / 1e6, "MB"), Figure("a checkpoint takes", taken, "s")]
