"""Valid records and predictions made by hand, for the tests of everything that is drawn from them."""

from pathlib import Path
from typing import Any

import numpy as np

from bench import probe as probes
from bench.job import Job, PretrainJob
from bench.protocol import Phase, Protocol
from bench.record import Cost, DataFacts, FeatureSpread, PretrainRecord, Record, Trial, Tuning
from bench.selection import Selection
from bench.storage.arrays import pack_predictions
from bench.storage.files import publish_json, sha256_bytes
from results import board
from results.scores import Answers, Reader

COST = Cost(seconds=360.0, images=10, peak_memory=1 << 20)
GREY = {"psnr": {"average": 22.0, "min": 8.0, "max": 32.0}}
IMAGES = 60
CLASSES = ("cat", "dog", "cow")
PHASES = (Phase(train="head", epochs=1, lr=1e-3), Phase(train="all", epochs=1, lr=1e-4))
PROTOCOL = Protocol(
    summary="", split_scheme="official", resize="squash", batch_size=16, head_width=8, metrics=("miou_voc",), space={},
    schedules={"two-phase": PHASES, "one-phase": PHASES[1:], "frozen": PHASES[:1]},
)  # fmt: skip


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
    """Make a record whose main metric is `value`; None is undefined.

    `changes` are fields of the job and of the record, and `settings`, `recipe` and `pretrain_job`, which change those. With a
    `probe`, it is the record of a probe: nothing was trained.
    """
    if changes.get("probe") is not None:
        of_probe = {"schedules": {"frozen": ()}, "fit": ("train", "val")}
        changes = {"schedule": "frozen", "losses": [], **changes, "settings": {**of_probe, **changes.get("settings", {})}}
    data = DataFacts(
        name=changes.pop("data", "voc"),
        synthetic=changes.pop("synthetic", False),
        fingerprint=changes.pop("fingerprint", "f" * 64),
        splits_fingerprint="s" * 64,
        counts={"test": 3},
        classes=CLASSES,
        scored=CLASSES,
        prior=(0.5, 0.3, 0.2),
    )
    metric = "miou_voc" if downstream == "voc_seg" else "acc_keras"
    scored = changes.setdefault("metrics", {f"{metric}@1": value})
    names = tuple(identity.partition("@")[0] for identity in scored)
    settings = PROTOCOL.with_changes({"metrics": names, **changes.pop("settings", {})}, "the settings")
    recipe = {"lr": changes.pop("lr", 0.1), "epochs": 2, **changes.pop("recipe", {})}
    found = changes.get("tuning")
    search = {"study": found.study, "trials": found.budget} if found else {}
    job = _job(pretext, seed, downstream, settings, recipe, {**search, **changes})
    psnr = {"psnr": {"average": 20.0 + seed, "min": 10.0 - seed, "max": 30.0 + seed}}
    facts: dict[str, Any] = {
        "id": job.id, "job": job, "title": {"voc_seg": "Segmentation"}.get(downstream, "Classification"), "data": data,
        "cost": COST, "predictions": f"{data.fingerprint} {downstream} {seed} {value}", "losses": [[1.0], [0.5]],
        "pretrain": PretrainRecord(
            id=job.pretrain.id, job=job.pretrain, recipe=recipe, data=data, evaluation=psnr, baselines={"grey image": GREY},
            evaluation_images=4, cost=COST, weights="w", provenance={},
        ),
        "provenance": {"commit": "c" * 40, "dirty": False},
        "per_class": {f"{metric}@1": {"background": 0.9, "cat": value, "dog": None, "cow": 0.1}},
    }  # fmt: skip
    return Record(**{**facts, **{name: given for name, given in changes.items() if name not in _OF_JOB}})


_OF_JOB = {*Job.model_fields, *PretrainJob.model_fields, "trunk_seed", "pretrain_job"}


def _job(pretext: str, seed: int, downstream: str, settings: Protocol, recipe: dict[str, Any], changes: dict[str, Any]) -> Job:
    trunk = {
        "pretext": pretext, "version": 1, "recipe": recipe, "trunk": changes.get("trunk", "unet:depth=6,width=8"), "size": 64,
        "data_fingerprint": "d" * 64, "splits_fingerprint": "s" * 64, "seed": changes.get("trunk_seed", seed),
    }  # fmt: skip
    facts: dict[str, Any] = {
        "pretrain": PretrainJob(**{**trunk, **changes.get("pretrain_job", {})}), "downstream": downstream, "version": 1,
        "protocol": "paper", "settings": settings, "schedule": "two-phase", "size": 64, "data_fingerprint": "f" * 64,
        "splits_fingerprint": "s" * 64, "seed": seed,
    }  # fmt: skip
    return Job(**{**facts, **{name: given for name, given in changes.items() if name in Job.model_fields}})


