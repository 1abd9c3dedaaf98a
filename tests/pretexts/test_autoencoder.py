"""The autoencoder control: nothing passes beside the bottleneck, and it learns to copy through it."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab
from torch import Tensor

from bench import registry
from bench.contract import Pretext, shuffled
from bench.models.trunk import make_trunk

Autoencoder = registry.load("pretexts", "autoencoder")
TRUNKS = ["unet:depth=4,width=8", "unet:depth=4,width=8,preprocessing=rgb", "timm:resnet10t", "timm:convnext_atto"]


def task(trunk: str = TRUNKS[0], cls: type[Pretext] = Autoencoder, **changes: object) -> Pretext:
    torch.manual_seed(0)
    return cls(cls.Recipe().with_changes(changes, "autoencoder"), make_trunk(trunk))


def images(count: int = 4, size: int = 16) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_nothing_passes_beside_the_bottleneck(trunk: str) -> None:
    pretext = task(trunk).eval()
    lightness = torch.rand(2, 1, 64, 64, generator=seeded())
    with torch.no_grad():
        *skips, bottleneck = pretext.trunk.encode(pretext.trunk.preprocessing.grey(lightness))
        before = pretext.reconstruct(lightness)
        others = [torch.randn_like(skip) for skip in skips]
        assert others and not torch.equal(pretext.trunk.decode([*others, bottleneck]), pretext.trunk.decode([*skips, bottleneck]))
        pretext.trunk.encode = lambda inputs: [*others, bottleneck]
        assert torch.equal(pretext.reconstruct(lightness), before)
        pretext.trunk.encode = lambda inputs: [*skips, bottleneck + 1]
        assert not torch.equal(pretext.reconstruct(lightness), before)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_the_encoder_learns_to_its_first_layer_through_the_bottleneck(trunk: str) -> None:
    pretext = task(trunk).train()
    ((_, loss),) = pretext.training_step(pretext.make_batch(images(2, 64), seeded()))
    loss.backward()
    first = next(pretext.trunk.down.parameters()).grad
    assert first is not None and first.any()


@pytest.mark.parametrize("error", ["squared", "absolute"])
def test_the_loss_is_the_mean_error_of_the_lightness(error: str) -> None:
    pretext = task(error=error).eval()
    batch = pretext.make_batch(images(), seeded())
    ((_, loss),) = pretext.training_step(batch)
    truth = rgb2lab(images().permute(0, 2, 3, 1).numpy())[..., 0] / 50 - 1
    off = pretext.reconstruct(batch["lightness"])[:, 0].detach().numpy() - truth
    assert loss.item() == pytest.approx((np.abs(off) if error == "absolute" else off**2).mean(), rel=1e-4)


def trained(cls: type[Pretext], pictures: Tensor) -> float:
    pretext = task(cls=cls, lr=0.01)
    optimizer, generator = pretext.optimizers()["loss"], seeded()
    for _ in range(30):
        ((_, loss),) = pretext.train().training_step(pretext.make_batch(pictures, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return float(pretext.eval().evaluate(pictures, seeded())["psnr"].mean())


def test_it_copies_what_it_sees_and_learns_the_mean_from_shuffled_targets() -> None:
    levels = torch.tensor([20, 90, 160, 230], dtype=torch.uint8).repeat(4)
    pictures = levels[:, None, None, None].expand(-1, 3, 16, 16).contiguous()
    copied, without = trained(Autoencoder, pictures), trained(shuffled("autoencoder", Autoencoder), pictures)
    mean = task().baselines(pictures, pictures)["mean image"]["psnr"].mean().item()
    assert copied > mean + 5
    assert without < mean + 1


def test_the_trivial_answers_are_the_mean_grey_and_the_mean_image() -> None:
    half = torch.cat([torch.full((1, 3, 16, 8), 0), torch.full((1, 3, 16, 8), 255)], dim=3).byte()
    found = task().baselines(half, half)
    assert found["mean image"]["psnr"].item() == float("inf")
    grey = 119  # sRGB of lightness 50
    by_hand = 10 * np.log10(255**2 / ((grey**2 + (255 - grey) ** 2) / 2))
    assert found["mean grey"]["psnr"].item() == pytest.approx(by_hand, rel=1e-3)
    assert found["mean grey"]["ssim"].item() < 0.1 < found["mean image"]["ssim"].item()


def test_it_sees_lightness_alone_and_answers_in_grey_without_dropout() -> None:
    pretext = task().eval()
    rows = pretext.visualize(images(), seeded())
    assert list(rows) == ["learned", "truth"]
    assert all((row.int() - row[:, :1].int()).abs().max() <= 1 for row in rows.values())
    assert torch.equal(pretext.answer(images()), rows["learned"])
    assert not torch.equal(task(statistics="batch").answer(images()), rows["learned"])
