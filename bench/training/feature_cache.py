"""The feature cache: while a trunk is frozen, its features of an image do not change and are computed once.

Features are kept until the command ends or their room is needed: in the device's memory, or on a CPU without enough memory in an
anonymous temporary file, which the kernel removes with the process. Features that fit in neither are computed in every epoch. The
cache also keeps the networks that phases have trained, so that an equal phase is not trained again, and the trunks that they
began with.
"""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data import batches
from bench.data.batches import InMemory, RowReader, SplitData
from bench.errors import MachineError
from bench.training.machine import Machine

IMAGES_SHARE, FEATURES_SHARE, DISK_SHARE = 2, 4, 10
"""All images on a GPU take at most 1/2 of the memory that is free without the cache, all features 1/4 of it, and what is added to
a file of features 1/10 of the free disk space."""
MOST_SPLITS = 4
"""The most splits whose images stay in a GPU's memory when other jobs need them no more."""
STATES_BYTES = 1 << 30
"""The most bytes of all states together: trained networks (mostly heads), pretrained trunks, measured batch-norm statistics."""


@dataclass
class InFile:
    """Float32 rows in an anonymous temporary file."""

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
                raise MachineError("the file of cached features cannot be read; run again.")
        return torch.from_numpy(found)


@dataclass
class PackFeatures:
    """Features and targets of some images of a pack; `places` has, for each row of the pack, the row here, or -1 for none."""

    places: NDArray[np.int64]
    features: InMemory | InFile
    target: InMemory

    @property
    def bytes(self) -> int:
        """The bytes in memory: of the targets, and of features that are not in a file."""
        return self.target.rows.nbytes + (self.features.rows.nbytes if isinstance(self.features, InMemory) else 0)


@dataclass(frozen=True)
class SplitRows:
    """The features, or the targets, of one split, read from those of its pack."""

    rows: RowReader
    places: NDArray[np.int64]

    def read(self, positions: NDArray[np.int64]) -> Tensor:
        """Return the rows at `positions` in the split, (n, ...)."""
        return self.rows.read(self.places[positions])


