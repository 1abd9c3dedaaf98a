"""Training through the command line's code against the bare arithmetic of the same networks, and against a Lightning Trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.functional import binary_cross_entropy_with_logits as judge
from torch.nn.functional import l1_loss
from torch.utils.flop_counter import FlopCounterMode

from bench import grid
from bench.desk import Desk
from bench.discriminator import PatchDiscriminator
from bench.job import Job
from bench.modes import frozen
from bench.pretraining import pretrain
from bench.resolve import Request
from bench.trunk import make_trunk
from tests.benchmarks.common import CORES, Figure, photographs, ratio, seconds, workplace

ROUNDS = 3


class Silent:
    """A screen that shows nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def desk(folder: Path, pictures: Path, pretext: str, size: int, trunk: str, *settings: str, device: str = "cpu") -> Desk:
    """Return a desk with the one job of a pretext task on some pictures."""
    request = Request(
        (pretext,), ("voc_cls",), "demo", "demo", str(pictures), trunk, size,
        settings=("recipe.epochs=1", "recipe.report_images=1", "recipe.pictures=[]", *settings),
    )  # fmt: skip
    return grid.open_desk(request, grid.Options(device), folder, Silent())  # type: ignore[arg-type]


def trained(made: Desk, seed: int) -> float:
    """Return the images/s of a whole pretraining epoch, as its record has it."""
    job: Job = made.grid.jobs[0]
    record = pretrain(job.pretrain.model_copy(update={"seed": seed}), made)
    return record.cost.images / record.cost.seconds


def bare(size: int, trunk: str, width: int, batch: int, steps: int, device: str = "cpu", precision: str = "fp32") -> float:
    """Return the images/s of a conditional GAN's step on random tensors: both networks, both optimisers, nothing else."""
    network = make_trunk(trunk)
    networks = torch.nn.ModuleList([network, network.output(2), PatchDiscriminator(3, width)]).to(device)
    if device != "cpu":
        networks.to(memory_format=torch.channels_last)
    unet, output, critic = networks
    players = [
        torch.optim.Adam(some, lr=1e-3, fused=True) for some in ([*unet.parameters(), *output.parameters()], critic.parameters())
    ]
    lightness, chroma = torch.rand(batch, 1, size, size, device=device), torch.rand(batch, 2, size, size, device=device)

    def verdict(colours: torch.Tensor, real: float) -> torch.Tensor:
        logits = critic(torch.cat([lightness, colours], dim=1))
        return judge(logits, torch.full_like(logits, real))

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            fake = torch.tanh(output(unet(lightness)))
            loss = verdict(chroma, 1.0) + verdict(fake.detach(), 0.0)
        players[1].zero_grad()
        loss.backward()
        players[1].step()
        torch.clear_autocast_cache()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"), frozen(critic):
            loss = verdict(fake, 1.0) + 100 * l1_loss(fake.float(), chroma)
        players[0].zero_grad()
        loss.backward()
        players[0].step()

    def several() -> None:
        for _ in range(steps):
            step()
        if device != "cpu":
            torch.cuda.synchronize()

    return batch * steps / seconds(several)


def rounds(one: Callable[[int], float], other: Callable[[int], float]) -> tuple[float, float]:
    """Return the best of some rounds of each, taken in turns: the machine's other work disturbs both alike."""
    one(-1), other(-1)
    pairs = [(one(number), other(number)) for number in range(ROUNDS)]
    return max(first for first, _ in pairs), max(second for _, second in pairs)


def lightnings(size: int, batch: int, count: int) -> tuple[float, float]:
    """Return the images/s of segmentation_models_pytorch's U-Net under Lightning's Trainer, and its GFLOP a picture."""
    import logging

    import segmentation_models_pytorch as smp
    from lightning.pytorch import LightningModule, Trainer

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    network = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=2, decoder_channels=(256, 128, 64, 32, 16))

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
    model = Colours()
    Trainer(max_epochs=1, accelerator="cpu", **quiet).fit(model, loader)  # type: ignore[arg-type]
    taken = seconds(lambda: Trainer(max_epochs=1, accelerator="cpu", **quiet).fit(model, loader))  # type: ignore[arg-type]
    return count / taken, gflop(network, size)


def gflop(network: torch.nn.Module, size: int) -> float:
    """Return the GFLOP of one picture, forward."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.rand(1, 1, size, size))
    network.train()
    return counter.get_total_flops() / 1e9


def measure() -> list[Figure]:
    """Return images/s of an epoch and of the bare step at two sizes, and GFLOP/s beside a Lightning Trainer's."""
    found: list[Figure] = []
    with workplace() as folder:
        photographs(folder / "pictures", 96, 320, 240)
        for size, width, batch, steps in ((64, 32, 16, 12), (256, 64, 4, 4)):
            trunk = f"unet:depth={size.bit_length() - 1},width={width}"
            count = steps * batch / 0.95  # the share that is not held out
            pictures = photographs(folder / f"pictures{size}", round(count), 320, 240)[0].parent
            settings = (f"recipe.batch_size={batch}", "cgan_color.discriminator_width=64")
            made = desk(folder / f"out{size}", pictures, "cgan_color", size, trunk, *settings)

            def ours(seed: int, made: Desk = made) -> float:
                return trained(made, seed)

            def floor(_: int, size: int = size, trunk: str = trunk, batch: int = batch, steps: int = steps) -> float:
                return bare(size, trunk, 64, batch, steps)

            epoch, step = rounds(ours, floor)
            found += [
                Figure(f"cgan_color epoch, {size} px, width {width}", epoch, "images/s"),
                Figure(f"its bare step, {size} px, width {width}", step, "images/s"),
                ratio(f"epoch against bare step, {size} px", epoch / step, 0.95),
            ]
        trunk = "unet:depth=7,width=64"  # about the FLOP of the other network
        made = desk(folder / "out-l1", folder / "pictures", "l1_color", 128, trunk, "recipe.batch_size=16")
        network = make_trunk(trunk)
        our_gflop = gflop(torch.nn.Sequential(network, network.output(2)), 128)
        their_gflop = 0.0

        def theirs(_: int) -> float:
            nonlocal their_gflop
            images, their_gflop = lightnings(128, 16, 96)
            return images

        ours_rate, their_rate = rounds(lambda seed: trained(made, seed), theirs)
    found += [
        Figure("l1_color epoch, 128 px, width 64", 3 * our_gflop * ours_rate, "GFLOP/s"),
        Figure("smp U-Net under Lightning's Trainer, 128 px", 3 * their_gflop * their_rate, "GFLOP/s"),
        ratio("l1_color against Lightning's Trainer, per FLOP", our_gflop * ours_rate / (their_gflop * their_rate), 1),
        Figure("GFLOP a picture, forward: ours", our_gflop, "GFLOP"),
        Figure("GFLOP a picture, forward: theirs", their_gflop, "GFLOP"),
        Figure("threads", float(CORES), ""),
    ]
    return found
