"""A job becomes a record: pretrain or reuse a trunk, fine-tune it in phases, score it once, publish what is left.

The store is asked first. What is there is returned, what was interrupted goes on, and what is missing is computed; locks keep two
commands from doing the same work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench import checkpoint, examples, log, metrics, store
from bench.contract import Batch, Downstream, Phase
from bench.data import batches, packs, splits
from bench.data.dataset import Dataset
from bench.desk import Desk, cost, facts, provenance
from bench.job import Job
from bench.machine import Machine
from bench.model import Model, make_model, predict
from bench.order import key
from bench.pretraining import load_trunk, pretrain
from bench.resolve import pack_of, subset_of
from bench.train import Course, History, train
from results.record import DataFacts, PretrainRecord, Record, Tuning, pack_predictions, read_one


def run(job: Job, desk: Desk, tuning: Tuning | None = None) -> Record:
    """Return the record of a job: the one on the disk, or a new one. `tuning` is the search that chose the job's rates."""
    found = find(job, desk.out)
    if found is not None:
        return found
    pretrained = pretrain(job.pretrain, desk)
    with store.lock(desk.out / "locks" / f"{job.id}.lock", desk.say, desk.machine.stop.check):
        return find(job, desk.out) or _publish(job, pretrained, desk, tuning)


def find(job: Job, out: Path) -> Record | None:
    """Return a job's record when it is there; DataError when it cannot be read."""
    path = out / "runs" / job.id / "record.json"
    return read_one(path) if path.is_file() else None


@dataclass
class Finetuned:
    """A fine-tuned network, what its training left, and what it says of every picture of the job's part."""

    downstream: Downstream
    model: Model
    phases: list[dict[str, Any]]
    history: History
    data: DataFacts
    part: batches.Part
    ids: list[str]
    fit: splits.Split

    def predictions(self, machine: Machine) -> dict[str, NDArray[Any]]:
        """Look at every picture of the part once."""
        self.model.set_mode("nothing")
        return predict(self.model, self.downstream, self.part, machine)


Watch = Callable[["Finetuned", int], None]
"""Called after every epoch of a fine-tuning, with the number of epochs that are done in all phases."""


def finetune(job: Job, pretrained: PretrainRecord, desk: Desk, watch: Watch | None = None, work: Path | None = None) -> Finetuned:
    """Fine-tune a pretrained trunk through the phases of a job; nothing is published, checkpoints stay in its working folder."""
    device = desk.machine.device
    dataset = desk.grid.data
    trunk = load_trunk(job.pretrain, pretrained, desk.out, job.transfer)
    downstream, model = make_model(job, trunk, len(dataset.classes))
    model.to(device)
    train_part, part, data, ids, fit = _parts(job, downstream, dataset, desk)
    tuned = Finetuned(downstream, model, [], History(), data, part, ids, fit)
    done, work = 0, work or work_folder(job, desk.out)
    for number, phase in enumerate(job.phases, start=1):
        model.set_mode(phase.train)
        course = _phase_course(job, model, downstream, number, phase, train_part)
        if watch is not None:

            def after_epoch(epoch: int, before: int = done, phase: Phase = phase) -> None:
                watch(tuned, before + epoch)
                model.set_mode(phase.train)

            course.after_epoch = after_epoch
        with log.watching(desk.log, desk.watcher, work) as watcher:
            history = train(course, desk.machine, work / f"phase-{number}", watcher)
        tuned.phases.append({**phase.model_dump(), "losses": [epoch["loss"] for epoch in history.epochs]})
        tuned.history.add(history)
        done += phase.epochs
    return tuned


def work_folder(job: Job, out: Path) -> Path:
    """Return where a job that is not finished keeps its checkpoints."""
    return out / "work" / job.id


