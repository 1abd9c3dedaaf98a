"""A job becomes a record: pretrain or reuse a trunk, fine-tune it in phases, score it once, publish what is left.

The store is asked first. What is there is returned, what was interrupted goes on, and what is missing is computed; locks keep two
commands from doing the same work.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic_core import to_jsonable_python

from bench import metrics
from bench.contract import Batch, Downstream, Phase, Trunk
from bench.data import batches, packs, splits
from bench.data.dataset import Dataset
from bench.errors import DataError
from bench.experiment import examples
from bench.experiment.pretraining import find_pretrained, load_trunk, lock_of, make_model, pretrain
from bench.experiment.resolve import pack_of, subset_of
from bench.experiment.session import Session, cost, facts, provenance
from bench.job import Job
from bench.models import batch_norm
from bench.models.network import Model
from bench.record import DataFacts, FeatureSpread, PretrainRecord, Record, Tuning, read_one
from bench.schema import canonical
from bench.seeding import key
from bench.storage import files, locks
from bench.storage.arrays import pack_predictions
from bench.training import checkpoint, loggers
from bench.training.energy import Meter
from bench.training.evaluation import predict
from bench.training.loop import History, Stage, train
from bench.training.machine import Machine


def run(job: Job, session: Session, tuning: Tuning | None = None, wait: bool = True) -> Record:
    """Return the record of a job: the one on the disk, or a new one. `tuning` is the search that chose the job's rates.

    When another process makes it or its trunk, wait for that, or raise Busy.
    """
    found = find(job, session.out)
    if found is not None:
        files.remove_folder(work_folder(job, session.out))  # a process may die between the record and this
        _check_measured(job, found, session)
        return found
    pretrained = pretrain(job.pretrain, session, wait)
    with locks.lock(lock_of(job, session.out), session.echo, session.machine.stop.check, wait=wait):
        return find(job, session.out) or _publish(job, pretrained, session, tuning)


def _check_measured(job: Job, record: Record, session: Session) -> None:
    """Raise DataError for a plug-in's earlier run, unless its trunk shows that nothing of it would now be measured."""
    if record.spread is not None or not job.pretrain.source or job.settings.statistics == "batch":
        return
    pretrained = find_pretrained(job.pretrain, session.out)
    if pretrained is None or batch_norm.never_used(load_trunk(job.pretrain, pretrained, session.out, job.transfer)):
        raise DataError(
            f"{record.id} was made by an earlier version of the bench, which did not measure the batch-norm statistics of what "
            f"{job.pretrain.pretext} does not train; remove its folder below {session.out / 'runs'} to run it again."
        )


def is_busy(job: Job, out: Path) -> bool:
    """Tell whether another process makes this run or its trunk at this moment."""
    return any(locks.is_held(lock_of(one, out)) for one in (job.pretrain, job))


def find(job: Job, out: Path) -> Record | None:
    """Return a job's record when it is there; DataError when it cannot be read."""
    path = out / "runs" / job.id / "record.json"
    return read_one(path) if path.is_file() else None


@dataclass
class Finetuned:
    """A fine-tuned network, what its training left, and what it says of every image of the job's part."""

    downstream: Downstream
    model: Model
    phases: list[dict[str, Any]]
    history: History
    data: DataFacts
    part: batches.Part
    ids: list[str]
    fit: splits.Split
    seen: batches.Part
    """The part as it is scored now: while the trunk is frozen, with its features."""
    calibrated: Calibrated
    spread: FeatureSpread | None = None
    states: list[str] = field(default_factory=list)
    """The key of what each phase left in the session's cache."""

    def predictions(self, machine: Machine) -> dict[str, NDArray[Any]]:
        """Look at every image of the part once."""
        self.model.set_mode("nothing")
        return predict(self.model, self.downstream, self.seen, machine)


@dataclass(frozen=True)
class Calibrated:
    """The batch norms whose statistics were measured before the first phase, by name, and on how many images."""

    norms: tuple[str, ...] = ()
    images: int = 0


Watch = Callable[["Finetuned", int, float | None], float]
"""Called after every epoch of a fine-tuning, with the epochs that are done in all phases, and the score of the network after
them when it is known from another run; returns that score."""


