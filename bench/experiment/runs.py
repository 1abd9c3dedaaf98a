"""One run, from job to record: pretrain or reuse a trunk, fine-tune it, score it once on the test split, publish the record.

A finished run is returned from the output folder, an interrupted one is resumed, and a missing one is computed. Locks keep two
commands from doing the same work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bench import metrics, record
from bench.errors import DataError
from bench.experiment import examples, failures, needs, probing
from bench.experiment.finetuning import FineTuning, finetune
from bench.experiment.leaks import leaks_of
from bench.experiment.pretraining import find_pretrained, load_trunk, lock_of, pretrain, work_folder
from bench.experiment.provenance import cost, provenance
from bench.experiment.session import Session
from bench.job import Job
from bench.models import batch_norm
from bench.record import PretrainRecord, Record, Tuning
from bench.schema import canonical
from bench.selection import LevelDiagnostics, Selection
from bench.storage import files, locks
from bench.storage.arrays import pack_predictions
from bench.training import checkpoint, loggers
from results.predictions import ON_TEST, PREDICTIONS

NETWORK = "network.safetensors"
"""The fine-tuned network of a run that was made with --keep-networks."""
EXAMPLES = "examples.npz"
"""The example images of a fine-tuned run."""
DRAWS = "draws.json"
"""The samples of labelled images that a probe has drawn."""


def run(job: Job, session: Session, tuning: Tuning | None = None, wait: bool = True) -> Record:
    """Return the record of a job, from the disk or after running it; `tuning` is the search that chose the job's rates.

    While another process makes the run or its trunk, wait for it; without `wait`, raise Busy instead.
    """
    found = find(job, session.out)
    if found is not None:
        files.remove(work_folder(job, session.out))  # left when a process died after publishing
        _check_measured(found, session)
        return found
    pretrained = pretrain(job.pretrain, session, wait)
    with locks.lock(lock_of(job, session.out), session.echo, session.machine.stop.check, wait=wait):
        made = find(job, session.out)
        if made is None:
            with failures.noted(job.id, session.out):
                made = _publish(job, pretrained, session, tuning)
        return made


def find(job: Job, out: Path) -> Record | None:
    """Return a job's record, None when there is none; DataError when it cannot be read."""
    path = record.record_path(out, job.id)
    return record.read_one(path) if path.is_file() else None


def is_busy(job: Job, out: Path) -> bool:
    """Tell whether another process is making this run or its trunk now."""
    return any(locks.is_held(lock_of(one, out)) for one in (job.pretrain, job))


def _check_measured(found: Record, session: Session) -> None:
    """Raise DataError for an outside plug-in's run from before batch-norm statistics were measured, if its trunk lacks some."""
    job = found.job
    if found.spread is not None or not job.pretrain.source or job.settings.statistics == "batch":
        return
    pretrained = find_pretrained(job.pretrain, session.out)
    if pretrained is None or batch_norm.never_used(load_trunk(job, pretrained, session.out)):
        raise DataError(
            f"{found.id} was made by an earlier version of the bench, which did not measure the batch-norm statistics of parts "
            f"that {found.pretext} does not train; remove its folder below {session.out / 'runs'} to run it again."
        )


@dataclass(frozen=True)
class _Result:
    """What an evaluation of a trunk leaves: a fine-tuned network, or a probe with its choices, and predictions."""

    run: FineTuning
    predictions: dict[str, NDArray[Any]]
    files: dict[str, bytes] = field(default_factory=dict)
    """What is kept beside the record, by file name."""
    network: nn.Module | None = None
    """The fine-tuned network; None for a probe."""
    selection: Selection | None = None
    diagnostics: tuple[LevelDiagnostics, ...] = ()


def _finetuned(job: Job, pretrained: PretrainRecord, session: Session) -> _Result:
    tuned = finetune(job, pretrained, session)
    predictions = tuned.predictions()
    shown = examples.choose(tuned, predictions) if session.machine.world.leads else None
    return _Result(tuned, predictions, {EXAMPLES: shown} if shown else {}, tuned.model)


