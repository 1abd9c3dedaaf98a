"""What views draw: its distribution, and what it comes from."""

import math

import pytest
import torch
from pydantic import ValidationError
from scipy.stats import ks_2samp, kstest
from torchvision.transforms import v2

from bench.views import Drawn, View, multi_crop

COUNT = 3000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(view: View | None = None, height: int = 74, width: int = 74, count: int = COUNT, seed: int = 0) -> Drawn:
    return (view or View()).draw(count, height, width, generator(seed))


def pictures(count: int = 6, height: int = 37, width: int = 41, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator(seed))


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(74, 74, (0.08, 1.0)), (50, 160, (0.08, 1.0)), (160, 50, (0.6, 1.0)), (9, 9, (0.01, 0.3))]
)
def test_crops_are_distributed_as_torchvisions(height: int, width: int, scale: tuple[float, float]) -> None:
    theirs = v2.RandomResizedCrop(8, scale=scale)
    image = torch.empty(3, height, width)
    torch.manual_seed(0)
    reference = torch.tensor([list(theirs.make_params([image]).values()) for _ in range(1000)])
    boxes = drawn(View(scale=scale), height, width).boxes
    for column in range(4):
        assert ks_2samp(boxes[:, column], reference[:, column]).pvalue > 1e-3
    area, theirs_area = (boxes[:, 2] * boxes[:, 3], reference[:, 2] * reference[:, 3])
    assert ks_2samp(area, theirs_area).pvalue > 1e-3
    bottom, right = boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]
    assert boxes[:, :2].min() >= 0
    assert boxes[:, 2:].min() >= 1
    assert bottom.max() <= height
    assert right.max() <= width


@pytest.mark.parametrize(("height", "width"), [(20, 90), (90, 20)])
def test_an_image_that_no_box_fits_gives_torchvisions_middle_box(height: int, width: int) -> None:
    theirs = v2.RandomResizedCrop(8, scale=(1.0, 1.0)).make_params([torch.empty(3, height, width)])
    boxes = drawn(View(scale=(1.0, 1.0)), height, width, count=20).boxes
    assert torch.equal(boxes, torch.tensor([list(theirs.values())]).expand(20, 4))


def test_a_box_of_the_whole_image_can_be_asked_for() -> None:
    boxes = drawn(View(scale=(1.0, 1.0), ratio=(1.0, 1.0)), count=10).boxes
    assert torch.equal(boxes, torch.tensor([[0, 0, 74, 74]]).expand(10, 4))


def test_factors_and_sigmas_are_uniform_in_their_ranges() -> None:
    made = drawn(View(brightness=1.5, blur=1.0))
    ranges = [(0.0, 2.5), (0.2, 1.8), (0.2, 1.8), (-0.2, 0.2)]
    for values, (low, high) in zip([*made.factors.unbind(1), made.sigmas], [*ranges, (0.1, 2.0)], strict=True):
        assert kstest(values.numpy(), "uniform", (low, high - low)).pvalue > 1e-3


@pytest.mark.parametrize("field", ["flips", "jitters", "greys", "solarized", "sigmas"])
@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_chances_are_kept(field: str, chance: float) -> None:
    view = View(flip=chance, jitter=chance, grey=chance, solarize=chance, blur=chance)
    share = (getattr(drawn(view), field) > 0).float().mean().item()
    assert share == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / COUNT))


def test_every_order_of_the_jitter_is_as_likely() -> None:
    order = drawn().order
    assert torch.equal(order.sort(dim=1).values, torch.arange(4).expand(COUNT, 4))
    _, counts = order.unique(dim=0, return_counts=True)
    assert len(counts) == 24
    assert (counts - COUNT / 24).square().sum() / (COUNT / 24) < 50  # chi squared, 23 degrees of freedom: 1 in 1,000


def test_what_is_drawn_for_one_image_says_nothing_about_another_or_another_setting() -> None:
    made = drawn(View(blur=1.0))
    values = torch.cat([made.boxes, made.factors, made.sigmas[:, None], made.flips[:, None], made.order[:, :1]], dim=1).double()
    values = values[:, values.std(dim=0) > 0]
    between = torch.corrcoef(torch.cat([values[:-1], values[1:]], dim=1).T)[: values.shape[1], values.shape[1] :]
    assert between.abs().max() < 5 / math.sqrt(COUNT)
    independent = torch.corrcoef(values[:, 2:].T) - torch.eye(values.shape[1] - 2)
    assert independent[2:].abs().max() < 5 / math.sqrt(COUNT)


def test_equal_generators_give_equal_views_and_two_views_differ() -> None:
    view, images = View(size=16), pictures()
    once, again = generator(3), generator(3)
    first, second = view(images, once), view(images, once)
    assert torch.equal(first, view(images, again))
    assert (first - second).abs().mean() > 0.05
    assert once.get_state().ne(generator(3).get_state()).any()


def test_a_changed_setting_leaves_other_settings_draws_as_they_were() -> None:
    one, other = drawn(View()), drawn(View(blur=0.0, grey=1.0, solarize=1.0))
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.factors, other.factors)
    assert torch.equal(one.order, other.order)


def test_the_global_generator_is_not_used() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    View(size=16, solarize=0.5)(pictures(), generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_multi_crop_gives_as_many_views_of_each_size_as_asked_for() -> None:
    views = multi_crop(pictures(), [(View(size=24, scale=(0.14, 1.0)), 2), (View(size=12, scale=(0.05, 0.14)), 3)], generator())
    assert [view.shape[2] for view in views] == [24, 24, 12, 12, 12]
    assert len({view.sum().item() for view in views}) == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scale", (0.5, 0.1)),
        ("scale", (0.0, 1.0)),
        ("sigma", (0.0, 1.0)),
        ("hue", 0.6),
        ("flip", 1.5),
        ("size", 0),
        ("ratio", (2, 1)),
    ],
)
def test_settings_that_make_no_sense_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        View(**{field: value})


def test_defaults_are_in_no_identity() -> None:
    assert View().identity() == {}
    assert View(size=96, scale=(0.2, 1.0)).identity() == {"size": 96, "scale": [0.2, 1.0]}
