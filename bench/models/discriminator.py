"""The PatchGAN discriminator of the adversarial pretext tasks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from bench.errors import UsageError
from bench.models.trunk import initialise


class PatchDiscriminator(nn.Module):
    """PatchGAN: one logit for each 70x70 patch of the image (Isola et al. 2017), as in the paper's text.

    4x4 convolutions, three of stride 2 and two of stride 1, with `width` to 8 x `width` channels, batch norm in the middle ones
    and LeakyReLU 0.2. With `code=True` four have stride 2, as in the authors' released code (16x16 logits at 256 px).
    Takes (N, channels, H, W) and returns logits (N, 1, h, w).

    `norm` is `batch`, `spectral` (every convolution divided by its largest singular value, Miyato et al. 2018,
    https://arxiv.org/abs/1802.05957, in place of batch norm) or `none`, which a penalty on each image's gradient needs.
    """

    def __init__(self, channels: int, width: int = 64, code: bool = False, norm: str = "batch") -> None:
        super().__init__()
        self.smallest = 16 if code else 24
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        strides: Sequence[int] = (2, 2, 2, 1) if code else (2, 2, 1)
        before = width
        for place, stride in enumerate(strides, start=1):
            after = width * min(2**place, 8)
            layers += [
                nn.Conv2d(before, after, 4, stride=stride, padding=1 if not code or stride == 2 else "same"),
                *([nn.BatchNorm2d(after)] if norm == "batch" else []),
                nn.LeakyReLU(0.2),
            ]
            before = after
        layers.append(nn.Conv2d(before, 1, 4, padding="same" if code else 1))
        self.layers = nn.Sequential(*layers)
        initialise(self)
        if norm == "spectral":
            for layer in filter(lambda layer: isinstance(layer, nn.Conv2d), self.layers):
                spectral_norm(layer)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, 1, h, w): large where a patch looks real."""
        return self.features(images)[-1]

    def features(self, images: Tensor) -> list[Tensor]:
        """Return what follows each activation function, (N, C, h, w) with h and w falling, and at last the logits."""
        if min(images.shape[2:]) < self.smallest:
            raise UsageError(
                f"the discriminator takes images of at least {self.smallest} px, but got {min(images.shape[2:])}; "
                "choose a larger --size."
            )
        found = []
        for layer in self.layers:
            images = layer(images)
            if isinstance(layer, nn.LeakyReLU):
                found.append(images)
        return [*found, images]
