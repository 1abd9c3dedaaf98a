"""Probing: a pretrained trunk is frozen, its features are computed once, and a probe is fitted to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench import metrics, registry
from bench.contract import Batch, Downstream
from bench.data import batches
from bench.data.batches import SplitData
from bench.errors import DataError
from bench.experiment import calibration
from bench.experiment.finetuning import FineTuning, measure_norms, own_trunk, with_features
from bench.experiment.pretraining import work_folder
from bench.experiment.session import Session
from bench.experiment.task_data import open_task_data
from bench.job import Job
from bench.models.network import Model
from bench.models.probed import STRIDE, ProbedTask, Source, at_pixels
from bench.probe import DenseKnn, DenseLinear, Knn, Linear, LinearSgd, LowShot, Probe, Svm
from bench.probes import dense
from bench.probes.dense import Fitted, Places
from bench.probes.diagnostics import diagnostics
from bench.probes.features import Features, Images, Outcome, Predictions, best, full_precision, judge_of
from bench.record import PretrainRecord
from bench.selection import Choice, LevelDiagnostics, Tried

DIAGNOSED = 1024
"""How many training images, evenly spread, diagnostics compare with their mirror images."""


@dataclass(frozen=True)
class Probed:
    """A probed trunk: its network and data, what the probe found, and what its features look like without labels."""

    run: FineTuning
    outcome: Outcome
    diagnostics: tuple[LevelDiagnostics, ...] = ()
    draws: dict[str, Any] = field(default_factory=dict)
    """The drawn samples of labelled images by their ids; empty where none are drawn."""


def probe(job: Job, pretrained: PretrainRecord, session: Session) -> Probed:
    """Fit a job's probe to the frozen features of a pretrained trunk, choose its settings, and predict the test split.

    DataError where the val or the test split is empty, and where features are not finite.
    """
    assert job.probe is not None, "a job without a probe is fine-tuned"
    session.cache.begin()
    run, task = _prepare(job, pretrained, session)
    session.doing(f"probing {job.downstream} by {job.probe.title}")
    with run.timed(), full_precision():
        if isinstance(job.probe, DenseLinear | DenseKnn):
            return Probed(run, _probe_places(run, task, job.probe))
        features = image_features(run, task)
        outcome = _probe_images(run, job.probe, features)
    found = _diagnostics(run, task)
    return Probed(run, outcome, found, _named_draws(outcome, run.data.splits.ids("train", "val")))


def _prepare(job: Job, pretrained: PretrainRecord, session: Session) -> tuple[FineTuning, ProbedTask]:
    """Return the frozen network with its data, and its features' task; statistics that it lacks are measured."""
    own = cast(Downstream, registry.load("downstreams", job.downstream)(job.settings, len(session.grid.data_of(job).classes)))
    source: Source = getattr(job.probe, "source", "levels")
    task = ProbedTask(own, source)
    model = Model(own_trunk(job, pretrained, session), nn.Identity(), task)
    session.machine.place(model)
    data = open_task_data(job, own, session)
    if not len(data.scored) or not data.splits.members["val"]:
        raise DataError(f"{job.about} needs images to choose on and to score: the val or the test split is empty.")
    work = work_folder(job, session.out)
    run = FineTuning(job, pretrained, session, own, model, data, work, None, data.scored, features=source)
    with run.timed():
        measure_norms(run)
    run.spread = calibration.feature_spread(job, data.training, model, session, run.calibrated)
    model.set_mode("head")
    return run, task


def take_part(job: Job, pretrained: PretrainRecord, session: Session) -> None:
    """Compute a share of the features that another process probes, split by split as it reads them."""
    session.cache.begin()
    run, _ = _prepare(job, pretrained, session)
    splits = [run.data.training, run.data.scored]
    if isinstance(job.probe, DenseLinear | DenseKnn):
        splits.insert(1, _val_of(run))
    for split in splits:
        with_features(run, split)


def _val_of(run: FineTuning) -> SplitData:
    """Return the validation images of a dense probe, which are scored whole."""
    training = run.data.training
    return replace(training, rows=training.rows[len(run.data.splits.ids("train")) :], with_truth=True, cached={})


def image_features(run: FineTuning, task: ProbedTask) -> Features:
    """Return the features of all three splits by level; train and val are the training images in their order."""
    training, test = _images_of(run, task, run.data.training), _images_of(run, task, run.data.scored)
    count = len(run.data.splits.ids("train"))
    parts = (slice(None, count), slice(count, None))
    train, val = (Images(tuple(level[part] for level in training.levels), training.labels[part]) for part in parts)
    return Features(train, val, test)


def _images_of(run: FineTuning, task: ProbedTask, split: SplitData) -> Images:
    found = torch.cat([features for features, _ in _feature_batches(run, task, split)])
    assert split.labels is not None, "a probe of whole images is of a task with labels"
    return Images(tuple(task.parts(found)), split.labels)


def _feature_batches(run: FineTuning, task: ProbedTask, split: SplitData) -> Iterator[tuple[Tensor, Batch]]:
    """Yield the features (N, M) of a split's images and their batches, in order; features are kept when there is room.

    DataError where they are not finite.
    """
    model, machine = run.model, run.session.machine
    split, size = with_features(run, split), run.job.settings.batch_size
    if not task.shapes and len(split):
        model.frozen_features(batches.to_device(replace(split, cached={})[0, np.arange(1)], machine.device)["images"])
    for first in range(0, len(split), size):
        machine.stop.check()
        batch = batches.to_device(split[0, np.arange(first, min(first + size, len(split)))], machine.device)
        with torch.no_grad(), machine.autocast():
            features = model(batch).float()
        if not torch.isfinite(features).all():
            raise DataError(f"the features of {run.pretrained.id} are not finite numbers, so nothing can be probed.")
        yield features, batch


