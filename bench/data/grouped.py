"""Splits of images that belong together: a patient's, a video's. No group is ever in two splits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import Dataset
from bench.errors import DataError
from bench.seeding import key
from bench.text import quoted

Rows = NDArray[np.int64]


def groups_of(dataset: Dataset, ids: Sequence[str]) -> list[str]:
    """Return the group of each image; an image without one is a group of its own."""
    known = {image.id: image.group for image in dataset.images}
    return [known[identity] or f"\0{identity}" for identity in ids]


def check(dataset: Dataset, members: Mapping[str, Sequence[str]]) -> None:
    """Raise DataError when a group is in two splits, as it may be in splits that a data set names itself."""
    if not dataset.grouped_by:
        return
    seen: dict[str, str] = {}
    for split, ids in members.items():
        for group in groups_of(dataset, ids):
            before = seen.setdefault(group, split)
            if before != split:
                raise DataError(
                    f"{dataset.name}: {dataset.grouped_by} {quoted(group)} is in the {before} and the {split} split; mend the "
                    "splits, or let the images be divided by --set protocol.split_scheme=paper-70-20-10."
                )


def divide(groups: Sequence[str], labels: Rows | None, shares: tuple[float, float, float], name: str) -> tuple[Rows, Rows, Rows]:
    """Return the rows of train, val and test, so that each group is whole in one and each class has about its share in each.

    The largest group comes first, equal ones in an order that depends on their number alone, and goes to the split that lacks
    most of what it has: the images of each class, and images as such, by their shares of all. `labels` (N, C) says which classes
    an image shows; None: none is known. DataError when there are fewer groups than splits.

    The greedy rule of scikit-learn's StratifiedGroupKFold, for images of several classes and parts of several sizes.
    """
    names, group = np.unique(np.array(groups), return_inverse=True)
    wanted = [place for place, share in enumerate(shares) if share]
    if len(names) < len(wanted):
        raise DataError(f"{name} has {len(names)} groups, which do not fill {len(wanted)} splits.")
    shown = np.ones((len(group), 1)) if labels is None else np.hstack([np.ones((len(group), 1)), labels])
    content = np.zeros((len(names), shown.shape[1]))
    np.add.at(content, group, shown)
    total = np.maximum(content.sum(axis=0), 1)
    lacking = np.array([shares[place] for place in wanted])[:, None] * total
    mixed = np.random.default_rng(key("groups", len(names))).permutation(len(names))
    order = mixed[np.argsort(-content[mixed, 0], kind="stable")]
    empty = set(range(len(wanted)))
    chosen = np.zeros(len(names), dtype=np.int64)
    for left, one in zip(range(len(order), 0, -1), order, strict=True):
        among = sorted(empty) if left <= len(empty) else range(len(wanted))  # the last groups fill what would stay empty
        shows = np.flatnonzero(content[one])
        needs = content[one, shows] * lacking[:, shows] / total[shows] ** 2
        place = max(among, key=lambda split: (math.fsum(needs[split]), -split))  # fsum: the same on every machine
        chosen[one] = place
        lacking[place] -= content[one]
        empty.discard(place)
    of_row = chosen[group]
    found = [np.zeros(0, dtype=np.int64)] * 3
    for number, place in enumerate(wanted):
        found[place] = np.nonzero(of_row == number)[0]
    return found[0], found[1], found[2]
