"""Pretraining: a pretext task is trained, scored at its own task, and published with its trunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bench import record, registry, seeding
from bench.contract import Preprocessing, Pretext, Trunk
from bench.data import packs, splits
from bench.data.batches import SplitData
from bench.errors import BenchError, UsageError
from bench.experiment import failures, figure7, watching, weights
from bench.experiment.jobs import recipe_of
from bench.experiment.leaks import pretraining_splits
from bench.experiment.provenance import cost, data_facts, provenance
from bench.experiment.session import Session
from bench.initialisation import Origin
from bench.job import Job, PretrainJob
from bench.models.modes import inference
from bench.models.trunk import inherit_encoder, make_trunk, smallest_size
from bench.record import DataFacts, PretrainRecord, Summary
from bench.seeding import key
from bench.storage import files, launched, locks
from bench.training import checkpoint, loggers
from bench.training.loggers import JournalLogger
from bench.training.loop import History, Logger, Stage, train
from bench.training.machine import Machine
from bench.training.trackers import Subject
from bench.views.augmentation import augment

EVALUATION_BATCH, BASELINE_IMAGES = 64, 512
WEIGHTS = "pretext.safetensors"


def find_pretrained(job: PretrainJob, out: Path) -> PretrainRecord | None:
    """Return the record of a pretrained trunk; None when it is not there."""
    path = out / "pretrained" / job.id / "pretrain.json"
    return record.read_pretrained(path) if path.is_file() else None


def make_pretext(job: PretrainJob, load: Callable[[Trunk], None] | None = None) -> Pretext:
    """Return a job's pretext task, untrained, on a trunk with random weights that `load` may replace.

    For the same seed all tasks start from the same trunk. The task is made after `load`, so that a copy which it keeps of the
    trunk, as a teacher, has the weights that it begins with.
    """
    plugin = registry.load("pretexts", job.pretext)
    torch.manual_seed(key("trunk", job.seed))
    trunk = make_trunk(job.trunk)
    trunk.smallest, trunk.trained_at = smallest_size(job.trunk), job.size
    if job.weights is not None:
        trunk.preprocessing = Preprocessing(job.weights.preprocessing, job.weights.mean, job.weights.std)
    if load is not None:
        load(trunk)
    torch.manual_seed(key("pretext", job.seed))
    return cast(Pretext, plugin(recipe_of(job), trunk))


def load_pretrained(pretrained: PretrainRecord, out: Path) -> Trunk:
    """Return a pretrained trunk; DataError when its file is not the recorded one or does not fit the network."""
    pretext = make_pretext(pretrained.job)
    checkpoint.load_weights(out / "pretrained" / pretrained.id / WEIGHTS, pretrained.weights, pretext)
    return pretext.trunk


def load_trunk(job: Job, pretrained: PretrainRecord, out: Path) -> Trunk:
    """Return the trunk that a job inherits: the pretrained one, or with transfer `encoder` a new one with the pretrained encoder.

    DataError when the trunk's file is not the recorded one or does not fit the network.
    """
    trunk = load_pretrained(pretrained, out)
    return trunk if job.transfer == "all" else inherit_encoder(make_pretext(job.pretrain).trunk, trunk)


def lock_of(job: PretrainJob | Job, out: Path) -> Path:
    """Return the lock file that a process holds while it makes a trunk or a run."""
    return out / "locks" / f"{job.id}.lock"


def work_folder(job: PretrainJob | Job, out: Path) -> Path:
    """Return the folder of an unfinished job's checkpoints."""
    return out / "work" / job.id


def subject(job: PretrainJob | Job, session: Session, work: Path) -> Subject:
    """Return what the loggers say of a pretraining, a run or a trial of a search that trains in the folder `work`."""
    kind = "pretraining" if isinstance(job, PretrainJob) else "run" if job.split == "test" else "trial"
    facts = {"id": job.id, "kind": kind, **loggers.flat(job.model_dump(mode="json"))}
    return Subject(job.id, kind, facts, work, session.out, session.echo, session.doing)


def audit(session: Session) -> list[Origin]:
    """Load and audit each initialisation of a grid once, and return what a record would say of each."""
    jobs = {job.pretrain.weights: job.pretrain for job in session.grid.jobs if job.pretrain.weights is not None}
    return [weights.begin(job, make_pretext(job).trunk, session) for job in jobs.values()]


def pretrain(job: PretrainJob, session: Session, wait: bool = True) -> PretrainRecord:
    """Return the record of a pretrained trunk, from the disk or after pretraining it.

    While another process pretrains the trunk, wait for it; without `wait`, raise Busy instead.
    """
    found = find_pretrained(job, session.out)
    if found is not None:
        files.remove(work_folder(job, session.out))  # left when a process died after publishing
        return found
    with locks.lock(lock_of(job, session.out), session.echo, session.machine.stop.check, wait=wait):
        made = find_pretrained(job, session.out)
        if made is None:
            with failures.noted(job.id, session.out):
                made = _pretrain(job, session)
        return made


