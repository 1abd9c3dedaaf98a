"""Networks and images for the tests of batch norm."""

import torch
from torch import Tensor

from bench.models import batch_norm
from bench.models.network import Model


def spread(model: Model, seen: list[Tensor]) -> float:
    with torch.no_grad():
        return min(batch_norm.spread(model.trunk, model.features, seen).values())
