"""What a frozen trunk says of images, computed once: while the trunk does not change, neither do its features.

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
from bench.errors import MachineError
from bench.training.machine import Machine

PACK_SHARE, FEATURES_SHARE, DISK_SHARE = 2, 4, 10
"""Images take at most half of a GPU's free memory, features a quarter of the memory that is free where networks compute, and a
file of features a tenth of the free disk."""
PARTS = 4
"""Parts whose images stay in a GPU's memory."""
STATES = 1 << 30
"""Bytes of trained networks that are kept, of the tasks' heads mostly."""


@dataclass
class InFile:
    """Float32 rows in a file without a name."""

    file: IO[bytes]
    shape: tuple[int, ...]

    def add(self, rows: Tensor) -> None:
        """Write the next rows, (n, ...)."""
        self.file.write(rows.numpy().tobytes())
        self.file.flush()

    def read(self, places: NDArray[np.int64]) -> Tensor:
        """Return the rows at `places`, (n, ...)."""
        found = np.empty((len(places), *self.shape), dtype=np.float32)
        for row, place in zip(found, places, strict=True):
            if os.preadv(self.file.fileno(), [memoryview(row).cast("B")], int(place) * row.nbytes) != row.nbytes:
                raise MachineError("features that were kept in a file cannot be read back; run again.")
        return torch.from_numpy(found)


@dataclass
class Seen:
    """What a frozen trunk has of the images of a pack that it looked at: features and targets, and where each row lies."""

    places: NDArray[np.int64]
    features: batches.InMemory | InFile
    target: batches.InMemory

    @property
    def bytes(self) -> int:
        """Bytes in memory."""
        return self.features.rows.nbytes if isinstance(self.features, batches.InMemory) else 0


@dataclass(frozen=True)
class Of:
    """The features, or the targets, of a part."""

    kept: batches.Held
    places: NDArray[np.int64]

    def read(self, positions: NDArray[np.int64]) -> Tensor:
        """Return the rows at `positions`, (n, ...)."""
        return self.kept.read(self.places[positions])


@dataclass
class Cache:
    """What a command has computed and may need again, the oldest forgotten first when there is no more room."""

    machine: Machine
    folder: Path
    seen: OrderedDict[str, Seen | None] = field(default_factory=OrderedDict)
    images: OrderedDict[str, Mapping[str, batches.Held]] = field(default_factory=OrderedDict)
    states: OrderedDict[str, tuple[int, Any]] = field(default_factory=OrderedDict)

    def resident(self, part: batches.Part) -> batches.Part:
        """Return a part whose images are in the GPU's memory, where there is one and they fit and never change."""
        if self.machine.device.type == "cpu":
            return part
        said = repr((str(part.pack.folder), part.masked, part.labels is None)).encode()
        key = hashlib.sha256(said + part.rows.tobytes()).hexdigest()
        if key not in self.images:
            while len(self.images) >= PARTS:
                self.images.popitem(last=False)
            self.images[key] = batches.resident(part, self.machine.device, self.machine.room(PACK_SHARE)).held
        return replace(part, held=self.images[key])

    def looked_at(self, part: batches.Part, key: str, see: Callable[[Tensor], Tensor], together: int) -> batches.Part:
        """Return a part that holds its images' features, `see(images)` of `together` images at a time.

        `key` says all that the features of the part's pack depend on; images that another part had looked at are not looked at
        again. The part is returned as it is where there is no room. Its images must be the same in every epoch.
        """
        self.seen.setdefault(key, None)
        self.seen.move_to_end(key)
        known = self.seen[key]
        new = np.nonzero(known.places[part.rows] < 0)[0] if known is not None else np.arange(len(part))
        for first in range(0, len(new), together):
            self.machine.stop.check()
            positions = new[first : first + together]
            batch = batches.to_device(part[0, positions], self.machine.device)
            with self.machine.autocast():
                features = see(batch["images"]).float()
            if first == 0:
                known = self._with_room(known, features[0], batch["target"], len(new), len(part.pack.manifest.ids))
                if known is None:
                    return part
                before = int((known.places >= 0).sum())
                self.seen[key] = known
            assert known is not None
            slots = np.arange(before + first, before + first + len(positions))
            if isinstance(known.features, InFile):
                try:
                    known.features.add(features)
                except OSError:  # the disk filled up meanwhile: nothing of the file is used
                    del self.seen[key]
                    return part
            else:
                known.features.rows[slots[0] : slots[-1] + 1] = features
            known.target.rows[slots[0] : slots[-1] + 1] = batch["target"]
            known.places[part.rows[positions]] = slots
        if known is None:  # an empty part
            return part
        places = known.places[part.rows]
        return replace(part, held={"features": Of(known.features, places), "target": Of(known.target, places)})

    def _with_room(self, known: Seen | None, feature: Tensor, target: Tensor, new: int, images: int) -> Seen | None:
        """Return what is known with room for new images, or None when there is none."""
        size = feature.numel() * 4
        count = new + (int((known.places >= 0).sum()) if known is not None else 0)
        in_file = isinstance(known.features, InFile) if known is not None else size * count > self._room()
        if in_file and (self.machine.device.type != "cpu" or size * new > self._disk()):
            return None
        if not in_file:
            while sum(one.bytes for one in self.seen.values() if one is not None) + size * new > self._room():
                oldest = next((key for key, one in self.seen.items() if one is not None and one is not known), None)
                if oldest is None:
                    return None
                self.seen.pop(oldest)
        targets = batches.InMemory(target.new_empty((count, *target.shape[1:])))
        if in_file:
            features: batches.InMemory | InFile
            features = known.features if known else InFile(tempfile.TemporaryFile(dir=self.folder), tuple(feature.shape))  # noqa: SIM115
        else:
            features = batches.InMemory(feature.new_empty((count, *feature.shape)))
        if known is None:
            return Seen(np.full(images, -1, dtype=np.int64), features, targets)
        for old, longer in ((known.features, features), (known.target, targets)):
            if isinstance(old, batches.InMemory) and isinstance(longer, batches.InMemory):
                longer.rows[: len(old.rows)] = old.rows
        return replace(known, features=features, target=targets)

    def _room(self) -> int:
        return self.machine.room(FEATURES_SHARE)

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


def _forget(kept: OrderedDict[str, tuple[int, Any]], room: int) -> None:
    """Drop the oldest until the rest needs at most `room` bytes; the newest always stays."""
    while len(kept) > 1 and sum(size for size, _ in kept.values()) > room:
        kept.popitem(last=False)