def _pretrain(job: PretrainJob, session: Session) -> PretrainRecord:
    if launched.here() is not None:  # found by `bench status` in the worker's log
        session.echo(f"  trunk {job.id}")
    with session.machine.part("pretrain", job):
        train_and_publish(job, session)
    found = find_pretrained(job, session.out)
    assert found is not None
    return found


def train_and_publish(job: PretrainJob, session: Session) -> None:
    """Pretrain a trunk and publish it; of several processes that train together the first one publishes."""
    session.cache.begin()
    leads = session.machine.world.leads
    origin = provenance(session, next(iter(session.grid.data)))
    origins: list[Origin] = []

    def load(trunk: Trunk) -> None:
        origins.append(weights.begin(job, trunk, session))

    pretext = session.machine.place(make_pretext(job, load if job.weights is not None else None))
    work = work_folder(job, session.out)
    history, data, evaluated = History(), None, 0
    evaluation: Summary = {}
    baselines: dict[str, Summary] = {}
    if pretext.recipe.epochs:
        data, training, test = pretraining_data(job, session)
        evaluated = min(len(test), pretext.recipe.evaluation_images)
        pretext.prepare(_batches(training, session.machine))
        pretext.train()
        stage = pretraining_stage(job, pretext)
        tools = session.config.log if leads else ()
        with loggers.opened(tools, session.screen, subject(job, session, work), session.logged) as logger:
            if leads:
                stage.after_epoch = partial(_visualize, job, pretext, test, work, logger)
            if leads and session.config.watch_every:
                stage.watch = watching.watcher(pretext, session, work, logger)
            history = train(stage, training, session.machine, work, logger)
        if not leads:
            return
        session.doing(f"scoring {job.pretext} at its own task on {evaluated:,} images")
        evaluation, baselines = _evaluate(pretext, test, training, evaluated, job.seed)

    if not leads:
        return
    averages = {name: figures["average"] for name, figures in evaluation.items() if figures["average"] is not None}

    def fill(folder: Path) -> None:
        checkpoint.save_weights(folder / WEIGHTS, pretext, {"id": job.id, "job": job.model_dump(mode="json")})
        loggers.keep(work, folder)
        if (work / figure7.IMAGES).is_dir():
            figure7.draw(work / figure7.IMAGES, folder / "figure7.png")
        made = PretrainRecord(
            id=job.id,
            job=job,
            recipe=pretext.recipe.model_dump(mode="json"),
            data=data,
            evaluation=evaluation,
            baselines=baselines,
            evaluation_images=evaluated if evaluation else 0,
            trains=pretext.trains,
            caveats=tuple(pretext.caveats(averages)),
            history=history.epochs,
            watched=watching.watched(work),
            cost=cost(history, session.machine, session.cache.peak_memory()),
            weights=files.sha256(folder / WEIGHTS),
            origin=next(iter(origins), None),
            precision=session.machine.arithmetic,
            provenance=origin,
        )
        files.publish_json(folder / "pretrain.json", made.model_dump(mode="json"))

    files.publish_folder(session.out / "pretrained" / job.id, fill, "pretrain.json", checkpoint.bytes_of(pretext))
    files.remove(work)


def pretraining_data(job: PretrainJob, session: Session) -> tuple[DataFacts, SplitData, SplitData]:
    """Return the facts of the unlabelled data for the record, the training images and the test images."""
    dataset = session.grid.pretrain_data
    assert dataset is not None, "a job that trains has data"
    made = pretraining_splits(job, session.grid, session.echo)
    packed = splits.open_splits(dataset, "pretraining", "images").ids("train", "test")  # with what is dropped, for other jobs
    wanted = packs.Order(dataset, "images", packs.PackRule(size=side_of(job)), tuple(packed))
    pack = packs.open_pack(wanted, session.echo, session.packing)
    ids = chosen(made.ids("train"), recipe_of(job).images)
    training = SplitData(pack, pack.places(ids), seed=job.seed)
    test = SplitData(pack, pack.places(made.ids("test")))
    facts = data_facts(dataset, made, ids, {"test": len(test)})
    return facts, session.cache.resident(training), test


def chosen(ids: Sequence[str], count: int | None) -> list[str]:
    """Return `count` of the training images in their order, all for None; of two counts the larger has all of the smaller's.

    UsageError when there are fewer.
    """
    if count is None:
        return list(ids)
    if count > len(ids):
        raise UsageError(f"the recipe asks for {count:,} images to train on, but there are {len(ids):,}.")
    places = seeding.permutation(len(ids), key("images"), 0)[:count]
    return [ids[place] for place in sorted(places)]


