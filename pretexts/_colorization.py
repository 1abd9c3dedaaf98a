"""The base of colorization tasks: lightness in, ab out, and the scores and images of the paper's Table 3 and Figure 7."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bench import colour
from bench.contract import Batch, Family, PreprocessingName, Pretext, Trunk
from bench.models.modes import random_inference


class Colorization(Pretext):
    """A generator, trunk and output layer, from lightness to the two colour channels in [-1, 1]."""

    family: ClassVar[Family] = "colorization"
    targets: ClassVar[tuple[str, ...]] = ("chroma",)
    preprocessing: ClassVar[tuple[PreprocessingName, ...]] = ("l", "rgb")  # half of an l+ab trunk would see grey alone

    def __init__(self, recipe: Any, trunk: Trunk) -> None:
        super().__init__(recipe, trunk)
        self.output = self.make_output()

    def make_output(self) -> nn.Module:
        """Return a new output layer on the trunk's last decoder activation: two channels of the image's size."""
        return self.trunk.output(2)

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return `lightness` (N, 1, H, W) and the true `chroma` (N, 2, H, W), both in about [-1, 1]."""
        lightness, chroma = colour.split_lab(images)
        return {"lightness": lightness, "chroma": chroma}

    def generate(self, lightness: Tensor) -> Tensor:
        """Return the generator's chroma (N, 2, H, W) in [-1, 1] for lightness (N, 1, H, W)."""
        return torch.tanh(self.output(self.trunk(self.trunk.preprocessing.grey(lightness))))

    def answering(self, generator: torch.Generator) -> AbstractContextManager[None]:
        """Return the mode in which it colours: with dropout on, as in the paper."""
        return random_inference(self, self.recipe.statistics, generator)

    def colorize(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return images uint8 (N, 3, H, W) of their own lightness and the generator's colours."""
        lightness, _ = colour.split_lab(images)
        with self.answering(generator):
            return colour.join_lab(lightness, self.generate(lightness))

    def evaluate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return PSNR and SSIM in sRGB against the true image, as in Table 3, and the colourfulness of result and truth."""
        return self._scores(self.colorize(images, generator), images)

    @staticmethod
    def _scores(answers: Tensor, images: Tensor) -> dict[str, Tensor]:
        return {
            "psnr": colour.psnr(answers, images),
            "ssim": colour.ssim(answers, images),
            "colourfulness": colour.colourfulness(answers),
            "colourfulness_truth": colour.colourfulness(images),
        }

    def flat_colours(self, training_images: Tensor) -> dict[str, Tensor]:
        """Return the answers without learning, each one chroma (1, 2, 1, 1) for all pixels: grey, the training images' mean."""
        mean = colour.split_lab(training_images)[1].mean(dim=(0, 2, 3), keepdim=True)
        return {"grey image": torch.zeros_like(mean), "mean colour": mean}

    def baselines(self, images: Tensor, training_images: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return the scores, as in `evaluate`, of the images' lightness with each of the `flat_colours`."""
        lightness, chroma = colour.split_lab(images)
        answers = self.flat_colours(training_images).items()
        return {name: self._scores(colour.join_lab(lightness, flat.expand_as(chroma)), images) for name, flat in answers}

    def visualize(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the grey image, the learned colours and the truth, as in Figure 7."""
        lightness, chroma = colour.split_lab(images)
        return {
            "grey": colour.join_lab(lightness, torch.zeros_like(chroma)),
            "learned": self.colorize(images, generator),
            "truth": images,
        }
