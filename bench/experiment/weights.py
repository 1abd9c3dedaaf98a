"""Weights from elsewhere at work: copied into a trunk, and audited on real images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench import registry
from bench.contract import Trunk
from bench.data import packs, splits
from bench.data.dataset import decode
from bench.errors import DataError
from bench.experiment.jobs import pack_of, subset_of
from bench.experiment.session import Session
from bench.initialisation import Audit, Origin
from bench.job import Job, PretrainJob
from bench.models import audit, matching

IMAGES, TOGETHER = 64, 32
"""How many images an audit looks at, and how many of them at once."""


def begin(job: PretrainJob, trunk: Trunk, session: Session) -> Origin:
    """Load a job's weights into a new trunk, audit them, and return what the record says of them.

    DataError when the session does not have them, as when a record of somebody else is made again.
    """
    loaded = next((one for one in session.grid.initialisations if one.weights == job.weights), None)
    if loaded is None:
        assert job.weights is not None
        digest = job.weights.sha256[:16]
        raise DataError(f"{job.id} begins with weights of SHA-256 {digest}, which are not here; name their file by --init.")
    matching.load(loaded.matched, trunk)
    session.doing(f"auditing {loaded.label}")
    found = _audited(job, trunk, session)
    if found.problem:
        session.echo(f"  warning: {loaded.label}: {found.problem}")
    else:
        session.echo(f"  audit of {loaded.label} on {found.images} images of {found.data}: {_words(found)}")
    return loaded.origin.model_copy(update={"audit": found})


def _audited(job: PretrainJob, trunk: Trunk, session: Session) -> Audit:
    batches = _images(job, session)
    measured = audit.measure(trunk, batches)
    images = sum(map(len, batches))
    data = session.grid.data_of(_of_trunk(job, session))
    problem = audit.problem(trunk, batches, measured, data.synthetic)
    return Audit(images=images, data=data.name, **measured, problem=problem)


def _words(found: Audit) -> str:
    if found.cosine is None or found.first_scale is None:
        return f"no batch norms to compare with; median cosine of two images {found.cosine or 0:.2f}"
    return (
        f"the first batch norm's means are off by {found.first_shift:.2f} standard deviations, its standard deviations by a "
        f"factor of {found.first_scale:.2f}; median cosine of two images {found.cosine:.2f}"
    )


def _images(job: PretrainJob, session: Session) -> list[Tensor]:
    """Return some training images of a job on this trunk, uint8 (N, 3, H, W), squashed to the trunk's size."""
    of_trunk = _of_trunk(job, session)
    data, protocol = session.grid.data_of(of_trunk), of_trunk.settings
    subset = subset_of(registry.load("downstreams", of_trunk.downstream), protocol, data)
    ids = splits.open_splits(data, protocol.split_scheme, subset).ids("train")
    files = {image.id: data.path(image) for image in data.images}
    _, rule = pack_of(subset, protocol.model_copy(update={"resize": "squash"}), job.size)
    chosen = [ids[place] for place in np.unique(np.linspace(0, len(ids) - 1, IMAGES).astype(int))]
    images = [torch.from_numpy(packs.fit(decode(files[one]), rule, job.size)[0]).permute(2, 0, 1) for one in chosen]
    return [torch.stack(images[first : first + TOGETHER]) for first in range(0, len(images), TOGETHER)]


def _of_trunk(job: PretrainJob, session: Session) -> Job:
    """Return the first run of a grid that is on a trunk, or on one that begins with its weights, as while rates are searched."""
    same = (one for one in session.grid.jobs if one.pretrain.id == job.id)
    return next(same, next(one for one in session.grid.jobs if one.pretrain.weights == job.weights))
