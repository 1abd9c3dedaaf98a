"""ChromaGAN: colours by regression and an adversary, from a network that also tells what kind of image it sees.

Vitoria et al. 2020, https://arxiv.org/abs/1907.09837: reported there on ImageNet PSNR 24.98 after 5 epochs. A run here:

    bench run --pretext chroma_gan --downstream voc_seg

There an ImageNet classifier (VGG-16) gives both the network's first weights and the distribution over 1,000 classes that it is to
tell. Here the classes are clusters of the training images, by the features of the network that the row begins with, as in
DeepCluster (https://arxiv.org/abs/1807.05520). That network is random, and no label is used; `--pretext chroma_gan@LABEL` begins
with weights of `--init` instead, and their labels are the row's. A step costs two forward passes of the encoder more than one of
`cgan_color`. It should be better than the mean colour, and tell more clusters than the most frequent one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import kl_div, mse_loss

from bench import colour
from bench.contract import Batch, Pretext, Recipe, Trunk
from bench.models.discriminator import PatchDiscriminator
from bench.models.modes import frozen
from bench.models.unet import initialise
from pretexts._adversarial import Adversarial, gradient_penalty, loss_of_fakes, loss_of_generator, loss_of_real
from pretexts._clusters import Clusters
from pretexts._colorization import Colorization


class ChromaGanRecipe(Recipe):
    """Weights as in Vitoria et al. and in their units, ab with a range of 1; the rest as in the other colorization tasks."""

    adversarial_weight: float = Field(default=0.1, ge=0)  # section 3.2; at 64 px 0.015 is as strong against the squared error
    class_weight: float = Field(default=0.003, ge=0)  # section 3.2
    gradient_penalty: float = Field(default=10.0, gt=0)  # the released code
    discriminator_width: int = Field(default=64, ge=1)  # the released code
    classes: int = Field(default=100, ge=2)  # clusters of training images; 1,000 classes of ImageNet in the paper


class ChromaGan(Adversarial, Colorization):
    """Regression of ab, Wasserstein GAN with gradient penalty, and the divergence of the class distribution."""

    paper: ClassVar[str] = "Vitoria et al. 2020, https://arxiv.org/abs/1907.09837"
    targets: ClassVar[tuple[str, ...]] = ("chroma", "classes")
    Recipe = ChromaGanRecipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": {**Pretext.presets["demo"], "discriminator_width": 16, "classes": 20, "adversarial_weight": 0.015},
        "small": {**Pretext.presets["small"], "discriminator_width": 16, "adversarial_weight": 0.015},
        "paper": {"epochs": 5, "batch_size": 10, "lr": 2e-5},  # section 3.4 and the released code
    }

    def __init__(self, recipe: ChromaGanRecipe, trunk: Trunk) -> None:
        super().__init__(recipe, trunk)
        self.discriminator = PatchDiscriminator(3, recipe.discriminator_width, norm="none")
        self.classifier = initialise(nn.Linear(trunk.bottleneck_channels, recipe.classes))
        self.clusters = Clusters(trunk, recipe.classes)

    def prepare(self, batches: Iterator[Tensor]) -> None:
        """Find the clusters of the training images."""
        self.clusters.find(colour.lightness_of(images) for images in batches)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the discriminator's and the generator's, which trains the classifier too."""
        generator = self.optimizer(self.trunk, self.output, self.classifier)
        return {"discriminator": self.optimizer(self.discriminator), "generator": generator}

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return `lightness` (N, 1, H, W), the true `chroma` (N, 2, H, W), and `classes`, a distribution (N, classes)."""
        batch = super().make_batch(images, generator)
        return {**batch, "classes": self.clusters(batch["lightness"])}

    def told(self, lightness: Tensor) -> tuple[Tensor, Tensor]:
        """Return the chroma (N, 2, H, W), and the logarithms of the class distribution (N, classes)."""
        features = self.trunk.encode(self.trunk.preprocessing.grey(lightness))
        chroma = torch.tanh(self.output(self.trunk.decode(features)))
        return chroma, self.classifier(features[-1].mean(dim=(2, 3))).float().log_softmax(dim=1)

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield the discriminator's loss with its gradient penalty, then the generator's against the updated discriminator."""
        chroma, classes = self.told(batch["lightness"])
        recipe, real, fake = self.recipe, batch["chroma"] / 2, chroma / 2
        judge = partial(self.judge, batch)
        loss = loss_of_real("wgan-gp", judge(real)) + loss_of_fakes("wgan-gp", judge(fake.detach()))
        yield "discriminator", loss + recipe.gradient_penalty * gradient_penalty(judge, real, fake)

        with frozen(self.discriminator):
            fooled = loss_of_generator("wgan-gp", judge(fake))
        divergence = kl_div(classes, batch["classes"], reduction="batchmean")
        yield "generator", mse_loss(fake, real) + recipe.adversarial_weight * fooled + recipe.class_weight * divergence

    def judge(self, batch: Batch, chroma: Tensor) -> Tensor:
        """Return the discriminator's logits (N, 1, h, w) for half of the chroma (N, 2, H, W) with the batch's lightness."""
        logits: Tensor = self.discriminator(torch.cat([batch["lightness"], chroma], dim=1))
        return logits

    def evaluate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the scores of all colorization tasks, and how often the most probable cluster is right."""
        lightness = colour.lightness_of(images)
        with self.answering(generator):
            found = self.told(lightness)[1].argmax(dim=1)
        right = (found == self.clusters(lightness).argmax(dim=1)).double()
        return {**super().evaluate(images, generator), "accuracy": right}

    def baselines(self, images: Tensor, training_images: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return the scores of one colour, and the accuracy of the training images' most frequent cluster."""
        true, known = (self.clusters(colour.lightness_of(some)).argmax(dim=1) for some in (images, training_images))
        usual = {"accuracy": (true == known.mode().values).double()}
        return {**super().baselines(images, training_images), "most frequent cluster": usual}
