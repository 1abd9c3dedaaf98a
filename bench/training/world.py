"""The processes that work on one run together, each with a device of its own: the first leads, and the others take part.

The first process runs the command. The others wait for what it tells them to take part in: a pretraining, an evaluation, a trial.
Inside that, all run the same code and decide alike, since what the clock, the disk or a signal decides is shared by the first.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError, LostProcess
from bench.models.shards import Shards

T = TypeVar("T")
SILENCE = timedelta(hours=2)
"""How long a process waits for the others within a training step: as long as the first may score or watch alone."""
IDLE = timedelta(days=30)
"""How long a process waits to be told what to do."""
PATIENCE = timedelta(seconds=60)
"""How long a process that failed waits for the others to fail too, as they do where the run itself is at fault."""
Part = Callable[..., object]


@dataclass
class World:
    """This process is number `rank` of `size` that work on one run; alone by default."""

    rank: int = 0
    size: int = 1
    group: Any = None
    """The process group for what is told between the processes, always over the network (gloo), never a GPU's."""
    working: bool = False
    """Whether all processes are in the same part now."""

    @classmethod
    def joined(cls) -> World:
        """Return the world of torch's default process group, which must be there."""
        from torch import distributed as dist

        return cls(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo", timeout=IDLE))

    @property
    def leads(self) -> bool:
        """Whether this process runs the command."""
        return self.rank == 0

    def shards(self) -> Shards | None:
        """Return how images are shared; None for a process alone."""
        return Shards(self.rank, self.size) if self.size > 1 else None

    def share(self, value: T) -> T:
        """Return the first process's value on every process."""
        if self.size == 1:
            return value
        from torch import distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def every(self, value: bool) -> bool:
        """Tell whether a value is true on every process."""
        return self.share(all(self.collect(value)))

    def total(self, value: float | None) -> float | None:
        """Return the sum of a value over the processes; None where one of them does not know it."""
        if self.size == 1:
            return value
        found = self.collect(value)
        return self.share(None if None in found else sum(filter(None, found)))

    def collect(self, value: T) -> list[T]:
        """Return the values of all processes on the first, in their order; on the others nothing."""
        if self.size == 1:
            return [value]
        from torch import distributed as dist

        found: list[Any] | None = [None] * self.size if self.leads else None
        dist.gather_object(value, found, dst=0, group=self.group)
        return found or []

    @contextlib.contextmanager
    def part(self, name: str, *facts: Any) -> Iterator[None]:
        """Do the block with all processes: the first tells the others to take part in `name`, and all wait for each other.

        A process that fails alone ends at once, and with it all: the others wait for it in the middle of something. Where all
        fail, as for a loss that is not finite, the first one's error is raised, and the others wait for the next part.
        """
        if self.size == 1 or self.working:
            yield
            return
        if self.leads:
            self.share((name, facts))
        self.working = True
        try:
            yield
        except BaseException as error:
            if not self.leads and not isinstance(error, BenchError):  # those of the run itself the first process tells
                said = f"process {self.rank + 1} of {self.size}: {type(error).__name__}: {error}"
                print(f"bench: {said}", file=sys.stderr, flush=True)
            self.meet(PATIENCE, error)
            raise
        else:
            self.meet(IDLE, None)
        finally:
            self.working = False

    def meet(self, patience: timedelta, error: BaseException | None) -> None:
        """Wait for the other processes; after an error, LostProcess or this process's end where they do not come in time."""
        if self.size == 1:
            return
        from torch import distributed as dist

        ending = threading.Timer(patience.total_seconds(), os._exit, (LostProcess.exit_code,))
        ending.daemon = True
        if error is not None and not self.leads:  # the first process alone heeds the barrier's timeout
            ending.start()
        try:
            dist.monitored_barrier(self.group, timeout=patience)
        except RuntimeError as lost:
            why = (str(error or lost).strip() or type(error or lost).__name__).splitlines()[0].partition(". ")[0].rstrip(".")
            raise LostProcess(
                f"process {self.rank + 1} of {self.size} {'failed' if error else 'lost the others'}: {why}; the same command "
                "goes on from the last checkpoint."
            ) from (error or lost)
        finally:
            ending.cancel()

    def follow(self, parts: Mapping[str, Part]) -> None:
        """Take part in what the first process leads, until it ends; errors that all processes have are its own to tell."""
        while True:
            name, facts = self.share(("", ()))
            if not name:
                return
            try:
                with self.part(name):
                    parts[name](*facts)
            except LostProcess:
                raise
            except Exception:  # all had it, or `part` would have raised LostProcess
                continue

    def end(self) -> None:
        """Let the other processes end, where they wait for the next part."""
        if self.size > 1 and self.leads and not self.working:
            self.share(("", ()))

    def merged(self, mine: Mapping[int, Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        """Return, on the first process, the arrays of all batches by name, each process having those of some batch numbers."""
        found: dict[int, Mapping[str, NDArray[Any]]] = {}
        for part in self.collect(mine):
            found |= part
        order = [found[number] for number in sorted(found)]
        return {name: np.concatenate([one[name] for one in order]) for name in order[0]} if order else {}
