"""Colorization as classification: its bins, targets, weights and loss against slow formulas from Zhang et al. 2016."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.color import rgb2lab
from torch import Tensor

from bench import registry
from bench.contract import Pretext, shuffled
from bench.models.trunk import make_trunk
from pretexts._ab_bins import AbBins, in_gamut, is_coloured

ClassColor = registry.load("pretexts", "class_color")
RELEASED = {
    -90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 90), -50: (-30, 100), -40: (-40, 100), -30: (-50, 100),
    -20: (-50, 100), -10: (-60, 100), 0: (-70, 100), 10: (-80, 90), 20: (-80, 90), 30: (-90, 90), 40: (-100, 90),
    50: (-100, 80), 60: (-110, 80), 70: (-110, 80), 80: (-110, 70), 90: (-110, 70), 100: (-90, 0),
}  # fmt: skip
"""The least and the greatest b for each a of the list that the authors released."""


def task(trunk: str = "unet:depth=4,width=8", cls: type[Pretext] = ClassColor, **changes: object) -> Pretext:
    torch.manual_seed(0)
    return cls(cls.Recipe().with_changes(changes, "class_color"), make_trunk(trunk))


def images(count: int = 4, size: int = 16) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def flat(*colours: tuple[int, int, int], size: int = 16) -> Tensor:
    return torch.tensor(colours, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, size, size).contiguous()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def loss_of(pretext: Pretext, batch: dict[str, Tensor]) -> Tensor:
    ((name, loss),) = pretext.training_step(batch)
    assert name == "loss"
    return loss


def quarter_ab(pictures: Tensor) -> NDArray[np.float64]:
    """Mean ab of each square of four pixels, by scikit-image: (N, h, w, 2)."""
    ab = rgb2lab(pictures.permute(0, 2, 3, 1).numpy())[..., 1:]
    n, h, w, _ = ab.shape
    return np.asarray(ab.reshape(n, h // 4, 4, w // 4, 4, 2).mean(axis=(2, 4)))


def soft(ab: NDArray[np.float64]) -> NDArray[np.float64]:
    """The paper's soft encoding of one colour, by all 313 distances."""
    distances = ((in_gamut().double().numpy() - ab) ** 2).sum(axis=1)
    target = np.zeros(313)
    for place in np.argsort(distances)[:5]:
        target[place] = np.exp(-distances[place] / (2 * 5.0**2))
    return target / target.sum()


def paper_weights(nearest: NDArray[np.int64]) -> NDArray[np.float64]:
    """Equation 4 with lambda 0.5, for the nearest bins of all training colours."""
    centres = in_gamut().double().numpy()
    smoothed = np.zeros(313)
    for place in range(313):
        kernel = np.exp(-((centres - centres[place]) ** 2).sum(axis=1) / (2 * 5.0**2))
        smoothed += (nearest == place).mean() * kernel / kernel.sum()
    weights = 1 / (0.5 * smoothed + 0.5 / 313)
    return np.asarray(weights / (smoothed * weights).sum())


def test_the_bins_are_the_313_of_the_released_list_in_its_order() -> None:
    released = [(a, b) for a, (least, most) in RELEASED.items() for b in range(least, most + 1, 10)]
    assert len(released) == 313
    assert [tuple(centre) for centre in in_gamut().int().tolist()] == released


def test_every_colour_lies_in_the_square_of_a_bin() -> None:
    levels = np.linspace(0, 1, 27)
    ab = rgb2lab(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 1, 3))[:, 0, 1:]
    away = np.abs(ab[:, None] - in_gamut().numpy()).max(axis=2).min(axis=1)
    assert away.max() <= 5


def test_targets_are_the_papers_soft_encoding_of_mean_colours() -> None:
    corners = flat(*[(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)])
    pictures = torch.cat([images(), corners])
    batch = task().make_batch(pictures, seeded())
    target = torch.zeros(len(pictures), 313, 4, 4).scatter(1, batch["bins"], batch["shares"])
    by_hand = np.apply_along_axis(soft, 3, quarter_ab(pictures)).transpose(0, 3, 1, 2)
    assert target.numpy() == pytest.approx(by_hand, abs=1e-3)
    assert (batch["shares"].diff(dim=1) <= 0).all()


@pytest.mark.parametrize("neighbours", [1, 5, 12])
def test_the_nearest_bins_are_the_nearest_of_all(neighbours: int) -> None:
    chroma = (torch.rand(1, 2, 60, 60, generator=seeded()) * 240 - 120) / 128
    bins, _ = AbBins(neighbours, 5.0).encode(chroma)
    ab = chroma.permute(0, 2, 3, 1).reshape(-1, 2) * 128
    distances = (ab[:, None] - in_gamut()).square().sum(dim=2)
    found = distances.gather(1, bins.permute(0, 2, 3, 1).reshape(-1, neighbours))
    assert torch.equal(found, distances.topk(neighbours, largest=False).values)


