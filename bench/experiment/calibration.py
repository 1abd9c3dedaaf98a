"""The check before fine-tuning that a network is not dead, which is to say that its features differ between images.

Batch-norm statistics that the trunk lacks are measured first, since without them a random trunk gives all images nearly the same
features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data import batches
from bench.data.batches import SplitData
from bench.experiment.session import Session
from bench.feature_spread import FeatureSpread
from bench.job import Job
from bench.models import batch_norm
from bench.models.network import Model


@dataclass(frozen=True)
class Calibrated:
    """The names of the batch norms whose statistics were measured before the first phase, and the number of images used."""

    norms: tuple[str, ...] = ()
    images: int = 0


def calibrate(job: Job, training: SplitData, model: Model, session: Session) -> tuple[Calibrated, dict[str, Tensor]]:
    """Measure batch-norm statistics of the trunk on training images; return what was measured, and the trunk's buffers.

    The protocol's `calibration` says which batch norms: those that no training batch went through (`new`), or all. Both results
    are empty when the protocol uses the batch's statistics, and for fewer than two images.
    """
    places = batch_norm.positions(len(training), job.settings.batch_size)
    if job.settings.statistics == "batch" or not places:
        return Calibrated(), {}
    model.set_mode("nothing")
    first = next(_images(training, places, session))
    images = sum(map(len, places))
    with session.machine.autocast():
        chosen = batch_norm.norms_to_measure(model.trunk, job.settings.calibration, model.features, first)
        if chosen:
            session.echo(f"  measuring the statistics of {len(chosen)} batch norms on {images:,} images")
            batch_norm.measure(model.trunk, chosen, model.features, _images(training, places, session))
    names = tuple(name for name, norm in model.trunk.named_modules() if norm in chosen)
    buffers = {name: buffer.detach().to("cpu", copy=True) for name, buffer in model.trunk.named_buffers()}
    return Calibrated(names, images if names else 0), buffers


def feature_spread(job: Job, training: SplitData, model: Model, session: Session, calibrated: Calibrated) -> FeatureSpread | None:
    """Return how much features differ between training images, and warn of a dead network; None for fewer than two images."""
    places = batch_norm.positions(len(training), job.settings.batch_size, batch_norm.COMPARED)
    if not places:
        return None
    images = list(_images(training, places, session))
    found: dict[str, Any] = {"images": sum(map(len, places)), "measured": calibrated.norms, "measured_on": calibrated.images}
    model.set_mode("nothing")
    with torch.no_grad(), session.machine.autocast():
        ratios = batch_norm.spread(model.trunk, model.features, images)
        cosine = batch_norm.cosine(torch.cat([model.features(some).float().flatten(1) for some in images]))
    if ratios:
        found["layer"] = min(ratios, key=lambda name: _or_zero(ratios[name]))
        found["ratio"] = _or_zero(ratios[found["layer"]])
    spread = FeatureSpread(**found, cosine=cosine if np.isfinite(cosine) else None)
    if spread.problem:
        inherited = spread.layer and spread.layer not in spread.measured and job.settings.statistics == "running"
        hint = "; batch norms have inherited statistics: --set protocol.calibration=all measures them anew" if inherited else ""
        session.echo(f"  warning: a dead network: {spread.problem}{hint}")
    return spread


def _or_zero(value: float) -> float:
    return value if np.isfinite(value) else 0.0


def _images(split: SplitData, places: list[NDArray[np.int64]], session: Session) -> Iterator[Tensor]:
    for some in places:
        session.machine.stop.check()
        yield batches.to_device(split[0, some], session.machine.device)["images"]
