"""Trunks whose encoder is timm's: a U-Net decoder on a feature pyramid, a light pyramid decoder on a plain vision transformer.

An encoder is made without the layers behind its features, and with random weights; `bench.models.weights` loads others. What an
encoder needs to know of the image's size (`img_size`: position embeddings, windows) is in the trunk's name.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.contract import PreprocessingName, Trunk
from bench.errors import UsageError, out_of_memory, unknown
from bench.models.unet import initialise

PYRAMID = 128
"""The channels of the pyramid decoder."""


@dataclass(frozen=True)
class Encoder:
    """What is known of a timm encoder before it is made."""

    strides: tuple[int, ...]
    takes_size: bool
    """Whether it is made for a size of images, `img_size`."""
    dynamic: bool
    """Whether it also takes images of other sizes than `img_size`, by resizing its position embeddings."""
    native: int
    """The size of images that timm's weights of this architecture were made for."""

    @property
    def plain(self) -> bool:
        """Whether all features have one stride, as in a plain vision transformer."""
        return len(set(self.strides)) == 1


@lru_cache(maxsize=256)
def encoder_of(name: str) -> Encoder:
    """Return the facts of a timm encoder; UsageError when there is none of this name, or when it gives no features."""
    import timm

    if ":" in name:  # timm would ask the network for it, or a folder
        raise unknown("timm encoder", name, timm.list_models())
    architecture, dot, _ = name.partition(".")
    if dot and timm.is_model(architecture):
        raise UsageError(
            f"a trunk's name has no weights, so {name!r} would be random; give --trunk timm:{architecture}, and the weights as a "
            f"row of their own by --init LABEL=timm:{name}."
        )
    if not timm.is_model(name):
        raise unknown("timm encoder", name, timm.list_models())
    try:
        with torch.device("meta"):
            made = timm.create_model(name, features_only=True)
            model = timm.create_model(name)
    except Exception as error:  # what an encoder raises that gives no features is up to it
        if out_of_memory(error):
            raise
        raise UsageError(refused(f"timm:{name}", error)) from error
    options = inspect.signature(type(model).__init__).parameters
    native = (getattr(model, "pretrained_cfg", None) or {}).get("input_size") or (3, 224, 224)
    return Encoder(tuple(made.feature_info.reduction()), "img_size" in options, "dynamic_img_size" in options, native[-1])


def refused(what: str, error: Exception) -> str:
    """Return the sentence for a trunk that cannot be made or run, with the reason that timm or torch gives."""
    reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    return f"{what} cannot be used as a trunk: {reason}."


def make_encoder(name: str, in_chans: int, img_size: int) -> Any:
    """Return timm's encoder of a name, with random weights, for images of `img_size` px (0: the encoder's own size).

    That of a feature pyramid is what timm makes with `features_only`. That of a plain vision transformer is the whole network but
    its classifier. UsageError when it cannot be made.
    """
    import timm

    facts = encoder_of(name)
    options: dict[str, Any] = {"in_chans": in_chans}
    if facts.takes_size and img_size:
        options["img_size"] = img_size
    if facts.dynamic:
        options["dynamic_img_size"] = True
    try:
        if not facts.plain:
            return timm.create_model(name, features_only=True, **options)
        return timm.create_model(name, num_classes=0, **options)
    except Exception as error:  # as above; not for these channels or this size
        if out_of_memory(error):
            raise
        raise UsageError(refused(f"timm:{name}", error)) from error


def make_timm_trunk(name: str, preprocessing: PreprocessingName, img_size: int = 0) -> Trunk:
    """Return the trunk on a timm encoder: with the light pyramid decoder where all features have one stride, else a U-Net's."""
    return (PlainTrunk if encoder_of(name).plain else TimmTrunk)(name, preprocessing, img_size)