@dataclass(frozen=True)
class Trained:
    """A phase as it ended: what was trained, its losses and cost, and the scores that were watched."""

    weights: dict[str, torch.Tensor]
    history: History
    scores: dict[int, float]


def finetune(
    job: Job, pretrained: PretrainRecord, session: Session, watch: Watch | None = None, work: Path | None = None
) -> Finetuned:
    """Fine-tune a pretrained trunk through the phases of a job; nothing is published, checkpoints stay in its working folder.

    A phase that the same network went through in this command, with the same rates before it, is not trained again.
    """
    dataset = session.grid.data
    trunk = _trunk(job, pretrained, session)
    downstream, model = make_model(job, trunk, len(dataset.classes))
    session.machine.place(model)
    train_part, part, data, ids, fit = _parts(job, downstream, dataset, session)
    rows = hashlib.sha256(train_part.rows.tobytes()).hexdigest()
    begun, meter = time.monotonic(), Meter(session.machine.device)
    calibrated = _calibrate(job, pretrained, train_part, model, session, rows)
    tuned = Finetuned(downstream, model, [], History(), data, part, ids, fit, part, calibrated)
    tuned.history.add(History(seconds=time.monotonic() - begun, joules=meter.joules()))
    if watch is None:
        tuned.spread = _spread(job, train_part, model, session, calibrated)
    done, work = 0, work or work_folder(job, session.out)
    trained: dict[str, Any] = {}  # what the trunk went through since pretraining
    if calibrated.norms:
        trained = {"calibrated": [rows, train_part.seed if train_part.change != "none" else 0]}
    for number, phase in enumerate(job.phases, start=1):
        facts_so_far = {"rows": rows, "phases": job.phases[:number], "seed": job.seed}
        key = _key(job, pretrained, train_part, session.machine, **facts_so_far)
        model.set_mode(phase.train)
        tuned.states.append(key)
        known: Trained | None = None if session.log else session.cache.state(key)
        if known is not None and watch is not None and len(known.scores) < phase.epochs:
            known = None
        begun, meter = time.monotonic(), Meter(session.machine.device)
        learned, tuned.seen = train_part, part
        if phase.train == "head" and job.settings.statistics == "running" and (watch is not None or phase.epochs > 1):
            if watch is not None and job.settings.evaluate_on == "input":
                tuned.seen = _looked_at(job, pretrained, part, model, session, trained)
            if train_part.change == "none" and known is None:
                learned = _looked_at(job, pretrained, train_part, model, session, trained)
        tuned.history.add(History(seconds=time.monotonic() - begun, joules=meter.joules()))
        scores: dict[int, float] = {}

        def after_epoch(epoch: int, before: int = done, phase: Phase = phase, scores: dict[int, float] = scores) -> None:
            if watch is not None:
                scores[epoch] = watch(tuned, before + epoch, None)
                model.set_mode(phase.train)

        module = model.head if phase.train == "head" else model
        if known is None:
            stage = _phase_stage(job, model, downstream, number, phase, learned)
            stage.after_epoch = after_epoch
            with loggers.watching(session.log, session.watcher, work) as watcher:
                history = train(stage, session.machine, work / f"phase-{number}", watcher)
            _keep(key, Trained(_copied(module), history, scores), session)
        else:
            module.load_state_dict(known.weights)
            history = known.history
            if watch is not None:
                for epoch, score in known.scores.items():
                    watch(tuned, done + epoch, score)
        tuned.phases.append({**phase.model_dump(), "losses": [epoch["loss"] for epoch in history.epochs]})
        tuned.history.add(history)
        done += phase.epochs
        if phase.train == "all":
            trained = facts_so_far
    return tuned


def _trunk(job: Job, pretrained: PretrainRecord, session: Session) -> Trunk:
    """Return a trunk of the job's own, copied from the one that this command read before."""
    key = f"{pretrained.id} {job.transfer}"
    trunk: Trunk | None = session.cache.state(key)
    if trunk is None:
        trunk = load_trunk(job.pretrain, pretrained, session.out, job.transfer)
        session.cache.keep(key, trunk, sum(tensor.nbytes for tensor in trunk.state_dict().values()))
    return copy.deepcopy(trunk)