def _probed(job: Job, pretrained: PretrainRecord, session: Session) -> _Result:
    assert job.probe is not None, "a job without a probe is fine-tuned"
    found = probing.probe(job, pretrained, session)
    outcome, facts, metric = found.outcome, found.run.data.facts, metrics.get(job.settings.metrics[0]).key

    def value(predictions: dict[str, NDArray[Any]]) -> float | None:
        return _finite(metrics.compute(metric, predictions, facts.classes, facts.scored))

    beside: dict[str, bytes] = {}
    if outcome.on_test != outcome.chosen:
        beside[ON_TEST] = pack_predictions(outcome.predictions_on_test, found.run.data.ids)
    if found.draws:
        beside[DRAWS] = (canonical(found.draws) + "\n").encode()
    selection = Selection(
        by=job.probe.by,
        metric=metric,
        chosen=outcome.chosen,
        tried=outcome.tried,
        value=value(outcome.predictions),
        on_test=outcome.on_test,
        on_test_value=value(outcome.predictions_on_test),
        predictions=files.sha256_bytes(beside[ON_TEST]) if ON_TEST in beside else "",
    )
    return _Result(found.run, outcome.predictions, beside, None, selection, found.diagnostics)


def _publish(job: Job, pretrained: PretrainRecord, session: Session, tuning: Tuning | None) -> Record:
    """Evaluate a job's trunk, publish its folder (record, predictions, splits, examples, logs), return the record."""
    origin, leaks = provenance(session, session.grid.data_name_of(job)), leaks_of(job, session.grid, session.echo)
    with session.machine.part("evaluate", job, pretrained):
        found = (_finetuned if job.probe is None else _probed)(job, pretrained, session)
    run, packed = found.run, pack_predictions(found.predictions, found.run.data.ids)
    judged = run.data.facts.classes, run.data.facts.scored
    names = [metrics.get(name).key for name in job.settings.metrics]
    per_class = {name: scores for name in names if (scores := metrics.per_class(name, found.predictions, *judged))}
    _warn(run, names[0], per_class.get(names[0], {}))
    made = Record(
        id=job.id,
        job=job,
        title=run.downstream.title,
        data=run.data.facts,
        metrics={name: _finite(metrics.compute(name, found.predictions, *judged)) for name in names},
        per_class=per_class,
        losses=run.losses,
        cost=cost(run.history, session.machine, session.cache.peak_memory()),
        pretrain=pretrained,
        tuning=tuning,
        predictions=files.sha256_bytes(packed),
        examples=files.sha256_bytes(found.files[EXAMPLES]) if EXAMPLES in found.files else "",
        weights=checkpoint.digest(found.network) if found.network is not None else "",
        head=repr(run.model.head)[:2000] if found.network is not None else "",
        selection=found.selection,
        diagnostics=found.diagnostics,
        spread=run.spread,
        leaks=leaks,
        precision=session.machine.arithmetic,
        plugins=needs.texts(job),
        provenance=origin,
    )
    _write(made, found, {PREDICTIONS: packed, **found.files}, session)
    return made


def _write(made: Record, found: _Result, beside: Mapping[str, bytes], session: Session) -> None:
    """Publish a run's folder with its record and the files beside it."""

    def fill(folder: Path) -> None:
        for name, content in beside.items():
            (folder / name).write_bytes(content)
        loggers.keep(work_folder(made.job, session.out), folder)
        if session.config.keep_networks and found.network is not None:
            checkpoint.save_weights(folder / NETWORK, found.network, {"id": made.id, "job": made.job.model_dump(mode="json")})
        files.publish_json(folder / "split.json", found.run.data.splits.model_dump(mode="json"))
        files.publish_json(folder / "record.json", made.model_dump(mode="json"))

    files.publish_folder(session.out / "runs" / made.id, fill, whole="record.json")
    files.remove(work_folder(made.job, session.out))


def _warn(tuned: FineTuning, metric: str, per_class: dict[str, float | None]) -> None:
    """Warn of classes that the metric's mean leaves out, and of training images without a pixel to learn from."""
    absent = [name for name, value in per_class.items() if value is None]
    if absent:
        names = ", ".join(absent)
        tuned.session.echo(f"  warning: {metric} is not defined for {names} on these images; its mean leaves these classes out")
    if tuned.data.facts.void:
        tuned.session.echo(f"  warning: {tuned.data.facts.void} training images are void throughout and taught nothing")


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
