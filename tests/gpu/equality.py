"""The same first step on the processor and on the GPU, from the same weights and the same batch: losses, gradients, scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from bench import registry
from bench.config import MachineConfig
from bench.experiment.pretraining import make_pretext, pretraining_stage
from bench.models.modes import inference
from bench.training.loop import take_step
from bench.training.machine import make_machine
from tests.downstream.test_contract import batch_for
from tests.downstream.test_contract import make as make_model
from tests.pretexts.test_contract import NAMES, images, job

Found = dict[str, Tensor]
"""What a device computed, by kind: losses, gradients or scores, on the processor in float64."""
TOLERANCES = {"fp32": {"losses": 1e-4, "gradients": 2e-2, "scores": 1e-4}, "bf16": {"losses": 5e-2, "gradients": 0.4}}
"""How much may differ, as a norm relative to the processor's in float32.

On a processor, weights with a relative noise of 1e-6 change the pretext tasks' losses by at most 1.2e-6 and their gradients by
4e-5, and bfloat16 changes them by 2e-3 and 0.13.
"""


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


class DrawnByProcessor(TorchFunctionMode):
    """Inside the block, the processor draws what is drawn without a generator: a GPU's numbers are others, whatever the seed."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in (torch.rand, torch.randn, torch.randint, torch.randperm) and "generator" not in given:
            device = given.pop("device", None)
            return func(*args, **given).to(device)
        return func(*args, **given)


def of_pretext(name: str, device: str, precision: str) -> Found:
    """Return the losses and gradients of a pretext task's first step, and with fp32 its baselines' scores.

    The batch, what is measured before training and what a step draws are made on the processor, and there is no dropout, since
    the devices' random numbers differ.
    """
    made = make_machine(MachineConfig.model_validate({"device": device, "precision": precision}))
    asked = job(name)
    pretext = make_pretext(asked)
    pretext.prepare(iter([images()]))
    batch = pretext.make_batch(images(), torch.Generator().manual_seed(1))
    pretext = made.place(pretext).train()
    _without_dropout(pretext)
    stage = pretraining_stage(asked, pretext)
    stage.make_batch = lambda given, _: {key: value.to(made.device) for key, value in batch.items()}
    with exact(), DrawnByProcessor():
        losses = take_step(stage, made, {}, 0)
        found = {"losses": _joined(losses.values()), "gradients": _gradients(pretext)}
        if precision == "fp32":
            seen = images().to(made.device)
            with inference(pretext):
                baselines = pretext.baselines(seen, seen)
            found["scores"] = _joined(values for scores in baselines.values() for values in scores.values())
    return found


def of_downstream(name: str, device: str, precision: str) -> Found:
    """Return the loss and the gradients of a downstream task's first step, by its first protocol."""
    made = make_machine(MachineConfig.model_validate({"device": device, "precision": precision}))
    task, model = make_model(name, next(iter(registry.load("downstreams", name).protocols)))
    batch = {key: value.to(made.device) for key, value in batch_for(task).items()}
    made.place(model).set_mode("all")
    _without_dropout(model)
    with exact():
        with made.autocast():
            loss = task.loss(model(batch), batch["target"])
        loss.backward()  # type: ignore[no-untyped-call]
        return {"losses": _joined([loss]), "gradients": _gradients(model)}


def compare(_: Path) -> Iterator[str]:
    """Compare every registered task on both devices and yield the largest differences; AssertionError names all too large."""
    tasks = [(of_pretext, name) for name in NAMES] + [(of_downstream, name) for name in registry.summaries("downstreams")]
    above = []
    for precision, tolerances in TOLERANCES.items():
        largest = dict.fromkeys(tolerances, (0.0, "none"))
        for compute, name in tasks:
            found, expected = compute(name, "cuda", precision), compute(name, "cpu", "fp32")
            for kind in tolerances.keys() & found.keys():
                differs = difference(found[kind], expected[kind])
                largest[kind] = max(largest[kind], (differs, name))
                if not differs <= tolerances[kind]:
                    above.append(f"{kind} of {name} differ by {differs:.2g} in {precision}, above {tolerances[kind]:g}")
        figures = ", ".join(f"{kind} {value:.1g} ({name})" for kind, (value, name) in largest.items())
        yield f"{precision} beside the processor's float32, over {len(tasks)} tasks, at most: {figures}"
    assert not above, "; ".join(above)


def difference(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference relative to that of what is expected; 0 for two empty tensors."""
    assert found.shape == expected.shape and bool(torch.isfinite(found).all())
    return float((found - expected).norm() / expected.norm().clamp(min=1e-9)) if len(found) else 0.0


def _joined(parts: object) -> Tensor:
    """Return tensors as one vector on the processor."""
    flat = [part.detach().double().cpu().flatten() for part in parts]  # type: ignore[attr-defined]
    return torch.cat(flat) if flat else torch.zeros(0, dtype=torch.float64)


def _gradients(module: nn.Module) -> Tensor:
    return _joined(parameter.grad.contiguous() for parameter in module.parameters() if parameter.grad is not None)


def _without_dropout(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, _DropoutNd):
            part.training = False
