"""What tasks on two views of an image share: the views, the score of finding the other one, the projector, and the alarm."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize

from bench.contract import Batch, Family, Pretext, Trains, Trunk
from bench.models.modes import inference_with
from bench.models.teacher import Teacher
from bench.models.unet import initialise
from bench.views import View

COLLAPSED = {
    "spread": (0.02, "the spread of its outputs over images is {:.2g} of 1"),
    "information": (0.05, "its answers tell {:.2g} nats about which image was asked"),
}
"""The scores below which a network counts as collapsed, and what is said then. Outputs of a spread of 0.02 have a mean cosine of
0.98."""


class TwoViews(Pretext):
    """A pretext task on two views of each image. Its own score is how often it finds an image's other view in a batch."""

    family: ClassVar[Family] = "contrastive"
    trains: ClassVar[Trains] = "encoder"
    targets: ClassVar[tuple[str, ...]] = ("second",)

    def __init__(self, recipe: Any, trunk: Trunk) -> None:
        super().__init__(recipe, trunk)
        strength = recipe.colour_strength
        self.view = View(
            size=trunk.trained_at or 224,
            scale=(recipe.crop_scale, 1.0),
            brightness=0.8 * strength,
            contrast=0.8 * strength,
            saturation=0.8 * strength,
            hue=min(0.5, 0.2 * strength),
            blur=recipe.blur,
        )

    @classmethod
    def reads(cls, recipe: Any, size: int) -> int:
        """Return the side of the images that views are cut from: `enlarged` times that of a view."""
        side: int = round(size * recipe.enlarged)
        return side

    def caveats(self, scores: Mapping[str, float]) -> list[str]:
        """Say where the trunk sees no colours, and where the network collapsed."""
        found = []
        if self.trunk.preprocessing.channels == 1:
            found.append("the trunk sees lightness alone, so of the jitter of colours only brightness and contrast are left")
        for name, (least, said) in COLLAPSED.items():
            if scores.get(name, least) < least:
                found.append(f"it may have collapsed: {said.format(scores[name])}")
        return found

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return two views of each image, `first` and `second`, both preprocessed (N, C, size, size)."""
        views = (self.view(images, generator) for _ in range(2))
        return dict(zip(("first", "second"), map(self.trunk.preprocessing, views), strict=True))

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """Return the embeddings (N, C) of the bottleneck's averages over places (N, `bottleneck_channels`)."""

    def embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the embeddings of the two views, (N, C) each; batch norm sees both views at once."""
        first, second = self.project(pooled(self.trunk, torch.cat([batch["first"], batch["second"]]))).chunk(2)
        return first, second

    def evaluate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return how often the nearest of all other views is that of the same image, and the `spread` of the first views, (N,).

        `accuracy` is a mean of both views.
        """
        with inference_with(self, self.recipe.statistics):
            first, second = self.embeddings(TwoViews.make_batch(self, images, generator))
        return {"accuracy": _found(first, second), "spread": spread(first)}

    def baselines(self, images: Tensor, training_images: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return the accuracy of a guess, and that of `pixels`: two views of an image are alike before anything is learned."""
        chance = torch.full((len(images),), 1 / (2 * len(images) - 1), device=images.device)
        views = TwoViews.make_batch(self, images, torch.Generator(images.device).manual_seed(0))
        pixels = (normalize((view - view.mean(dim=(2, 3), keepdim=True)).flatten(1)) for view in views.values())
        return {"chance": {"accuracy": chance}, "pixels": {"accuracy": _found(*pixels)}}

    def visualize(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the first view of each image, the view that it is nearest to, and its true second view."""
        first, second = (self.view(images, generator) for _ in range(2))
        batch = {"first": self.trunk.preprocessing(first), "second": self.trunk.preprocessing(second)}
        nearest = similarities(*self.embeddings(batch))[0][: len(images)].argmax(dim=1)
        rows = {"asked": first, "learned": torch.cat([first, second])[nearest], "truth": second}
        return {name: (row * 255).round().to(torch.uint8) for name, row in rows.items()}


def pooled(trunk: Trunk | Teacher, inputs: Tensor) -> Tensor:
    """Return the bottleneck of preprocessed images, averaged over places: (N, `bottleneck_channels`)."""
    return trunk.encode(inputs)[-1].mean(dim=(2, 3))


def _found(first: Tensor, second: Tensor) -> Tensor:
    """Return how often the nearest of all other views is that of the same image, a mean of both views (N,)."""
    found, right = similarities(first, second)
    return (found.argmax(dim=1) == right).float().view(2, -1).mean(dim=0)


def spread(embeddings: Tensor) -> Tensor:
    """Return how far each of the normalised embeddings (N, C) is from their mean, squared, (N,): all 0 where they are equal.

    Its mean over images is 1 - |mean|^2, so 1 where they point everywhere alike.
    """
    unit = normalize(embeddings.float(), dim=1)
    return (unit - unit.mean(dim=0)).square().sum(dim=1)


def similarities(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosines (2N, 2N) of N pairs of embeddings (N, C) with each other, and each row's right column (2N,).

    The cosine of an embedding with itself is minus infinity.
    """
    unit = normalize(torch.cat([first, second]).float(), dim=1)
    own = torch.arange(len(unit), device=unit.device)
    return (unit @ unit.T).scatter(1, own[:, None], -torch.inf), (own + len(first)) % len(unit)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the normalised temperature-scaled cross-entropy of N pairs of embeddings (N, C), a scalar.

    Chen et al. 2020, https://arxiv.org/abs/2002.05709, equation 1 and algorithm 1: each of the 2N views is to be nearest to the
    other view of its image among the 2N - 1 others.
    """
    found, right = similarities(first, second)
    return cross_entropy(found / temperature, right)


class Projector(nn.Sequential):
    """Two dense layers with batch norm and ReLU between them, (N, C) to (N, `channels`); Chen et al. 2020, section 4.2."""

    def __init__(self, before: int, width: int, channels: int) -> None:
        super().__init__(
            nn.Linear(before, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, channels, bias=False),
            nn.BatchNorm1d(channels, affine=False),
        )


class PrototypeHead(nn.Module):
    """Three dense layers with GELU between them, and the cosines of what they give with prototypes: (N, C) to (N, `prototypes`).

    Caron et al. 2021, https://arxiv.org/abs/2104.14294, section 3.2 and appendix C, with prototypes of length 1.
    """

    def __init__(self, before: int, width: int, channels: int, prototypes: int) -> None:
        super().__init__()
        layers = (nn.Linear(before, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, channels))
        self.embed, self.prototypes = nn.Sequential(*layers), nn.Linear(channels, prototypes, bias=False)
        initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        """Return the cosines of the embeddings with the prototypes, each in [-1, 1], in float32: they are sharpened later."""
        embedded = normalize(self.embed(features).float(), dim=1)
        with torch.autocast(features.device.type, enabled=False):
            return linear(embedded, normalize(self.prototypes.weight, dim=1))
