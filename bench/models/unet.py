"""The paper's U-Net, and the paper's initialisation of convolutions and linear layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.contract import PreprocessingName, Trunk

M = TypeVar("M", bound=nn.Module)


class UNet(Trunk):
    """The paper's generator without its output layer (Isola et al. 2017, https://arxiv.org/abs/1611.07004).

    `depth` convolutions 4x4 of stride 2, so an image of side 2^depth pixels ends as 1x1; channels grow from `width` to
    8 x `width`. Dropout 0.5 in the decoder's first three blocks. At depth 8 and width 64, with a two-channel output layer, the
    network has the paper's 54.4 million parameters.

    With preprocessing `l+ab` the encoder is two of half the width, one for L and one for ab, whose features are joined at each
    level and which share nothing (Zhang et al. 2017, https://arxiv.org/abs/1611.09842). The decoder is as before.
    """

    by_image: ClassVar[tuple[str, ...]] = (*Trunk.by_image, "halves")

    def __init__(self, depth: int, width: int, preprocessing: PreprocessingName) -> None:
        super().__init__(preprocessing)
        sizes = [width * min(2**level, 8) for level in range(depth)]
        self.bottleneck_channels, self.channels, self.stride = sizes[-1], 2 * sizes[0], 2**depth
        seen = (1, 2) if preprocessing == "l+ab" else (self.preprocessing.channels,)
        encoders = [_encoder(channels, [size // len(seen) for size in sizes]) for channels in seen]
        self.down: nn.ModuleList = encoders[0] if len(encoders) == 1 else nn.ModuleList(encoders)
        self.up: nn.ModuleList = nn.ModuleList()
        for place, level in enumerate(reversed(range(1, depth))):
            before = sizes[level] * (1 if place == 0 else 2)
            self.up.append(
                nn.Sequential(
                    nn.ConvTranspose2d(before, sizes[level - 1], 4, stride=2, padding=1),
                    nn.BatchNorm2d(sizes[level - 1]),
                    nn.Dropout(0.5) if place < 3 else nn.Identity(),
                )
            )
        initialise(self)

    def encode(self, inputs: Tensor) -> list[Tensor]:
        """Return `depth` features, (N, width, H/2, W/2) down to (N, 8 width, H/2^depth, W/2^depth)."""
        if self.preprocessing.name == "l+ab":
            return [torch.cat(both, dim=1) for both in zip(*self.halves(inputs), strict=True)]
        return _through(self.down, inputs)

    def halves(self, inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the features of each half of a divided encoder: of L and of ab, with half of the channels each."""
        lightness, chroma = cast("Iterable[nn.ModuleList]", self.down)
        return _through(lightness, inputs[:, :1]), _through(chroma, inputs[:, 1:])

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return (N, 2 width, H/2, W/2): the last block's output concatenated with the first skip, after ReLU."""
        return self.pyramid(features)[0]

    def pyramid(self, features: list[Tensor]) -> list[Tensor]:
        """Return the activations of the decoder's blocks, the finest, of H/2, first."""
        *skips, x = features
        found = []
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = functional.relu(torch.cat([block(x), skip], dim=1))
            found.append(x)
        return found[::-1]

    def output(self, channels: int) -> nn.Module:
        """Return the paper's output layer, a transposed 4x4 convolution of stride 2, without its activation."""
        return initialise(nn.ConvTranspose2d(self.channels, channels, 4, stride=2, padding=1))


def _encoder(before: int, sizes: Sequence[int]) -> nn.ModuleList:
    """Return the blocks of an encoder of `before` channels, one for each of the `sizes`, its numbers of channels."""
    blocks = nn.ModuleList()
    for level, after in enumerate(sizes):
        first, last = level == 0, level == len(sizes) - 1
        blocks.append(
            nn.Sequential(
                nn.Conv2d(before, after, 4, stride=2, padding=1),
                nn.Identity() if first or last else nn.BatchNorm2d(after),
                nn.ReLU() if last else nn.LeakyReLU(0.2),
            )
        )
        before = after
    return blocks


def _through(blocks: Iterable[nn.Module], inputs: Tensor) -> list[Tensor]:
    """Return what each of the blocks makes of the one's before it."""
    features = []
    for block in blocks:
        inputs = block(inputs)
        features.append(inputs)
    return features


def initialise(module: M) -> M:
    """Draw every convolution and linear weight from N(0, 0.02), set biases to zero, as the paper does; return the module."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(part.weight, 0.0, 0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module
