"""What every pretext task must hold to; a new file in pretexts/ is tested without a new test."""

import pytest
import torch

from bench import registry
from bench.contract import Pretext
from bench.errors import UsageError
from bench.experiment.pretraining import make_pretext
from bench.job import PretrainJob
from bench.models.modes import inference

NAMES = list(registry.summaries("pretexts"))
TRUNKS = ("unet:depth=5,width=8", "unet:depth=5,width=8,preprocessing=rgb", "timm:resnet10t")


DIVIDED = "unet:depth=5,width=8,preprocessing=l+ab"
"""The trunk of the tasks that need one whose halves see lightness and ab."""


def job(name: str, trunk: str = TRUNKS[0], **changes: object) -> PretrainJob:
    plugin = registry.load("pretexts", name)
    trunk = trunk if not plugin.preprocessing or "l" in plugin.preprocessing else DIVIDED
    recipe = plugin.Recipe().with_changes(changes, name).identity()
    return PretrainJob(
        pretext=name, version=1, recipe=recipe, trunk=trunk, size=32, data_fingerprint="none", splits_fingerprint="none", seed=0
    )


def make(name: str, trunk: str = TRUNKS[0], **changes: object) -> Pretext:
    return make_pretext(job(name, trunk, **changes))


def images(count: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def step(pretext: Pretext) -> dict[str, float]:
    torch.manual_seed(2)
    optimizers, losses = pretext.optimizers(), {}
    for name, loss in pretext.training_step(pretext.make_batch(images(), seeded())):
        optimizers[name].zero_grad()
        loss.backward()
        optimizers[name].step()
        losses[name] = loss.item()
    return losses


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_finite_on_every_trunk_and_steps_every_optimizer(name: str, trunk: str) -> None:
    pretext = make(name, trunk).train()
    losses = step(pretext)
    assert losses.keys() == pretext.optimizers().keys()
    assert all(torch.isfinite(torch.tensor(loss)) for loss in losses.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_a_function_of_its_seeds(name: str) -> None:
    first, second = make(name).train(), make(name).train()
    assert step(first) == step(second)
    assert all(torch.equal(a, second.state_dict()[key]) for key, a in first.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_moves_the_parameters_of_its_own_optimizer_only(name: str) -> None:
    pretext = make(name).train()
    optimizers = pretext.optimizers()
    owned = {key: {id(p) for group in optimizer.param_groups for p in group["params"]} for key, optimizer in optimizers.items()}
    for key, loss in pretext.training_step(pretext.make_batch(images(), seeded())):
        pretext.zero_grad()
        loss.backward()
        reached = {id(parameter) for parameter in pretext.parameters() if parameter.grad is not None}
        assert reached and reached <= owned[key]
    everything = [identity for mine in owned.values() for identity in mine]
    assert len(everything) == len(set(everything))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_changes_what_the_task_says_that_it_trains_and_nothing_else_of_the_trunk(name: str) -> None:
    pretext = make(name)
    pretext.prepare(iter([images(16)]))
    pretext.train()
    before = {key: tensor.clone() for key, tensor in pretext.trunk.state_dict().items()}
    step(pretext)
    changed = {key.split(".")[0] for key, tensor in pretext.trunk.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == {"all": {"down", "up"}, "encoder": {"down"}, "decoder": {"up"}, "nothing": set()}[pretext.trains]


@pytest.mark.parametrize("name", NAMES)
def test_a_shuffled_answer_is_never_an_images_own_and_none_is_shuffled_at_inference(name: str) -> None:
    plain = make(name).train()
    if not plain.targets:
        with pytest.raises(UsageError, match=f"{name} names no targets"):
            registry.load("pretexts", f"{name}:shuffled")
        return
    control = make(f"{name}:shuffled").train()
    assert control.family == "control" and control.trains == plain.trains
    asked, given = plain.make_batch(images(16), seeded()), control.make_batch(images(16), seeded())
    for key, tensor in asked.items():
        rows = [sorted(one.flatten(1).sum(1).tolist()) if one.dim() > 1 else sorted(one.tolist()) for one in (tensor, given[key])]
        assert rows[0] == pytest.approx(rows[1])
        if key in plain.targets:
            assert all(torch.equal(given[key][place], tensor[place - 1]) for place in range(16)), key
        else:
            assert torch.equal(tensor, given[key]), key
    assert not all(torch.equal(asked[key], given[key]) for key in plain.targets)
    with inference(plain), inference(control):
        asked, given = plain.make_batch(images(16), seeded()), control.make_batch(images(16), seeded())
    assert all(torch.equal(tensor, given[key]) for key, tensor in asked.items())


@pytest.mark.parametrize("name", NAMES)
def test_every_task_of_a_seed_starts_from_the_same_trunk(name: str) -> None:
    reference = make_pretext(job("random_init", job(name).trunk)).trunk.state_dict()
    assert all(torch.equal(tensor, reference[key]) for key, tensor in make(name).trunk.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_reports_and_images_have_one_value_an_image_and_change_nothing(name: str) -> None:
    pretext = make(name).train()
    before = {key: tensor.clone() for key, tensor in pretext.state_dict().items()}
    modes = [part.training for part in pretext.modules()]
    with inference(pretext):
        report, rows = pretext.evaluate(images(), seeded()), pretext.visualize(images(), seeded())
        again = pretext.evaluate(images(), seeded())
    assert all(values.shape == (4,) for values in report.values())
    assert all(row.shape == (4, 3, 32, 32) and row.dtype == torch.uint8 for row in rows.values())
    assert all(torch.equal(values, again[key]) for key, values in report.items())
    assert all(torch.equal(tensor, pretext.state_dict()[key]) for key, tensor in before.items())
    assert modes == [part.training for part in pretext.modules()]


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_a_valid_recipe(name: str) -> None:
    plugin = registry.load("pretexts", name)
    for preset in plugin.presets.values():
        plugin.Recipe().with_changes(preset, name)


def test_the_papers_recipe_is_the_papers() -> None:
    recipe = registry.load("pretexts", "cgan_color").Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.lr) == (20, 32, 0.002)
    assert (recipe.l1_weight, recipe.discriminator_weight, recipe.beta1) == (100, 0.5, 0.5)


def test_the_gans_losses_are_the_papers_formulas() -> None:
    pretext = make("cgan_color").train()
    torch.manual_seed(2)
    batch = pretext.make_batch(images(), seeded())
    steps = pretext.training_step(batch)
    _, discriminator_loss = next(steps)
    torch.manual_seed(2)
    state = {key: value.clone() for key, value in pretext.discriminator.state_dict().items()}
    fake = pretext.generate(batch["lightness"])
    real_logits, fake_logits = pretext.judge(batch, batch["chroma"]), pretext.judge(batch, fake)
    by_hand = 0.5 * (-torch.sigmoid(real_logits).log().mean() - (1 - torch.sigmoid(fake_logits)).log().mean())
    assert discriminator_loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    pretext.discriminator.load_state_dict(state)
    _, generator_loss = next(steps)
    l1 = (fake - batch["chroma"]).abs().mean()
    fooled = -torch.sigmoid(pretext.judge(batch, fake)).log().mean()
    assert generator_loss.item() == pytest.approx((fooled + 100 * l1).item(), rel=1e-5)


def test_the_authors_discriminator_takes_a_step_for_real_images_and_another_for_fakes() -> None:
    """train_Gan.py calls train_on_batch twice: the second loss sees what the first step made of the discriminator."""
    presets = registry.load("pretexts", "cgan_color").presets
    assert presets["paper-code"]["discriminator_steps"] == "apart" and "discriminator_steps" not in presets["small"]
    pretext = make("cgan_color", discriminator_steps="apart", lr=1e-4).train()
    batch, discriminator = pretext.make_batch(images(), seeded()), pretext.optimizers()["discriminator"]
    torch.manual_seed(2)
    steps = pretext.training_step(batch)
    name, of_real = next(steps)
    real = pretext.judge(batch, batch["chroma"])
    assert name == "discriminator"
    assert of_real.item() == pytest.approx(-0.5 * torch.sigmoid(real).log().mean().item(), rel=1e-5)
    of_real.backward()
    discriminator.step()
    name, of_fakes = next(steps)
    torch.manual_seed(2)
    fakes = pretext.judge(batch, pretext.generate(batch["lightness"]))
    assert name == "discriminator"
    assert of_fakes.item() == pytest.approx(-0.5 * (1 - torch.sigmoid(fakes)).log().mean().item(), rel=1e-5)
    assert next(steps)[0] == "generator" and next(steps, None) is None


def test_inpaintings_discriminator_learns_at_a_tenth_of_the_generators_rate() -> None:
    optimizers = make("inpainting", lr=0.002).optimizers()
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in optimizers.items()}
    assert rates == {"discriminator": pytest.approx(0.0002), "generator": 0.002}


def test_inpainting_never_sees_what_is_in_the_hole() -> None:
    pretext = make("inpainting").eval()
    batch = pretext.make_batch(images(), seeded())
    inside = pretext.inside(batch)
    side = pretext.hole_size(batch["inputs"])
    assert side == 24
    assert (inside.sum(dim=(1, 2, 3)) == side * side).all()
    changed = {**batch, "inputs": torch.where(inside, torch.rand_like(batch["inputs"]), batch["inputs"])}
    assert torch.equal(pretext.fill(batch), pretext.fill(changed))
    cut = pretext.cut(batch["inputs"], batch["corner"])
    assert torch.equal(cut.flatten(1), torch.stack([s[i] for s, i in zip(batch["inputs"], inside, strict=True)]))


def test_colorization_keeps_the_lightness_and_is_random_by_its_dropout() -> None:
    pretext = make("l1_color").eval()
    first, again = pretext.colorize(images(), seeded()), pretext.colorize(images(), seeded())
    other = pretext.colorize(images(), torch.Generator().manual_seed(5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ["l1_color", "cgan_color", "inpainting"])
def test_a_task_is_scored_with_the_statistics_of_its_recipe(name: str) -> None:
    running, batch = make(name).eval(), make(name, statistics="batch").eval()
    batch.load_state_dict(running.state_dict())
    found, other = (pretext.evaluate(images(), seeded()) for pretext in (running, batch))
    assert not torch.equal(found["psnr"], other["psnr"])
