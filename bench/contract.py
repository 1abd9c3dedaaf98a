"""What a plug-in is: `Pretext` trains a trunk without labels, `Downstream` measures what that trunk is worth.

Both are found by the name of the file (or entry point) that they stand in. A plug-in imports this module, `bench.colour`,
`bench.models` and nothing else of ours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.colour import lightness_of, unit
from bench.config import Phase, Protocol, Recipe, Schedule
from bench.metrics import PADDING, VOID

__all__ = [
    "PADDING", "VOID", "Batch", "Downstream", "Phase", "Predictions", "Preprocessing", "PreprocessingName", "Pretext", "Protocol",
    "Recipe", "Schedule", "Trunk",
]  # fmt: skip

Batch = dict[str, Tensor]
"""What one step works on, all on the device: a pretext task's `make_batch` chooses the names; a downstream task gets `images`
(uint8 (N, 3, H, W) sRGB) and `target`."""

Predictions = dict[str, NDArray[Any]]
"""What is kept of every test image, and all that any metric is computed from; first axis = images."""

PreprocessingName = Literal["l", "rgb"]


class Preprocessing(nn.Module):
    """What a trunk gets of an image: lightness (`l`, as in the paper) or colour (`rgb`), (N, channels, H, W) in about [-1, 1]."""

    def __init__(self, name: PreprocessingName) -> None:
        super().__init__()
        self.name = name
        self.channels = 1 if name == "l" else 3

    def forward(self, images: Tensor) -> Tensor:
        """Return the trunk's inputs (N, channels, H, W) for sRGB images (N, 3, H, W), uint8 or float in [0, 1]."""
        if self.name == "rgb":
            return unit(images.contiguous()) * 2 - 1
        return lightness_of(images)

    def grey(self, lightness: Tensor) -> Tensor:
        """Return the trunk's inputs for images without colour, given their normalised lightness (N, 1, H, W)."""
        return lightness.expand(-1, self.channels, -1, -1)


class Trunk(nn.Module, ABC):
    """An encoder, a bottleneck and a decoder with skip connections: what a pretext task trains and a downstream task inherits.

    `bottleneck_channels` are those of the last encoder feature, `channels` those of the last decoder activation, and
    `stride` is what height and width must be a multiple of. `down` is the encoder, `up` the decoder. Its preprocessing is part of
    its name and travels with its weights.
    """

    down: nn.Module
    up: nn.Module
    bottleneck_channels: int
    channels: int
    stride: int

    def __init__(self, preprocessing: PreprocessingName) -> None:
        super().__init__()
        self.preprocessing = Preprocessing(preprocessing)

    @abstractmethod
    def encode(self, inputs: Tensor) -> list[Tensor]:
        """Return the features of preprocessed images, finest first; the last is the bottleneck (N, C, h, w)."""

    @abstractmethod
    def decode(self, features: list[Tensor]) -> Tensor:
        """Return the last decoder activation, (N, channels, H / s, W / s), before any output layer."""

    @abstractmethod
    def output(self, channels: int) -> nn.Module:
        """Return a new output layer, from the last decoder activation to (N, channels, H, W)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the last decoder activation of preprocessed images (N, preprocessing.channels, H, W)."""
        return self.decode(self.encode(inputs))


class Pretext(nn.Module, ABC):
    """A pretext task: the trunk, what it needs beside the trunk, and how one training step goes.

    Everything that is trained is a submodule, so `state_dict()` is all there is to save.
    """

    version: ClassVar[int] = 1
    """Raised when the task, or a default of its recipe, means something new: its trunks then have other ids."""
    Recipe: ClassVar[type[Recipe]] = Recipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": {"epochs": 3, "batch_size": 16, "lr": 1e-3, "evaluation_images": 200, "visualize_epochs": (1, 2, 3)},
        "small": {"epochs": 12, "batch_size": 16, "lr": 2e-4, "evaluation_images": 200, "visualize_epochs": (1, 4, 12)},
        "paper-code": {"epochs": 19, "batch_size": 4, "lr": 2e-4, "statistics": "batch"},
    }
    """Changes to the recipe's defaults for a protocol, by the protocol's name."""
    schedules: ClassVar[tuple[Schedule, ...]] = ("two-phase",)
    """The schedules on which a downstream task fine-tunes this trunk; random initialisation has two."""

    def __init__(self, recipe: Any, trunk: Trunk) -> None:
        super().__init__()
        self.recipe = recipe
        self.trunk = trunk

    @abstractmethod
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimizers by name: one, or a generator's and a discriminator's."""

    @abstractmethod
    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Make the task out of uint8 sRGB images (N, 3, H, W) on the device; all chance comes from `generator`."""

    @abstractmethod
    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield (an optimizer's name, scalar loss) once or several times.

        The loop steps that optimizer and resumes here, so a generator's loss can see the discriminator that was just updated.
        """

    def evaluate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Score uint8 images (N, 3, H, W) that were not trained on: name -> one value an image (N,). Optional.

        Scores named psnr, ssim or accuracy are better when higher; tables say where they are no better than a baseline's.
        Called in eval mode and without gradients, as `visualize` is.
        """
        return {}

    def baselines(self, images: Tensor, training_images: Tensor) -> dict[str, dict[str, Tensor]]:
        """Score answers that need no learning on the same images: baseline -> name -> one value an image (N,). Optional.

        `training_images` are some of the images that were trained on, uint8 (M, 3, H, W).
        """
        return {}

    def visualize(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Show what was learned: row name -> uint8 (N, 3, H, W), from what goes in to the truth. Optional."""
        return {}


class Downstream(ABC):
    """A downstream task: which data, which head, which loss, what is kept for the metrics."""

    version: ClassVar[int] = 1
    """Raised when the task means something new: its runs then have other ids."""
    title: ClassVar[str]  # the column's name in Table 4
    data: ClassVar[Literal["labels", "masks"]]
    protocols: ClassVar[Mapping[str, Protocol]]

    def __init__(self, protocol: Protocol, classes: int) -> None:
        self.protocol = protocol
        self.classes = classes

    @abstractmethod
    def features(self, trunk: Trunk, inputs: Tensor) -> Tensor:
        """Return what the head gets of preprocessed images (N, channels, H, W); nothing of the head is used."""

    @abstractmethod
    def head(self, trunk: Trunk, size: int) -> nn.Module:
        """Return a new head for images of `size` x `size`."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the scalar training loss of the head's output."""

    @abstractmethod
    def predictions(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return what is kept of each image, first axis N: all that the metrics need."""

    def visualize(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Show what was found beside the truth: `found` and `truth`, class ids uint8 (N, H, W). Optional."""
        return {}
