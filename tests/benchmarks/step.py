"""Training through the command line's code against the bare arithmetic of the same networks, and against a Lightning Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as judge
from torch.nn.functional import l1_loss
from torch.utils.flop_counter import FlopCounterMode

from bench.colour import split_lab
from bench.config import MachineConfig, RunConfig
from bench.contract import Batch
from bench.data import catalogue, packs
from bench.data.batches import SplitData
from bench.experiment.pretraining import pretrain
from bench.experiment.session import Session, open_session
from bench.job import Job
from bench.models.discriminator import PatchDiscriminator
from bench.models.modes import frozen
from bench.models.trunk import make_trunk
from bench.training.loop import Stage, train
from bench.training.machine import make_machine
from tests.benchmarks.common import CORES, Figure, photographs, ratio, seconds, workplace

ROUNDS = 3


class Silent:
    """A screen that shows nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class Rates(Silent):
    """A screen that keeps each epoch's images/s, and shows nothing."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def epoch(self, epoch: int, losses: dict[str, float], seconds: float, images: int) -> None:
        """Note an epoch's images/s, without what comes between epochs."""
        self.found.append(images / seconds)


def session(folder: Path, images: Path, pretext: str, size: int, trunk: str, *settings: str, **options: Any) -> Session:
    """Return a session with the one job of a pretext task on some images, on the CPU unless `options` name a device.

    The discriminator has the paper's width.
    """
    wide = ("cgan_color.discriminator_width=64",) if pretext == "cgan_color" else ()
    own = ("recipe.epochs=1", "recipe.evaluation_images=1", "recipe.visualize_epochs=[]", *wide, *settings)
    data = {"data": "demo", "pretrain_data": str(images), "trunk": trunk, "size": size}
    return opened(folder, pretext=pretext, downstream="voc_cls", protocol="demo", set=own, **{"device": "cpu", **data, **options})


def opened(folder: Path, **options: Any) -> Session:
    """Return a silent session of a configuration."""
    return open_session(RunConfig.model_validate(options), folder, Silent())  # type: ignore[arg-type]


def trained(made: Session, seed: int) -> float:
    """Return the images/s of a whole pretraining epoch, as its record has it."""
    job: Job = made.grid.jobs[0]
    record = pretrain(job.pretrain.model_copy(update={"seed": seed}), made)
    return record.cost.images / record.cost.seconds


def by_epoch(made: Session) -> list[float]:
    """Return the images/s of each epoch of a pretraining: the first one begins with what is made once, as compiling."""
    screen = Rates()
    pretrain(made.grid.jobs[0].pretrain, replace(made, screen=screen))  # type: ignore[arg-type]
    return screen.found


def bare(
    size: int, trunk: str, width: int, batch: int, steps: int, device: str = "cpu", precision: str = "fp32", graph: bool = False
) -> float:
    """Return the images/s of a conditional GAN's step on random tensors: both networks, both optimizers, nothing else.

    With `graph` a CUDA graph replays the step's kernels, so that the processor launches them all at once.
    """
    network = make_trunk(trunk)
    networks = torch.nn.ModuleList([network, network.output(2), PatchDiscriminator(3, width)]).to(device)
    if device != "cpu":
        networks.to(memory_format=torch.channels_last)
    unet, output, critic = networks
    optimizers = [
        torch.optim.Adam(some, lr=1e-3, fused=True, capturable=graph)
        for some in ([*unet.parameters(), *output.parameters()], critic.parameters())
    ]
    lightness, chroma = torch.rand(batch, 1, size, size, device=device), torch.rand(batch, 2, size, size, device=device)

    def verdict(colours: torch.Tensor, real: float) -> torch.Tensor:
        logits = critic(torch.cat([lightness, colours], dim=1))
        return judge(logits, torch.full_like(logits, real))

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            fake = torch.tanh(output(unet(lightness)))
            loss = verdict(chroma, 1.0) + verdict(fake.detach(), 0.0)
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        torch.clear_autocast_cache()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"), frozen(critic):
            loss = verdict(fake, 1.0) + 100 * l1_loss(fake.float(), chroma)
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()

    made = _captured(step) if graph else step

    def several() -> None:
        for _ in range(steps):
            made()
        if device != "cpu":
            torch.cuda.synchronize()

    if device != "cpu":
        several()  # the first steps choose convolutions
    return batch * steps / seconds(several)


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """Return what replays a step's kernels as a CUDA graph, on the same tensors."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def rounds(one: Callable[[int], float], other: Callable[[int], float]) -> tuple[float, float]:
    """Return the best of some rounds of each, taken in turns: the machine's other work disturbs both alike."""
    one(-1), other(-1)
    pairs = [(one(number), other(number)) for number in range(ROUNDS)]
    return max(first for first, _ in pairs), max(second for _, second in pairs)


