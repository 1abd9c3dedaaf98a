"""Weights from elsewhere at work: copied into a trunk, and audited on real images."""

from __future__ import annotations

from bench.contract import Trunk
from bench.errors import DataError
from bench.experiment.session import Session
from bench.initialisation import Origin
from bench.job import PretrainJob
from bench.models import matching


def begin(job: PretrainJob, trunk: Trunk, session: Session) -> Origin:
    """Load a job's weights into a new trunk, audit them, and return what the record says of them.

    DataError when the session does not have them, as when a record of somebody else is made again.
    """
    loaded = next((one for one in session.grid.initialisations if one.weights == job.weights), None)
    if loaded is None:
        assert job.weights is not None
        raise DataError(
            f"{job.id} begins with weights of SHA-256 {job.weights.sha256[:16]}, which are not here; name their file."
        )
    matching.load(loaded.matched, trunk)
    return loaded.origin
