"""One run, from job to record: pretrain or reuse a trunk, fine-tune it, score it once on the test split, publish the record.

A finished run is returned from the output folder, an interrupted one is resumed, and a missing one is computed. Locks keep two
commands from doing the same work.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench import metrics, record
from bench.errors import DataError
from bench.experiment import examples, needs
from bench.experiment.finetuning import FineTuning, finetune
from bench.experiment.leaks import leaks_of
from bench.experiment.pretraining import find_pretrained, load_trunk, lock_of, pretrain, work_folder
from bench.experiment.provenance import cost, provenance
from bench.experiment.session import Session
from bench.job import Job
from bench.models import batch_norm
from bench.record import PretrainRecord, Record, Tuning
from bench.storage import files, locks
from bench.storage.arrays import pack_predictions
from bench.training import checkpoint, loggers

NETWORK = "network.safetensors"
"""The fine-tuned network of a run that was made with --keep-networks."""


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
        return find(job, session.out) or _publish(job, pretrained, session, tuning)


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


def _publish(job: Job, pretrained: PretrainRecord, session: Session, tuning: Tuning | None) -> Record:
    """Fine-tune and score a job, publish its folder (record, predictions, splits, examples, logs), return the record."""
    origin, leaks = provenance(session), leaks_of(job, session.grid, session.echo)
    tuned = finetune(job, pretrained, session)
    predictions = tuned.predictions()
    packed = pack_predictions(predictions, tuned.data.ids)
    facts = tuned.data.facts
    judged = facts.classes, facts.scored
    names = [metrics.get(name).key for name in job.settings.metrics]
    per_class = {name: scores for name in names if (scores := metrics.per_class(name, predictions, *judged))}
    _warn(tuned, names[0], per_class.get(names[0], {}))
    shown = examples.choose(tuned, predictions)
    made = Record(
        id=job.id,
        job=job,
        title=tuned.downstream.title,
        data=facts,
        metrics={name: _finite(metrics.compute(name, predictions, *judged)) for name in names},
        per_class=per_class,
        losses=tuned.losses,
        cost=cost(tuned.history, session.machine, session.cache.peak_memory()),
        pretrain=pretrained,
        tuning=tuning,
        predictions=files.sha256_bytes(packed),
        examples=files.sha256_bytes(shown) if shown else "",
        weights=checkpoint.digest(tuned.model),
        head=repr(tuned.model.head)[:2000],
        spread=tuned.spread,
        leaks=leaks,
        precision=session.machine.arithmetic,
        plugins=needs.texts(job),
        provenance=origin,
    )

    def fill(folder: Path) -> None:
        (folder / "predictions.npz").write_bytes(packed)
        loggers.keep(work_folder(job, session.out), folder)
        if shown:
            (folder / "examples.npz").write_bytes(shown)
        if session.config.keep_networks:
            checkpoint.save_weights(folder / NETWORK, tuned.model, {"id": job.id, "job": job.model_dump(mode="json")})
        files.publish_json(folder / "split.json", tuned.data.splits.model_dump(mode="json"))
        files.publish_json(folder / "record.json", made.model_dump(mode="json"))

    files.publish_folder(session.out / "runs" / job.id, fill, whole="record.json")
    files.remove(work_folder(job, session.out))
    return made


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
