"""What a plug-in is: `Pretext` trains a trunk without labels, `Downstream` measures what that trunk is worth.

Both are found by the name of the file (or entry point) they stand in. A plug-in imports this module, other modules of the
ground floor (`bench.models.trunk`, `bench.colour`, ...) and nothing else of ours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from bench.colour import lightness_of, unit
from bench.schema import Frozen, added_field

PreprocessingName = Literal["l", "rgb"]


class Preprocessing(nn.Module):
    """What a trunk sees of a image: (N, channels, H, W) in about [-1, 1]."""

    def __init__(self, name: PreprocessingName) -> None:
        super().__init__()
        self.name = name
        self.channels = 1 if name == "l" else 3

    def forward(self, images: Tensor) -> Tensor:
        """Look at sRGB images (N, 3, H, W), uint8 or float in [0, 1]."""
        if self.name == "rgb":
            return unit(images.contiguous()) * 2 - 1
        return lightness_of(images)

    def grey(self, lightness: Tensor) -> Tensor:
        """Look at images that have no colour, given their normalised lightness (N, 1, H, W)."""
        return lightness.expand(-1, self.channels, -1, -1)


class Trunk(nn.Module, ABC):
    """An encoder, a bottleneck and a decoder with skip connections.

    `bottleneck_channels` are those of the last encoder feature, `channels` those of the last decoder activation, and
    `stride` is what height and width must be a multiple of. `down` is the encoder, `up` the decoder.
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
    def encode(self, seen: Tensor) -> list[Tensor]:
        """Return the features of what the preprocessing saw, finest first; the last is the bottleneck (N, C, h, w)."""

    @abstractmethod
    def decode(self, features: list[Tensor]) -> Tensor:
        """Return the last decoder activation, (N, channels, H / s, W / s), before any output layer."""

    @abstractmethod
    def output(self, channels: int) -> nn.Module:
        """Return a new output layer, from the last decoder activation to (N, channels, H, W)."""

    def forward(self, seen: Tensor) -> Tensor:
        """Return the last decoder activation of what the preprocessing saw, (N, preprocessing.channels, H, W)."""
        return self.decode(self.encode(seen))


Batch = dict[str, Tensor]
"""What one step works on, all on the device; a pretext's `view` chooses the names, a downstream task gets `images`
(uint8 (N, 3, H, W) sRGB) and `target`."""

Predictions = dict[str, NDArray[Any]]
"""What is kept of every test image, and all that any metric is computed from; first axis = images."""

Schedule = Literal["one-phase", "two-phase", "frozen"]
"""All at once; a frozen trunk first, then all; the trunk frozen throughout."""

Transfer = Literal["all", "encoder"]
"""What a downstream task inherits: the whole trunk, or its encoder under a new decoder."""

Calibration = Literal["new", "all"]
"""Which batch norms have their statistics measured on the training images before the first phase: those that nothing was
trained with, or the inherited ones too."""

Rates = dict[Literal["head", "all"], tuple[float, float]]
"""The learning rates that a search may try in the phases that train the head, and in those that train everything."""


class Recipe(Frozen):
    """How a pretext task trains. Defaults are the paper's text (Sensors 2022, 22, 1599, section 4.1)."""

    epochs: int = Field(default=20, ge=0)  # text
    batch_size: int = Field(default=32, ge=2)  # text
    lr: float = Field(default=2e-3, gt=0)  # text
    beta1: float = Field(default=0.5, ge=0, lt=1)  # code; the text names Adam only
    statistics: Literal["running", "batch"] = "running"  # batch norm at inference; the code has the batch's, the text is silent
    images: tuple[int, ...] = (1, 5, 15, 20)  # epochs after which a image is kept, as in Figure 7
    report_images: int = Field(default=4000, ge=1)  # text: 4,000 test images


