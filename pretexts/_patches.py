"""The base of tasks that ask the encoder a question with few answers, and patches: cut, made alike, enlarged and put back.

Nothing loops over images, and nothing waits for the device.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.contract import Batch, Family, Pretext, Trains
from bench.errors import UsageError
from bench.models.modes import inference_with

Colours = Literal["drop", "project", "keep"]
"""What becomes of the colours of patches."""
LEAST = 6
"""The side of the smallest patches that are cut, in pixels: smaller ones show nothing."""
SPREAD = 0.5
"""The standard deviation of a standardised patch: about that of the normalised images that a downstream task feeds."""
RIDGE = 1e-2
"""The penalty of the probe that looks for places, for each patch, on standardised features."""
NOISE = 0.01
"""The standard deviation of a dropped channel's noise, as a share of that of the channel that is kept."""
FLAT = 0.01
"""Patches of a smaller standard deviation are divided by this one: what they have is noise."""


class Classification(Pretext):
    """A task with a target of few classes, `classes`, which the encoder and `head` predict.

    A batch has `target`, int64, with the same number of targets for each image, image by image.
    """

    family: ClassVar[Family] = "classic"
    trains: ClassVar[Trains] = "encoder"
    targets: ClassVar[tuple[str, ...]] = ("target",)
    head: nn.Module
    classes: int

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return one optimizer, of the encoder and the head."""
        return {"loss": self.optimizer(self.trunk.down, self.head)}

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """Return the classes' scores before the softmax, (*, classes) for a target of shape (*)."""

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield the cross-entropy, the mean over all targets."""
        logits = self.logits(batch)
        yield "loss", functional.cross_entropy(logits.flatten(end_dim=-2).float(), batch["target"].flatten())

    def pooled(self, inputs: Tensor) -> Tensor:
        """Return the bottleneck's mean over places, (N, bottleneck_channels), of preprocessed images (N, C, H, W)."""
        return self.trunk.encode(inputs)[-1].mean(dim=(2, 3))

    def pooled_patches(self, patches: Tensor) -> Tensor:
        """Return the same (N, P, bottleneck_channels) of patches (N, P, C, H, W), enlarged to a size that the trunk takes."""
        side = fed_side(patches.shape[-1], self.trunk.smallest)
        return self.pooled(enlarged(patches, side)).view(*patches.shape[:2], -1)

    def answers(self, images: Tensor, generator: torch.Generator) -> tuple[Batch, Tensor]:
        """Return a batch of images, made as in evaluation, and the most probable class of each of its targets."""
        with inference_with(self, self.recipe.statistics):
            batch = self.make_batch(images, generator)
            return batch, self.logits(batch).argmax(dim=-1)

    def evaluate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return `accuracy`: the share of an image's questions that are answered right."""
        batch, chosen = self.answers(images, generator)
        return {"accuracy": (chosen == batch["target"]).double().reshape(len(images), -1).mean(dim=1)}

    def baselines(self, images: Tensor, training_images: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return the accuracy of guessing, `chance`: the classes are equally frequent."""
        return {"chance": {"accuracy": torch.full((len(images),), 1 / self.classes, device=images.device)}}


def late_fusion(inputs: int, width: int, classes: int) -> nn.Sequential:
    """Return two dense layers with batch norm and ReLU between them: (N, inputs) -> (N, classes)."""
    return nn.Sequential(nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, classes))


def fed_side(patch: int, smallest: int) -> int:
    """Return the side to which patches are enlarged: the next multiple of the smallest side that the trunk takes.

    Sides that a trunk takes are multiples of its stride, and so are the multiples of its smallest side. 0: any side.
    """
    return -(-patch // smallest) * smallest if smallest else patch


def check_patch(task: str, patch: int, needed: int, size: int) -> None:
    """Raise UsageError where patches are too small to show anything, or all of them need more than the image's side."""
    if patch < LEAST:
        raise UsageError(f"{task} cuts patches of {patch} px from images of {size} px, and needs {LEAST} px: take larger images.")
    if needed > size:
        raise UsageError(
            f"{task} needs images of at least {needed} px for its patches of {patch} px with gaps and jitter, but got {size} px."
        )


def _places(corners: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the indices of images, rows and columns, together (N, P, side, side), of squares at corners (N, P, 2)."""
    offsets = torch.arange(side, device=corners.device)
    image = torch.arange(len(corners), device=corners.device)[:, None, None, None]
    return image, (corners[..., :1] + offsets)[..., :, None], (corners[..., 1:] + offsets)[..., None, :]


def cut(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """Return squares (N, P, C, side, side) of images (N, C, H, W) whose first pixels, row and column, are `corners` (N, P, 2)."""
    return images.permute(0, 2, 3, 1)[_places(corners, side)].permute(0, 1, 4, 2, 3)


def paste(images: Tensor, patches: Tensor, corners: Tensor) -> Tensor:
    """Return images (N, C, H, W) with patches (N, P, C, side, side) put at `corners` (N, P, 2)."""
    pasted = images.permute(0, 2, 3, 1).contiguous()
    pasted[_places(corners, patches.shape[-1])] = patches.permute(0, 1, 3, 4, 2)
    return pasted.permute(0, 3, 1, 2).contiguous()


def standardised(patches: Tensor) -> Tensor:
    """Return patches (..., H, W) with mean 0 and standard deviation `SPREAD` in each channel of each patch."""
    centred = patches - patches.mean(dim=(-2, -1), keepdim=True)
    deviation = centred.square().mean(dim=(-2, -1), keepdim=True).sqrt()
    return centred * (SPREAD / deviation.clamp(min=FLAT))


def enlarged(patches: Tensor, side: int) -> Tensor:
    """Return patches (N, P, C, H, W) one below another and enlarged bilinearly, (N * P, C, side, side)."""
    flat = patches.flatten(end_dim=1)
    return flat if flat.shape[-1] == side else functional.interpolate(flat, size=(side, side), mode="bilinear")


def hide_colours(patches: Tensor, how: Colours, generator: torch.Generator) -> Tensor:
    """Return standardised patches (N, P, C, H, W) without the colours by which chromatic aberration gives their place away.

    `drop` keeps one channel of each patch and puts noise in the others; `project` takes out what is green against magenta, the
    part along (-1, 2, -1). Doersch et al. 2015, https://arxiv.org/abs/1505.05192, section 3.1. One channel has no colours.
    """
    if patches.shape[2] == 1 or how == "keep":
        return standardised(patches)
    if how == "project":
        red, green, blue = patches.unbind(dim=2)
        share = (2 * green - red - blue) / 6
        return standardised(torch.stack([red + share, green - 2 * share, blue + share], dim=2))
    kept = torch.randint(3, patches.shape[:2], generator=generator, device=patches.device)
    is_kept = kept[..., None] == torch.arange(3, device=patches.device)
    noise = torch.randn(patches.shape, generator=generator, device=patches.device) * (SPREAD * NOISE)
    return torch.where(is_kept[..., None, None], standardised(patches), noise)


def place_known(features: Tensor) -> Tensor:
    """Return how often a linear probe tells from a patch's features which of an image's P patches it is, a scalar.

    `features` are (N, P, C), patch p of each image at the same place. The probe is a ridge regression on the first half of the
    images, scored on the second; guessing has 1 / P.
    """
    half, patches = len(features) // 2, features.shape[1]
    train, test = features.double().tensor_split([half])
    mean, deviation = train.mean(dim=(0, 1)), train.std(dim=(0, 1)).clamp(min=1e-6)
    train, test = (functional.pad((part - mean) / deviation, (0, 1), value=1.0).flatten(end_dim=1) for part in (train, test))
    wanted = torch.eye(patches, dtype=train.dtype, device=train.device).repeat(half, 1)
    penalty = RIDGE * len(train) * torch.eye(train.shape[1], dtype=train.dtype, device=train.device)
    found = (test @ torch.linalg.solve(train.T @ train + penalty, train.T @ wanted)).argmax(dim=1)
    right: Tensor = found.view(-1, patches) == torch.arange(patches, device=train.device)
    return right.double().mean()