def side_of(job: PretrainJob) -> int:
    """Return the side in pixels of the images that a pretext task reads."""
    return int(registry.load("pretexts", job.pretext).reads(recipe_of(job), job.size))


def _batches(split: SplitData, machine: Machine) -> Iterator[torch.Tensor]:
    """Yield the images of a split, mixed, uint8 (N, 3, H, W) on the device: in a folder's order the first may be of one kind."""
    order = seeding.permutation(len(split), key("prepare"), 0)
    for first in range(0, len(split), EVALUATION_BATCH):
        positions = np.sort(order[first : first + EVALUATION_BATCH])
        yield split[0, positions]["images"].to(machine.device)


def pretraining_stage(job: PretrainJob, pretext: Pretext) -> Stage:
    """Return the stage that trains a pretext task."""
    recipe, how = pretext.recipe, pretext.recipe.augmentation
    return Stage(
        name=f"pretrain {job.pretext}",
        key=seeding.PRETRAINING.format(pretext=job.pretext),
        module=pretext,
        optimizers=pretext.optimizers(),
        optimization=recipe,
        training_step=pretext.training_step,
        make_batch=lambda batch, generator: pretext.make_batch(augment(batch["images"], how, generator), generator),
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        seed=job.seed,
        facts={"id": job.id},
        before_step=partial(setattr, pretext, "progress"),
        networks=tuple(pretext.children()),
    )


def _visualize(job: PretrainJob, pretext: Pretext, test: SplitData, work: Path, logger: Logger, epoch: int) -> None:
    """Keep the task's example images for up to 8 test images, after the recipe's `visualize_epochs` and the last epoch.

    With --log, the figure that they make so far is logged.
    """
    recipe = pretext.recipe
    if epoch not in recipe.visualize_epochs and epoch != recipe.epochs:
        return
    samples = test[0, np.arange(min(8, len(test)))]["images"]
    device = next(pretext.parameters()).device
    with inference(pretext):
        rows = pretext.visualize(samples.to(device), torch.Generator(device).manual_seed(key("picture", job.seed)))
    figure7.keep(work / figure7.IMAGES, epoch, {name: row.cpu().numpy() for name, row in rows.items()})
    if rows and isinstance(logger, JournalLogger):
        figure7.draw(work / figure7.IMAGES, work / "figure7.png")
        logger.figure(epoch - 1, "figure 7", np.asarray(Image.open(work / "figure7.png")))


TASK = "evaluate()"
"""What the task's own scores are called; the others have the names of their baselines."""


def _evaluate(
    pretext: Pretext, test: SplitData, training: SplitData, count: int, seed: int
) -> tuple[Summary, dict[str, Summary]]:
    """Return the summary of the task's own scores on the first `count` test images, and on the same images each baseline's."""
    device = next(pretext.parameters()).device
    places = np.linspace(0, len(training) - 1, min(BASELINE_IMAGES, len(training))).astype(np.int64)
    training_images = training[0, places]["images"].to(device)
    collected: dict[str, dict[str, list[NDArray[np.float64]]]] = {TASK: {}}
    for first in range(0, count, EVALUATION_BATCH):
        positions = np.arange(first, min(first + EVALUATION_BATCH, count))
        images = test[0, positions]["images"].to(device)
        generator = torch.Generator(device).manual_seed(key("report", seed, first))
        with inference(pretext):
            scores_of_batch = {TASK: pretext.evaluate(images, generator), **pretext.baselines(images, training_images)}
        for scorer, scores in scores_of_batch.items():
            for name, values in scores.items():
                if tuple(values.shape) != (len(positions),):
                    raise BenchError(f"{name} of {scorer} has shape {tuple(values.shape)}; it must have one value per image.")
                collected.setdefault(scorer, {}).setdefault(name, []).append(values.double().cpu().numpy())
    summaries = {
        scorer: {name: summary(np.concatenate(chunks)) for name, chunks in scores.items()} for scorer, scores in collected.items()
    }
    return summaries.pop(TASK), summaries


def summary(values: NDArray[np.float64]) -> dict[str, float | None]:
    """Return average, minimum and maximum of the finite values, and the number of others (equal images have infinite PSNR)."""
    finite = values[np.isfinite(values)]
    figures: dict[str, float | None] = {"average": None, "min": None, "max": None, "not_finite": float(len(values) - len(finite))}
    if len(finite):
        figures |= {"average": float(finite.mean()), "min": float(finite.min()), "max": float(finite.max())}
    return figures