class Pretext(nn.Module, ABC):
    """A pretext task: the trunk, what it needs beside the trunk, and how one step goes.

    Everything that is trained is a submodule, so `state_dict()` is all there is to save.
    """

    version: ClassVar[int] = 1
    Recipe: ClassVar[type[Recipe]] = Recipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": {"epochs": 3, "batch_size": 16, "lr": 1e-3, "report_images": 200, "images": (1, 2, 3)},
        "small": {"epochs": 12, "batch_size": 16, "lr": 2e-4, "report_images": 200, "images": (1, 4, 12)},
        "paper-code": {"epochs": 19, "batch_size": 4, "lr": 2e-4, "statistics": "batch"},
    }
    """Changes to the recipe's defaults for a protocol, by the protocol's name."""
    schedules: ClassVar[tuple[Schedule, ...]] = ("two-phase",)
    """The schedules a downstream task runs this trunk on; scratch training has both."""

    def __init__(self, recipe: Any, trunk: Trunk) -> None:
        super().__init__()
        self.recipe = recipe
        self.trunk = trunk

    @abstractmethod
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return who plays, by name: one optimizer, or a generator's and a discriminator's."""

    @abstractmethod
    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Make the task out of uint8 sRGB images (N, 3, H, W) on the device; all chance comes from `generator`."""

    @abstractmethod
    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield (player, scalar loss) for each turn of a step.

        The loop steps that player and resumes, so a generator's loss can see the discriminator that was just updated.
        """

    def report(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Score uint8 images (N, 3, H, W) that were not trained on: name -> one value a image (N,). Optional.

        Scores named psnr, ssim or accuracy are better when higher; tables say where they are no better than a trivial answer's.
        Called in eval mode and without gradients, as `image` is.
        """
        return {}

    def trivial(self, images: Tensor, training: Tensor) -> dict[str, dict[str, Tensor]]:
        """Score what needs no learning on the same images: predictor -> name -> one value a image (N,). Optional.

        `training` are some of the images that were trained on, uint8 (M, 3, H, W).
        """
        return {}

    def image(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Show what was learned: row name -> uint8 (N, 3, H, W), from what goes in to the truth. Optional."""
        return {}


class Phase(Frozen):
    """One stretch of a schedule: what is trained, for how long, how fast."""

    train: Literal["head", "all"]
    epochs: int = Field(ge=0)
    lr: float = Field(gt=0)


class Protocol(Frozen):
    """How a downstream task is trained and scored: everything that two rows must share to share a column."""

    summary: str
    size: int | None = Field(default=None, ge=8)  # the image's side; None: the size of the pretraining
    trunk: str = "unet"
    split: str  # a name from bench.data.splits
    fit: tuple[str, ...] = ("train",)  # the parts that are trained on when the test part is scored
    masks: str = "SegmentationClass"
    resize: Literal["squash", "letterbox", "crop"]
    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    augment: Literal["none", "crop", "flip", "scale"] = "none"
    batch_size: int = Field(ge=2)
    schedules: dict[Schedule, tuple[Phase, ...]]
    void: Literal["ignore", "background"] = "ignore"
    difficult: Literal["positive", "ignore"] = "positive"
    statistics: Literal["running", "batch"] = "running"
    calibration: Calibration = added_field("new")
    evaluate_one_by_one: bool = False
    evaluate_on: Literal["input", "whole"] = added_field("input")  # what the network takes, or whole images in tiles of that size
    head_width: int = Field(default=4096, ge=0)  # 0: one linear layer
    pool: Literal["flatten", "average"] = "flatten"
    metrics: tuple[str, ...] = Field(min_length=1)  # the first is the main metric
    space: Rates = {"head": (1e-4, 1e-2), "all": (2e-5, 5e-3)}

    @model_validator(mode="after")
    def _fits_together(self) -> Protocol:
        if not self.fit or not set(self.fit) <= {"train", "val"}:
            raise ValueError("fit must name train, val or both: the test part is never trained on")
        if self.split == "pretraining":
            raise ValueError("the split must be one of labelled images, official or paper-70-20-10")
        if self.resize == "crop" and self.augment not in ("crop", "scale"):
            raise ValueError("resize crop needs augment crop or scale, which cut the images to size")
        if self.evaluate_on == "whole" and self.resize != "crop":
            raise ValueError("only resize crop keeps whole images to evaluate on")
        return self


class Downstream(ABC):
    """A downstream task: which data, which head, which loss, what is kept for the metrics."""

    version: ClassVar[int] = 1
    title: ClassVar[str]  # the column's name in Table 4
    data: ClassVar[Literal["labels", "masks"]]
    protocols: ClassVar[Mapping[str, Protocol]]

    def __init__(self, protocol: Protocol, classes: int) -> None:
        self.protocol = protocol
        self.classes = classes

    @abstractmethod
    def features(self, trunk: Trunk, seen: Tensor) -> Tensor:
        """Return what the head gets of what the trunk's preprocessing saw (N, channels, H, W); nothing of the head is used."""

    @abstractmethod
    def head(self, trunk: Trunk, size: int) -> nn.Module:
        """Return a new head for images of `size` x `size`."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the scalar training loss of the head's output."""

    @abstractmethod
    def predictions(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return what is kept of each image, first axis N: all that the metrics need."""

    def image(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Show what was found beside the truth: `found` and `truth`, class ids uint8 (N, H, W). Optional."""
        return {}
