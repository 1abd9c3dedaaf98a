"""What a GPU makes of the paper's sizes: pretraining, each downstream protocol, and where the time goes.

Random images of the right size and number, since only time is measured. Nothing is measured where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bench import colour
from bench.data import batches
from bench.experiment.finetuning import finetune
from bench.experiment.pretraining import pretrain, pretraining_data
from bench.experiment.session import Session
from tests.benchmarks.common import Figure, ratio, seconds, workplace
from tests.benchmarks.step import bare, by_epoch, opened, session

COCO, EPOCHS, MEASURED = 83_000, 20, 4096
FLOP = 86e9
"""Of a conditional GAN's step at 256 px, width 64, an image."""
VOC_CLASSIFICATION, VOC_SEGMENTATION = 11_987, 2_039


def images(folder: Path, count: int) -> Path:
    """Write random images as small files of many names: what is in them does not matter for a time."""
    folder.mkdir(parents=True)
    first = folder / "000000.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(first)
    for number in range(1, count):
        (folder / f"{number:06d}.png").hardlink_to(first)
    return folder


def measure() -> list[Figure]:
    """Return images/s by batch size, the hours of the paper's pretraining, seconds of each protocol, and the profile's top."""
    if not torch.cuda.is_available():
        return [Figure("there is no GPU here: not measured", float("nan"), "")]
    found: list[Figure] = []
    with workplace() as folder:
        many = images(folder / "coco", MEASURED)
        for batch in (32, 64, 128, 256):
            for compiled in (False, True):
                figures, rate = pretraining(folder, many, batch, compiled)
                found += figures
            floor = bare(256, "unet:depth=8,width=64", 64, batch, 20, "cuda", "bf16")
            found += [ratio(f"epoch against bare step, 256 px, batch {batch}", rate / floor, 0.90)]
        found += protocols(folder, ("paper", "paper-code", "standard"))
        found += top_operators(
            session(folder / "profiled", many, "cgan_color", 256, "unet", "recipe.batch_size=64", device="cuda")
        )
    return found


def pretraining(
    folder: Path, many: Path, batch: int, compiled: bool, size: int = 256, trunk: str = "unet", **options: str
) -> tuple[list[Figure], float]:
    """Return what the third epoch of conditional-GAN colorization on some images tells, and its images/s."""
    out, settings = folder / f"out{batch}{compiled}", (f"recipe.batch_size={batch}", "recipe.epochs=3")
    made = session(out, many, "cgan_color", size, trunk, *settings, device="cuda", compile=compiled, **options)
    warm, *_, rate = by_epoch(made)
    name = f"cgan_color, {size} px, batch {batch}{', compiled' if compiled else ''}"
    found = [
        Figure(name, rate, "images/s"),
        Figure(f"{name}, first epoch", warm, "images/s"),
        Figure(f"{name}, a step", 1000 * batch / rate, "ms"),
        Figure(f"{name}, peak memory", made.cache.peak_memory() / 2**20, "MiB"),
    ]
    if (size, trunk) == (256, "unet"):
        minutes = EPOCHS * COCO / rate / 60
        found += [
            Figure(f"{name}, {EPOCHS} epochs of {COCO:,}", minutes, "minutes", "at most 8 on an H200"),
            Figure(f"{name}, arithmetic", rate * FLOP / 1e12, "TFLOP/s"),
        ]
    return found, rate


def protocols(folder: Path, names: Sequence[str], **options: object) -> list[Figure]:
    """Return the seconds of fine-tuning by each protocol, on the demo's images unless `options` say others, by VOC's numbers."""
    found = []
    for protocol in names:
        for downstream, count in (("voc_cls", VOC_CLASSIFICATION), ("voc_seg", VOC_SEGMENTATION)):
            grid = {"pretext": "random_init", "downstream": downstream, "schedule": "two-phase", "protocol": protocol}
            made = opened(folder / protocol, **{**grid, "data": "demo", "trunk": "unet", "device": "cuda", **options})
            job = made.grid.jobs[0]
            trunk = pretrain(job.pretrain, made)
            finetune(job, trunk, made)
            made.cache.features.clear()
            tuned = finetune(job.model_copy(update={"seed": 1}), trunk, made)
            whole = tuned.history.seconds * count / tuned.data.facts.counts["train"]
            scoring = seconds(lambda tuned=tuned: tuned.predictions())  # type: ignore[misc]
            found += [
                Figure(f"{downstream}, {protocol}, two phases on {count:,} images", whole, "s"),
                Figure(f"{downstream}, {protocol}, scoring", len(tuned.data.scored) / scoring, "images/s"),
            ]
    return found


def reading(made: Session, batch: int) -> Figure:
    """Return the images/s at which an epoch's batches come to the GPU, are mixed and are converted to Lab: all but training."""
    job = made.grid.jobs[0].pretrain
    _, split, _ = pretraining_data(job, made)
    workers, device = made.machine.data_workers(False), made.machine.device

    def epoch(seed: int) -> None:
        for _, one in batches.training(split, batch, seed, 1, 0, workers, device):
            colour.split_lab(one["images"])
        torch.cuda.synchronize()

    epoch(0)
    return Figure(f"batches of {batch} to the GPU and to Lab", len(split) / seconds(lambda: epoch(1)), "images/s")


def top_operators(made: Session, on_gpu: bool = True) -> list[Figure]:
    """Return the ten kernels or copies that take most of the GPU's time in an epoch, as shares; none where there is no card.

    Before them comes the rate that their times alone allow: where it is well above the rate of the epoch, the GPU waits for the
    processor. An operator's time is that of its kernels again, so operators are left out.
    """
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
        images = pretrain(made.grid.jobs[0].pretrain, made).cost.images
    events = (event for event in profiler.key_averages() if event.device_type == DeviceType.CUDA)
    kernels = [event for event in events if not event.is_user_annotation]  # which hold the kernels below them again
    total = sum(event.self_device_time_total for event in kernels)  # in microseconds
    if not total:
        return []
    largest = sorted(kernels, key=lambda event: event.self_device_time_total, reverse=True)[:10]
    shares = [Figure(event.key[:80], 100 * event.self_device_time_total / total, "% of GPU time") for event in largest]
    return [Figure("what the kernels' times alone allow", 1e6 * images / total, "images/s"), *shares]