def _calibrate(job: Job, pretrained: PretrainRecord, part: batches.Part, model: Model, session: Session, rows: str) -> Calibrated:
    """Measure the statistics of the trunk's batch norms that nothing was trained with, or of all; once for the same images."""
    places = batch_norm.positions(len(part), job.settings.batch_size)
    if job.settings.statistics == "batch" or not places:
        return Calibrated()
    key = _key(job, pretrained, part, session.machine, calibrated=rows, seed=part.seed if part.change != "none" else 0)
    known: tuple[Calibrated, dict[str, torch.Tensor]] | None = session.cache.state(key)
    if known is None:
        model.set_mode("nothing")
        first = next(_images(part, places, session))
        with session.machine.autocast():
            chosen = batch_norm.norms_to_measure(model.trunk, job.settings.calibration, model.features, first)
            if chosen:
                session.echo(f"  measuring the statistics of {len(chosen)} batch norms on {sum(map(len, places)):,} images")
                batch_norm.measure(model.trunk, chosen, model.features, _images(part, places, session))
        names = tuple(name for name, norm in model.trunk.named_modules() if norm in chosen)
        buffers = {name: buffer.detach().to("cpu", copy=True) for name, buffer in model.trunk.named_buffers()}
        known = Calibrated(names, sum(map(len, places)) if names else 0), buffers
        session.cache.keep(key, known, sum(tensor.nbytes for tensor in buffers.values()))
    calibrated, kept = known
    for name, buffer in model.trunk.named_buffers():
        buffer.copy_(kept[name])
    return calibrated


def _spread(job: Job, part: batches.Part, model: Model, session: Session, calibrated: Calibrated) -> FeatureSpread | None:
    """Return how far the features of the training images differ, None of a single image; say so when they hardly do."""
    places = batch_norm.positions(len(part), job.settings.batch_size, batch_norm.LOOKED_AT)
    if not places:
        return None
    images = list(_images(part, places, session))
    found: dict[str, Any] = {"images": sum(map(len, places)), "measured": calibrated.norms, "measured_on": calibrated.images}
    model.set_mode("nothing")
    with torch.no_grad(), session.machine.autocast():
        ratios = batch_norm.spread(model.trunk, model.features, images)
        alike = batch_norm.cosine(torch.cat([model.features(some).float().flatten(1) for some in images]))
    if ratios:
        found["layer"] = min(ratios, key=lambda name: _or_zero(ratios[name]))
        found["ratio"] = _or_zero(ratios[found["layer"]])
    spread = FeatureSpread(**found, cosine=alike if np.isfinite(alike) else None)
    if spread.problem:
        inherited = spread.layer and spread.layer not in spread.measured and job.settings.statistics == "running"
        hint = "; its statistics are inherited: --set protocol.calibration=all measures them anew" if inherited else ""
        session.echo(f"  warning: a dead network: {spread.problem}{hint}")
    return spread


def _or_zero(value: float) -> float:
    return value if np.isfinite(value) else 0.0


def _images(part: batches.Part, places: list[NDArray[np.int64]], session: Session) -> Iterator[torch.Tensor]:
    for some in places:
        session.machine.stop.check()
        yield batches.to_device(part[0, some], session.machine.device)["images"]


def _looked_at(
    job: Job, pretrained: PretrainRecord, part: batches.Part, model: Model, session: Session, trained: dict[str, Any]
) -> batches.Part:
    """Return a part with the features that the frozen trunk has of it, when there is room for them."""
    key = _key(job, pretrained, part, session.machine, **trained)
    return session.cache.looked_at(part, key, model.look, job.settings.batch_size)


def _key(job: Job, pretrained: PretrainRecord, part: batches.Part, machine: Machine, **more: Any) -> str:
    """Return a digest of everything that a trunk's features of a part's pack depend on, and of what else is given."""
    origin = {
        "weights": pretrained.weights,
        "trunk": pretrained.id,
        "transfer": job.transfer,
        "downstream": [job.downstream, job.version, job.source],
        "settings": job.settings,
        "size": job.size,
        "data": [part.pack.folder.name, part.change, part.seed if part.change != "none" else 0],
        "machine": machine.describe(),
    }
    return hashlib.sha256(canonical(to_jsonable_python({**origin, **more})).encode()).hexdigest()