def unet_of_others() -> torch.nn.Module:
    """Return segmentation_models_pytorch's U-Net on a ResNet-18, from lightness to two channels."""
    import segmentation_models_pytorch as smp

    network: torch.nn.Module = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=2)
    return network


def lightnings(network: torch.nn.Module, size: int, batch: int, count: int) -> float:
    """Return the images/s of a network under Lightning's Trainer, on random tensors in memory."""
    import logging

    from lightning.pytorch import LightningModule, Trainer

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Colours(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def training_step(self, pair: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
            return l1_loss(torch.tanh(self.network(pair[0])), pair[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    data = torch.utils.data.TensorDataset(torch.rand(count, 1, size, size), torch.rand(count, 2, size, size))
    loader = torch.utils.data.DataLoader(data, batch, shuffle=True)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=1, accelerator="cpu", **quiet)  # type: ignore[arg-type]
    return count / seconds(lambda: trainer.fit(Colours(), loader))


def looped(network: torch.nn.Module, split: SplitData, batch: int, seed: int, folder: Path) -> float:
    """Return the images/s of the same network in the bench's loop, from a pack, its images converted to Lab."""

    def make_batch(batch: Batch, _: torch.Generator) -> Batch:
        lightness, chroma = split_lab(batch["images"])
        return {"lightness": lightness, "chroma": chroma}

    def training_step(batch: Batch) -> Iterator[tuple[str, torch.Tensor]]:
        yield "loss", l1_loss(torch.tanh(network(batch["lightness"])), batch["chroma"])

    optimizers = {"loss": torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)}
    stage = Stage("another's network", "benchmark", network, optimizers, training_step, make_batch, batch, 1, seed)
    history = train(stage, split, make_machine(MachineConfig(device="cpu")), folder / str(seed), Silent())
    return history.images / history.seconds


def gflop(network: torch.nn.Module, size: int) -> float:
    """Return the GFLOP of one image, forward."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.rand(1, 1, size, size))
    network.train()
    return counter.get_total_flops() / 1e9


def measure() -> list[Figure]:
    """Return images/s of an epoch and of the bare step at two sizes, and GFLOP/s beside a Lightning Trainer's."""
    found: list[Figure] = []
    with workplace() as folder:
        photographs(folder / "images", 96, 320, 240)
        for size, width, batch, steps in ((64, 32, 16, 12), (256, 64, 4, 4)):
            trunk = f"unet:depth={size.bit_length() - 1},width={width}"
            count = steps * batch / 0.95  # the share that is not held out
            images = photographs(folder / f"images{size}", round(count), 320, 240)[0].parent
            settings = (f"recipe.batch_size={batch}",)
            made = session(folder / f"out{size}", images, "cgan_color", size, trunk, *settings)

            def ours(seed: int, made: Session = made) -> float:
                return trained(made, seed)

            def floor(_: int, size: int = size, trunk: str = trunk, batch: int = batch, steps: int = steps) -> float:
                return bare(size, trunk, 64, batch, steps)

            epoch, step = rounds(ours, floor)
            found += [
                Figure(f"cgan_color epoch, {size} px, width {width}", epoch, "images/s"),
                Figure(f"its bare step, {size} px, width {width}", step, "images/s"),
                ratio(f"epoch against bare step, {size} px", epoch / step, 0.95),
            ]
        trunk = "unet:depth=7,width=64"
        made = session(folder / "out-l1", folder / "images", "l1_color", 128, trunk, "recipe.batch_size=16")
        dataset = catalogue.read(folder / "images", "photographs")
        pack = packs.open_pack(packs.Order(dataset, "images", packs.PackRule(size=128)), lambda _: None, lambda *_: None)
        split, network, unet = SplitData(pack, np.arange(96)), unet_of_others(), make_trunk(trunk)
        loop, trainer = rounds(
            lambda seed: looped(network, split, 16, seed, folder / "loop"), lambda _: lightnings(network, 128, 16, 96)
        )
        ours = max(trained(made, seed) for seed in range(ROUNDS))
        our_gflop, their_gflop = gflop(torch.nn.Sequential(unet, unet.output(2)), 128), gflop(network, 128)
    found += [
        Figure("smp U-Net in the bench's loop, from a pack, 128 px", loop, "images/s"),
        Figure("smp U-Net under Lightning's Trainer, tensors in memory, 128 px", trainer, "images/s"),
        ratio("the loop against Lightning's Trainer, same network", loop / trainer, 1),
        Figure(f"smp U-Net, {their_gflop:.2f} GFLOP forward, under the Trainer", 3 * their_gflop * trainer, "GFLOP/s"),
        Figure(f"the paper's U-Net, {our_gflop:.2f} GFLOP forward, l1_color epoch", 3 * our_gflop * ours, "GFLOP/s"),
        Figure("threads", float(CORES), ""),
    ]
    return found