def test_the_loss_is_the_papers_by_a_slow_reference() -> None:
    pretext = task().eval()
    pictures = torch.cat([images(), flat((200, 30, 40))])
    pretext.prepare(iter([pictures[:2], pictures[2:]]))
    with torch.no_grad():
        batch = pretext.make_batch(pictures, seeded())
        loss = loss_of(pretext, batch).item()
        logits = pretext.scores(batch["lightness"]).double().permute(0, 2, 3, 1).numpy()
    targets = np.apply_along_axis(soft, 3, quarter_ab(pictures))
    weights = paper_weights(targets.argmax(axis=3))
    entropies = []
    for target, scores in zip(targets.reshape(-1, 313), logits.reshape(-1, 313), strict=True):
        shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        entropies.append(-weights[target.argmax()] * (target * np.log(shares)).sum())
    assert loss == pytest.approx(np.mean(entropies), rel=1e-4)


def test_weights_have_expectation_one_and_favour_rare_colours() -> None:
    pretext = task()
    red, blue = flat((200, 30, 40)), flat((30, 40, 200))
    pretext.prepare(iter([torch.cat([red, red, red]), blue]))
    prior, weights = pretext.bins.prior, pretext.bins.weights(0.5)
    assert prior.sum().item() == pytest.approx(1, rel=1e-5)
    assert (prior * weights).sum().item() == pytest.approx(1, rel=1e-5)
    of_red, of_blue = (pretext.make_batch(image, seeded())["bins"][0, 0, 0, 0] for image in (red, blue))
    assert prior[of_red] > prior[of_blue] > 0.1
    assert weights.argmax() not in (of_red, of_blue) and weights[of_blue] > weights[of_red]
    assert pretext.bins.weights(1.0).numpy() == pytest.approx(np.ones(313), rel=1e-5)


def test_the_prior_is_kept_with_the_weights() -> None:
    first, second = task(), task()
    uniform = first.bins.prior.clone()
    first.prepare(iter([images()]))
    assert not torch.equal(first.bins.prior, uniform)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.bins.weights(0.5), second.bins.weights(0.5))


def test_grey_images_have_no_loss_and_no_part_in_the_prior() -> None:
    pretext = task().eval()
    colours, grey = images(2), flat((90, 90, 90), (200, 202, 200))
    assert is_coloured(torch.tensor([5.1, -5.1, 4.9, 0.0]).view(-1, 1, 1, 1) / 128).tolist() == [True, True, False, False]
    both = pretext.make_batch(torch.cat([colours, grey]), seeded())
    assert both["coloured"].tolist() == [True, True, False, False]
    alone = loss_of(pretext, pretext.make_batch(colours, seeded()))
    assert loss_of(pretext, both).item() == pytest.approx(alone.item(), rel=1e-5)
    nothing = loss_of(pretext, pretext.make_batch(grey, seeded()))
    nothing.backward()
    assert nothing.item() == 0 and not any(weight.grad.any() for weight in pretext.parameters() if weight.grad is not None)
    prior = pretext.bins.prior.clone()
    pretext.prepare(iter([grey]))
    assert torch.equal(pretext.bins.prior, prior)


@pytest.mark.parametrize("temperature", [1.0, 0.38, 0.1])
def test_the_annealed_mean_is_the_papers_formula(temperature: float) -> None:
    logits = torch.randn(2, 313, 3, 3, generator=seeded()) * 3
    found = AbBins(5, 5.0).decode(logits, temperature).permute(0, 2, 3, 1).reshape(-1, 2).numpy() * 128
    shares = logits.double().softmax(dim=1).permute(0, 2, 3, 1).reshape(-1, 313).numpy()
    sharpened = np.exp(np.log(shares) / temperature)
    by_hand = (sharpened / sharpened.sum(axis=1, keepdims=True)) @ in_gamut().double().numpy()
    assert found == pytest.approx(by_hand, abs=1e-3)


def test_a_temperature_near_zero_gives_the_most_probable_bin() -> None:
    logits = torch.randn(1, 313, 2, 2, generator=seeded())
    found = AbBins(5, 5.0).decode(logits, 1e-4) * 128
    assert found.permute(0, 2, 3, 1).numpy() == pytest.approx(in_gamut()[logits.argmax(dim=1)].numpy(), abs=0.1)


