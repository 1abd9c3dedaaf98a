"""The interface of plug-ins: `Pretext` trains a trunk without labels, `Downstream` measures how well the trunk transfers.

A plug-in is found by the name of its file or entry point. It needs this module, `bench.colour`, `bench.models` and
`bench.errors`, and imports no other part of the program.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.colour import join_lab, lightness_of, split_lab, unit
from bench.errors import UsageError
from bench.metrics import PADDING, VOID
from bench.optimization import make_optimizer
from bench.protocol import Annotations, Family, Phase, Protocol, Recipe, Schedule, Trains

__all__ = [
    "PADDING", "VOID", "Annotations", "Batch", "Downstream", "Family", "Phase", "Preprocessing", "PreprocessingName", "Pretext",
    "Protocol", "Recipe", "Schedule", "Trains", "Trunk", "Untrained",
]  # fmt: skip

Batch = dict[str, Tensor]
"""The tensors of one step by name, all on the device. A pretext task's `make_batch` chooses the names. A downstream task gets
`target` and `images` (uint8 (N, 3, H, W) sRGB); while the trunk is frozen it may get `features`, the head's input, instead of
`images`. A target of boxes is float32 (N, M, 6): the class, -1 for no box, left, top, right and bottom edge in pixels, and a
flag: 0 judged, 1 difficult, 2 a crowd."""

PreprocessingName = Literal["l", "rgb", "l+ab"]


class Preprocessing(nn.Module):
    """Turns images into a trunk's inputs, in about [-1, 1]: lightness (`l`, as in the paper), colour (`rgb`) or Lab (`l+ab`).

    Colour is normalised by a `mean` and a `std` of each channel in [0, 1]: 0.5 and 0.5, or those that weights were trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: PreprocessingName, mean: Sequence[float] = (), std: Sequence[float] = ()) -> None:
        super().__init__()
        self.name = name
        self.channels = 1 if name == "l" else 3
        if name != "rgb" and (mean or std):
            raise ValueError("lightness and ab have one normalisation")
        self.register_buffer("mean", torch.tensor(mean or [0.5] * 3).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std or [0.5] * 3).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the trunk's inputs (N, channels, H, W) for sRGB images (N, 3, H, W), uint8 or float in [0, 1]."""
        if self.name == "rgb":
            return (unit(images.contiguous()) - self.mean) / self.std
        return lightness_of(images) if self.name == "l" else torch.cat(split_lab(images), dim=1)

    def shown(self, inputs: Tensor) -> Tensor:
        """Return the images, sRGB uint8 (N, 3, H, W), of a trunk's inputs (N, channels, H, W): grey ones for lightness."""
        if self.name == "rgb":
            return ((inputs.float() * self.std + self.mean).clamp(0, 1) * 255).round().to(torch.uint8)
        chroma = torch.zeros_like(inputs).expand(-1, 2, -1, -1) if self.name == "l" else inputs[:, 1:]
        return join_lab(inputs[:, :1], chroma)

    def grey(self, lightness: Tensor) -> Tensor:
        """Return the trunk's inputs (N, channels, H, W) for grey images, given their normalised lightness (N, 1, H, W).

        For colour, grey is L / 100, which is within 0.04 of sRGB's, normalised by `mean` and `std`.
        """
        if self.name == "l+ab":
            return torch.cat([lightness, torch.zeros_like(lightness).expand(-1, 2, -1, -1)], dim=1)
        return lightness if self.name == "l" else lightness * (0.5 / self.std) + (0.5 - self.mean) / self.std


class Trunk(nn.Module, ABC):
    """An encoder, a bottleneck and a decoder with skip connections: what a pretext task trains and a downstream task inherits.

    `down` is the encoder and `up` the decoder. `bottleneck_channels` counts the channels of the last encoder feature, `channels`
    those of the last decoder activation. Height and width must be multiples of `stride`. The preprocessing is part of the trunk's
    name and is inherited with its weights.
    """

    down: nn.Module
    up: nn.Module
    bottleneck_channels: int
    channels: int
    stride: int
    by_image: ClassVar[tuple[str, ...]] = ("forward", "encode", "decode", "pyramid")  # each image alone, but for batch norm
    smallest: int = 0
    """The side of the smallest images that it takes, in pixels; set, as `trained_at` is, where a pretext task gets its trunk."""
    trained_at: int = 0
    """The side of the images that it was trained on, in pixels; 0 where that is not known."""

    def __init__(self, preprocessing: PreprocessingName) -> None:
        super().__init__()
        self.preprocessing = Preprocessing(preprocessing)

    @abstractmethod
    def encode(self, inputs: Tensor) -> list[Tensor]:
        """Return the features of preprocessed images, finest first; the last is the bottleneck (N, C, h, w)."""

    @abstractmethod
    def decode(self, features: list[Tensor]) -> Tensor:
        """Return the last decoder activation (N, channels, H/s, W/s), where s is the stride of the finest feature."""

    def pyramid(self, features: list[Tensor]) -> list[Tensor]:
        """Return feature maps at several strides for a detector, finest first, from what `encode` returns: the encoder's own."""
        return features

    @abstractmethod
    def output(self, channels: int) -> nn.Module:
        """Return a new output layer with `channels` outputs: last decoder activation -> (N, channels, H, W)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the last decoder activation of preprocessed images (N, preprocessing.channels, H, W)."""
        return self.decode(self.encode(inputs))


