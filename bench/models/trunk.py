"""Trunks by name: the network that a pretext task trains and a downstream task inherits.

A trunk has its own preprocessing of sRGB images: lightness (`l`, as in the paper), colour (`rgb`), or lightness and ab for the
halves of a divided U-Net (`l+ab`). The preprocessing is part of the trunk's name and is inherited with its weights. A trunk
declares the channels of its bottleneck and of its last decoder activation, and the stride that image sizes must be multiples of.

    unet                                depth from the image's size, width 64, lightness: the paper's at 256 px
    unet:depth=6,width=32               for smaller images
    timm:resnet18,preprocessing=rgb     any timm encoder with a feature pyramid, with a U-Net decoder on it
    timm:vit_tiny_patch16_224           a plain vision transformer, with a light pyramid decoder on its patch tokens
"""

from __future__ import annotations

import difflib
from functools import lru_cache
from typing import Any, Literal, cast

import torch
from pydantic import Field

from bench.contract import PreprocessingName, Trunk
from bench.errors import UsageError, out_of_memory, unknown
from bench.models.timm_trunk import PlainTrunk, TimmTrunk, encoder_of, make_timm_trunk, refused
from bench.models.unet import UNet, initialise
from bench.schema import Schema
from bench.text import quoted

__all__ = [
    "PlainTrunk", "TimmTrunk", "TrunkName", "UNet", "check_size", "inherit_encoder", "initialise", "levels_of", "make_trunk",
    "smallest_size",
]  # fmt: skip

LEAST_DEPTH, MOST_DEPTH = 3, 12
"""How often a U-Net may halve the size."""
NEAR = 9
"""How many strides away a size is looked for that fits where another does not."""


class TrunkName(Schema):
    """A parsed trunk name: `family[:option=value,...]`."""

    family: Literal["unet", "timm"]
    encoder: str = ""
    depth: int = Field(default=0, ge=0, le=MOST_DEPTH)
    """0: as many as the image's size allows (`fitted`)."""
    width: int = Field(default=64, ge=1, le=1024)
    img_size: int = Field(default=0, ge=0, le=8192)
    """The size of images that a timm encoder with position embeddings or windows is made for; 0: its own (`fitted`)."""
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
            elif equals and name in ({"preprocessing"} | ({"depth", "width"} if family == "unet" else {"img_size"})):
                options[name] = value
            else:
                raise UsageError(
                    f"trunk {quoted(text)}: cannot read {quoted(part)}; write unet:depth=6,width=32 or timm:resnet18."
                )
        if family == "timm" and not options.get("encoder"):
            raise UsageError("trunk 'timm' needs an encoder, for example timm:resnet18.")
        parsed = cls(family=cast(Literal["unet", "timm"], family)).with_changes(options, f"trunk {quoted(text)}")
        if parsed.preprocessing == "l+ab" and (family == "timm" or parsed.width % 2):
            raise UsageError(f"trunk {quoted(text)}: preprocessing=l+ab divides the encoder of a U-Net of even width in two.")
        if "depth" in options and parsed.depth < LEAST_DEPTH:
            raise UsageError(
                f"trunk {quoted(text)}: depth takes {LEAST_DEPTH} to {MOST_DEPTH}, but got {parsed.depth}; leave it out, and it "
                "follows from the size."
            )
        return parsed

    def fitted(self, size: int) -> TrunkName:
        """Return the name with its depth or `img_size` filled in for images of `size` pixels; UsageError when it does not fit.

        A U-Net without a depth halves the size as often as it can, at most 8 times: a power of two up to 256 ends as 1x1.
        """
        if self.family == "timm":
            facts = encoder_of(self.encoder)
            if self.img_size and not facts.takes_size:
                raise UsageError(f"timm:{self.encoder} takes images of any size, so it has no img_size.")
            if not facts.takes_size or self.img_size or size == facts.native:
                return self
            return self.model_copy(update={"img_size": size})
        twos = (size & -size).bit_length() - 1
        depth = self.depth or min(twos, 8)
        if depth < LEAST_DEPTH or size % 2**depth or size < 2**depth:
            least = max(depth, LEAST_DEPTH)
            raise _does_not_fit(f"a U-Net of depth {least}", 2**least, size)
        return self.model_copy(update={"depth": depth})

    def __str__(self) -> str:
        """Return the canonical name."""
        preprocessing = "" if self.preprocessing == "l" else f",preprocessing={self.preprocessing}"
        if self.family == "timm":
            img_size = f",img_size={self.img_size}" if self.img_size else ""
            return f"timm:{self.encoder}{img_size}{preprocessing}"
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
        return make_timm_trunk(parsed.encoder, parsed.preprocessing, parsed.img_size)
    if not parsed.depth:
        raise UsageError(f"trunk {name!r} has no depth; write for example unet:depth=8,width=64.")
    return UNet(parsed.depth, parsed.width, parsed.preprocessing)


