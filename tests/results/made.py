"""Records and predictions made by hand, for the tests of everything that is drawn from them."""

from pathlib import Path
from typing import Any

import numpy as np

from bench.record import Cost, DataFacts, PretrainRecord, Record, Trial, Tuning
from bench.storage.arrays import pack_predictions
from bench.storage.files import publish_json, sha256_bytes
from results.scores import Answers, Reader

COST = Cost(seconds=360.0, images=10, peak_memory=1 << 20)
PICTURES = 60
CLASSES = ("cat", "dog", "cow")


def tuning(study: str = "study", budget: int = 8, best: float = 0.3, **changes: Any) -> Tuning:
    trials = tuple(
        Trial(number=n, rates={"phase-1": 10.0 ** -(2 + n), "phase-2": 1e-4}, state="complete", value=best - 0.1 * n, seconds=1.0)
        for n in range(3)
    )
    facts: dict[str, Any] = {
        "study": study, "budget": budget, "space": {"phase-1": (1e-4, 1e-2), "phase-2": (1e-5, 1e-3)}, "sampler": "tpe",
        "pruner": "median", "metric": "miou_voc@1", "seed": 0, "trials": trials, "best": trials[0].rates, "best_value": best,
        "cost": COST,
    }  # fmt: skip
    return Tuning(**{**facts, **changes})


def make(
    pretext: str = "cgan_color", seed: int = 0, value: float | None = 0.5, downstream: str = "voc_seg", **changes: Any
) -> Record:
    """Make a record whose main metric is `value`; None is undefined."""
    data = DataFacts(
        name=changes.pop("data", "voc"),
        synthetic=changes.pop("synthetic", False),
        fingerprint=changes.pop("fingerprint", "f" * 64),
        split="s" * 64,
        counts={"test": 3},
        classes=CLASSES,
        scored=CLASSES,
        prior=(0.5, 0.3, 0.2),
    )
    metric = "miou_voc" if downstream == "voc_seg" else "acc_keras"
    recipe = {"lr": changes.pop("lr", 0.1), "epochs": 2}
    trunk_seed = changes.pop("trunk_seed", seed)
    job = {"recipe": recipe, "data": "d" * 64, "split": "s" * 64, "version": 1, "source": "", "size": 64, "seed": trunk_seed}
    report = {"psnr": {"average": 20.0 + seed, "min": 10.0 - seed, "max": 30.0 + seed}}
    pretrain = PretrainRecord(
        id=f"{pretext}-{trunk_seed}", job=job, data=data, report=report, trivial={"grey image": report}, evaluation_images=4,
        cost=COST, weights="w", provenance={},
    )  # fmt: skip
    phases = [{"train": "head", "epochs": 1, "lr": 1e-3}, {"train": "all", "epochs": 1, "lr": 1e-4}]
    settings = {
        "metrics": [metric],
        "schedules": {"two-phase": phases, "one-phase": phases[1:], "frozen": phases[:1]},
        "space": {},
    }
    settings |= {"split": "official", "batch_size": 16, "resize": "squash", "head_width": 8}
    facts: dict[str, Any] = {
        "job": {"settings": settings, "version": 1, "source": "", "size": 64, "split": "s"}, "pretext": pretext,
        "schedule": "two-phase", "downstream": downstream, "title": {"voc_seg": "Segmentation"}.get(downstream, "Classification"),
        "protocol": "paper", "trunk": "unet:depth=6,width=8", "size": 64, "seed": seed, "part": "test", "data": data,
        "metrics": {f"{metric}@1": value}, "cost": COST, "pretrain": pretrain, "rates": (1e-3, 1e-4),
        "predictions": f"{data.fingerprint} {downstream} {seed} {value}",
        "history": [{**phases[0], "losses": [1.0]}, {**phases[1], "losses": [0.5]}],
        "provenance": {"commit": "c" * 40, "dirty": False},
        "per_class": {f"{metric}@1": {"background": 0.9, "cat": value, "dog": None, "cow": 0.1}},
    }  # fmt: skip
    facts |= changes
    facts["id"] = changes.get("id", f"{pretext}-{downstream}-{facts['schedule']}-{trunk_seed}-{seed}-{value}")
    return Record(**facts)


def read(record: Record) -> Answers:
    """Return predictions whose main metric is the record's value, spread over the images by the record's seed."""
    (value,) = record.metrics.values()
    ids = tuple(f"{record.data.fingerprint[:1]}{n}" for n in range(PICTURES))
    rng = np.random.default_rng(record.seed)
    if record.downstream == "voc_cls":
        right = np.zeros(PICTURES, dtype=bool)
        right[rng.permutation(PICTURES)[: round(PICTURES * (value or 0))]] = True
        labels = np.tile(np.array([1, 0, 0], dtype=np.int8), (PICTURES, 1))
        if value is None:
            labels[:] = 0
        scores = np.where(right[:, None], [0.9, 0.1, 0.1], [0.1, 0.9, 0.1]).astype(np.float32)
        return Answers(ids, {"scores": scores, "labels": labels})
    confusion = np.zeros((PICTURES, 5, 4), dtype=np.int32)
    if value is not None:
        # IoU of each of four classes: hits / (hits + misses to the next class + what came from the one before)
        hits = round(1000 * 2 * value / (1 + value))
        noise = rng.integers(-20, 20, PICTURES)
        noise[0] -= noise.sum()
        for c in range(4):
            confusion[:, c, c] = hits + noise
            confusion[:, c, (c + 1) % 4] = 1000 - hits - noise
    return Answers(ids, {"confusion": confusion})


reader: Reader = read


def publish(out: Path, record: Record, packed: bytes = b"") -> Record:
    """Write a run's folder with its predictions, those of `read` when no others are given; return its record."""
    if not packed:
        answers = read(record)
        packed = pack_predictions(dict(answers.predictions), answers.ids)
    record = record.model_copy(update={"predictions": sha256_bytes(packed)})
    folder = out / "runs" / record.id
    folder.mkdir(parents=True)
    (folder / "predictions.npz").write_bytes(packed)
    publish_json(folder / "record.json", record.model_dump(mode="json"))
    return record
