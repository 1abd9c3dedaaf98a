"""Trunks: the network that a pretext task trains and a downstream task inherits.

A trunk has its own preprocessing of sRGB images: lightness (`l`, as in the paper) or colour (`rgb`). The preprocessing is part of
the trunk's name and is inherited with its weights. A trunk declares the channels of its bottleneck and of its last decoder
activation, and the stride that image sizes must be multiples of.

    unet                               depth from the image's size, width 64, lightness: the paper's at 256 px
    unet:depth=6,width=32              for smaller images
    timm:resnet18,preprocessing=rgb    any timm encoder with a feature pyramid, with a U-Net decoder on it
"""

from __future__ import annotations

import difflib
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from bench.contract import PreprocessingName, Trunk
from bench.errors import UsageError, out_of_memory, unknown
from bench.schema import Schema
from bench.text import quoted

M = TypeVar("M", bound=nn.Module)
LEAST_DEPTH, MOST_DEPTH = 3, 12
"""How often a U-Net may halve the size."""


class UNet(Trunk):
    """The paper's generator without its output layer (Isola et al. 2017, https://arxiv.org/abs/1611.07004).

    `depth` convolutions 4x4 of stride 2, so an image of side 2^depth pixels ends as 1x1; channels grow from `width` to
    8 x `width`. Dropout 0.5 in the decoder's first three blocks. At depth 8 and width 64, with a two-channel output layer, the
    network has the paper's 54.4 million parameters.
    """

    def __init__(self, depth: int, width: int, preprocessing: PreprocessingName) -> None:
        super().__init__(preprocessing)
        sizes = [width * min(2**level, 8) for level in range(depth)]
        self.bottleneck_channels, self.channels, self.stride = sizes[-1], 2 * sizes[0], 2**depth
        self.down: nn.ModuleList = nn.ModuleList()
        for level, (before, after) in enumerate(zip([self.preprocessing.channels, *sizes], sizes, strict=False)):
            first, last = level == 0, level == depth - 1
            self.down.append(
                nn.Sequential(
                    nn.Conv2d(before, after, 4, stride=2, padding=1),
                    nn.Identity() if first or last else nn.BatchNorm2d(after),
                    nn.ReLU() if last else nn.LeakyReLU(0.2),
                )
            )
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
        features = []
        for block in self.down:
            inputs = block(inputs)
            features.append(inputs)
        return features

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return (N, 2 width, H/2, W/2): the last block's output concatenated with the first skip, after ReLU."""
        *skips, x = features
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = functional.relu(torch.cat([block(x), skip], dim=1))
        return x

    def output(self, channels: int) -> nn.Module:
        """Return the paper's output layer, a transposed 4x4 convolution of stride 2, without its activation."""
        return initialise(nn.ConvTranspose2d(self.channels, channels, 4, stride=2, padding=1))


class TimmTrunk(Trunk):
    """A timm encoder, randomly initialised, with a U-Net decoder on its feature pyramid.

    Each decoder block doubles the size, joins the encoder's feature and applies two 3x3 convolutions with batch norm
    (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597).
    """

    def __init__(self, name: str, preprocessing: PreprocessingName) -> None:
        super().__init__(preprocessing)
        import timm

        if ":" in name:  # timm would ask the network for it, or a folder
            raise unknown("timm encoder", name, timm.list_models())
        try:
            down = timm.create_model(name, features_only=True, pretrained=False, in_chans=self.preprocessing.channels)
        except Exception as error:  # what an encoder raises that has no feature pyramid, or not for these channels, is up to it
            if out_of_memory(error):
                raise
            known, plain = timm.list_models(), name.partition(".")[0]
            raise (UsageError(_refused(name, error)) if plain in known else unknown("timm encoder", name, known)) from error
        strides, sizes = down.feature_info.reduction(), down.feature_info.channels()
        if any(after != 2 * before for before, after in pairwise(strides)):
            raise UsageError(f"{name} has features of strides {strides}; a decoder needs each twice the one before.")
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
        """Return the encoder's feature pyramid, finest first, each feature at twice the stride of the one before."""
        features = list(self.down(inputs))
        return [x.permute(0, 3, 1, 2).contiguous() for x in features] if self.channels_last else features

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return (N, channels, H/s, W/s) at the stride s of the finest feature."""
        *skips, x = features
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2, mode="nearest"), skip], dim=1))
        return x

    def output(self, channels: int) -> nn.Module:
        """Return a 3x3 convolution with bilinear upsampling to the image's size."""
        return nn.Sequential(
            initialise(nn.Conv2d(self.channels, channels, 3, padding=1)),
            nn.Upsample(scale_factor=self.finest, mode="bilinear"),
        )


def _convolution(before: int, after: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)


