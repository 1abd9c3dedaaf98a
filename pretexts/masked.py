"""Masked image modelling: most of an image is hidden from the encoder, and the hidden pixels are to be predicted.

For networks of convolutions after SparK (Tian et al. 2023, https://arxiv.org/abs/2301.03580): every level is masked again, and
the decoder gets a learned token at hidden places. For transformers after SimMIM (Xie et al. 2022,
https://arxiv.org/abs/2111.09886): a token replaces hidden patches. `bench run --pretext masked --trunk timm:resnet18`. A step
costs about one of the trunk. It should reach a PSNR of hidden pixels above that of the patch's own mean, which it is not given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.contract import Batch, Family, Pretext, Recipe, Trunk
from bench.errors import UsageError
from bench.models.modes import inference, inference_with
from bench.protocol import OptimizerName, RateScaling, RateSchedule
from pretexts._masking import Mask, draw_mask, fixed_generator, masked, patch_embedding, visible_cells

LEAST_CELLS, USUAL_CELLS = 4, 7
"""The cells a side of an image: at least, and in SparK, 32 of 224 px each."""


class MaskedRecipe(Recipe):
    """Defaults are SparK's, with a batch for one device; SimMIM differs in what is said."""

    epochs: int = Field(default=1600, ge=0)  # SparK, section 4.1; SimMIM 800
    batch_size: int = Field(default=256, ge=2)  # the reference of the rate; SparK trains with 4,096
    optimizer: OptimizerName = "adamw"  # SparK has LAMB, SimMIM AdamW
    lr: float = Field(default=2e-4, gt=0)  # SparK, appendix: 2e-4 x batch size / 256
    lr_scaling: RateScaling = "linear"
    lr_schedule: RateSchedule = "cosine"  # both
    warmup_epochs: float = Field(default=40.0, ge=0)  # SparK's released code; SimMIM 20
    beta1: float = Field(default=0.9, ge=0, lt=1)  # both
    weight_decay: float = Field(default=0.04, ge=0)  # SparK's released code, where it rises to 0.2; SimMIM 0.05
    clip: float | None = Field(default=5.0, gt=0)  # SparK's and SimMIM's released code
    hidden: float = Field(default=0.6, gt=0, lt=1)  # both: the share of an image's cells
    cells: int = Field(default=0, ge=0)  # a side; 0: those of the encoder's level that is nearest to 7, which is 32 px of 224
    normalize: bool = True  # SparK: each patch of the target by its own mean and standard deviation; SimMIM: no