@dataclass
class Cache:
    """What a command has computed and may need again: features, images on the GPU, and states such as trained networks.

    Without room, the features and states that were used least recently are dropped first, and the images that were copied first.
    """

    machine: Machine
    folder: Path
    features: OrderedDict[str, PackFeatures | None] = field(default_factory=OrderedDict)
    images: OrderedDict[str, Mapping[str, RowReader]] = field(default_factory=OrderedDict)
    states: OrderedDict[str, tuple[int, Any]] = field(default_factory=OrderedDict)
    in_use: set[str] = field(default_factory=set)
    """The keys of the images that the present job uses: to drop them would free nothing."""
    peak: int = 0
    full: bool = False
    """Whether memory ran out, so that nothing more is kept in it."""

    def begin(self) -> None:
        """Begin a job: the images of earlier ones may be dropped, and the peak memory is counted anew."""
        if self.machine.compiled:
            gc.collect()  # a compiled network refers to itself, and that of an earlier job would count
        self.in_use.clear()
        self.peak = 0
        self.machine.reset_peak_memory()

    def held(self) -> int:
        """Return the bytes of images and features in the device's memory."""
        readers = (reader for split in self.images.values() for reader in split.values())
        return sum(reader.rows.nbytes for reader in readers if isinstance(reader, InMemory)) + self._features_bytes()

    def peak_memory(self) -> int:
        """Return the peak memory of the present job in bytes: on a GPU without what the cache held, else of the whole process."""
        used = self.machine.peak_memory()
        return max(self.peak, used - self.held() if self.machine.device.type == "cuda" else used)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change in the block what the cache holds, which is not in the peak memory, neither before nor afterwards."""
        self.peak = self.peak_memory()
        yield
        self.machine.reset_peak_memory()

    def give_up(self) -> bool:
        """Drop what is kept in the device's memory, and keep nothing more there; True the first time that something was kept."""
        first = not self.full and self.held() > 0
        self.images.clear()
        self.features.clear()
        self.full = self.full or first
        return first

    def resident(self, split: SplitData) -> SplitData:
        """Return the split with its images in the GPU's memory; unchanged without a GPU, without room or with augmentation.

        When there is no room, the images of earlier jobs are dropped, those that were copied first before others.
        """
        size = batches.resident_bytes(split)
        if self.machine.device.type == "cpu" or not size or self.full:
            return split
        what = repr((str(split.pack.folder), split.masked, split.labels is None)).encode()
        key = hashlib.sha256(what + split.rows.tobytes()).hexdigest()
        self.in_use.add(key)
        if key not in self.images:
            with self._changing():
                while len(self.images) >= MOST_SPLITS or size > self._images_room():
                    oldest = next((one for one in self.images if one not in self.in_use), None)
                    if oldest is None:
                        break
                    del self.images[oldest]
                if size > self._images_room():
                    return split
                self.images[key] = batches.resident(split, self.machine.device).cached
        return replace(split, cached=self.images[key])

    def _images_room(self) -> int:
        """Return the bytes that more images may take."""
        held = self.held()
        return self.machine.room(IMAGES_SHARE, held) - (held - self._features_bytes())

    def with_features(self, split: SplitData, key: str, compute: Callable[[Tensor], Tensor], batch_size: int) -> SplitData:
        """Return the split with its images' features, which `compute(images)` returns for `batch_size` images at a time.

        `key` stands for all that the features depend on; features kept under the same key for other splits of the pack are
        reused. Without room the split is returned unchanged. The split's images must be the same in every epoch.
        """
        self.features.setdefault(key, None)
        self.features.move_to_end(key)
        known = self.features[key]
        new = np.nonzero(known.places[split.rows] < 0)[0] if known is not None else np.arange(len(split))
        for first, positions, features, target in self._computed(split, new, compute, batch_size):
            if first == 0:
                with self._changing():
                    known = self._with_room(known, features[0], target, len(new), len(split.pack.manifest.ids))
                    if not self.machine.world.every(known is not None) or known is None:
                        return split
                    self.features[key] = known
                before = int((known.places >= 0).sum())
            assert known is not None
            slots = np.arange(before + first, before + first + len(positions))
            if isinstance(known.features, InFile):
                try:
                    known.features.add(features)
                except OSError:  # the disk is full: do without the file
                    del self.features[key]
                    return split
            else:
                known.features.rows[slots[0] : slots[-1] + 1] = features
            known.target.rows[slots[0] : slots[-1] + 1] = target
            known.places[split.rows[positions]] = slots
        if known is None:  # an empty split
            return split
        places = known.places[split.rows]
        return replace(split, cached={"features": SplitRows(known.features, places), "target": SplitRows(known.target, places)})

    def _computed(
        self, split: SplitData, new: NDArray[np.int64], compute: Callable[[Tensor], Tensor], batch_size: int
    ) -> Iterator[tuple[int, NDArray[np.int64], Tensor, Tensor]]:
        """Yield for each batch of the positions `new` its place in them, its positions, its features and its targets.

        Several processes share the whole batches: each computes one of as many as there are processes.
        """

        def one(first: int) -> tuple[NDArray[np.int64], Tensor, Tensor]:
            positions = new[first : first + batch_size]
            batch = batches.to_device(split[0, positions], self.machine.device)
            with self.machine.autocast():
                return positions, compute(batch["images"]).float(), batch["target"]

        world, shards = self.machine.world, self.machine.world.shards()
        together = world.size * batch_size
        shared = len(new) // together * together if shards else 0
        for first in range(0, shared, together):
            self.machine.check()
            assert shards is not None
            _, features, target = one(first + world.rank * batch_size)
            found = [torch.split(shards.gathered(rows, together), batch_size) for rows in (features, target)]
            for number, (rows, targets) in enumerate(zip(*found, strict=True)):
                place = first + number * batch_size
                yield place, new[place : place + batch_size], rows, targets
        for first in range(shared, len(new), batch_size):
            self.machine.check()
            yield first, *one(first)

    def _with_room(
        self, known: PackFeatures | None, feature: Tensor, target: Tensor, new: int, images: int
    ) -> PackFeatures | None:
        """Return the known features, or empty ones, with room for `new` more images; None when memory and disk have no room.

        `feature` and `target` are examples of what is kept for an image or a batch; `images` is the number of images in the pack.
        """
        size = feature.numel() * 4
        count = new + (int((known.places >= 0).sum()) if known is not None else 0)
        in_file = isinstance(known.features, InFile) if known is not None else size * count > self._room()
        if in_file and (self.machine.device.type != "cpu" or size * new > self._disk()):
            return None
        if not in_file:
            while self._features_bytes() + size * new > self._room():
                oldest = next((key for key, one in self.features.items() if one is not None and one is not known), None)
                if oldest is None:
                    return None
                self.features.pop(oldest)
        targets = InMemory(target.new_empty((count, *target.shape[1:])))
        if in_file:
            features: InMemory | InFile
            features = known.features if known else InFile(tempfile.TemporaryFile(dir=self.folder), tuple(feature.shape))  # noqa: SIM115
        else:
            features = InMemory(feature.new_empty((count, *feature.shape)))
        if known is None:
            return PackFeatures(np.full(images, -1, dtype=np.int64), features, targets)
        for old, longer in ((known.features, features), (known.target, targets)):
            if isinstance(old, InMemory) and isinstance(longer, InMemory):
                longer.rows[: len(old.rows)] = old.rows
        return replace(known, features=features, target=targets)

    def _features_bytes(self) -> int:
        return sum(one.bytes for one in self.features.values() if one is not None)

    def _room(self) -> int:
        """Return the bytes that all features may take in memory."""
        return 0 if self.full else self.machine.room(FEATURES_SHARE, self.held())

    def _disk(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.folder).free // DISK_SHARE

    def state(self, key: str) -> Any | None:
        """Return the state kept under a key, or None."""
        if key not in self.states:
            return None
        self.states.move_to_end(key)
        return self.states[key][1]

    def keep(self, key: str, state: Any, size: int) -> None:
        """Keep a state of `size` bytes under a key; beyond `STATES_BYTES` in all, the least recently used are dropped."""
        self.states[key] = (size, state)
        while len(self.states) > 1 and sum(taken for taken, _ in self.states.values()) > STATES_BYTES:
            self.states.popitem(last=False)

    def drop(self, key: str) -> None:
        """Drop the state kept under a key."""
        self.states.pop(key, None)
