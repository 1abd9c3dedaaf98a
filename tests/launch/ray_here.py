"""A Ray cluster of several one-processor nodes inside this machine, for tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MEMORY = 80_000_000
"""Bytes of each node's object store, about the least that Ray takes; nothing is kept there."""


@dataclass
class Nodes:
    """The nodes of a cluster, in the order in which they were added, without the head, which has no processor to give."""

    cluster: Any
    nodes: list[Any]

    @property
    def address(self) -> str:
        """The cluster's address."""
        return str(self.cluster.address)

    def add(self) -> None:
        """Add a node."""
        self.nodes.append(self.cluster.add_node(num_cpus=1, object_store_memory=MEMORY))

    def lose(self) -> None:
        """Kill the node that was added last."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)


@contextlib.contextmanager
def cluster(nodes: int = 2) -> Iterator[Nodes]:
    """Start a cluster, give it, and end it."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": MEMORY}
    made = Nodes(Cluster(initialize_head=True, head_node_args=head), [])
    try:
        for _ in range(nodes):
            made.add()
        yield made
    finally:
        ray.shutdown()
        made.cluster.shutdown()
