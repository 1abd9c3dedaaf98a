"""The same first steps on the processor and on the GPU, from the same weights and the same batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from bench import registry
from bench.config import MachineConfig
from bench.contract import Batch
from bench.experiment.pretraining import make_pretext, pretraining_stage
from bench.models.modes import inference
from bench.models.network import Model
from bench.training.loop import take_step
from bench.training.machine import make_machine
from tests.downstream.test_contract import batch_for
from tests.downstream.test_contract import make as make_model
from tests.pretexts.test_contract import NAMES, images, job

TOLERANCES = {"fp32": 1e-4, "bf16": 5e-2}
"""How much a loss may differ, relative to the processor's in float32: bfloat16 has 8 bits."""
STEPS = 2


@contextmanager
def exact() -> Iterator[None]:
    """Multiply float32 in float32 inside the block: TF32, which a GPU takes otherwise, has 11 bits."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)


def pretext_losses(name: str, device: str, precision: str) -> list[float]:
    """Return a pretext task's losses of two steps; its batch is made on the processor, whose random numbers are others."""
    made = make_machine(MachineConfig.model_validate({"device": device, "precision": precision}))
    asked = job(name)
    pretext = make_pretext(asked)
    batch = pretext.make_batch(images(), torch.Generator().manual_seed(1))
    pretext = made.place(pretext).eval()  # without dropout, for the same reason
    stage = pretraining_stage(asked, pretext)
    stage.make_batch = lambda given, _: {key: value.to(made.device) for key, value in batch.items()}
    with exact():
        steps = [take_step(stage, made, {}, number) for number in range(STEPS)]
    return [float(loss) for losses in steps for loss in losses.values()]


def baseline_scores(name: str, device: str) -> list[float]:
    """Return the scores of answers without learning: colours, PSNR and SSIM as the device computes them."""
    made = make_machine(MachineConfig.model_validate({"device": device, "precision": "fp32"}))
    pretext, seen = made.place(make_pretext(job(name))), images().to(made.device)
    with inference(pretext), exact():
        found = pretext.baselines(seen, seen)
    return [float(values.double().mean()) for scores in found.values() for values in scores.values()]


def downstream_losses(name: str, device: str, precision: str) -> list[float]:
    """Return a downstream task's loss, and that of its frozen trunk's features, by its first protocol."""
    made = make_machine(MachineConfig.model_validate({"device": device, "precision": precision}))
    task, model = make_model(name, next(iter(registry.load("downstreams", name).protocols)))
    batch: Batch = {key: value.to(made.device) for key, value in batch_for(task).items()}
    made.place(model).set_mode("nothing")
    with torch.no_grad(), exact(), made.autocast():
        outputs: list[Tensor] = [model(batch), _from_features(model, batch)]
    return [float(task.loss(output.float(), batch["target"])) for output in outputs]


def _from_features(model: Model, batch: Batch) -> Tensor:
    output: Tensor = model({"features": model.frozen_features(batch["images"])})
    return output


def compare(_: Path) -> list[str]:
    """Compare every registered task on both devices; AssertionError names the first that differs too much."""
    lines = []
    for precision, tolerance in TOLERANCES.items():
        differences = {}
        for name in NAMES:
            differences[name] = _difference(pretext_losses(name, "cuda", precision), pretext_losses(name, "cpu", "fp32"))
            if precision == "fp32":
                differences[f"baselines of {name}"] = _difference(baseline_scores(name, "cuda"), baseline_scores(name, "cpu"))
        for name in registry.summaries("downstreams"):
            differences[name] = _difference(downstream_losses(name, "cuda", precision), downstream_losses(name, "cpu", "fp32"))
        largest = max(differences, key=lambda name: differences[name])
        assert differences[largest] <= tolerance, f"{largest} differs by {differences[largest]:.2g} in {precision}: {differences}"
        lines.append(f"{precision}: at most {differences[largest]:.1g} beside the processor's float32 ({largest})")
    return lines


def _difference(found: list[float], expected: list[float]) -> float:
    """Return the largest relative difference; 0 where there is nothing to compare."""
    assert len(found) == len(expected)
    return max((abs(one - other) / max(abs(other), 1e-6) for one, other in zip(found, expected, strict=True)), default=0.0)
