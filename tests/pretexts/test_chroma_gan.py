"""ChromaGAN: its sum of losses, its clusters beside scikit-learn's, and what they are made of."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch import nn

from bench import registry
from bench.contract import Pretext
from bench.models.modes import inference
from pretexts._adversarial import gradient_penalty
from tests.pretexts.test_contract import images, make, seeded


def kinds(count: int = 48, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Images of three kinds, that lightness tells apart: dark, light, and striped; with noise."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(0, 3, (count,), generator=generator)
    stripes = (torch.arange(32) % 2 * 255).float()
    plain = torch.stack([torch.full((32,), 40.0), torch.full((32,), 210.0), stripes])
    pictures = plain[kind][:, None, None, :].expand(-1, 3, 32, -1) + 10 * torch.randn(count, 3, 32, 32, generator=generator)
    return pictures.clamp(0, 255).byte(), kind.numpy()


def task(name: str = "chroma_gan", **settings: Any) -> Pretext:
    return make(name, **{"classes": 3, "discriminator_width": 8, **settings})


def test_clusters_are_the_kinds_of_the_training_images() -> None:
    made = task()
    pictures, truth = kinds()
    made.prepare(iter(pictures.split(16)))
    found = made.train().make_batch(pictures, seeded())["classes"]
    assert torch.allclose(found.sum(dim=1), torch.ones(48)) and found.shape == (48, 3)
    assert adjusted_rand_score(truth, found.argmax(dim=1).numpy()) > 0.95
    new, kind = kinds(seed=5)
    assert adjusted_rand_score(kind, made.make_batch(new, seeded())["classes"].argmax(dim=1).numpy()) > 0.9


def test_classes_come_from_the_network_as_it_began_whatever_is_trained() -> None:
    made = task(lr=0.05)
    pictures, _ = kinds()
    made.prepare(iter(pictures.split(16)))
    made.train()
    before = made.make_batch(pictures, seeded())["classes"]
    kept = {name: tensor.clone() for name, tensor in made.clusters.state_dict().items()}
    optimizers = made.optimizers()
    for _ in range(3):
        for name, loss in made.training_step(made.make_batch(pictures[:8], seeded())):
            optimizers[name].zero_grad()
            loss.backward()
            optimizers[name].step()
    assert torch.equal(made.make_batch(pictures, seeded())["classes"], before)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in made.clusters.state_dict().items())
    assert not any(part.training for part in made.clusters.modules())


def test_losses_are_the_papers_sums() -> None:
    made = task().train()
    pictures, _ = kinds(8)
    made.prepare(iter([pictures]))
    made.train()
    batch = made.make_batch(pictures, seeded())
    torch.manual_seed(4)
    steps = made.training_step(batch)
    _, critic = next(steps)
    torch.manual_seed(4)
    chroma, classes = made.told(batch["lightness"])
    true, fake = batch["chroma"] * 128 / 256, chroma * 128 / 256  # the released code: ab / 255 + 1/2
    real, unreal = made.judge(batch, true), made.judge(batch, fake)
    penalty = gradient_penalty(lambda some: made.judge(batch, some), true, fake)
    assert critic.item() == pytest.approx((unreal.mean() - real.mean() + 10 * penalty).item(), rel=1e-4)
    _, generator = next(steps)
    truth = batch["classes"]
    divergence = torch.where(truth > 0, truth * (truth.clamp(min=1e-30).log() - classes), 0).sum(dim=1).mean()
    squared = (fake - true).pow(2).mean()
    expected = squared - 0.1 * made.judge(batch, fake).mean() + 0.003 * divergence
    assert generator.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("name", ["chroma_gan", "cgan_color"])
def test_the_penalty_is_differentiated_twice_under_bfloat16(name: str) -> None:
    settings: dict[str, Any] = {"adversarial_loss": "wgan-gp"} if name == "cgan_color" else {}
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        made = make(name, discriminator_width=8, **settings)
        made.prepare(iter([images(16)]))
        made.train()
        for part in made.discriminator.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, 0, 0.1, generator=seeded())
        batch = made.make_batch(images(), seeded())
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            _, loss = next(made.training_step(batch))
        loss.float().backward()
        found.append(torch.cat([weight.grad.flatten() for weight in made.discriminator.parameters() if weight.grad is not None]))
    cosine = torch.nn.functional.cosine_similarity(found[0], found[1], dim=0).item()
    assert torch.isfinite(found[1]).all() and cosine > 0.99, cosine


def test_it_tells_clusters_and_its_default_uses_no_label() -> None:
    made = task(lr=2e-3, class_weight=1.0, statistics="batch")
    pictures, _ = kinds()
    made.prepare(iter(pictures.split(16)))
    made.train()
    optimizers = made.optimizers()
    for _ in range(40):
        for name, loss in made.training_step(made.make_batch(pictures, seeded())):
            optimizers[name].zero_grad()
            loss.backward()
            optimizers[name].step()
    new, _ = kinds(seed=7)
    with inference(made):
        own = made.evaluate(new, seeded())["accuracy"].mean().item()
        usual = made.baselines(new, pictures)["most frequent cluster"]["accuracy"].mean().item()
    assert own > 0.9 > usual + 0.3
    assert registry.facts("chroma_gan")["supervision"] == "none"


def test_fewer_images_than_classes_leave_classes_empty() -> None:
    made = task(classes=40)
    made.prepare(iter([images(10)]))
    found = made.train().make_batch(images(10), seeded())["classes"]
    assert torch.isfinite(found).all() and (found.argmax(dim=1) < 10).all()
