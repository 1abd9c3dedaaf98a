"""A search of the frozen rate with features computed once, against the same search that looks anew each time."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from bench import grid
from bench.features import Cache
from bench.resolve import Request
from bench.tune import Search
from results import record
from tests.benchmarks.common import Figure, ratio, seconds, workplace
from tests.benchmarks.step import Silent

TRIALS, EPOCHS = 20, 3


def search(out: Path, downstream: str, size: int, trunk: str, settings: tuple[str, ...], trials: int) -> float:
    """Return the seconds of a search of the head's rate and of the run that it ends in."""
    phase = f'protocol.schedules={{"frozen":[{{"train":"head","epochs":{EPOCHS},"lr":0.0003}}]}}'
    request = Request(
        ("random_init",), (downstream,), "demo", "demo", trunk=trunk, size=size, schedules=("frozen",),
        settings=(phase, *settings),
    )  # fmt: skip
    screen = Silent()
    desk = grid.open_desk(request, grid.Options("cpu"), out, screen)  # type: ignore[arg-type]
    return seconds(lambda: grid.run_grid(desk, screen, Search.parse(trials)))  # type: ignore[arg-type]


def measure() -> list[Figure]:
    """Return seconds with and without kept features for three heads, and their ratios; the results are equal to the bit."""
    found: list[Figure] = []
    with workplace() as folder:
        cases = {
            "classification, linear head, 256 px": ("voc_cls", 256, "unet", ("protocol.head_width=0",), 20),
            "classification, head 512, 256 px": ("voc_cls", 256, "unet", ("protocol.head_width=512",), 20),
            "classification, the paper's head 4096, 256 px": ("voc_cls", 256, "unet", ("protocol.head_width=4096",), 20),
            "segmentation, 64 px, width 16": ("voc_seg", 64, "unet:width=16", (), 20),
        }
        for number, (name, (downstream, size, trunk, settings, least)) in enumerate(cases.items()):
            kept = search(folder / f"kept{number}", downstream, size, trunk, settings, TRIALS)
            with ExitStack() as stack:
                stack.enter_context(patch.object(Cache, "_room", lambda _: 0))
                stack.enter_context(patch.object(Cache, "_disk", lambda _: 0))
                plain = search(folder / f"plain{number}", downstream, size, trunk, settings, TRIALS)
            one, other = record.read(folder / f"kept{number}")[0], record.read(folder / f"plain{number}")[0]
            assert (one.weights, one.predictions) == (other.weights, other.predictions), f"{name}: not equal to the bit"
            found += [
                Figure(f"{name}: features kept", kept, "s"),
                Figure(f"{name}: looked at anew", plain, "s"),
                ratio(name, plain / kept, least),
            ]
    return found
