"""A probe during pretraining (`--watch knn:5`): a curve of what the features are worth on validation, and nothing more.

It trains nothing, chooses nothing and is in no id. Labels are used for the curve alone, and test images are not read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench import metrics, registry
from bench.contract import Pretext
from bench.data import batches, packs, splits
from bench.data.batches import SplitData
from bench.experiment.jobs import pack_of, protocol_of_probe, subset_of
from bench.experiment.session import Session
from bench.job import Job
from bench.models.modes import inference
from bench.models.probed import ProbedTask
from bench.probe import Knn
from bench.probes.features import Images, full_precision, judge_of
from bench.probes.knn import validation_score
from bench.schema import Schema
from bench.selection import Watched
from bench.storage import files, seal
from bench.training.loop import Logger

FILE = "watched.json"
"""What was seen so far, beside the checkpoints, so that a kill does not lose it."""


class _Seen(Schema):
    """What was seen so far, in the order of epochs."""

    seen: tuple[Watched, ...] = ()


def watched(work: Path) -> tuple[Watched, ...]:
    """Return what was seen of the pretraining whose checkpoints lie in `work`; DataError when the file was changed."""
    path = work / FILE
    if not path.is_file():
        return ()
    return seal.read_model(_Seen, path, "what a probe saw", "remove the file, and its curve begins anew").seen


def watcher(pretext: Pretext, session: Session, work: Path, logger: Logger) -> Callable[[int], None]:
    """Return the function that probes a trunk in training after an epoch, when its turn has come."""
    first = next(job for job in session.grid.jobs if registry.load("downstreams", job.downstream).data == "labels")
    probe = Knn(kind="knn")
    job = first.model_copy(update={"settings": protocol_of_probe(first.settings, probe), "schedule": "frozen", "probe": probe})
    training, validation = _splits(job, session)
    data = session.grid.data_of(first)
    classes = data.classes, data.scored
    metric = metrics.get("map_voc").key  # the same whatever is evaluated
    task = ProbedTask(registry.load("downstreams", job.downstream)(job.settings, len(classes[0])), "levels")

    judge = judge_of(metric, *classes)

    def images(split: SplitData) -> Images:
        found, size = [], job.settings.batch_size
        for begin in range(0, len(split), size):
            session.machine.stop.check()
            batch = batches.to_device(split[0, np.arange(begin, min(begin + size, len(split)))], session.machine.device)
            with session.machine.autocast():
                found.append(task.features(pretext.trunk, pretext.trunk.preprocessing(batch["images"])).float())
        assert split.labels is not None, "a task with labels"
        return Images(tuple(task.parts(torch.cat(found))), split.labels)

    def watch(epoch: int) -> None:
        if epoch % session.config.watch_every and epoch != pretext.recipe.epochs:
            return
        session.doing(f"watching {job.downstream} by {probe.title} after epoch {epoch}")
        with inference(pretext), full_precision():
            choice, value = validation_score(probe, images(training), images(validation), judge)
        seen = Watched(
            epoch=epoch,
            probe=probe.kind,
            task=job.downstream,
            metric=metric,
            value=value if math.isfinite(value) else None,
            choice=choice,
        )
        before = tuple(one for one in watched(work) if one.epoch < epoch)  # what follows a checkpoint is seen again
        files.publish_json(work / FILE, _Seen(seen=(*before, seen)).model_dump(mode="json"))
        logger.values(epoch - 1, {f"watch/{probe.kind} {metric}": value})

    return watch


def _splits(job: Job, session: Session) -> tuple[SplitData, SplitData]:
    """Return the training and the validation images of a job's task."""
    data, protocol = session.grid.data_of(job), job.settings
    subset = subset_of(registry.load("downstreams", job.downstream), protocol, data)
    share = splits.open_share(data, splits.open_splits(data, protocol.split_scheme, subset), job.labels)
    pack = packs.open_pack(packs.Order(data, *pack_of(subset, protocol, job.size)), session.echo, session.packing)

    def split(name: str) -> SplitData:
        ids = share.ids(name)
        return SplitData(pack, pack.places(ids), data.labels(ids))

    return split("train"), split("val")
