"""What views do, given what was drawn: torchvision's operations, an image at a time."""

from dataclasses import replace
from threading import Barrier, current_thread

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as theirs

from bench.views import Drawn, View, blur, colour, cpu, crop, multi_crop
from tests.standin import StandIn

LEVEL = 1 / 255


def photographs(count: int = 8, height: int = 74, width: int = 74, seed: int = 0) -> torch.Tensor:
    """Return coloured noise, coarse and fine, with a sharp edge and grey, black and white places: uint8 (N, 3, H, W)."""
    random = np.random.default_rng(seed)
    images = np.full((count, height, width, 3), 128.0)
    for grid, strength in ((3, 70), (12, 40), (40, 30)):
        for image in images:
            layer = Image.fromarray((random.normal(0, strength, (grid, grid, 3)).clip(-127, 127) + 128).astype(np.uint8))
            image += np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64) - 128
    images[:, :, : width // 5] = images[:, :, : width // 5, :1]
    images[:, : height // 8, width // 2 :] = 255
    images[:, -height // 8 :, width // 2 :] = 0
    return torch.from_numpy(images.clip(0, 255).astype(np.uint8)).permute(0, 3, 1, 2)


def draw(view: View, images: torch.Tensor, seed: int = 0) -> Drawn:
    return view.draw(len(images), *images.shape[2:], torch.Generator().manual_seed(seed))


def one_by_one(view: View, images: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Return what torchvision makes of what was drawn: the crop on bytes, the rest on floats."""
    made = []
    for place, image in enumerate(images):
        top, left, height, width = drawn.boxes[place].tolist()
        out = theirs.resized_crop(image, top, left, height, width, [view.size, view.size], antialias=True) / 255
        out = theirs.horizontal_flip(out) if drawn.flips[place] else out
        if drawn.jitters[place]:
            factors = drawn.factors[place].tolist()
            changes = [theirs.adjust_brightness, theirs.adjust_contrast, theirs.adjust_saturation, theirs.adjust_hue]
            for number in drawn.order[place].tolist():
                out = changes[number](out, factors[number])
        out = theirs.rgb_to_grayscale(out, 3) if drawn.greys[place] else out
        if drawn.sigmas[place] > 0:
            out = theirs.gaussian_blur(out, [2 * view.radius + 1] * 2, [drawn.sigmas[place].item()] * 2)
        made.append(theirs.solarize(out, view.solarize_threshold) if drawn.solarized[place] else out)
    return torch.stack(made)


@pytest.mark.parametrize("size", [32, 64, 96])
def test_a_whole_view_is_torchvisions(size: int) -> None:
    view, images = View(size=size), photographs(40)
    drawn = draw(view, images)
    assert drawn.sigmas.any() and drawn.greys.any() and not drawn.jitters.all()
    difference = (view.apply(images, drawn) - one_by_one(view, images, drawn)).abs()
    assert difference.max() < LEVEL / 10


def test_a_solarized_view_is_torchvisions() -> None:
    view, images = View(size=32, solarize=0.5, jitter=0, blur=0), photographs(10)
    drawn = draw(view, images)
    assert torch.equal(view.apply(images, drawn), one_by_one(view, images, drawn))


def test_each_image_has_settings_of_its_own() -> None:
    view, images = View(size=32), photographs(1).expand(8, -1, -1, -1)
    views = view.apply(images, draw(view, images))
    assert min((views[a] - views[b]).abs().mean().item() for a in range(8) for b in range(a)) > 0.02


def test_settings_that_are_swapped_between_images_are_noticed() -> None:
    view, images = View(size=32), photographs(8)
    drawn = draw(view, images)
    swapped = Drawn(**{name: value.roll(1, dims=0) for name, value in vars(drawn).items()})
    assert (view.apply(images, drawn) - one_by_one(view, images, swapped)).abs().mean() > 10 * LEVEL


@pytest.mark.parametrize("operation", range(4))
def test_each_operation_of_the_jitter_is_torchvisions_and_none_is_dead(operation: int) -> None:
    images = photographs(5).float() / 255
    strengths = (
        torch.tensor([0.2, 0.7, 1.0, 1.3, 1.8]) if operation != colour.HUE else torch.tensor([-0.5, -0.17, 0.01, 0.2, 0.5])
    )
    factors = torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(5, 1)
    factors[:, operation] = strengths
    order = torch.arange(4).expand(5, 4)
    change = [theirs.adjust_brightness, theirs.adjust_contrast, theirs.adjust_saturation, theirs.adjust_hue][operation]
    expected = torch.stack([change(image, strength.item()) for image, strength in zip(images, strengths, strict=True)])
    weights = colour.blend_weights(factors, order)
    ours = colour.jitter(images.clone(), weights, factors[:, colour.HUE], colour.HUE)
    assert (ours - expected).abs().max() < LEVEL / 10
    assert (ours - images).abs().mean() > LEVEL


def test_knowing_the_place_of_the_hue_changes_nothing() -> None:
    images = photographs(24).float() / 255
    drawn = draw(View(), photographs(24))
    places, turns = colour.hue_places(drawn.order), drawn.factors[:, colour.HUE]
    assert set(places.tolist()) == {0, 1, 2, 3}
    weights = colour.blend_weights(drawn.factors, drawn.order)
    general = colour.jitter_in_any_order(images.clone(), weights, turns, drawn.order)
    for place in range(4):
        rows = (places == place).nonzero()[:, 0]
        known = colour.jitter(images[rows], weights[rows], turns[rows], place)
        assert (known - general[rows]).abs().max() < 1e-6


def test_the_order_of_the_jitter_matters_and_is_followed() -> None:
    images = photographs(2)
    view = View(size=32, grey=0, blur=0, jitter=1)
    drawn = draw(view, images)
    forward, backward = (replace(drawn, order=torch.tensor([order] * 2)) for order in ([0, 1, 2, 3], [3, 2, 1, 0]))
    assert (view.apply(images, forward) - view.apply(images, backward)).abs().mean() > LEVEL
    assert (view.apply(images, forward) - one_by_one(view, images, forward)).abs().max() < LEVEL / 10


@pytest.mark.parametrize("size", [24, 64, 110])  # reduced, both, enlarged
def test_products_of_matrices_resample_as_torchvision(size: int) -> None:
    images = photographs(16, 74, 90)
    view = View(size=size, jitter=0, grey=0, blur=0)
    drawn = draw(view, images)
    ours = crop.by_matrices(images, drawn.boxes, drawn.flips, size)
    exact = one_by_one(view, images, drawn)
    assert (ours - exact).abs().max() < 2.01 * LEVEL
    assert (ours - exact).abs().mean() < 0.02 * LEVEL
    assert (ours - view.apply(images, replace(drawn, flips=~drawn.flips))).abs().mean() > 10 * LEVEL


@pytest.mark.parametrize("radius", [1, 3, 11])
def test_blur_is_torchvisions(radius: int) -> None:
    images, sigmas = photographs(5).float() / 255, torch.tensor([0.1, 0.5, 1.0, 1.5, 2.0])
    expected = [
        theirs.gaussian_blur(image, [2 * radius + 1] * 2, [s.item()] * 2) for image, s in zip(images, sigmas, strict=True)
    ]
    ours = blur.gaussian_blur(images, sigmas, radius)
    assert (ours - torch.stack(expected)).abs().max() < LEVEL / 100
    assert torch.allclose(blur.gaussian_blur(images, torch.zeros(5), radius), images)


def test_what_is_not_drawn_leaves_the_crop_alone() -> None:
    images = photographs(3, 32, 32)
    view = View(size=32, scale=(1, 1), ratio=(1, 1), flip=0, jitter=0, grey=0, blur=0)
    assert torch.equal(view.apply(images, draw(view, images)), images.float().div(255))


def test_planes_and_rows_of_pixels_give_equal_views_and_stay_as_they_were() -> None:
    view, images = View(size=32), photographs(6)
    before, drawn = images.clone(), draw(view, images)
    assert torch.equal(view.apply(images, drawn), view.apply(images.contiguous(), drawn))
    assert torch.equal(images, before)


@pytest.mark.parametrize("count", [0, 1])
def test_small_batches_have_views(count: int) -> None:
    views = View(size=32, solarize=0.5)(photographs(2)[:count], torch.Generator().manual_seed(0))
    assert views.shape == (count, 3, 32, 32)


def test_autocast_changes_nothing() -> None:
    view, images = View(size=32), photographs(8)
    drawn = draw(view, images)
    with torch.autocast("cpu", torch.bfloat16):
        inside = view.apply(images, drawn)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, view.apply(images, drawn))


def test_a_part_is_made_by_one_thread_among_as_many_as_are_worth_it() -> None:
    """A thread that torch meets for the first time computes in as many threads as the first, whatever it was told before."""
    seen: list[tuple[str, int]] = []
    meeting = Barrier(2)

    def work(part: torch.Tensor) -> None:
        meeting.wait(10)
        seen.append((current_thread().name, torch.get_num_threads()))

    torch.set_num_threads(3)
    try:
        cpu.share(work, torch.arange(4).split(1), most=2)
    finally:
        torch.set_num_threads(1)
    assert len({name for name, _ in seen}) == 2
    assert [count for _, count in seen] == [1] * 4


def test_the_number_of_threads_and_of_other_images_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    view, images = View(size=32, solarize=0.3), photographs(30)
    drawn = draw(view, images)
    alone = view.apply(images, drawn)
    monkeypatch.setattr(cpu, "THREAD", 1)
    torch.set_num_threads(3)
    try:
        together = view.apply(images, drawn)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    assert torch.equal(alone, together)


def test_views_can_be_made_in_inference_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    view, images = View(size=32), photographs(30)
    drawn = draw(view, images)
    monkeypatch.setattr(cpu, "THREAD", 1)
    torch.set_num_threads(2)
    try:
        with torch.inference_mode():
            made = view.apply(images, drawn)
        assert torch.equal(made, view.apply(images, drawn))
    finally:
        torch.set_num_threads(1)


def test_an_error_in_a_thread_is_raised() -> None:
    view, images = View(size=32), photographs(30)
    drawn = draw(view, images)
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError):
            view.apply(images, replace(drawn, boxes=drawn.boxes * 0))
    finally:
        torch.set_num_threads(1)


def test_a_gpu_makes_the_same_views_and_nothing_waits_for_it(gpu: StandIn) -> None:
    """On the stand-in, which lists every operation after which a processor would wait for a GPU."""
    view, images = View(size=48, solarize=0.3), photographs(12)
    expected = view.apply(images, drawn := draw(view, images))
    there = images.to("cuda")
    moved = Drawn(**{name: value.to("cuda") for name, value in vars(drawn).items()})
    before = len(gpu.waits)
    views = view.apply(there, moved)
    drawn_there = view.draw(12, 74, 74, torch.Generator("cuda").manual_seed(0))
    multi_crop(there, [(view, 1), (View(size=32), 2)], torch.Generator("cuda").manual_seed(0))
    assert len(gpu.waits) == before
    assert views.device.type == drawn_there.boxes.device.type == "cuda"
    difference = (views.cpu() - expected).abs()
    assert difference.mean() < 0.05 * LEVEL  # a byte of the crop may be rounded to the one beside it
    assert difference.flatten().quantile(0.99) < LEVEL
