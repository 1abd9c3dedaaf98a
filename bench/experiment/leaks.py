"""Leaks of a grid: which images that its jobs score are among those that its trunks are pretrained on, counted, told, refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bench import registry
from bench.data import leaks, splits
from bench.data.dataset import Dataset
from bench.data.splits import Splits
from bench.errors import DataError
from bench.experiment.jobs import subset_of
from bench.experiment.resolve import Grid
from bench.job import NO_DATA, Job, PretrainJob
from bench.record import Leaks, Overlap
from bench.text import Echo

SOME = 3
"""How many images are named."""


def pretraining_splits(job: PretrainJob, grid: Grid, echo: Echo) -> Splits:
    """Return the splits that a trunk is pretrained on, less what `--leaks drop` removes; DataError when others are left."""
    assert grid.pretrain_data is not None, "a job that trains has data"
    whole = splits.open_splits(grid.pretrain_data, "pretraining", "images")
    if job.held_out is None:
        return whole
    labelled = next((data for data in grid.data.values() if data.fingerprint == job.held_out.data_fingerprint), None)
    made = whole if labelled is None else leaks.without(whole, grid.pretrain_data, labelled, job.held_out, echo)
    if labelled is None or made.fingerprint != job.splits_fingerprint:
        raise DataError(f"the images that --leaks drop leaves of {grid.pretrain_data.name} here are not those of {job.id}.")
    return made


def leaks_of(job: Job, grid: Grid, echo: Echo) -> Leaks | None:
    """Return how many of a job's test and validation images its trunk is pretrained on; None when nothing is pretrained."""
    if job.pretrain.data_fingerprint == NO_DATA or grid.pretrain_data is None:
        return None
    known = job.pretrain.splits_fingerprint, job.splits_fingerprint
    if known not in grid.leaks:
        training = pretraining_splits(job.pretrain, grid, echo)
        data = grid.data_of(job)
        subset = subset_of(registry.load("downstreams", job.downstream), job.settings, data)
        scored = splits.open_splits(data, job.settings.split_scheme, subset)
        whole = splits.open_splits(grid.pretrain_data, "pretraining", "images")
        test, val = _overlaps(grid, data, training, [scored.ids("test"), scored.ids("val")], echo)
        dropped = len(whole.ids("train")) - len(training.ids("train"))
        grid.leaks[known] = Leaks(trained=len(training.ids("train")), test=test, val=val, dropped=dropped)
    return grid.leaks[known]


def _overlaps(grid: Grid, data: Dataset, training: Splits, parts: Sequence[list[str]], echo: Echo) -> Iterator[Overlap]:
    """Yield the overlap of each part of the scored images with those that are trained on; all are compared at once."""
    assert grid.pretrain_data is not None
    found = leaks.shared(grid.pretrain_data, training, data, [identity for ids in parts for identity in ids], echo)
    first = 0
    for ids in parts:
        equal, near, plain = (some[first : first + len(ids)] for some in (found.equal, found.near, found.plain))
        first += len(ids)
        yield Overlap(
            images=len(ids),
            equal=int(equal.sum()),
            near=int(near.sum()),
            plain=int(plain.sum()),
            some=tuple(ids[place] for place in np.flatnonzero(equal | near)[:SOME]),
        )


def check(grid: Grid, refuse: bool, echo: Echo) -> None:
    """Tell for each downstream task which test images are pretrained on; with `refuse`, DataError for the first that has some."""
    for job, found in _each(grid, echo):
        text = told(job.downstream, found)
        if refuse and found.test.count:
            raise DataError(f"{text}; --leaks drop leaves them out of pretraining, and --leaks note only counts them.")
        echo(text + ("; --leaks drop leaves them out of pretraining" if found.test.count else ""))


def _each(grid: Grid, echo: Echo) -> Iterator[tuple[Job, Leaks]]:
    """Yield a job with its leaks for each downstream task on each data set."""
    known: set[tuple[str, str]] = set()
    for job in grid.jobs:
        task = job.downstream, job.data_fingerprint
        found = leaks_of(job, grid, echo) if task not in known else None
        if found is not None:
            known.add(task)
            yield job, found


def told(downstream: str, found: Leaks) -> str:
    """Return leaks in words."""
    text = f"{downstream}: {_counted(found.test, 'test')} among the {found.trained:,} images to pretrain on{_kinds(found.test)}"
    if found.val.count:
        text += f", and {_counted(found.val, 'validation')}{_kinds(found.val)}"
    if found.dropped:
        text += f"; {found.dropped:,} were dropped from pretraining as equal or near to test images"
    return text


def _counted(found: Overlap, split: str) -> str:
    return f"{found.count or 'none'} of the {found.images:,} {split} images {'is' if found.count < 2 else 'are'}"


def _kinds(found: Overlap) -> str:
    names = ", ".join(found.some) + (", ..." if found.count > len(found.some) else "")
    return f" ({found.equal:,} equal, {found.near:,} near: {names})" if found.count else ""