class Masked(Pretext):
    """Prediction of hidden pixels by encoder and decoder, with the squared error on hidden places alone."""

    version: ClassVar[int] = 2
    paper: ClassVar[str] = "Tian et al. 2023, https://arxiv.org/abs/2301.03580"
    family: ClassVar[Family] = "masked"
    targets: ClassVar[tuple[str, ...]] = ("target",)
    Recipe = MaskedRecipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": {**Pretext.presets["demo"], "lr_scaling": "none", "warmup_epochs": 1.0},
        "small": {"epochs": 8, "batch_size": 32, "lr": 1e-3, "lr_scaling": "none", "warmup_epochs": 1.0,
                  "evaluation_images": 200, "visualize_epochs": (1, 4, 8)},
    }  # fmt: skip

    def __init__(self, recipe: MaskedRecipe, trunk: Trunk) -> None:
        super().__init__(recipe, trunk)
        self.output = trunk.output(trunk.preprocessing.channels)
        size = trunk.trained_at or trunk.smallest
        with inference(trunk):
            levels = trunk.encode(torch.zeros(1, trunk.preprocessing.channels, size, size))
        sides = sorted({level.shape[-1] for level in levels})
        near = sorted((side for side in sides if side >= LEAST_CELLS), key=lambda side: (abs(side - USUAL_CELLS), side))
        self.cells = recipe.cells or next(iter(near), 0)
        if not self.cells or size % self.cells:
            raise UsageError(f"masked needs {LEAST_CELLS} x {LEAST_CELLS} cells, but {size} px with this trunk have none.")
        embedding = patch_embedding(trunk)
        channels = [level.shape[1] for level in levels if level.shape[-1] % self.cells == 0 and embedding is None]
        self.tokens = nn.ParameterList([nn.Parameter(0.02 * torch.randn(1, count, 1, 1)) for count in channels])
        self.token = nn.Parameter(0.02 * torch.randn(trunk.bottleneck_channels)) if embedding is not None else None

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return preprocessed `inputs` (N, C, H, W), which cells are `visible` (N, 1, cells, cells), and the `target`."""
        inputs = self.trunk.preprocessing(images)
        visible = draw_mask(len(inputs), self.cells, self.recipe.hidden, generator)
        return {"inputs": inputs, "visible": visible, "target": self.target(inputs)}

    def target(self, inputs: Tensor) -> Tensor:
        """Return what is predicted, (N, C, H, W): the pixels, each cell's by its own mean and standard deviation if so asked."""
        if not self.recipe.normalize:
            return inputs
        mean, deviation = self.moments(inputs)
        return (inputs - mean) / deviation

    def moments(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return each cell's mean and standard deviation over pixels and channels, spread over its pixels: (N, 1, H, W) each."""
        side = inputs.shape[-1] // self.cells
        cells = inputs.reshape(*inputs.shape[:2], self.cells, side, self.cells, side)
        variance, mean = torch.var_mean(cells, dim=(1, 3, 5), keepdim=True)
        spread = (value[:, 0, :, 0, :, 0] for value in (mean, (variance + 1e-6).sqrt()))
        mean, deviation = (value.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, None] for value in spread)
        return mean, deviation

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the prediction (N, C, H, W) from visible pixels alone, and which pixels are hidden, bool (N, 1, H, W)."""
        mask = Mask(batch["visible"], visible_cells(self.cells, self.recipe.hidden))
        shown = mask.at(batch["inputs"].shape[-1])
        with masked(self.trunk, mask, self.token):
            features = self.trunk.encode(batch["inputs"] * shown)
        if self.token is None:  # levels that are coarser than the cells have no hidden places
            tokens = iter(self.tokens)
            sides = [one.shape[-1] for one in features]
            features = [
                torch.where(mask.at(side), one, next(tokens).to(one.dtype)) if mask.hides(side) else one
                for side, one in zip(sides, features, strict=True)
            ]
        return self.output(self.trunk.decode(features)), ~shown

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield the mean squared error of hidden pixels."""
        predicted, hidden = self.predict(batch)
        error = (predicted.float() - batch["target"]).square().mean(dim=1, keepdim=True)
        yield "loss", (error * hidden).sum() / hidden.sum()

    def reconstructed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return images with their hidden pixels predicted, given each hidden cell's mean and deviation, and what is hidden."""
        predicted, hidden = self.predict(batch)
        if self.recipe.normalize:
            mean, deviation = self.moments(batch["inputs"])
            predicted = predicted * deviation + mean
        return torch.where(hidden, predicted, batch["inputs"]), hidden

    def psnr(self, answer: Tensor, hidden: Tensor, truth: Tensor) -> Tensor:
        """Return the PSNR (N,) in dB of the hidden pixels of preprocessed images, whose range is 2."""
        error = ((answer - truth).square().mean(dim=1, keepdim=True) * hidden).sum(dim=(1, 2, 3)) / hidden.sum(dim=(1, 2, 3))
        return 10 * (4 / error).log10()

    def evaluate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return `psnr_hidden`, with masks that are always the same, given each cell's moments where targets are normalised."""
        batch = self.make_batch(images, fixed_generator(images.device))
        with inference_with(self, self.recipe.statistics):
            return {"psnr_hidden": self.psnr(*self.reconstructed(batch), batch["inputs"])}

    def baselines(self, images: Tensor, training_images: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return the PSNR of each hidden cell's own mean, which for normalised targets is the answer 0; masks of `evaluate`."""
        batch = self.make_batch(images, fixed_generator(images.device))
        hidden = ~Mask(batch["visible"], visible_cells(self.cells, self.recipe.hidden)).at(images.shape[-1])
        mean = self.moments(batch["inputs"])[0].expand_as(batch["inputs"])
        return {"mean of the patch": {"psnr_hidden": self.psnr(mean, hidden, batch["inputs"])}}

    def visualize(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return images with the hidden cells grey, predicted, and true."""
        batch = self.make_batch(images, generator)
        answer, hidden = self.reconstructed(batch)
        rows = {"hidden": batch["inputs"].masked_fill(hidden, 0.0), "learned": answer, "truth": batch["inputs"]}
        return {name: self.trunk.preprocessing.shown(row) for name, row in rows.items()}
