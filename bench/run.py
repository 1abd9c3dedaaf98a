"""A job becomes a record: pretrain or reuse a trunk, fine-tune it in phases, score it once, publish what is left.

The store is asked first. What is there is returned, what was interrupted goes on, and what is missing is computed; locks keep two
commands from doing the same work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench import metrics, registry, store
from bench.contract import Batch, Downstream, Phase
from bench.data import batches, packs, splits
from bench.data.dataset import Dataset
from bench.desk import Desk, cost, facts, provenance
from bench.job import Job
from bench.machine import Machine
from bench.modes import use_statistics
from bench.order import key
from bench.pretraining import load_trunk, pretrain
from bench.resolve import pack_of, subset_of
from bench.train import Course, History, train
from bench.trunk import Trunk
from results.record import DataFacts, PretrainRecord, Record, pack_predictions, read_one


def run(job: Job, desk: Desk) -> Record:
    """Return the record of a job: the one on the disk, or a new one."""
    found = find(job, desk.out)
    if found is not None:
        return found
    pretrained = pretrain(job.pretrain, desk)
    with store.lock(desk.out / "locks" / f"{job.id}.lock", desk.say, desk.machine.stop.check):
        return find(job, desk.out) or _finetune(job, pretrained, desk)


def find(job: Job, out: Path) -> Record | None:
    """Return a job's record when it is there; DataError when it cannot be read."""
    path = out / "runs" / job.id / "record.json"
    return read_one(path) if path.is_file() else None


class Model(nn.Module):
    """A trunk and a head, as one network that is trained in phases."""

    def __init__(self, trunk: Trunk, head: nn.Module, downstream: Downstream) -> None:
        super().__init__()
        self.trunk, self.head, self.downstream = trunk, head, downstream

    def forward(self, images: Tensor, frozen: bool = False) -> Tensor:
        """Return the head's output for sRGB uint8 pictures (N, 3, H, W); a frozen trunk keeps no graph."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            features = self.downstream.features(self.trunk, self.trunk.eye(images))
        output: Tensor = self.head(features)
        return output

    def set_mode(self, train: Literal["head", "all", "nothing"]) -> None:
        """Choose what trains; what does not is in eval mode, so its running statistics stay as they are."""
        self.trunk.train(train == "all")
        self.head.train(train in ("head", "all"))
        use_statistics(self, self.downstream.protocol.statistics)
        self.trunk.requires_grad_(train == "all")
        self.head.requires_grad_(train in ("head", "all"))


def _finetune(job: Job, pretrained: PretrainRecord, desk: Desk) -> Record:
    desk.machine.forget_peak()
    origin = provenance(desk)
    device = desk.machine.device
    dataset = desk.grid.data
    downstream, model = make_model(job, load_trunk(job.pretrain, pretrained, desk.out), len(dataset.classes))
    model.to(device)
    train_part, test_part, data, test_ids = _parts(job, downstream, dataset, desk)
    work = desk.out / "work" / job.id
    phases, total = [], History()
    for number, phase in enumerate(job.settings.schedules[job.schedule], start=1):
        model.set_mode(phase.train)
        course = _phase_course(job, model, downstream, number, phase, train_part)
        history = train(course, desk.machine, work / f"phase-{number}", desk.watcher)
        phases.append({**phase.model_dump(), "losses": [epoch["loss"] for epoch in history.epochs]})
        total.seconds += history.seconds
        total.images += history.images
    model.set_mode("nothing")
    predictions = predict(model, downstream, test_part, desk.machine)
    packed = pack_predictions(predictions, test_ids)
    settings = job.settings
    judged = data.classes, data.scored
    values = {name: _finite(metrics.compute(name, predictions, *judged)) for name in settings.metrics}
    record = Record(
        id=job.id,
        job=job.model_dump(mode="json"),
        pretext=job.pretrain.pretext,
        schedule=job.schedule,
        downstream=job.downstream,
        title=downstream.title,
        protocol=job.protocol,
        trunk=job.pretrain.trunk,
        size=job.size,
        seed=job.seed,
        part=job.part,
        data=data,
        metrics=values,
        per_class={name: scores for name in settings.metrics if (scores := metrics.per_class(name, predictions, *judged))},
        history=phases,
        cost=cost(total, desk.machine),
        pretrain=pretrained,
        predictions=store.sha256_bytes(packed),
        head=repr(model.head)[:2000],
        provenance=origin,
    )

    def fill(folder: Path) -> None:
        (folder / "predictions.npz").write_bytes(packed)
        subset = subset_of(downstream, settings)
        store.publish_json(folder / "split.json", splits.open_split(dataset, settings.split, subset).model_dump(mode="json"))
        store.publish_json(folder / "record.json", record.model_dump(mode="json"))

    store.publish_folder(desk.out / "runs" / job.id, fill, whole="record.json")
    store.remove_folder(work)
    return record


def make_model(job: Job, trunk: Trunk, classes: int) -> tuple[Downstream, Model]:
    """Return the downstream task and its network: the given trunk and the head of the job's seed."""
    downstream = cast(Downstream, registry.load("downstreams", job.downstream)(job.settings, classes))
    torch.manual_seed(key("head", job.downstream, job.seed))
    return downstream, Model(trunk, downstream.head(trunk, job.size), downstream)


def _parts(
    job: Job, downstream: Downstream, dataset: Dataset, desk: Desk
) -> tuple[batches.Part, batches.Part, DataFacts, list[str]]:
    settings = job.settings
    subset = subset_of(downstream, settings)
    split = splits.open_split(dataset, settings.split, subset)
    pack = packs.open_pack(packs.Order(dataset, *pack_of(subset, settings, job.size)), desk.say, desk.packing)
    fit = settings.fit if job.part == "test" else tuple(part for part in settings.fit if part != job.part)
    train_ids, test_ids = split.ids(*fit), split.ids(job.part)

    def part(ids: list[str], change: str, with_truth: bool) -> batches.Part:
        rows = pack.places(ids)
        labels = dataset.labels(ids) if downstream.data == "labels" else None
        masked = downstream.data == "masks"
        return batches.Part(pack, rows, labels, masked, change, job.size, job.seed if not with_truth else 0, with_truth)

    train_part = part(train_ids, settings.augment, with_truth=False)
    test_part = part(test_ids, "crop" if settings.resize == "crop" else "none", with_truth=True)
    seen = facts(dataset, split, {"train": len(train_ids), job.part: len(test_ids)})
    return train_part, test_part, seen, test_ids


def _phase_course(job: Job, model: Model, downstream: Downstream, number: int, phase: Phase, part: batches.Part) -> Course:
    frozen = phase.train == "head"
    trained = model.head.parameters() if frozen else model.parameters()

    def turns(batch: Batch) -> Iterator[tuple[str, Tensor]]:
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


@torch.no_grad()
def predict(model: Model, downstream: Downstream, part: batches.Part, machine: Machine) -> dict[str, NDArray[Any]]:
    """Return what is kept of every picture of a part, in its order; the pictures are looked at once."""
    settings = downstream.protocol
    size = 1 if settings.evaluate_one_by_one else settings.batch_size
    kept: dict[str, list[Tensor]] = {}
    for number, batch in enumerate(batches.evaluation(part, size, machine.device)):
        machine.stop.check()
        torch.manual_seed(key("evaluate", number))  # matters where the protocol keeps dropout on
        with machine.autocast():
            output = model(batch["images"])
        for name, values in downstream.predictions(output.float(), batch).items():
            kept.setdefault(name, []).append(values)
    return {name: torch.cat(values).cpu().numpy() for name, values in kept.items()}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
