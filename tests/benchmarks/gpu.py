"""What a GPU makes of the paper's sizes: pretraining, each downstream protocol, and where the time goes.

Random images of the right size and number, since only time is measured. Nothing is measured where there is no GPU.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from bench.experiment.finetuning import finetune
from bench.experiment.pretraining import pretrain
from tests.benchmarks.common import Figure, ratio, seconds, workplace
from tests.benchmarks.step import bare, opened, session, trained

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
        found += _protocols(folder)
        found += top_operators(folder, many, 64)
    return found


def pretraining(
    folder: Path, many: Path, batch: int, compiled: bool, size: int = 256, trunk: str = "unet", **options: str
) -> tuple[list[Figure], float]:
    """Return what an epoch of conditional-GAN colorization on some images tells, and its images/s."""
    out, settings = folder / f"out{batch}{compiled}", f"recipe.batch_size={batch}"
    made = session(out, many, "cgan_color", size, trunk, settings, device="cuda", compile=compiled, **options)
    warm, rate = trained(made, 0), trained(made, 1)
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


def _protocols(folder: Path) -> list[Figure]:
    """Return the seconds of fine-tuning by each protocol, on the demo's images, by the number of VOC's."""
    found = []
    for protocol in ("paper", "paper-code", "standard"):
        for downstream, count in (("voc_cls", VOC_CLASSIFICATION), ("voc_seg", VOC_SEGMENTATION)):
            grid = {"pretext": "random_init", "downstream": downstream, "schedule": "two-phase"}
            made = opened(folder / protocol, **grid, protocol=protocol, data="demo", trunk="unet", device="cuda")
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


def top_operators(folder: Path, many: Path, batch: int, **options: str) -> list[Figure]:
    """Return the ten operators that take most of the GPU's time in an epoch, as shares."""
    made = session(folder / "profiled", many, "cgan_color", 256, "unet", f"recipe.batch_size={batch}", device="cuda", **options)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        trained(made, 2)
    events = sorted(profiler.key_averages(), key=lambda event: event.self_device_time_total, reverse=True)
    total = sum(event.self_device_time_total for event in events)
    return [Figure(event.key[:80], 100 * event.self_device_time_total / total, "% of GPU time") for event in events[:10]]
