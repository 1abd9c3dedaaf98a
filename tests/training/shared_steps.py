"""Training steps that several processes share, run as a program: `python -m tests.training.shared_steps RANK COUNT FOLDER SPEC`.

SPEC is JSON: `tasks`, `steps`, `double`, `dropout`, `optimizer`, `batch`, and `store`, the file by which the processes find each
other. Every process writes FOLDER/TASK-RANK.pt: the state after the steps, the losses, and which calls were computed whole.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch import distributed as dist

from bench import registry
from bench.config import MachineConfig
from bench.contract import Batch, Pretext, Recipe
from bench.experiment.pretraining import make_pretext, pretraining_stage
from bench.models import sharded_functions, split_calls
from bench.models.network import Model
from bench.models.shards import Shards
from bench.models.trunk import make_trunk
from bench.optimization import make_optimizer
from bench.training import shared_steps
from bench.training.loop import Stage, take_step
from bench.training.machine import make_machine
from tests.pretexts.test_contract import job

DOWNSTREAMS = ("voc_cls", "voc_seg")
CLASSES, SIZE = 5, 32


def images(count: int, seed: int) -> Tensor:
    """Return images with some structure, and with colours of every strength, uint8 (N, 3, SIZE, SIZE)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=SIZE, mode="bilinear")
    grey = torch.rand(count, 1, 1, 1, generator=generator)
    smooth = smooth * grey + smooth.mean(dim=1, keepdim=True) * (1 - grey)
    return (smooth * 255).round().to(torch.uint8)


def pretext_stage(name: str, spec: dict[str, Any]) -> Stage:
    """Return the stage that trains a pretext task, with the optimizer that is asked for."""
    changes = {"batch_size": spec["batch"], **spec.get("recipe", {}).get(name, {})}
    made = job(
        name,
        **changes,
        **({"optimizer": spec["optimizer"], "lr": spec.get("lr", 1e-3), "momentum": 0.9} if spec["optimizer"] else {}),
    )
    pretext = make_pretext(made)
    pretext.prepare(iter([images(8, 100 + number) for number in range(2)]))
    pretext.train()
    return pretraining_stage(made, pretext)


def downstream_stage(name: str, spec: dict[str, Any]) -> Stage:
    """Return a stage that fine-tunes everything for a downstream task."""
    torch.manual_seed(0)
    plugin: Any = registry.load("downstreams", name)
    settings = plugin.protocols["demo"]
    downstream = plugin(settings, CLASSES)
    trunk = make_trunk("unet:depth=5,width=8")
    model = Model(trunk, downstream.head(trunk, SIZE), downstream)
    model.set_mode("all")
    optimizer = make_optimizer(settings, 1e-3, model)
    if spec["optimizer"] == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), lr=spec.get("lr", 1e-3), momentum=0.9)

    def training_step(batch: Batch) -> Iterator[tuple[str, Tensor]]:
        yield "loss", downstream.loss(model(batch), batch["target"])

    return Stage(
        name, name, model, {"loss": optimizer}, training_step, lambda batch, _: batch, spec["batch"], 1, 0, networks=(model,)
    )


def target_of(name: str, count: int, seed: int) -> dict[str, Tensor]:
    """Return the target of a downstream task; none for a pretext task."""
    generator = torch.Generator().manual_seed(seed)
    if name == "voc_cls":
        return {"target": torch.randint(-1, 2, (count, CLASSES), generator=generator, dtype=torch.int8).clamp(min=0)}
    if name == "voc_seg":  # void pixels are spread unevenly, so a mean of the processes' means is not the mean
        masks = torch.randint(0, CLASSES + 1, (count, SIZE, SIZE), generator=generator, dtype=torch.uint8)
        void = torch.rand(count, SIZE, SIZE, generator=generator) < torch.rand(count, 1, 1, generator=generator)
        return {"target": masks.masked_fill(void, 255)}
    return {}


class Odd(Pretext):
    """A task of networks as plug-ins have them, on averages of images over places."""

    Recipe = Recipe

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        return {"inputs": self.trunk.preprocessing(images)}

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        raise NotImplementedError


class Comparing(Odd):
    """A network that reads how far images are spread, as some discriminators do."""

    def __init__(self, recipe: Any, trunk: Any) -> None:
        super().__init__(recipe, trunk)
        self.compared = Spread()

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        yield "loss", self.compared(self.trunk(batch["inputs"])).square().mean()


class Spread(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, features: Tensor) -> Tensor:
        means = features.mean(dim=(1, 2, 3))
        found: Tensor = self.layer(torch.stack([means, (means - means.mean()).abs()], dim=1))
        return found


class Scalar(Odd):
    """A network that returns its loss."""

    def __init__(self, recipe: Any, trunk: Any) -> None:
        super().__init__(recipe, trunk)
        self.scored = Scored(trunk.channels)

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        yield "loss", self.scored(self.trunk(batch["inputs"]))