def read(record: Record) -> Answers:
    """Return predictions whose main metric is the record's value, spread over the images by the record's seed."""
    if isinstance(record.job.probe, probes.LowShot):
        return shots(record)
    (value,) = record.metrics.values()
    ids = tuple(f"{record.data.fingerprint[:1]}{n}" for n in range(IMAGES))
    rng = np.random.default_rng(record.job.seed)
    if record.downstream == "voc_cls":
        right = np.zeros(IMAGES, dtype=bool)
        right[rng.permutation(IMAGES)[: round(IMAGES * (value or 0))]] = True
        labels = np.tile(np.array([1, 0, 0], dtype=np.int8), (IMAGES, 1))
        if value is None:
            labels[:] = 0
        scores = np.where(right[:, None], [0.9, 0.1, 0.1], [0.1, 0.9, 0.1]).astype(np.float32)
        return Answers(ids, {"scores": scores, "labels": labels})
    confusion = np.zeros((IMAGES, 5, 4), dtype=np.int32)
    if value is not None:
        # IoU of each of four classes: hits / (hits + misses to the next class + what came from the one before)
        hits = round(1000 * 2 * value / (1 + value))
        noise = rng.integers(-20, 20, IMAGES)
        noise[0] -= noise.sum()
        for c in range(4):
            confusion[:, c, c] = hits + noise
            confusion[:, c, (c + 1) % 4] = 1000 - hits - noise
    return Answers(ids, {"confusion": confusion})


reader: Reader = read
LABELS = (np.random.default_rng(0).random((IMAGES, len(CLASSES))) < 0.4).astype(np.int8)
"""The labels of the images of low-shot probes."""


def probed(
    pretext: str = "cgan_color",
    seed: int = 0,
    value: float = 0.5,
    kind: str = "knn",
    on_test: float | None = None,
    **changes: Any,
) -> Record:
    """Make the record of a probe; its choice is that of the test split unless that would have reported `on_test`."""
    probe = probes.make(kind, changes.pop("with_settings", {}))
    metric = changes.pop("metric", "map_lowshot@1" if kind == "lowshot" else None)
    downstream = "voc_cls" if probe.needs == "labels" else "voc_seg"
    chosen: dict[str, Any] = {"level": 4, "k": 20} if kind == "knn" else {"penalty": 100.0}
    other = on_test is not None
    facts: dict[str, Any] = {"metrics": {metric: value}} if metric else {}
    facts["selection"] = Selection(
        by=probe.by, metric=metric or "acc_keras@1", chosen=chosen, tried=(), value=value,
        on_test={**chosen, next(iter(chosen)): 5} if other else chosen, on_test_value=on_test if other else value,
        predictions=f"on test {pretext} {seed} {on_test}" if other else "",
    )  # fmt: skip
    return make(pretext, seed, value, downstream, probe=probe, **{**facts, **changes})


def read_on_test(record: Record) -> Answers:
    """Return the predictions with the settings that the test split would have chosen."""
    assert record.selection is not None and record.selection.predictions
    (name,) = record.metrics
    return read(record.model_copy(update={"metrics": {name: record.selection.on_test_value}}))


def shots(record: Record) -> Answers:
    """Return the predictions of a low-shot probe: the better, the more shots; its value is how well they are told."""
    assert isinstance(record.job.probe, probes.LowShot)
    (value,) = record.metrics.values()
    noise = np.random.default_rng(record.job.seed).random(
        (IMAGES, len(record.job.probe.shots), record.job.probe.draws, len(CLASSES))
    )
    told = (value or 0) * np.arange(1, len(record.job.probe.shots) + 1)[:, None, None] / len(record.job.probe.shots)
    scores = LABELS[:, None, None] * told + noise * (1 - told)
    return Answers(tuple(f"f{n}" for n in range(IMAGES)), {"shots": scores.astype(np.float32), "labels": LABELS})


def publish(out: Path, record: Record, packed: bytes = b"") -> Record:
    """Write a run's folder with its predictions, those of `read` when no others are given; return its record."""
    if not packed:
        answers = read(record)
        packed = pack_predictions(dict(answers.predictions), answers.ids)
    record = record.model_copy(update={"predictions": sha256_bytes(packed)})
    folder = out / "runs" / record.id
    folder.mkdir(parents=True)
    if record.selection is not None and record.selection.predictions:
        answers = read_on_test(record)
        other = pack_predictions(dict(answers.predictions), answers.ids)
        (folder / "chosen_on_test.npz").write_bytes(other)
        selection = record.selection.model_copy(update={"predictions": sha256_bytes(other)})
        record = record.model_copy(update={"selection": selection})
    (folder / "predictions.npz").write_bytes(packed)
    publish_json(folder / "record.json", record.model_dump(mode="json"))
    return record


def boards(records: list, **options: Any) -> list[board.Board]:
    return board.boards(records, reader, resamples=300, **options)


def seeds(pretext: str, values: tuple[float, ...], **changes: Any) -> list:
    return [make(pretext, seed, value, **changes) for seed, value in enumerate(values)]


ALIVE = FeatureSpread(images=64, layer="trunk.up.0.1", ratio=0.97, measured=("trunk.up.0.1",), measured_on=2048)