def _keep(key: str, trained: Trained, session: Session) -> None:
    session.cache.keep(key, trained, sum(tensor.nbytes for tensor in trained.weights.values()))


def _copied(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in module.state_dict().items()}


def work_folder(job: Job, out: Path) -> Path:
    """Return where a job that is not finished keeps its checkpoints."""
    return out / "work" / job.id


def _publish(job: Job, pretrained: PretrainRecord, session: Session, tuning: Tuning | None) -> Record:
    session.machine.forget_peak()
    origin = provenance(session)
    tuned = finetune(job, pretrained, session)
    predictions = tuned.predictions(session.machine)
    packed = pack_predictions(predictions, tuned.ids)
    settings, data = job.settings, tuned.data
    judged = data.classes, data.scored
    names = [metrics.get(name).key for name in settings.metrics]
    per_class = {name: scores for name in names if (scores := metrics.per_class(name, predictions, *judged))}
    absent = [name for name, value in per_class.get(names[0], {}).items() if value is None]
    if absent:
        session.echo(
            f"  warning: {names[0]} is not defined for {', '.join(absent)} on these images, and its mean leaves them out"
        )
    if tuned.data.void:
        session.echo(f"  warning: {tuned.data.void} of the images that were trained on are void throughout and taught nothing")
    shown = examples.choose(tuned.model, tuned.downstream, tuned.part, tuned.ids, predictions, session.machine)
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
        per_class=per_class,
        history=tuned.phases,
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
        files.publish_json(folder / "split.json", tuned.fit.model_dump(mode="json"))
        files.publish_json(folder / "record.json", record.model_dump(mode="json"))

    files.publish_folder(session.out / "runs" / job.id, fill, whole="record.json")
    files.remove_folder(work_folder(job, session.out))
    return record


def _parts(
    job: Job, downstream: Downstream, dataset: Dataset, session: Session
) -> tuple[batches.Part, batches.Part, DataFacts, list[str], splits.Split]:
    settings = job.settings
    subset = subset_of(downstream, settings)
    split = splits.open_split(dataset, settings.split, subset)
    share = splits.open_share(dataset, split, job.labels)
    pack = packs.open_pack(packs.Order(dataset, *pack_of(subset, settings, job.size)), session.echo, session.packing)
    fit = settings.fit if job.part == "test" else tuple(part for part in settings.fit if part != job.part)
    train_ids, test_ids = share.ids(*fit), share.ids(job.part)

    def part(ids: list[str], change: str, with_truth: bool) -> batches.Part:
        rows = pack.places(ids)
        labels = dataset.labels(ids) if downstream.data == "labels" else None
        masked = downstream.data == "masks"
        return batches.Part(pack, rows, labels, masked, change, job.size, job.seed if not with_truth else 0, with_truth)

    train_part = part(train_ids, settings.augment, with_truth=False)
    test_part = part(
        test_ids, "crop" if settings.resize == "crop" and settings.evaluate_on == "input" else "none", with_truth=True
    )
    held = session.cache.resident
    void = len({*pack.manifest.void} & {*train_part.rows.tolist()}) if downstream.data == "masks" else 0
    data = facts(dataset, split, train_ids, {job.part: len(test_ids)}, void)
    return held(train_part), held(test_part), data, test_ids, share


def _phase_stage(job: Job, model: Model, downstream: Downstream, number: int, phase: Phase, part: batches.Part) -> Stage:
    frozen = phase.train == "head"
    module = model.head if frozen else model

    def training_step(batch: Batch) -> Iterator[tuple[str, torch.Tensor]]:
        yield "loss", downstream.loss(model(batch), batch["target"])

    return Stage(
        name=f"{job.downstream} phase {number} ({'frozen trunk' if frozen else 'everything'})",
        module=module,
        optimizers={"loss": torch.optim.Adam(module.parameters(), lr=phase.lr, fused=True)},
        training_step=training_step,
        make_batch=lambda batch, _: batch,
        part=dataclasses.replace(part, seed=key("phase", number, job.seed)),
        batch_size=job.settings.batch_size,
        epochs=phase.epochs,
        seed=key("phase", number, job.seed),
        facts={"id": job.id, "phase": number},
    )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