def _probe_images(run: FineTuning, probe: Probe, features: Features) -> Outcome:
    """Return the outcome of a probe of whole images; each estimator is imported where it is needed."""
    from bench.probes.knn import knn
    from bench.probes.logistic import linear
    from bench.probes.lowshot import low_shot
    from bench.probes.sgd import linear_sgd
    from bench.probes.svm import svm

    seed, facts = run.job.seed, run.data.facts
    scored = np.array([name in facts.scored for name in facts.classes])
    judge = judge_of(run.job.settings.metrics[0], facts.classes, facts.scored)
    if isinstance(probe, Knn):
        return knn(probe, features, judge)
    if isinstance(probe, Linear):
        return linear(probe, features, judge)
    if isinstance(probe, LinearSgd):
        return linear_sgd(probe, features, judge, seed)
    if isinstance(probe, Svm):
        return _with_labels(svm(probe, features.of_classes(scored), judge), features)
    assert isinstance(probe, LowShot), f"{probe} is no probe of whole images"
    return low_shot(probe, features, scored, seed)


def _with_labels(outcome: Outcome, features: Features) -> Outcome:
    """Return an outcome with the test images' labels of all classes."""
    labels = features.test.labels
    return replace(
        outcome,
        predictions={**outcome.predictions, "labels": labels},
        predictions_on_test={**outcome.predictions_on_test, "labels": labels},
    )


def _named_draws(outcome: Outcome, ids: Sequence[str]) -> dict[str, Any]:
    """Return the drawn samples with the images' ids in the place of their numbers."""

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: named(part) for name, part in value.items()}
        return [named(part) for part in value] if isinstance(value, list) else ids[value]

    return {name: named(value) for name, value in outcome.draws.items()}


def _diagnostics(run: FineTuning, task: ProbedTask) -> tuple[LevelDiagnostics, ...]:
    """Return the diagnostics of each level on some training images, once a command for the same features."""
    training, cache = run.data.training, run.session.cache
    places = np.unique(np.linspace(0, len(training) - 1, min(DIAGNOSED, len(training))).astype(np.int64))
    name = run.cache_key(training, diagnostics=places.tolist(), trunk_state=run.trunk_state)
    known: tuple[LevelDiagnostics, ...] | None = cache.state(name)
    if known is None:
        plain, mirrored = [], []
        for some in np.array_split(places, -(-len(places) // run.job.settings.batch_size)):
            run.session.machine.stop.check()
            images = batches.to_device(training[0, some], run.session.machine.device)["images"]
            with run.session.machine.autocast():
                plain.append(run.model.frozen_features(images).float())
                mirrored.append(run.model.frozen_features(images.flip(-1)).float())
        pairs = zip(task.parts(torch.cat(plain)), task.parts(torch.cat(mirrored)), strict=True)
        known = tuple(diagnostics(*pair) for pair in pairs)
        cache.keep(name, known, 1)
    return known


def _probe_places(run: FineTuning, task: ProbedTask, probe: DenseLinear | DenseKnn) -> Outcome:
    """Return the outcome of a probe of dense features: fitted to places of training images, scored on whole ones."""
    training, count = run.data.training, len(run.data.splits.ids("train"))
    per_image = probe.places if isinstance(probe, DenseLinear) else -(-probe.memory // max(1, len(training)))
    places, size = _places(run, task, per_image), run.job.size
    val = _val_of(run)
    fit: Callable[..., tuple[list[Choice], Fitted]] = dense.dense_linear if isinstance(probe, DenseLinear) else dense.dense_knn
    taken = count * min(per_image, places.features.shape[0] // max(1, len(training)))
    choices, fitted = fit(probe, Places(places.features[:taken], places.shares[:taken]))
    on_val = _scored_places(run, task, val, fitted, size)
    choices, fitted = fit(probe, places)
    on_test = _scored_places(run, task, run.data.scored, fitted, size)
    facts, name = run.data.facts, run.job.settings.metrics[0]
    values = [[metrics.compute(name, found, facts.classes, facts.scored) for found in split] for split in (on_val, on_test)]
    tried = tuple(Tried.of(choice, *pair) for choice, pair in zip(choices, zip(*values, strict=True), strict=True))
    chosen, other = best(values[0]), best(values[1])
    return Outcome(on_test[chosen], choices[chosen], tried, choices[other], on_test[other])


def _places(run: FineTuning, task: ProbedTask, per_image: int) -> Places:
    """Return `per_image` places of each training image, in the images' order."""
    found: list[Places] = []
    first = 0
    void_is_background = run.job.settings.void == "background"
    for features, batch in _feature_batches(run, task, run.data.training):
        shares = dense.shares_of(batch["target"], STRIDE, task.classes, void_is_background)
        found.append(dense.sample(task.dense(features, run.job.size), shares, per_image, run.job.seed, first))
        first += len(features)
    return Places(torch.cat([one.features for one in found]), torch.cat([one.shares for one in found]))


def _scored_places(run: FineTuning, task: ProbedTask, split: SplitData, fitted: Fitted, size: int) -> list[Predictions]:
    """Return the task's predictions for a split's images from each candidate's class scores."""
    kept: list[dict[str, list[NDArray[Any]]]] = []
    for features, batch in _feature_batches(run, task, split):
        for number, scores in enumerate(fitted(task.dense(features, size))):
            if number == len(kept):
                kept.append({})
            for name, values in task.predictions(at_pixels(scores, size), batch).items():
                kept[number].setdefault(name, []).append(values.cpu().numpy())
    return [{name: np.concatenate(values) for name, values in one.items()} for one in kept]
