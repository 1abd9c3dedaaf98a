"""The images that a job is trained and scored on, read from packs."""

from __future__ import annotations

from dataclasses import dataclass

from bench.contract import Downstream
from bench.data import packs
from bench.data.batches import SplitData
from bench.data.splits import Splits, open_share, open_splits
from bench.experiment.jobs import pack_of, subset_of
from bench.experiment.provenance import data_facts
from bench.experiment.session import Session
from bench.job import Job
from bench.record import DataFacts


@dataclass(frozen=True)
class TaskData:
    """The training images and the scored images of a job; `ids` are those of the scored images, in order."""

    training: SplitData
    scored: SplitData
    ids: list[str]
    facts: DataFacts
    splits: Splits
    """The splits of the data set, with train and val reduced to the job's share of the labels."""


def open_task_data(job: Job, downstream: Downstream, session: Session) -> TaskData:
    """Return the data of a job, from its pack, which is made when missing. The split that is scored is never trained on."""
    dataset, protocol = session.grid.data_of(job), job.settings
    subset = subset_of(downstream, protocol, dataset)
    whole = open_splits(dataset, protocol.split_scheme, subset)
    share = open_share(dataset, whole, job.labels)
    pack = packs.open_pack(packs.Order(dataset, *pack_of(subset, protocol, job.size)), session.echo, session.packing)
    fit_ids, scored_ids = share.ids(*(name for name in protocol.fit if name != job.split)), share.ids(job.split)
    masked = downstream.data == "masks"

    def split_data(ids: list[str], augmentation: str, seed: int, with_truth: bool) -> SplitData:
        labels = dataset.labels(ids) if downstream.data == "labels" else None
        boxes = dataset.boxes_of(ids) if downstream.data == "boxes" else None
        rows = pack.places(ids)
        return session.cache.resident(SplitData(pack, rows, labels, masked, augmentation, job.size, seed, with_truth, boxes))

    cropped = protocol.resize == "crop" and protocol.evaluate_on == "input"
    training = split_data(fit_ids, protocol.augmentation, job.seed, with_truth=False)
    scored = split_data(scored_ids, "crop" if cropped else "none", 0, with_truth=True)
    void = len({*pack.manifest.void} & {*training.rows.tolist()}) if masked else 0
    facts = data_facts(dataset, whole, fit_ids, {job.split: len(scored_ids)}, void)
    return TaskData(training, scored, scored_ids, facts, share)