class TimmTrunk(Trunk):
    """A timm encoder, randomly initialised, with a U-Net decoder on its feature pyramid.

    Each decoder block enlarges to the size of the encoder's finer feature, joins that feature and applies two 3x3 convolutions
    with batch norm (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597).
    """

    def __init__(self, name: str, preprocessing: PreprocessingName, img_size: int = 0) -> None:
        super().__init__(preprocessing)
        down = make_encoder(name, self.preprocessing.channels, img_size)
        strides, sizes = down.feature_info.reduction(), down.feature_info.channels()
        if any(after < before for before, after in pairwise(strides)):
            raise UsageError(f"{name} has features of strides {strides}; a decoder needs each at least the one before.")
        self.down = down
        self.channels_last = str(getattr(down, "output_fmt", "")).endswith("NHWC")
        """Whether the encoder returns (N, H, W, C), as Swin does."""
        self.bottleneck_channels, self.stride, self.finest = sizes[-1], strides[-1], strides[0]
        self.up: nn.ModuleList = nn.ModuleList()
        for before, skip in zip(reversed(sizes), list(reversed(sizes))[1:], strict=False):
            self.up.append(nn.Sequential(*_convolution(before + skip, skip), *_convolution(skip, skip)))
        self.channels = sizes[0]
        initialise(self.up)

    def encode(self, inputs: Tensor) -> list[Tensor]:
        """Return the encoder's feature pyramid, finest first."""
        features = list(self.down(inputs))
        return [x.permute(0, 3, 1, 2).contiguous() for x in features] if self.channels_last else features

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return (N, channels, H/s, W/s) at the stride s of the finest feature."""
        *skips, x = features
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(torch.cat([functional.interpolate(x, size=skip.shape[-2:], mode="nearest"), skip], dim=1))
        return x

    def output(self, channels: int) -> nn.Module:
        """Return a 3x3 convolution with bilinear upsampling to the image's size."""
        return _output(self.channels, channels, self.finest)


class PlainTrunk(Trunk):
    """A plain vision transformer of timm with a light pyramid decoder.

    The patch tokens, at the stride of the patches, are the one feature. As in Li et al. 2022 (https://arxiv.org/abs/2203.16527)
    a pyramid is made of them by transposed convolutions: at their stride, half of it, and a quarter. The levels are projected to
    `PYRAMID` channels, enlarged to the finest and added, as in Kirillov et al. 2019 (https://arxiv.org/abs/1901.02446).
    """

    def __init__(self, name: str, preprocessing: PreprocessingName, img_size: int = 0) -> None:
        super().__init__(preprocessing)
        self.down = down = make_encoder(name, self.preprocessing.channels, img_size)
        width, stride = down.num_features, encoder_of(name).strides[-1]
        self.bottleneck_channels, self.stride, self.finest = width, stride, stride / 4
        self.channels = PYRAMID

        def twice(before: int) -> nn.Module:
            return nn.ConvTranspose2d(before, before // 2, 2, stride=2)

        enlarged: tuple[list[nn.Module], ...] = (
            [],
            [twice(width)],
            [twice(width), _norm(width // 2), nn.GELU(), twice(width // 2)],
        )
        self.up: nn.ModuleList = nn.ModuleList()
        for times, layers in enumerate(enlarged):
            last = nn.Conv2d(PYRAMID, PYRAMID, 3, padding=1)
            self.up.append(nn.Sequential(*layers, nn.Conv2d(width // 2**times, PYRAMID, 1), _norm(PYRAMID), last, _norm(PYRAMID)))
        initialise(self.up)

    def encode(self, inputs: Tensor) -> list[Tensor]:
        """Return the patch tokens after the last norm as one feature, (N, width, H/s, W/s) at the stride s of the patches."""
        encoder: Any = self.down
        found: list[Tensor] = encoder.forward_intermediates(
            inputs, indices=[-1], norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return found

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return (N, PYRAMID, 4H/s, 4W/s) for patches of stride s."""
        *coarser, found = (level(features[-1]) for level in self.up)
        for level in coarser:
            found = found + functional.interpolate(level, size=found.shape[-2:], mode="bilinear", align_corners=False)
        return functional.gelu(found)

    def output(self, channels: int) -> nn.Module:
        """Return a 3x3 convolution with bilinear upsampling to the image's size."""
        return _output(self.channels, channels, self.finest)


def _convolution(before: int, after: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)


def _norm(channels: int) -> nn.Module:
    """Return a norm over channels and places of each image, which depends on no other image."""
    return nn.GroupNorm(1, channels)


def _output(before: int, channels: int, scale: float) -> nn.Module:
    return nn.Sequential(initialise(nn.Conv2d(before, channels, 3, padding=1)), nn.Upsample(scale_factor=scale, mode="bilinear"))