def _publish(job: Job, pretrained: PretrainRecord, desk: Desk, tuning: Tuning | None) -> Record:
    desk.machine.forget_peak()
    origin = provenance(desk)
    tuned = finetune(job, pretrained, desk)
    predictions = tuned.predictions(desk.machine)
    packed = pack_predictions(predictions, tuned.ids)
    settings, data = job.settings, tuned.data
    judged = data.classes, data.scored
    names = [metrics.get(name).key for name in settings.metrics]
    shown = examples.choose(tuned.model, tuned.downstream, tuned.part, tuned.ids, predictions, desk.machine)
    record = Record(
        id=job.id,
        job=job.model_dump(mode="json"),
        pretext=job.pretrain.pretext,
        schedule=job.schedule,
        downstream=job.downstream,
        title=tuned.downstream.title,
        protocol=job.protocol,
        trunk=job.pretrain.trunk,
        size=job.size,
        seed=job.seed,
        part=job.part,
        transfer=job.transfer,
        labels=job.labels,
        rates=tuple(phase.lr for phase in job.phases),
        data=data,
        metrics={name: _finite(metrics.compute(name, predictions, *judged)) for name in names},
        per_class={name: scores for name in names if (scores := metrics.per_class(name, predictions, *judged))},
        history=tuned.phases,
        cost=cost(tuned.history, desk.machine),
        pretrain=pretrained,
        tuning=tuning,
        predictions=store.sha256_bytes(packed),
        weights=checkpoint.digest(tuned.model),
        head=repr(tuned.model.head)[:2000],
        provenance=origin,
    )

    def fill(folder: Path) -> None:
        (folder / "predictions.npz").write_bytes(packed)
        log.keep(work_folder(job, desk.out), folder)
        if shown:
            (folder / "examples.npz").write_bytes(shown)
        store.publish_json(folder / "split.json", tuned.fit.model_dump(mode="json"))
        store.publish_json(folder / "record.json", record.model_dump(mode="json"))

    store.publish_folder(desk.out / "runs" / job.id, fill, whole="record.json")
    store.remove_folder(work_folder(job, desk.out))
    return record


def _parts(
    job: Job, downstream: Downstream, dataset: Dataset, desk: Desk
) -> tuple[batches.Part, batches.Part, DataFacts, list[str], splits.Split]:
    settings = job.settings
    subset = subset_of(downstream, settings)
    split = splits.open_split(dataset, settings.split, subset)
    share = splits.open_share(dataset, split, job.labels)
    pack = packs.open_pack(packs.Order(dataset, *pack_of(subset, settings, job.size)), desk.say, desk.packing)
    fit = settings.fit if job.part == "test" else tuple(part for part in settings.fit if part != job.part)
    train_ids, test_ids = share.ids(*fit), share.ids(job.part)

    def part(ids: list[str], change: str, with_truth: bool) -> batches.Part:
        rows = pack.places(ids)
        labels = dataset.labels(ids) if downstream.data == "labels" else None
        masked = downstream.data == "masks"
        return batches.Part(pack, rows, labels, masked, change, job.size, job.seed if not with_truth else 0, with_truth)

    train_part = part(train_ids, settings.augment, with_truth=False)
    test_part = part(test_ids, "crop" if settings.resize == "crop" else "none", with_truth=True)
    return train_part, test_part, facts(dataset, split, train_ids, {job.part: len(test_ids)}), test_ids, share


def _phase_course(job: Job, model: Model, downstream: Downstream, number: int, phase: Phase, part: batches.Part) -> Course:
    frozen = phase.train == "head"
    trained = model.head.parameters() if frozen else model.parameters()

    def turns(batch: Batch) -> Iterator[tuple[str, torch.Tensor]]:
        yield "loss", downstream.loss(model(batch["images"], frozen), batch["target"])

    return Course(
        name=f"{job.downstream} phase {number} ({'frozen trunk' if frozen else 'everything'})",
        module=model,
        players={"loss": torch.optim.Adam(trained, lr=phase.lr, fused=True)},
        turns=turns,
        view=lambda batch, _: batch,
        part=dataclasses.replace(part, seed=key("phase", number, job.seed)),
        batch_size=job.settings.batch_size,
        epochs=phase.epochs,
        seed=key("phase", number, job.seed),
        facts={"id": job.id, "phase": number},
    )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