@pytest.mark.parametrize(
    "trunk", ["unet:depth=4,width=8", "timm:resnet10t", "timm:vit_tiny_patch16_224,img_size=64", "timm:convnext_atto"]
)
def test_the_scores_stand_at_a_quarter_of_the_side_on_every_kind_of_trunk(trunk: str) -> None:
    pretext = task(trunk).eval()
    lightness = torch.zeros(1, 1, 64, 64)
    with torch.no_grad():
        assert pretext.scores(lightness).shape == (1, 313, 16, 16)
        assert pretext.generate(lightness).shape == (1, 2, 64, 64)


def trained(cls: type[Pretext], pictures: Tensor) -> dict[str, float]:
    pretext = task(cls=cls, lr=0.01, sigma=2.0)
    pretext.prepare(iter([pictures]))
    optimizer, generator = pretext.optimizers()["loss"], seeded()
    for _ in range(30):
        loss = loss_of(pretext.train(), pretext.make_batch(pictures, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        scores = pretext.eval().evaluate(pictures, seeded())
    return {name: values.mean().item() for name, values in scores.items()}


def test_it_learns_colours_that_follow_from_lightness_and_nothing_from_shuffled_targets() -> None:
    pictures = flat(*[(230, 120, 110), (60, 20, 140), (40, 110, 40), (230, 230, 90)] * 4)
    learned, without = trained(ClassColor, pictures), trained(shuffled("class_color", ClassColor), pictures)
    assert learned["accuracy"] > 0.6
    assert without["accuracy"] < 0.4  # one of four colours for all
    assert learned["psnr"] > without["psnr"] + 5


def test_the_most_frequent_bin_is_right_as_often_as_it_occurs() -> None:
    red, blue, grey = flat((200, 30, 40)), flat((30, 40, 200)), flat((90, 90, 90))
    found = task().baselines(torch.cat([red, blue, grey]), torch.cat([red, red, blue]))
    assert {name: scores["accuracy"].tolist() for name, scores in found.items()} == {
        "grey image": [0, 0, 1], "mean colour": [0, 0, 0], "most frequent bin": [1, 0, 0],
    }  # fmt: skip
    assert found["most frequent bin"]["psnr"][0] > 25 > found["most frequent bin"]["psnr"][1]


def test_the_accuracy_is_the_share_of_places_with_the_right_bin() -> None:
    pretext = task().eval()
    wanted = pretext.make_batch(images(), seeded())["bins"][:, 0]
    wanted[:, :1] = (wanted[:, :1] + 1) % 313  # a quarter of the places is wrong
    pretext.scores = lambda lightness: torch.nn.functional.one_hot(wanted, 313).permute(0, 3, 1, 2).float()
    assert pretext.evaluate(images(), seeded())["accuracy"].tolist() == [0.75] * 4


def test_the_accuracy_takes_the_weights_of_the_loss_out_again() -> None:
    pretext = task().eval()
    red, blue = flat((200, 30, 40)), flat((30, 40, 200))
    pretext.prepare(iter([torch.cat([red, red, red, blue])]))
    weighted = (pretext.bins.prior * pretext.bins.weights(0.5)).log()  # what the loss makes of one that knows the prior alone
    pretext.scores = lambda lightness: weighted[:, None, None].expand(len(lightness), -1, 4, 4)
    assert pretext.evaluate(torch.cat([red, blue]), seeded())["accuracy"].tolist() == [1.0, 0.0]


def test_it_colours_without_dropout_and_with_the_statistics_of_the_recipe() -> None:
    running, batch = task(), task(statistics="batch")
    first, other = (running.colorize(images(), torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert torch.equal(first, other)
    assert not torch.equal(first, batch.colorize(images(), seeded()))


def test_the_picture_goes_from_the_grey_image_to_the_truth() -> None:
    rows = task().eval().visualize(images(), seeded())
    assert list(rows) == ["grey", "learned", "top bin", "target", "truth"]
    assert torch.equal(rows["truth"], images())
    red = flat((200, 30, 40))
    target = task().eval().visualize(red, seeded())["target"]
    assert (target.int() - red.int()).abs().max() < 20  # its bin's colour, at its own lightness


def test_its_own_recipe_is_the_papers() -> None:
    recipe = ClassColor.default_recipe("paper")
    loss = (recipe.neighbours, recipe.sigma, recipe.rebalancing, recipe.temperature, recipe.reduction)
    assert loss == (5, 5.0, 0.5, 0.38, 4)
    assert (recipe.optimizer, recipe.lr, recipe.beta1, recipe.beta2, recipe.weight_decay) == ("adam", 3e-5, 0.9, 0.99, 1e-3)
