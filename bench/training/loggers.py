"""Loggers that write losses and speed to files during training, in addition to the screen: TensorBoard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.training.loop import Logger

EVENTS = "tensorboard"
"""The name of the folder of event files: in a run's working folder while it trains, in the run's own folder afterwards."""


def check(kinds: Sequence[str]) -> None:
    """Raise UsageError for a kind of log whose package is not installed."""
    if "tensorboard" in kinds:
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise UsageError("--log tensorboard needs the extra: pip install 'pretext-bench[tensorboard]'.") from error


@contextmanager
def opened(kinds: Sequence[str], logger: Logger, work: Path) -> Iterator[Logger]:
    """Give the logger for a stage: `logger` itself, or one that also writes event files below the working folder `work`."""
    if "tensorboard" not in kinds:
        yield logger
        return
    both = TensorBoardLogger(work / EVENTS, logger)
    try:
        yield both
    finally:
        both.close()


def copy_events(work: Path, folder: Path) -> None:
    """Copy the event files of a working folder, when there are any, into the folder of the finished run."""
    if (work / EVENTS).is_dir():
        shutil.copytree(work / EVENTS, folder / EVENTS)


class TensorBoardLogger:
    """Writes event files for each stage, and passes every call on to another logger.

    The x axis counts training steps for the losses of steps, and epochs for mean losses and images per second. Each step has its
    own losses; those of a step on a GPU are written up to 50 steps later, when they are read from the device.
    """

    def __init__(self, folder: Path, then: Logger) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.then, self.name = then, ""
        self.writer: Any = SummaryWriter(str(folder))

    def stage(self, name: str, epochs: int, steps: int, done: int) -> None:
        """Begin a stage at step `done`, which is not 0 when the stage is resumed."""
        self.name = name
        self.then.stage(name, epochs, steps, done)

    def step(self, epoch: int, losses: dict[str, float] | None, images: int) -> None:
        """Pass a step on."""
        self.then.step(epoch, losses, images)

    def losses(self, step: int, losses: dict[str, float]) -> None:
        """Write the losses of a training step."""
        for optimizer, value in losses.items():
            self.writer.add_scalar(f"{self.name}/loss/{optimizer}", value, step)
        self.then.losses(step, losses)

    def epoch(self, epoch: int, losses: dict[str, float], seconds: float, images: int) -> None:
        """Write a finished epoch's mean losses and images per second, and flush the file."""
        for optimizer, value in losses.items():
            self.writer.add_scalar(f"{self.name}/epoch loss/{optimizer}", value, epoch + 1)
        self.writer.add_scalar(f"{self.name}/images per second", images / max(seconds, 1e-9), epoch + 1)
        self.writer.flush()
        self.then.epoch(epoch, losses, seconds, images)

    def close(self) -> None:
        """Flush and close the event file."""
        self.writer.close()
