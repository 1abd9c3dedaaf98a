"""What a frozen trunk says of pictures, computed once: while the trunk does not change, neither do its features.

Features live as long as the command: in the memory of the device when there is room, else in a file without a name, which the
kernel removes with the process, else they are computed anew each time. Networks that were trained in a phase are kept beside
them, so that what trains in the same way again begins where the first one ended.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data import batches
from bench.machine import Machine

PACK_SHARE, FEATURES_SHARE, DISK_SHARE = 2, 4, 10
"""Pictures take at most half of a GPU's free memory, features a quarter of the memory that is free where networks compute, and a
file of features a tenth of the free disk."""
STATES = 1 << 30
"""Bytes of trained networks that are kept, of the tasks' heads mostly."""


@dataclass
class InFile:
    """Float32 rows in a file without a name."""

    file: IO[bytes]
    shape: tuple[int, ...]

    def write(self, rows: Tensor) -> None:
        """Write the next rows, (n, ...)."""
        self.file.write(rows.numpy().tobytes())

    def read(self, positions: NDArray[np.int64]) -> Tensor:
        """Return the rows at `positions`, (n, ...)."""
        self.file.flush()
        found = np.empty((len(positions), *self.shape), dtype=np.float32)
        for row, position in zip(found, positions, strict=True):
            os.preadv(self.file.fileno(), [memoryview(row).cast("B")], int(position) * row.nbytes)
        return torch.from_numpy(found)


@dataclass
class Cache:
    """What a command has computed and may need again, the oldest forgotten first when there is no more room."""

    machine: Machine
    folder: Path
    room: int | None = None
    """Bytes that may be kept in memory; None: what the machine has to spare."""
    parts: OrderedDict[str, tuple[int, Mapping[str, batches.Held]]] = field(default_factory=OrderedDict)
    states: OrderedDict[str, tuple[int, Any]] = field(default_factory=OrderedDict)

    def resident(self, part: batches.Part) -> batches.Part:
        """Return a part whose pictures are in the GPU's memory, where there is one and they fit and never change."""
        if self.machine.device.type == "cpu":
            return part
        said = repr((str(part.pack.folder), part.masked, part.labels is None)).encode()
        key = hashlib.sha256(said + part.rows.tobytes()).hexdigest()
        if key not in self.parts:
            room = self.machine.room(PACK_SHARE)
            held = batches.resident(part, self.machine.device, room).held
            self.parts[key] = (_bytes(held), held)
        return replace(part, held=self.parts[key][1])

    def looked_at(self, part: batches.Part, key: str, see: Callable[[Tensor], Tensor], together: int) -> batches.Part:
        """Return a part that holds its pictures' features, `see(images)` of `together` pictures at a time.

        `key` says all that the features depend on. The part is returned as it is where there is no room for them; its pictures
        must be the same in every epoch.
        """
        if key not in self.parts:
            held = self._look(part, see, together)
            self.parts[key] = (_bytes(held), held)
            _forget(self.parts, self._room())
        self.parts.move_to_end(key)
        held = self.parts[key][1]
        return replace(part, held=held) if held else part

    def _look(self, part: batches.Part, see: Callable[[Tensor], Tensor], together: int) -> Mapping[str, batches.Held]:
        held: dict[str, Tensor] = {}
        file: InFile | None = None
        for first in range(0, len(part), together):
            self.machine.stop.check()
            positions = np.arange(first, min(first + together, len(part)))
            batch = batches.to_device(part[0, positions], self.machine.device)
            with self.machine.autocast():
                seen = see(batch["images"]).float()
            if first == 0:
                size = seen[0].numel() * 4 * len(part)
                if size > self._room():
                    if self.machine.device.type != "cpu" or size > self._disk():
                        return {}
                    file = InFile(tempfile.TemporaryFile(dir=self.folder), tuple(seen.shape[1:]))  # noqa: SIM115
            if file is not None:
                file.write(seen)
            for name, values in {"features": seen, "target": batch["target"]}.items():
                if name == "target" or file is None:
                    if first == 0:
                        held[name] = values.new_empty((len(part), *values.shape[1:]))
                    held[name][first : first + len(values)] = values
        kept: dict[str, batches.Held] = {name: batches.InMemory(rows) for name, rows in held.items()}
        return kept if file is None else {**kept, "features": file}

    def _room(self) -> int:
        return self.machine.room(FEATURES_SHARE) if self.room is None else self.room

    def _disk(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.folder).free // DISK_SHARE

    def state(self, key: str) -> Any | None:
        """Return what was kept under a key, or None."""
        if key not in self.states:
            return None
        self.states.move_to_end(key)
        return self.states[key][1]

    def keep(self, key: str, state: Any, size: int) -> None:
        """Keep something of `size` bytes under a key."""
        self.states[key] = (size, state)
        _forget(self.states, STATES)

    def drop(self, key: str) -> None:
        """Forget what was kept under a key."""
        self.states.pop(key, None)


def _bytes(held: Mapping[str, batches.Held]) -> int:
    return sum(one.rows.nbytes for one in held.values() if isinstance(one, batches.InMemory))


def _forget(kept: OrderedDict[str, tuple[int, Any]], room: int) -> None:
    """Drop the oldest until the rest needs at most `room` bytes; the newest always stays."""
    while len(kept) > 1 and sum(size for size, _ in kept.values()) > room:
        kept.popitem(last=False)