class Pretext(nn.Module, ABC):
    """A pretext task: the trunk, the task's own networks, and one training step.

    Every network that is trained is a submodule, so `state_dict()` holds all weights.
    """

    version: ClassVar[int] = 1
    """To be raised when the task or a default of its recipe changes, so that its trunks get new ids."""
    Recipe: ClassVar[type[Recipe]] = Recipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": {
            "epochs": 4,
            "batch_size": 16,
            "lr": 1e-3,
            "lr_schedule": "cosine",
            "evaluation_images": 200,
            "visualize_epochs": (1, 2, 4),
        },
        "small": {"epochs": 12, "batch_size": 16, "lr": 2e-4, "evaluation_images": 200, "visualize_epochs": (1, 4, 12)},
        "paper-code": {"epochs": 19, "batch_size": 4, "lr": 2e-4, "statistics": "batch"},
    }
    """The recipe settings that a protocol changes, by the protocol's name."""
    paper: ClassVar[str] = ""
    """Authors, year and address of the paper that it is from; "" for none."""
    family: ClassVar[Family] = "other"
    supervision: ClassVar[str] = "none"
    """Which labels it uses. The bench gives it images alone, so any that it uses are in weights that it loads itself."""
    targets: ClassVar[tuple[str, ...]] = ()
    """The tensors of a batch that are the answers, by name, first axis N: NAME:shuffled trains on them in another order."""
    trains: ClassVar[Trains] = "all"
    """What it trains of the trunk: `all` is encoder and decoder. After `encoder` alone a downstream task gets a new decoder."""
    preprocessing: ClassVar[tuple[PreprocessingName, ...]] = ()
    """What its trunk may see, the usual first; (): anything."""
    progress: float = 0.0
    """The share of the training steps that are done, set before each: for a momentum or a temperature that changes."""
    schedules: ClassVar[tuple[Schedule, ...]] = ("two-phase",)
    """The schedules by which this trunk is fine-tuned when --schedule is left out; random initialisation has two."""

    @classmethod
    def default_recipe(cls, protocol: str) -> Any:
        """Return the recipe under a protocol: the class's defaults, changed by the protocol's preset.

        A setting that the task's own Recipe defines keeps its default where the preset is inherited: it was written for another
        recipe.
        """
        owner = next(base for base in cls.__mro__ if "presets" in vars(base))
        later = set(cls.Recipe.__mro__) - set(owner.Recipe.__mro__)  # type: ignore[attr-defined]
        own = {name for recipe in later for name in recipe.__annotations__}
        preset = {name: value for name, value in cls.presets.get(protocol, {}).items() if name not in own}
        return cls.Recipe().with_changes(preset, "recipe")

    def __init__(self, recipe: Any, trunk: Trunk) -> None:
        super().__init__()
        self.recipe = recipe
        self.trunk = trunk

    @classmethod
    def feeds(cls, recipe: Any, size: int, smallest: int) -> Mapping[str, int]:
        """Return the sides in pixels of what the task feeds to the trunk, by name: patches or small crops. Optional.

        `size` is the side of the images, `smallest` that of the smallest images that the trunk takes; a task whose paper has
        smaller patches enlarges them to it. The sides are checked before anything is trained.
        """
        return {}

    @classmethod
    def reads(cls, recipe: Any, size: int) -> int:
        """Return the side in pixels of the images that the task gets, by default `size`, the one asked for.

        A task that crops its images asks for larger ones, so that a crop has as many pixels as it is shown with.
        """
        return size

    def caveats(self, scores: Mapping[str, float]) -> Sequence[str]:
        """Return what weakens the task, or went wrong in training, a clause each; a table says it of the row. Optional.

        Asked after training; `scores` are the averages of what `evaluate` returned, by name.
        """
        return ()

    def optimizer(self, *modules: nn.Module, lr: float | None = None) -> torch.optim.Optimizer:
        """Return an optimizer of the modules' parameters as the recipe says, with the base rate `lr`, by default the recipe's."""
        return make_optimizer(self.recipe, self.recipe.lr if lr is None else lr, *modules)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimizers by name: one of all parameters, `loss`, unless a task says otherwise."""
        return {"loss": self.optimizer(self)}

    def prepare(self, batches: Iterator[Tensor]) -> None:
        """Measure on the training images what the task needs before training, and keep it in buffers. Optional.

        `batches` are all training images, uint8 (N, 3, H, W) on the device, mixed in an order that no seed changes, and read as
        they are asked for.
        """

    @abstractmethod
    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return one training step's batch, made of uint8 sRGB images (N, 3, H, W) on the device.

        All randomness comes from `generator`.
        """

    @abstractmethod
    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield (an optimizer's name, scalar loss) once or several times.

        The loop updates the weights with that optimizer before it asks for the next pair, so the loss of a GAN's generator can
        use the discriminator that was just updated. What follows the last yield comes after the last update: a teacher that
        follows the student.
        """

    def evaluate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return scores on uint8 images (N, 3, H, W) that were not trained on: name -> one value per image (N,). Optional.

        Scores named psnr, psnr_hidden, ssim, accuracy or information are better when higher, loss and error when lower; a table
        says where they are no better than a baseline's.
        `evaluate`, `baselines` and `visualize` are called in eval mode and without gradients.
        """
        return {}

    def baselines(self, images: Tensor, training_images: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return the scores of answers without learning: baseline -> name -> one value per image (N,). Optional.

        `images` are those of `evaluate`; `training_images`, uint8 (M, 3, H, W), are some of the images that were trained on.
        """
        return {}

    def visualize(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return images that show what was learned, from the input to the truth: row name -> uint8 (N, 3, H, W). Optional."""
        return {}


@cache
def shuffled(name: str, task: type[Pretext]) -> type[Pretext]:
    """Return a pretext task as a control: in training each image of a batch gets the answer of the one before it.

    Batches are in random order, so that is another image at random. A random order would leave one image of a batch its own
    answer on average, from which a network learns the task.
    What such a trunk is worth comes from seeing images at all, not from the task. Its own scores are on true answers. UsageError
    for a task that names no `targets`.
    """
    if not task.targets:
        raise UsageError(f"{name}:shuffled: {name} names no targets that could be shuffled.")

    def make_batch(self: Pretext, images: Tensor, generator: torch.Generator) -> Batch:
        batch = task.make_batch(self, images, generator)
        if self.training:
            batch |= {target: batch[target].roll(1, 0) for target in task.targets}
        return batch

    return type(
        f"Shuffled{task.__name__}", (task,), {"make_batch": make_batch, "family": "control", "__module__": task.__module__}
    )


class NoRecipe(Recipe):
    """Nothing is trained."""

    epochs: int = Field(default=0, ge=0, le=0)


class Untrained(Pretext):
    """An initialisation that trains nothing here: random weights, or weights from elsewhere."""

    Recipe = NoRecipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    trains: ClassVar[Trains] = "nothing"

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return no optimizer."""
        return {}

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return an empty batch."""
        return {}

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield nothing."""
        yield from ()


class Downstream(ABC):
    """A downstream task: its data, its head, its loss and the predictions that its metrics need."""

    version: ClassVar[int] = 1
    """To be raised when the task changes, so that its runs get new ids."""
    title: ClassVar[str]  # the column's name in Table 4
    data: ClassVar[Annotations]
    protocols: ClassVar[Mapping[str, Protocol]]
    single: ClassVar[bool] = False
    """Whether it needs images that have one class each."""
    decodes: ClassVar[bool | None] = None
    """Whether its features come from the decoder; None: those of tasks with masks do, and of tasks with boxes by the trunk."""
    reads_batch: ClassVar[bool] = False
    """Whether its head is called with the batch too, as a detector's, which compares its proposals with the target."""

    @classmethod
    def is_dense(cls, pyramid_decodes: bool = False) -> bool:
        """Tell whether the task's features come from the decoder, so that it matters whether a row brings one.

        `pyramid_decodes` says whether the trunk's feature pyramid is of its decoder.
        """
        of_boxes = cls.data == "boxes" and pyramid_decodes
        return cls.data == "masks" or of_boxes if cls.decodes is None else cls.decodes

    def __init__(self, protocol: Protocol, classes: int) -> None:
        self.protocol = protocol
        self.classes = classes

    @abstractmethod
    def features(self, trunk: Trunk, inputs: Tensor) -> Tensor:
        """Return the head's input for preprocessed images (N, channels, H, W), computed by the trunk alone."""

    @abstractmethod
    def head(self, trunk: Trunk, size: int) -> nn.Module:
        """Return a new head for images of `size` x `size` pixels."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the scalar training loss of the head's output."""

    @abstractmethod
    def predictions(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return what is saved for each image, by name, first axis N; the metrics are computed from it alone."""

    def visualize(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return `found`, the predicted classes, and `truth`: class ids uint8 (N, H, W). Optional."""
        return {}
