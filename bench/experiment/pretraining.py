"""Pretraining: a pretext task becomes a trunk on the disk, with what the task says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from bench import registry
from bench.contract import Downstream, Pretext, Transfer, Trunk
from bench.data import batches, packs, splits
from bench.errors import BenchError, DataError
from bench.experiment import figure7
from bench.experiment.session import Session, cost, facts, provenance
from bench.job import Job, PretrainJob
from bench.models.modes import inference
from bench.models.network import Model
from bench.models.trunk import inherit_encoder, make_trunk
from bench.record import DataFacts, PretrainRecord
from bench.seeding import key
from bench.storage import files, locks, seal
from bench.training import checkpoint, loggers
from bench.training.loop import History, Stage, train

REPORT_BATCH, TRIVIAL_IMAGES = 64, 512
WEIGHTS = "pretext.safetensors"

Summary = dict[str, dict[str, float | None]]
"""Average, minimum and maximum of some scores over images, by the score's name."""


def find_pretrained(job: PretrainJob, out: Path) -> PretrainRecord | None:
    """Return a pretrained trunk's record when it is there."""
    path = out / "pretrained" / job.id / "pretrain.json"
    if not path.is_file():
        return None
    way_out = "remove its folder to train it again"
    try:
        return PretrainRecord.model_validate_json(seal.read(path, "a record", way_out))
    except ValidationError as error:
        raise DataError(f"{path} is not a record of this version; {way_out}.") from error


def make_pretext(job: PretrainJob) -> Pretext:
    """Build a pretext task with the random weights of its seed; every task of one seed starts from the same trunk."""
    plugin = registry.load("pretexts", job.pretext)
    torch.manual_seed(key("trunk", job.seed))
    trunk = make_trunk(job.trunk)
    torch.manual_seed(key("pretext", job.seed))
    return cast(Pretext, plugin(plugin.Recipe.model_validate(job.recipe), trunk))


def pretrain(job: PretrainJob, session: Session, wait: bool = True) -> PretrainRecord:
    """Return the record of a pretrained trunk: the one on the disk, or a new one.

    When another process makes it, wait for that, or raise Busy.
    """
    found = find_pretrained(job, session.out)
    if found is not None:
        files.remove_folder(session.out / "work" / job.id)  # a process may die between the record and this
        return found
    with locks.lock(lock_of(job, session.out), session.echo, session.machine.stop.check, wait=wait):
        return find_pretrained(job, session.out) or _pretrain(job, session)


def lock_of(job: PretrainJob | Job, out: Path) -> Path:
    """Return the lock of whoever makes a trunk or a run."""
    return out / "locks" / f"{job.id}.lock"


def _pretrain(job: PretrainJob, session: Session) -> PretrainRecord:
    session.machine.forget_peak()
    origin = provenance(session)
    pretext = session.machine.place(make_pretext(job))
    work = session.out / "work" / job.id
    history, data, shown = History(), None, 0
    report: Summary = {}
    trivial: dict[str, Summary] = {}
    if pretext.recipe.epochs:
        data, train_part, test_part = _pretraining_parts(job, session)
        shown = min(len(test_part), pretext.recipe.report_images)
        pretext.train()
        stage = _pretraining_stage(job, pretext, train_part, test_part, work)
        with loggers.watching(session.log, session.watcher, work) as watcher:
            history = train(stage, session.machine, work, watcher)
        report, trivial = _report(pretext, test_part, train_part, shown, job.seed)

    def fill(folder: Path) -> None:
        checkpoint.save_weights(folder / WEIGHTS, pretext, {"id": job.id, "job": job.model_dump(mode="json")})
        loggers.keep(work, folder)
        if (work / "images").is_dir():
            figure7.figure7(work / "images", folder / "figure7.png")
        record = PretrainRecord(
            id=job.id,
            job=job.model_dump(mode="json"),
            data=data,
            report=report,
            trivial=trivial,
            report_images=shown if report else 0,
            history=history.epochs,
            cost=cost(history, session.machine),
            weights=files.sha256(folder / WEIGHTS),
            precision=session.machine.arithmetic,
            provenance=origin,
        )
        files.publish_json(folder / "pretrain.json", record.model_dump(mode="json"))

    files.publish_folder(session.out / "pretrained" / job.id, fill, "pretrain.json", checkpoint.bytes_of(pretext))
    files.remove_folder(work)
    found = find_pretrained(job, session.out)
    assert found is not None
    return found


