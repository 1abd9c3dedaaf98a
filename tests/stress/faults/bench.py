"""`bench` in processes of its own, for the tests of faults, and ways to disturb it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from bench import record
from tests.stress.scenario import TINY, sentence
from tests.stress.server import Ended, Server

EPOCHS = ("--set", "recipe.epochs=6", "--set", "recipe.batch_size=8", "--set", "protocol.head_width=16")


ONE_PHASE = ("--set", 'protocol.schedules={"one-phase": [{"train": "all", "epochs": 2, "lr": 1e-3}]}', "--schedule", "one-phase")


class Bench:
    """`bench` in processes of its own, on data of its own, with results in `out`."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.voc, self.images = folder / "v1" / "labelled", folder / "v1" / "unlabelled"
        self.home, self.out = folder / "home", folder / "runs"
        self.devkit = self.voc / "VOCdevkit" / "VOC2012"

    def __call__(self, *arguments: object, **more: object) -> Ended:
        ended = self.server.run(*arguments, home=self.home, **more)  # type: ignore[arg-type]
        assert not sentence(ended) or ended.code == -signal.SIGKILL, sentence(ended)
        return ended

    def command(self, pretext: str, downstream: str, *more: object) -> tuple[object, ...]:
        """Return a small run; what it computes comes last, so that `more` may change it."""
        data = ("--data", self.voc, "--pretrain-data", self.images, "--out", self.out)
        return "run", *TINY, *EPOCHS, *ONE_PHASE, *data, "--pretext", pretext, "--downstream", downstream, *more

    def run(self, pretext: str = "random_init", downstream: str = "voc_seg", *more: object, **options: object) -> Ended:
        return self(*self.command(pretext, downstream, *more), **options)

    def records(self) -> list[record.Record]:
        return record.read(self.out)

    def weights(self) -> list[tuple[str, str, str]]:
        return [(one.id, one.pretrain.weights, one.weights) for one in self.records()]

    def left(self) -> list[str]:
        """Return temporary files and working folders that are left."""
        found = [path for place in (self.out, self.home) for path in place.rglob(".tmp-*")]
        return [str(path) for path in [*found, *self.out.glob("work/*")]]


def when(found: Callable[[], object], then: Callable[[int], object]) -> Callable[[int], None]:
    """Return what waits, while a process runs, until something is found, and then does something to it."""

    def meanwhile(process: int) -> None:
        deadline = time.monotonic() + 60
        while not found() and time.monotonic() < deadline:
            time.sleep(0.002)
        then(process)

    return meanwhile


def send(*numbers: int) -> Callable[[int], None]:
    def then(process: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            for number in numbers:
                os.kill(process, number)
                time.sleep(0.003)

    return then


def checkpoints(bench: Bench) -> list[Path]:
    return sorted(bench.out.glob("work/*/*.safetensors"))


OFTEN = ("--checkpoint-seconds", "0")
