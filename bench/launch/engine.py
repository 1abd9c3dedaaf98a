"""The interface of an engine, which starts the workers of a launch and tells how they are: processes here, SLURM, Ray."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from bench.launch.launch import Launch


@dataclass(frozen=True)
class WorkerState:
    """How a worker is: `code` is its exit code, 128 + N where signal N ended it, and None while it is not known."""

    number: int
    state: Literal["waits", "runs", "ended"]
    code: int | None = None
    where: str = ""
    """The device, host or scheduler's job on which it is."""


class Engine(ABC):
    """Starts workers, each `launch.command(number)` with `launch.environment(number)` in `launch.cwd`; it computes nothing."""

    frees: ClassVar[bool] = True
    """Whether a worker ends once the others suffice for what is left, so that its device serves somebody else."""

    def check(self, launch: Launch) -> None:  # noqa: B027 - an engine may need no check
        """Raise UsageError or MachineError, before anything is written, for options or a machine that do not serve."""

    def preview(self, launch: Launch) -> str:
        """Return what would be submitted, word for word, for `--plan`; "" where nothing is submitted."""
        return ""

    @abstractmethod
    def start(self, launch: Launch) -> dict[str, Any]:
        """Start workers 0 to `launch.workers` - 1; return what `states` needs later, as JSON values (`launch.facts`)."""

    @abstractmethod
    def poll(self) -> list[WorkerState]:
        """Return the state of each worker that was started."""

    @abstractmethod
    def restart(self, number: int) -> None:
        """Start a worker that has ended again; it goes on where it was."""

    @abstractmethod
    def stop(self) -> None:
        """Send SIGTERM to all workers: they make a checkpoint and end with exit code 143."""

    @classmethod
    @abstractmethod
    def states(cls, launch: Launch) -> list[WorkerState]:
        """Return the state of each worker of a launch that another process started, from `launch.facts`."""
