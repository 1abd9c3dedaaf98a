"""A job becomes a record: pretrain or reuse a trunk, fine-tune it, score it once on the test split, publish what stays.

The output folder is asked first. What is there is returned, what was interrupted goes on, and what is missing is computed; locks
keep two commands from doing the same work.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench import metrics, record
from bench.errors import DataError
from bench.experiment import examples
from bench.experiment.finetuning import FineTuning, finetune, work_folder
from bench.experiment.pretraining import find_pretrained, load_trunk, lock_of, pretrain
from bench.experiment.provenance import cost, provenance
from bench.experiment.session import Session
from bench.job import Job
from bench.models import batch_norm
from bench.record import PretrainRecord, Record, Tuning
from bench.storage import files, locks
from bench.storage.arrays import pack_predictions
from bench.training import checkpoint, loggers


def run(job: Job, session: Session, tuning: Tuning | None = None, wait: bool = True) -> Record:
    """Return the record of a job: the one on the disk, or a new one. `tuning` is the search that chose the job's rates.

    When another process makes it or its trunk, wait for that, or raise Busy.
    """
    found = find(job, session.out)
    if found is not None:
        files.remove_folder(work_folder(job, session.out))  # a process may die between the record and this
        _check_measured(found, session)
        return found
    pretrained = pretrain(job.pretrain, session, wait)
    with locks.lock(lock_of(job, session.out), session.echo, session.machine.stop.check, wait=wait):
        return find(job, session.out) or _publish(job, pretrained, session, tuning)


def find(job: Job, out: Path) -> Record | None:
    """Return a job's record when it is there; DataError when it cannot be read."""
    path = out / "runs" / job.id / "record.json"
    return record.read_one(path) if path.is_file() else None


def is_busy(job: Job, out: Path) -> bool:
    """Tell whether another process makes this run or its trunk at this moment."""
    return any(locks.is_held(lock_of(one, out)) for one in (job.pretrain, job))


def _check_measured(found: Record, session: Session) -> None:
    """Raise DataError for a plug-in's earlier run, unless its trunk shows that nothing of it would now be measured."""
    job = found.job
    if found.spread is not None or not job.pretrain.source or job.settings.statistics == "batch":
        return
    pretrained = find_pretrained(job.pretrain, session.out)
    if pretrained is None or batch_norm.never_used(load_trunk(job, pretrained, session.out)):
        raise DataError(
            f"{found.id} was made by an earlier version of the bench, which did not measure the batch-norm statistics of what "
            f"{found.pretext} does not train; remove its folder below {session.out / 'runs'} to run it again."
        )


def _publish(job: Job, pretrained: PretrainRecord, session: Session, tuning: Tuning | None) -> Record:
    """Fine-tune and score a job, and publish its folder: the record, the predictions, the splits, some images."""
    session.machine.forget_peak()
    origin = provenance(session)
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
        cost=cost(tuned.history, session.machine),
        pretrain=pretrained,
        tuning=tuning,
        predictions=files.sha256_bytes(packed),
        examples=files.sha256_bytes(shown) if shown else "",
        weights=checkpoint.digest(tuned.model),
        head=repr(tuned.model.head)[:2000],
        spread=tuned.spread,
        precision=session.machine.arithmetic,
        provenance=origin,
    )

    def fill(folder: Path) -> None:
        (folder / "predictions.npz").write_bytes(packed)
        loggers.keep(work_folder(job, session.out), folder)
        if shown:
            (folder / "examples.npz").write_bytes(shown)
        files.publish_json(folder / "split.json", tuned.data.splits.model_dump(mode="json"))
        files.publish_json(folder / "record.json", made.model_dump(mode="json"))

    files.publish_folder(session.out / "runs" / job.id, fill, whole="record.json")
    files.remove_folder(work_folder(job, session.out))
    return made


def _warn(tuned: FineTuning, metric: str, per_class: dict[str, float | None]) -> None:
    """Tell of classes that the metric's mean leaves out, and of training images that teach nothing."""
    absent = [name for name, value in per_class.items() if value is None]
    if absent:
        names = ", ".join(absent)
        tuned.session.echo(f"  warning: {metric} is not defined for {names} on these images, and its mean leaves them out")
    if tuned.data.facts.void:
        tuned.session.echo(f"  warning: {tuned.data.facts.void} of the training images are void throughout and taught nothing")


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
