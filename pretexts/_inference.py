"""The mode in which tasks answer whose papers switch dropout off then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from bench.models.modes import inference, use_statistics
from bench.protocol import Statistics


@contextmanager
def inference_with(module: nn.Module, statistics: Statistics) -> Iterator[None]:
    """Infer without dropout inside the block; batch norm uses `statistics`, as a recipe says."""
    with inference(module):
        use_statistics(module, statistics)
        for part in module.modules():
            if isinstance(part, _DropoutNd):
                part.training = False
        try:
            yield
        finally:
            use_statistics(module, "running")
