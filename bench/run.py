"""A job becomes a record: pretrain or reuse a trunk, fine-tune it in phases, score it once, publish what is left.

The store is asked first. What is there is returned, what was interrupted goes on, and what is missing is computed; locks keep two
commands from doing the same work.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from bench import checkpoint, metrics, pictures, registry, store
from bench.contract import Batch, Downstream, Phase, Pretext
from bench.data import batches, packs, splits
from bench.data.dataset import Dataset, Say
from bench.errors import DataError
from bench.job import Job, PretrainJob
from bench.machine import Machine
from bench.modes import inference, use_statistics
from bench.order import key
from bench.resolve import Grid, pack_of, subset_of
from bench.train import Course, History, Watcher, train
from bench.trunk import Trunk, make_trunk
from results.record import Cost, DataFacts, PretrainRecord, Record, pack_predictions, read_one

REPORT_BATCH = 64
WEIGHTS = "pretext.safetensors"


@dataclass(frozen=True)
class Desk:
    """What every job of a command shares: where results go, the machine, the data, and who is told."""

    out: Path
    machine: Machine
    grid: Grid
    say: Say
    watcher: Watcher
    packing: Any
    command: tuple[str, ...] = field(default_factory=lambda: tuple(sys.argv[1:]))


def run(job: Job, desk: Desk) -> Record:
    """Return the record of a job: the one on the disk, or a new one."""
    found = find(job, desk.out)
    if found is not None:
        return found
    pretrained = pretrain(job.pretrain, desk)
    with store.lock(desk.out / "locks" / f"{job.id}.lock", desk.say):
        return find(job, desk.out) or _finetune(job, pretrained, desk)


def find(job: Job, out: Path) -> Record | None:
    """Return a job's record when it is there; DataError when it cannot be read."""
    path = out / "runs" / job.id / "record.json"
    return read_one(path) if path.is_file() else None


def find_pretrained(job: PretrainJob, out: Path) -> PretrainRecord | None:
    """Return a pretrained trunk's record when it is there."""
    path = out / "pretrained" / job.id / "pretrain.json"
    if not path.is_file():
        return None
    try:
        return PretrainRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(f"{path} is not a record of this version; remove its folder to train it again.") from error


def make_pretext(job: PretrainJob) -> Pretext:
    """Build a pretext task with the random weights of its seed; every task of one seed starts from the same trunk."""
    plugin = registry.load("pretexts", job.pretext)
    torch.manual_seed(key("trunk", job.seed))
    trunk = make_trunk(job.trunk)
    torch.manual_seed(key("pretext", job.seed))
    return cast(Pretext, plugin(plugin.Recipe.model_validate(job.recipe), trunk))


def pretrain(job: PretrainJob, desk: Desk) -> PretrainRecord:
    """Return the record of a pretrained trunk: the one on the disk, or a new one."""
    found = find_pretrained(job, desk.out)
    if found is not None:
        return found
    with store.lock(desk.out / "locks" / f"{job.id}.lock", desk.say):
        return find_pretrained(job, desk.out) or _pretrain(job, desk)


def _pretrain(job: PretrainJob, desk: Desk) -> PretrainRecord:
    desk.machine.forget_peak()
    provenance = _provenance(desk)
    pretext = make_pretext(job).to(desk.machine.device)
    work = desk.out / "work" / job.id
    history, report, data, shown = History(), {}, None, 0
    if pretext.recipe.epochs:
        data, train_part, test_part = _pretraining_parts(job, desk)
        shown = min(len(test_part), pretext.recipe.report_images)
        pretext.train()
        history = train(_pretraining_course(job, pretext, train_part, test_part, work), desk.machine, work, desk.watcher)
        report = _report(pretext, test_part, shown, job.seed)

    def fill(folder: Path) -> None:
        checkpoint.save_weights(folder / WEIGHTS, pretext, {"id": job.id, "job": job.model_dump(mode="json")})
        if (work / "pictures").is_dir():
            pictures.figure7(work / "pictures", folder / "figure7.png")
        record = PretrainRecord(
            id=job.id,
            job=job.model_dump(mode="json"),
            data=data,
            report=report,
            report_images=shown if report else 0,
            history=history.epochs,
            cost=_cost(history, desk.machine),
            weights=store.sha256(folder / WEIGHTS),
            provenance=provenance,
        )
        store.publish_json(folder / "pretrain.json", record.model_dump(mode="json"))

    store.publish_folder(desk.out / "pretrained" / job.id, fill)
    store.remove_folder(work)
    found = find_pretrained(job, desk.out)
    assert found is not None
    return found


def _pretraining_parts(job: PretrainJob, desk: Desk) -> tuple[DataFacts, batches.Part, batches.Part]:
    dataset = desk.grid.pretrain_data
    assert dataset is not None, "a job that trains has data"
    split = splits.open_split(dataset, "pretraining", "pictures")
    only = tuple(split.ids("train", "test"))
    pack = packs.open_pack(packs.Order(dataset, "pictures", packs.PackRule(size=job.size), only), desk.say, desk.packing)
    train_part = batches.Part(pack, pack.places(split.ids("train")), seed=job.seed)
    test_part = batches.Part(pack, pack.places(split.ids("test")))
    return _facts(dataset, split, {"train": len(train_part), "test": len(test_part)}), train_part, test_part