@lru_cache(maxsize=64)
def check_size(name: str, size: int) -> None:
    """Raise UsageError when images of `size` x `size` do not fit the trunk of a canonical name; it names the nearest that do."""
    parsed = TrunkName.parse(name)
    stride = 2**parsed.depth if parsed.family == "unet" else encoder_of(parsed.encoder).strides[-1]
    if size % stride:
        raise _does_not_fit(name, stride, size)
    if parsed.family == "unet":
        return
    error = _problem(name, size)
    if error is not None:
        near = [other for step in range(1, NEAR) for other in (size - step * stride, size + step * stride) if other > 0]
        near.append(encoder_of(parsed.encoder).native)
        fits = sorted({other for other in near if _problem(name, other) is None})[:2]
        hint = f" Sizes that fit: {', '.join(map(str, fits))}." if fits else ""
        raise UsageError(refused(f"{name} at {size} px", error) + hint) from error


@lru_cache(maxsize=64)
def smallest_size(name: str) -> int:
    """Return the side of the smallest square images that the trunk of a canonical name takes, in pixels."""
    parsed = TrunkName.parse(name)
    if parsed.family == "unet":
        return int(2**parsed.depth)
    facts = encoder_of(parsed.encoder)
    if facts.takes_size:  # made for one size
        return parsed.img_size or facts.native
    stride = facts.strides[-1]
    return next((size for size in range(stride, NEAR * stride, stride) if _problem(name, size) is None), facts.native)


@lru_cache(maxsize=64)
def levels_of(name: str, size: int) -> int:
    """Return how many levels the encoder of a trunk has, for images of `size` pixels; shapes alone are computed."""
    with torch.device("meta"), torch.no_grad():
        trunk = make_trunk(name)
        return len(trunk.eval().encode(torch.zeros(1, trunk.preprocessing.channels, size, size)))


def _problem(name: str, size: int) -> Exception | None:
    """Return what a timm trunk raises for images of a size, None when they fit; shapes alone are computed."""
    try:
        with torch.device("meta"), torch.no_grad():  # a large network is made and called in an instant
            trunk = make_trunk(name)
            features = trunk.eval().encode(torch.zeros(1, trunk.preprocessing.channels, size, size))
            sides = features[-1].shape[-1], trunk.output(1)(trunk.decode(features)).shape[-1]
            if sides != (size // trunk.stride, size):  # as of encoders that cut off borders
                needed = f"{size // trunk.stride} and {size} are needed"
                raise ValueError(f"its features have {sides[0]} and its outputs {sides[1]} places a side, where {needed}")
    except UsageError:
        raise
    except Exception as error:  # what an encoder raises is up to it
        if out_of_memory(error):
            raise
        return error
    return None


def _does_not_fit(what: str, stride: int, size: int) -> UsageError:
    near = [number for number in (size // stride * stride, (size // stride + 1) * stride) if number]
    fits = f"the nearest {'are' if len(near) > 1 else 'is'} {' and '.join(map(str, near))}"
    return UsageError(f"{what} takes sizes that are multiples of {stride} ({fits}), but got {size}.")
