"""The losses of an epoch: they stay on the device, and are read many steps at a time."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bench.errors import Diverged


class Sums:
    """Losses summed over an epoch, read from the device many steps at a time."""

    def __init__(self, names: list[str], device: torch.device) -> None:
        self.names, self.zero = names, torch.zeros((), device=device)
        self.waiting: list[tuple[Tensor, int]] = []
        self.latest: dict[str, float] | None = None
        self.clear()

    def clear(self) -> None:
        """Begin an epoch."""
        self.totals, self.images = dict.fromkeys(self.names, 0.0), 0

    def add(self, losses: dict[str, Tensor], count: int) -> None:
        """Note the losses of a training step on `count` images, on the device."""
        self.waiting.append((torch.stack([losses.get(name, self.zero) for name in self.names]), count))

    def read(self, step: int) -> list[tuple[int, dict[str, float]]]:
        """Read the losses of the last steps, up to number `step`, and return them with the steps' numbers."""
        if not self.waiting:
            return []
        values = torch.stack([losses for losses, _ in self.waiting]).tolist()
        first = step - len(values)
        for place, (row, (_, count)) in enumerate(zip(values, self.waiting, strict=True)):
            for name, value in zip(self.names, row, strict=True):
                if not math.isfinite(value):
                    what = "the loss" if self.names == ["loss"] else f"the loss of {name}"
                    raise Diverged(f"{what} is {value} at step {first + place + 1}; try a smaller learning rate.")
                self.totals[name] += value * count
            self.images += count
        self.waiting.clear()
        found = [(first + place, dict(zip(self.names, row, strict=True))) for place, row in enumerate(values, start=1)]
        self.latest = found[-1][1]
        return found

    def means(self) -> dict[str, float]:
        """Return the mean losses of the epoch so far."""
        return {name: total / max(1, self.images) for name, total in self.totals.items()}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"totals": self.totals, "images": self.images}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.totals, self.images = dict(state["totals"]), state["images"]
