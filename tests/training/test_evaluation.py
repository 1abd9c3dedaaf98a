"""Whole images are scored in tiles of the size that the network was trained on."""

import doctest
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from bench import record, registry
from bench.metrics import PADDING
from bench.training import evaluation
from results import predictions

Bench = Callable[..., Any]


@pytest.mark.parametrize("side", [4, 7, 16])
def test_tiles_cover_every_pixel_and_stay_inside(side: int) -> None:
    for length in range(1, 60):
        starts = evaluation.tile_starts(length, side)
        covered = {pixel for start in starts for pixel in range(start, start + side)}
        assert set(range(length)) <= covered
        assert max(covered) < max(length, side) and len(starts) == max(1, -(-length // side))
    assert doctest.testmod(evaluation).failed == 0


class ByPixel(nn.Module):
    """Calls each pixel by its own value and its place in the tile, and knows how large tiles are."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        images = batch["images"].float()
        self.shapes.append(tuple(images.shape))
        return torch.cat([images[:, :1], images[:, :1] * 2 + 1], dim=1)


def test_tiles_make_the_whole_image_and_overlaps_are_averaged() -> None:
    images = torch.randint(0, 256, (3, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    content = torch.tensor([[20, 13], [8, 8], [5, 20]])
    network = ByPixel()
    found = evaluation.tiled(cast(Any, network), {"images": images, "content": content}, 8, 2)
    assert found.shape == (3, 2, 20, 20) and all(shape[2:] == (8, 8) and shape[0] <= 2 for shape in network.shapes)
    for image, (height, width) in enumerate(content.tolist()):
        expected = images[image, 0, :height, :width].float()
        assert torch.allclose(found[image, 0, :height, :width], expected)
        assert torch.allclose(found[image, 1, :height, :width], expected * 2 + 1)


def test_overlapping_tiles_that_disagree_are_averaged() -> None:
    class Counts(nn.Module):
        calls = 0

        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            self.calls += 1
            return torch.full((len(batch["images"]), 1, 4, 4), float(self.calls))

    images = torch.zeros(1, 3, 6, 6, dtype=torch.uint8)
    found = evaluation.tiled(cast(Any, Counts()), {"images": images, "content": torch.tensor([[4, 6]])}, 4, 1)[0, 0, 0]
    assert found.tolist() == [1.0, 1.0, 1.5, 1.5, 2.0, 2.0]


def test_the_papers_segmentation_is_scored_on_every_pixel_of_every_image(
    tiny: Bench, drawn: dict[str, Path], tmp_path: Path
) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_seg", "--protocol", "paper", "--schedule", "two-phase")
    assert tiny(*asked).code == 0
    (one,) = record.read(tmp_path / "runs")
    assert one.job.settings.evaluate_on == "whole" and one.spread is not None and not one.spread.problem
    ids, found = predictions.read_answers(tmp_path / "runs", one)
    masks = next(drawn["demo"].rglob("SegmentationClass"))
    assert len(ids) == one.data.counts["test"] > 1
    for identity, confusion in zip(ids, found["confusion"], strict=True):
        mask = np.asarray(Image.open(masks / f"{identity}.png"))
        assert min(mask.shape) > 32, "larger than a tile"
        assert confusion.sum() == (mask != PADDING).sum() == mask.size
        for cls in np.unique(mask[mask < 20]):
            assert confusion[cls].sum() == (mask == cls).sum()
    assert tiny(*asked, "--set", "voc_seg.evaluate_on=input").code == 0
    (crops,) = [other for other in record.read(tmp_path / "runs") if other.id != one.id]
    assert predictions.read_answers(tmp_path / "runs", crops)[1]["confusion"][0].sum() == 32 * 32
    refused = tiny(*asked, "--set", "voc_seg.resize=squash")
    assert refused.code == 2 and "resize crop, which alone keeps whole images" in refused.err


def test_a_search_scores_whole_images_too(tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_seg", "--protocol", "paper", "--schedule", "frozen", "--tune", 1)
    assert tiny(*asked).code == 0
    (one,) = record.read(tmp_path / "runs")
    assert one.tuning is not None and one.tuning.metric == "miou_paper@1" and 0 < one.tuning.best_value < 1


def test_a_protocol_may_be_scored_one_image_at_a_time() -> None:
    plugin = registry.load("downstreams", "voc_cls")
    sizes = {name: evaluation.evaluation_batch(plugin(protocol, 20)) for name, protocol in plugin.protocols.items()}
    assert sizes["paper-code"] == 1 and sizes["paper"] == plugin.protocols["paper"].batch_size > 1
