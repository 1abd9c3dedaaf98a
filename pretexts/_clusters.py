"""Clusters of images by the features of a frozen network: classes without labels, as in DeepCluster.

Caron et al. 2018, https://arxiv.org/abs/1807.05520. The network is a copy of a trunk's encoder as it is when the task begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self, cast

import torch
from torch import Tensor, nn

from bench.contract import Trunk
from bench.models import batch_norm
from bench.models.teacher import Teacher

MOST = 4096
"""The most images that clusters are found among."""


class Clusters(nn.Module):
    """Lightness (N, 1, H, W) to a distribution over clusters (N, `count`); `find` is called before."""

    mean: Tensor
    deviation: Tensor
    centres: Tensor
    variance: Tensor

    def __init__(self, trunk: Trunk, count: int) -> None:
        super().__init__()
        self.network = Teacher(trunk, without="up")
        channels = trunk.bottleneck_channels
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.register_buffer("centres", torch.randn(count, channels))
        self.register_buffer("variance", torch.ones(()))
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in inference mode: the network is frozen."""
        return super().train(False)

    def encode(self, lightness: Tensor) -> Tensor:
        """Return the frozen network's bottleneck (N, C, h, w)."""
        return self.network.encode(cast(Trunk, self.network.network).preprocessing.grey(lightness))[-1]

    def features(self, lightness: Tensor) -> Tensor:
        """Return the bottleneck, averaged over places and standardised: (N, C)."""
        found = self.encode(lightness).mean(dim=(2, 3)).float()
        return (found - self.mean) / self.deviation

    def forward(self, lightness: Tensor) -> Tensor:
        """Return how probable each cluster is: Gaussians around the centres with the clusters' mean variance; nearly 0 or 1."""
        distance = torch.cdist(self.features(lightness), self.centres).square()
        return (distance / (-2 * self.variance)).softmax(dim=1)

    @torch.no_grad()
    def find(self, batches: Iterable[Tensor]) -> None:
        """Find clusters of images, given by batches of their lightness (N, 1, H, W), by k-means.

        Batch norms of a network that was never trained get their statistics from the same images first.
        """
        from sklearn.cluster import KMeans

        images, kept = [], 0
        for some in batches:
            if kept >= MOST:
                break
            images.append(some)
            kept += len(some)
        norms = batch_norm.never_used(self.network)
        if norms:
            batch_norm.measure(self.network, norms, self.encode, images)
        features = torch.cat([self.features(some) for some in images])
        self.mean.copy_(features.mean(dim=0))
        self.deviation.copy_(features.std(dim=0, correction=0).clamp(min=1e-6))
        features = (features - self.mean) / self.deviation
        count = min(len(self.centres), len(features))
        means = KMeans(count, n_init=1, random_state=0).fit(features.cpu().double().numpy())
        self.centres.fill_(1e3)  # a cluster that no image is left for is far from all
        self.centres[:count] = torch.from_numpy(means.cluster_centers_)
        self.variance.fill_(max(means.inertia_ / features.numel(), 1e-6))
