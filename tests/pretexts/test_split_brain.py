"""Split-brain autoencoder: no path between its halves, by gradients; its targets and losses; its trunk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from bench import record
from bench.config import RunConfig
from bench.contract import Pretext
from bench.errors import UsageError
from bench.experiment.resolve import resolve
from bench.models.modes import inference
from bench.models.trunk import TrunkName, make_trunk
from pretexts._ab_bins import in_gamut
from tests.pretexts.test_contract import DIVIDED, images, make, seeded


def task(**settings: Any) -> Pretext:
    return make("split_brain", **settings).train()


@pytest.mark.parametrize("form", ["classification", "regression"])
def test_no_gradient_passes_from_one_half_to_the_other(form: str) -> None:
    made = task(form=form)
    for place, channels in enumerate((slice(0, 1), slice(1, 3))):
        made.zero_grad()
        inputs = made.trunk.preprocessing(images()).requires_grad_()
        made.told(inputs)[place].square().sum().backward()
        own, other = inputs.grad[:, channels], torch.cat([inputs.grad[:, : channels.start], inputs.grad[:, channels.stop :]], 1)
        assert own.abs().sum() > 0 and not other.any()
        for number, half in enumerate(made.trunk.down):
            moved = [weight.grad is not None and bool(weight.grad.any()) for weight in half.parameters()]
            assert all(moved) if number == place else not any(moved)


def test_the_downstream_features_are_both_halves_and_each_depends_on_its_own_channels() -> None:
    trunk = make_trunk(DIVIDED).eval()
    inputs = torch.randn(2, 3, 32, 32)
    recoloured = torch.cat([inputs[:, :1], torch.randn(2, 2, 32, 32)], dim=1)
    whole = make_trunk("unet:depth=5,width=8").eval()
    for before, after, usual in zip(trunk.encode(inputs), trunk.encode(recoloured), whole.encode(inputs[:, :1]), strict=True):
        half = before.shape[1] // 2
        assert torch.equal(before[:, :half], after[:, :half]) and not torch.equal(before[:, half:], after[:, half:])
        assert before.shape == usual.shape, "as many channels as a U-Net of this width"
    assert trunk(inputs).shape == whole(inputs[:, :1]).shape


def test_targets_are_the_bins_of_skimages_lab() -> None:
    made = task(reduction=1)
    pictures = images()
    batch = made.make_batch(pictures, seeded())
    lab = torch.from_numpy(rgb2lab(pictures.permute(0, 2, 3, 1).numpy())).float()
    lightness = np.floor(lab[..., 0].numpy()).clip(0, 99)
    assert (batch["lightnesses"].numpy() == lightness).mean() > 0.999
    nearest = torch.cdist(lab[..., 1:].reshape(-1, 2), in_gamut()).argmin(dim=1)
    assert (batch["colours"].flatten() == nearest).float().mean() > 0.999


def test_the_loss_is_the_sum_of_both_cross_entropies() -> None:
    made = task()
    batch = made.make_batch(images(), seeded())
    ((_, loss),) = made.training_step(batch)
    total = 0.0
    for scores, name in zip(made.told(batch["inputs"]), ("colours", "lightnesses"), strict=True):
        likely = scores.softmax(dim=1).gather(1, batch[name][:, None]).log()
        total -= likely.mean().item()
    assert loss.item() == pytest.approx(total, rel=1e-4)


def test_both_halves_learn_and_beat_the_most_frequent_bins() -> None:
    made = task(lr=3e-3, reduction=4)
    halves = torch.randint(0, 2, (8, 1, 1, 32), generator=torch.Generator().manual_seed(0)).expand(-1, -1, 32, -1)
    pictures = torch.where(halves == 1, torch.tensor([200, 60, 40])[:, None, None], torch.tensor([30, 40, 120])[:, None, None])
    pictures = torch.nn.functional.interpolate(pictures[..., ::8].float()[:, :, ::8], 32, mode="nearest").byte()
    optimizer = made.optimizers()["loss"]
    for _ in range(60):
        for _, loss in made.training_step(made.make_batch(pictures, seeded())):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with inference(made):
        scores = {name: values.mean().item() for name, values in made.evaluate(pictures, seeded()).items()}
        usual = {name: values.mean().item() for name, values in made.baselines(pictures, pictures)["most frequent"].items()}
    assert scores["accuracy"] > usual["accuracy"] + 0.2 and scores["accuracy_lightness"] > usual["accuracy_lightness"] + 0.2


def test_regression_scores_and_its_baseline_are_squared_errors() -> None:
    made = task(form="regression")
    with inference(made):
        scores, usual = made.evaluate(images(), seeded()), made.baselines(images(), images())["most frequent"]
    assert {"error", "error_lightness"} <= scores.keys() and usual.keys() == {"error", "error_lightness"}
    truth = made.answers(made.trunk.preprocessing(images()))[0]
    assert usual["error"].mean().item() == pytest.approx(truth.var(dim=(0, 2, 3), correction=0).mean().item(), rel=1e-3)


@pytest.mark.parametrize("name", ["timm:resnet18,preprocessing=l+ab", "unet:width=7,preprocessing=l+ab"])
def test_only_a_u_net_of_even_width_is_divided(name: str) -> None:
    with pytest.raises(UsageError, match="even width"):
        TrunkName.parse(name)


def test_every_row_of_its_table_has_its_trunk(tiny: Callable[..., Any], tmp_path: Path) -> None:
    asked = ("--pretext", "random_init,split_brain", "--downstream", "voc_cls", "--evaluate", "knn", "--set", "recipe.epochs=1")
    refused = tiny(*asked)
    assert refused.code == 2 and "but one with preprocessing=l+ab, such as --trunk unet:preprocessing=l+ab" in refused.err
    assert not (tmp_path / "runs" / "pretrained").exists()
    done = tiny(*asked, "--trunk", DIVIDED)
    assert done.code == 0, done.err
    assert {one.job.pretrain.trunk for one in record.read(tmp_path / "runs")} == {DIVIDED}


def test_a_trunk_that_nobody_named_is_divided_for_all(drawn: dict[str, Path]) -> None:
    grid = resolve(config(drawn, "random_init", "split_brain"), lambda text: None)
    trunks = {job.pretrain.trunk for job in grid.jobs}
    assert len(trunks) == 1 and trunks.pop().endswith("preprocessing=l+ab")
    assert any("so every row here has one" in note for note in grid.notes)


def config(drawn: dict[str, Path], *pretexts: str, **more: Any) -> RunConfig:
    data = {"data": str(drawn["demo"]), "pretrain_data": str(drawn["demo_unlabelled"])}
    return RunConfig(pretext=pretexts, downstream=("voc_cls",), protocol="demo", size=32, **data, **more)


def test_tasks_that_would_leave_half_of_it_unseen_are_run_apart(drawn: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="l1_color takes none such; run them apart"):
        resolve(config(drawn, "l1_color", "split_brain"), lambda text: None)
    with pytest.raises(UsageError, match="l1_color takes no trunk unet:"):
        resolve(config(drawn, "l1_color", trunk=DIVIDED), lambda text: None)


@pytest.mark.parametrize(("trunk", "there"), [(None, False), ("unet:depth=5,width=8", False), (DIVIDED, True)])
def test_a_group_is_those_of_its_tasks_that_take_the_trunk(drawn: dict[str, Path], trunk: str | None, there: bool) -> None:
    for group in ("colorization", "every"):
        found = {job.pretrain.pretext for job in resolve(config(drawn, group, trunk=trunk), lambda text: None).jobs}
        assert ("split_brain" in found, "l1_color" in found) == (there, not there)


@pytest.mark.parametrize("reduction", [5, 40])
def test_a_target_covers_the_image_whatever_its_side(reduction: int) -> None:
    made = task(reduction=reduction)
    batch = made.make_batch(images(), seeded())
    assert batch["colours"].shape[1:] == made.told(batch["inputs"])[0].shape[2:]
    assert torch.isfinite(next(made.training_step(batch))[1])