def _pretraining_parts(job: PretrainJob, session: Session) -> tuple[DataFacts, batches.Part, batches.Part]:
    dataset = session.grid.pretrain_data
    assert dataset is not None, "a job that trains has data"
    split = splits.open_split(dataset, "pretraining", "images")
    only = tuple(split.ids("train", "test"))
    pack = packs.open_pack(packs.Order(dataset, "images", packs.PackRule(size=job.size), only), session.echo, session.packing)
    train_part = batches.Part(pack, pack.places(split.ids("train")), seed=job.seed)
    test_part = batches.Part(pack, pack.places(split.ids("test")))
    data = facts(dataset, split, split.ids("train"), {"test": len(test_part)})
    return data, session.cache.resident(train_part), test_part


def _pretraining_stage(job: PretrainJob, pretext: Pretext, part: batches.Part, test: batches.Part, work: Path) -> Stage:
    recipe = pretext.recipe
    last = recipe.epochs
    chosen = {epoch for epoch in recipe.images if epoch <= last} | {last}
    samples = test[0, np.arange(min(8, len(test)))]["images"]

    def after_epoch(epoch: int) -> None:
        if epoch in chosen:
            device = next(pretext.parameters()).device
            with inference(pretext):
                rows = pretext.image(samples.to(device), torch.Generator(device).manual_seed(key("picture", job.seed)))
            figure7.keep(work / "images", epoch, {name: row.cpu().numpy() for name, row in rows.items()})

    return Stage(
        name=f"pretrain {job.pretext}",
        module=pretext,
        optimizers=pretext.optimizers(),
        training_step=pretext.training_step,
        make_batch=lambda batch, generator: pretext.make_batch(batch["images"], generator),
        part=part,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        seed=job.seed,
        facts={"id": job.id},
        after_epoch=after_epoch,
    )


def _report(
    pretext: Pretext, part: batches.Part, training: batches.Part, count: int, seed: int
) -> tuple[Summary, dict[str, Summary]]:
    """Summarise the pretext's own scores over its test images, and those of trivial answers to the same images."""
    device = next(pretext.parameters()).device
    places = np.linspace(0, len(training) - 1, min(TRIVIAL_IMAGES, len(training))).astype(np.int64)
    seen = training[0, places]["images"].to(device)
    collected: dict[str, dict[str, list[NDArray[np.float64]]]] = {"": {}}
    for first in range(0, count, REPORT_BATCH):
        positions = np.arange(first, min(first + REPORT_BATCH, count))
        images = part[0, positions]["images"].to(device)
        generator = torch.Generator(device).manual_seed(key("report", seed, first))
        with inference(pretext):
            scores_of_batch = {"": pretext.report(images, generator), **pretext.trivial(images, seen)}
        for answer, scores in scores_of_batch.items():
            for name, values in scores.items():
                if tuple(values.shape) != (len(positions),):
                    raise BenchError(f"{name} in the report has shape {tuple(values.shape)}; it must have one value a image.")
                collected.setdefault(answer, {}).setdefault(name, []).append(values.double().cpu().numpy())
    summaries = {
        answer: {name: summary(np.concatenate(chunks)) for name, chunks in scores.items()} for answer, scores in collected.items()
    }
    return summaries.pop(""), summaries


def summary(values: NDArray[np.float64]) -> dict[str, float | None]:
    """Return average, minimum and maximum of the finite values, and how many were not (equal images have no PSNR)."""
    finite = values[np.isfinite(values)]
    figures: dict[str, float | None] = {"average": None, "min": None, "max": None, "not_finite": float(len(values) - len(finite))}
    if len(finite):
        figures |= {"average": float(finite.mean()), "min": float(finite.min()), "max": float(finite.max())}
    return figures


def load_trunk(job: PretrainJob, record: PretrainRecord, out: Path, transfer: Transfer = "all") -> Trunk:
    """Return the pretrained trunk, or a new one of its seed that inherits a part of it.

    DataError when the trunk's file is not the recorded one or does not fit.
    """
    pretext = make_pretext(job)
    checkpoint.load_weights(out / "pretrained" / record.id / WEIGHTS, record.weights, pretext)
    return pretext.trunk if transfer == "all" else inherit_encoder(make_pretext(job).trunk, pretext.trunk)


def make_model(job: Job, trunk: Trunk, classes: int) -> tuple[Downstream, Model]:
    """Return the downstream task and its network: the given trunk and the head of the job's seed."""
    downstream = cast(Downstream, registry.load("downstreams", job.downstream)(job.settings, classes))
    torch.manual_seed(key("head", job.downstream, job.seed))
    return downstream, Model(trunk, downstream.head(trunk, job.size), downstream)