def _pretraining_course(job: PretrainJob, pretext: Pretext, part: batches.Part, test: batches.Part, work: Path) -> Course:
    recipe = pretext.recipe
    last = recipe.epochs
    chosen = {epoch for epoch in recipe.pictures if epoch <= last} | {last}
    samples = test[0, np.arange(min(8, len(test)))]["images"]

    def after_epoch(epoch: int) -> None:
        if epoch in chosen:
            device = next(pretext.parameters()).device
            with inference(pretext):
                rows = pretext.picture(samples.to(device), torch.Generator(device).manual_seed(key("picture", job.seed)))
            pictures.keep(work / "pictures", epoch, {name: row.cpu().numpy() for name, row in rows.items()})

    return Course(
        name=f"pretrain {job.pretext}",
        module=pretext,
        players=pretext.players(),
        turns=pretext.turns,
        view=lambda batch, generator: pretext.view(batch["images"], generator),
        part=part,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        seed=job.seed,
        facts={"id": job.id},
        after_epoch=after_epoch,
    )


def _report(pretext: Pretext, part: batches.Part, count: int, seed: int) -> dict[str, dict[str, float | None]]:
    """Return the average, minimum and maximum of each of the pretext's own scores over its test pictures."""
    device = next(pretext.parameters()).device
    collected: dict[str, list[NDArray[np.float64]]] = {}
    for first in range(0, count, REPORT_BATCH):
        positions = np.arange(first, min(first + REPORT_BATCH, count))
        images = part[0, positions]["images"].to(device)
        generator = torch.Generator(device).manual_seed(key("report", seed, first))
        with inference(pretext):
            scores_of_batch = pretext.report(images, generator)
        for name, values in scores_of_batch.items():
            collected.setdefault(name, []).append(values.double().cpu().numpy())
    return {name: summary(np.concatenate(chunks)) for name, chunks in collected.items()}


def summary(values: NDArray[np.float64]) -> dict[str, float | None]:
    """Return average, minimum and maximum of the finite values, and how many were not (equal pictures have no PSNR)."""
    finite = values[np.isfinite(values)]
    figures: dict[str, float | None] = {"average": None, "min": None, "max": None, "not_finite": float(len(values) - len(finite))}
    if len(finite):
        figures |= {"average": float(finite.mean()), "min": float(finite.min()), "max": float(finite.max())}
    return figures


def load_trunk(job: PretrainJob, record: PretrainRecord, out: Path) -> Trunk:
    """Return the pretrained trunk; DataError when its file is not the recorded one or does not fit."""
    pretext = make_pretext(job)
    checkpoint.load_weights(out / "pretrained" / record.id / WEIGHTS, record.weights, pretext)
    return pretext.trunk


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
    provenance = _provenance(desk)
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
        cost=_cost(total, desk.machine),
        pretrain=pretrained,
        predictions=store.sha256_bytes(packed),
        head=repr(model.head)[:2000],
        provenance=provenance,
    )

    def fill(folder: Path) -> None:
        (folder / "predictions.npz").write_bytes(packed)
        subset = subset_of(downstream, settings)
        store.publish_json(folder / "split.json", splits.open_split(dataset, settings.split, subset).model_dump(mode="json"))
        store.publish_json(folder / "record.json", record.model_dump(mode="json"))

    store.publish_folder(desk.out / "runs" / job.id, fill)
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
    facts = _facts(dataset, split, {"train": len(train_ids), job.part: len(test_ids)})
    return train_part, test_part, facts, test_ids


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


def _facts(dataset: Dataset, split: splits.Split, counts: dict[str, int]) -> DataFacts:
    return DataFacts(
        name=dataset.name,
        synthetic=dataset.synthetic,
        fingerprint=dataset.fingerprint,
        split=split.fingerprint,
        counts=counts,
        classes=dataset.classes,
        scored=dataset.scored,
    )


def _cost(history: History, machine: Machine) -> Cost:
    return Cost(seconds=round(history.seconds, 3), images=history.images, peak_memory=machine.peak_memory())


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _provenance(desk: Desk) -> dict[str, Any]:
    names = (
        "pretext-bench",
        "torch",
        "torchvision",
        "timm",
        "lightning",
        "albumentations",
        "kornia",
        "numpy",
        "pillow",
    )
    return {
        "command": list(desk.command),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: _installed(name) for name in names},
        "machine": desk.machine.describe(),
        **_commit(),
    }


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> dict[str, Any]:
    place = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "-C", place, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        state = subprocess.run(["git", "-C", place, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit.stdout.strip(), "dirty": bool(state.stdout.strip())}