class Scored(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.layer(features).square().mean()
        return found


class WithDropPath(Odd):
    """Whole images are dropped at random, a weight is in the loss itself, and the rate has a scale that is learned."""

    def __init__(self, recipe: Any, trunk: Any) -> None:
        super().__init__(recipe, trunk)
        self.head = nn.Sequential(nn.Conv2d(trunk.channels, 4, 1), DropPath(0.5), nn.BatchNorm2d(4), nn.AlphaDropout(0.5))
        self.scale = nn.Parameter(torch.ones(()))

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        found = self.head(self.trunk(batch["inputs"]))
        yield "loss", (found * self.scale).square().mean() + 0.1 * self.head[0].weight.square().sum() + self.scale.square()


class Reversed(Odd):
    """A gradient that is turned around between two networks, by a function that torch knows nothing of."""

    def __init__(self, recipe: Any, trunk: Any) -> None:
        super().__init__(recipe, trunk)
        self.head = nn.Conv2d(trunk.channels, 1, 1)

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        yield "loss", self.head(Turned.apply(self.trunk(batch["inputs"]))).square().mean()


class Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: Tensor) -> Tensor:
        return given * 1.0

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class Centred(Reversed):
    """A network with a centre of what it has seen, which is initialised from the first batch."""

    def __init__(self, recipe: Any, trunk: Any) -> None:
        super().__init__(recipe, trunk)
        self.head = Centre(trunk.channels)

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        yield "loss", self.head(self.trunk(batch["inputs"])).square().mean()


class Centre(nn.Module):
    centre: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer, self.begun = nn.Conv2d(channels, 2, 1), False
        self.register_buffer("centre", torch.zeros(2))

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.layer(features)
        with torch.no_grad():
            self.centre.lerp_(found.mean(dim=(0, 2, 3)), 0.1 if self.begun else 1.0)
        self.begun = True
        return found - self.centre[:, None, None]


class InPlace(Reversed):
    """Features that are changed in place before another network and the loss read them."""

    def __init__(self, recipe: Any, trunk: Any) -> None:
        super().__init__(recipe, trunk)
        self.tail = nn.Conv2d(1, 1, 3)

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        found = self.head(self.trunk(batch["inputs"]))
        nn.functional.relu(found, inplace=True)
        yield "loss", self.tail(found).square().mean() + found.mean()


ODD = {
    "comparing": Comparing, "scalar": Scalar, "drop_path": WithDropPath, "reversed": Reversed, "centred": Centred,
    "in_place": InPlace,
}  # fmt: skip


def odd_stage(name: str, spec: dict[str, Any]) -> Stage:
    """Return the stage that trains one of the odd tasks."""
    torch.manual_seed(0)
    pretext = ODD[name](Recipe(batch_size=spec["batch"]), make_trunk("unet:depth=5,width=8"))
    pretext.train()
    optimizer = torch.optim.SGD(pretext.parameters(), lr=1e-3, momentum=0.9)
    return Stage(
        name, name, pretext, {"loss": optimizer}, pretext.training_step, lambda batch, _: pretext.make_batch(batch["images"], _),
        spec["batch"], 1, 0, networks=tuple(pretext.children()),
    )  # fmt: skip


def break_down(what: str) -> None:
    """Switch off one of the things that make the steps of several processes those of one."""
    if what == "batch norm":
        sharded_functions._statistics = lambda input: (  # type: ignore[assignment]
            *reversed(torch.var_mean(input, dim=[axis for axis in range(input.dim()) if axis != 1], correction=0)),
            torch.tensor(float(input.numel() // input.shape[1])),
        )
    if what == "gradients":
        Shards._average = lambda self, gradients: None  # type: ignore[method-assign]
    if what == "dropout":
        sharded_functions.DROPOUTS.clear()
    split_calls._Call._is_split_alike = lambda self, given, total: True  # type: ignore[method-assign]


def compute_in_double() -> None:
    """Let float32 be float64 in this process, also where the program asks for float32."""
    torch.set_default_dtype(torch.float64)
    Tensor.float = Tensor.double  # type: ignore[method-assign]
    torch.float32 = torch.float64


def run(name: str, spec: dict[str, Any], shards: Shards | None) -> dict[str, Any]:
    """Make the steps of a task, and return its state and losses."""
    stage = (downstream_stage if name in DOWNSTREAMS else odd_stage if name in ODD else pretext_stage)(name, spec)
    for part in stage.module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd) and not spec["dropout"]:
            part.p = 0.0
    if spec.get("nudged"):  # to see how much training enlarges rounding
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in stage.module.parameters():
                weight.add_(spec["nudged"] * torch.randn(weight.shape, generator=generator))
    machine = make_machine(MachineConfig(device="cpu", threads=1, precision=spec.get("precision", "fp32")))
    if shards and not spec.get("broken"):
        first = {"images": images(spec["batch"], 0), **target_of(name, spec["batch"], 0)}
        shared_steps.settle(stage, machine, first, 0, shards, take_step)
    losses = []
    for step in range(spec["steps"]):
        stage.before_step(step / spec["steps"])
        batch = {"images": images(spec["batch"], step), **target_of(name, spec["batch"], step)}
        found = take_step(stage, machine, batch, step, shards)
        losses.append({key: float(loss) for key, loss in found.items()})
    names = {id(part): key for key, part in stage.module.named_modules()}
    whole = sorted(
        f"{names.get(part)}.{method}" for (part, method), is_whole in (shards.whole if shards else {}).items() if is_whole
    )
    if not stage.networks:
        whole = ["all"]
    return {"state": stage.module.state_dict(), "losses": losses, "whole": whole}


def main() -> None:
    """Run the tasks of the command line."""
    rank, count, folder, spec = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4])
    if spec["double"]:
        compute_in_double()
    if spec.get("broken"):
        break_down(spec["broken"])
    if count > 1:
        dist.init_process_group("gloo", init_method=f"file://{spec['store']}", rank=rank, world_size=count)
    for name in spec["tasks"]:
        shards = Shards(rank, count) if count > 1 else None
        torch.save(run(name, spec, shards), folder / f"{name}-{rank}.pt")
    if count > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