class TrunkName(Schema):
    """A parsed trunk name: `family[:option=value,...]`."""

    family: Literal["unet", "timm"]
    encoder: str = ""
    depth: int = Field(default=0, ge=0, le=MOST_DEPTH)
    """0: as many as the image's size allows (`fitted`)."""
    width: int = Field(default=64, ge=1, le=1024)
    preprocessing: PreprocessingName = "l"

    @classmethod
    def parse(cls, text: str) -> TrunkName:
        """Parse a text such as `unet`, `unet:depth=6,width=32` or `timm:resnet18,preprocessing=rgb`; UsageError for others."""
        family, _, rest = text.strip().partition(":" if ":" in text else ",")
        if family not in ("unet", "timm"):
            raise _unknown(family)
        options: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in rest.split(","))):
            name, equals, value = part.partition("=")
            if family == "timm" and not equals and "encoder" not in options:
                options["encoder"] = name
            elif equals and name in ({"preprocessing"} | ({"depth", "width"} if family == "unet" else set())):
                options[name] = value
            else:
                raise UsageError(
                    f"trunk {quoted(text)}: cannot read {quoted(part)}; write unet:depth=6,width=32 or timm:resnet18."
                )
        if family == "timm" and not options.get("encoder"):
            raise UsageError("trunk 'timm' needs an encoder, for example timm:resnet18.")
        parsed = cls(family=cast(Literal["unet", "timm"], family)).with_changes(options, f"trunk {quoted(text)}")
        if "depth" in options and parsed.depth < LEAST_DEPTH:
            raise UsageError(
                f"trunk {quoted(text)}: depth takes {LEAST_DEPTH} to {MOST_DEPTH}, but got {parsed.depth}; leave it out, and it "
                "follows from the size."
            )
        return parsed

    def fitted(self, size: int) -> TrunkName:
        """Return the name with its depth filled in for images of `size` pixels; UsageError when the size does not fit.

        A U-Net without a depth halves the size as often as it can, at most 8 times: a power of two up to 256 ends as 1x1.
        """
        if self.family == "timm":
            return self
        twos = (size & -size).bit_length() - 1
        depth = self.depth or min(twos, 8)
        if depth < LEAST_DEPTH or size % 2**depth or size < 2**depth:
            least = max(depth, LEAST_DEPTH)
            step = 2**least
            fits = ", ".join(str(step * factor) for factor in (1, 2, 3, 4))
            raise UsageError(f"a U-Net of depth {least} takes sizes that are multiples of {step} ({fits}, ...), but got {size}.")
        return self.model_copy(update={"depth": depth})

    def __str__(self) -> str:
        """Return the canonical name."""
        preprocessing = "" if self.preprocessing == "l" else f",preprocessing={self.preprocessing}"
        if self.family == "timm":
            return f"timm:{self.encoder}{preprocessing}"
        return f"unet:depth={self.depth},width={self.width}{preprocessing}"


def _unknown(family: str) -> UsageError:
    """Return the error for a trunk of no known family; an encoder of timm without its prefix is recognised."""
    import timm

    name = family.partition(",")[0].strip()
    near = [name] if timm.is_model(name) else difflib.get_close_matches(name, timm.list_models(), n=1, cutoff=0.75)
    if near:
        return UsageError(f"unknown trunk {quoted(name)}; did you mean 'timm:{near[0]}'? An encoder of timm has this prefix.")
    return unknown("trunk", family, ["unet", "timm:ENCODER"])


def inherit_encoder(heir: Trunk, trained: Trunk) -> Trunk:
    """Copy the encoder's weights of a trained trunk into `heir`, a new trunk, and return `heir`."""
    heir.down.load_state_dict(trained.down.state_dict())
    return heir


def make_trunk(name: str) -> Trunk:
    """Return the trunk of a canonical name, with new weights from torch's current random state."""
    parsed = TrunkName.parse(name)
    if parsed.family == "timm":
        return TimmTrunk(parsed.encoder, parsed.preprocessing)
    if not parsed.depth:
        raise UsageError(f"trunk {name!r} has no depth; write for example unet:depth=8,width=64.")
    return UNet(parsed.depth, parsed.width, parsed.preprocessing)


@lru_cache(maxsize=64)
def check_size(name: str, size: int) -> None:
    """Raise UsageError when images of `size` x `size` do not fit the trunk of a canonical name."""
    parsed = TrunkName.parse(name)
    if parsed.family == "unet":
        _check_stride(name, 2**parsed.depth, size)
        return
    with torch.device("meta"):  # shapes alone: a large network is made and called in an instant
        trunk = make_trunk(name)
        _check_stride(name, trunk.stride, size)
        try:
            with torch.no_grad():
                features = trunk.eval().encode(torch.zeros(1, trunk.preprocessing.channels, size, size))
                trunk.decode(features)
        except Exception as error:  # as above
            if out_of_memory(error):
                raise
            raise UsageError(_refused(f"{name} at {size} px", error)) from error


def _refused(what: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    return f"{what} cannot be used with a U-Net decoder: {reason}."


def _check_stride(name: str, stride: int, size: int) -> None:
    if size % stride:
        fits = ", ".join(str(stride * factor) for factor in (1, 2, 3, 4))
        raise UsageError(f"{name} takes sizes that are multiples of {stride} ({fits}, ...), but got {size}.")


def initialise(module: M) -> M:
    """Draw every convolution and linear weight from N(0, 0.02), set biases to zero, as the paper does; return the module."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(part.weight, 0.0, 0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module
