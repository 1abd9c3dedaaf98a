"""Weights from elsewhere as a row of the table: what `--init LABEL=SOURCE` says, and what of it a row depends on.

    simclr=weights/simclr_r50.pth,normalize=imagenet,supervision=none
    dino=dino_full.pth,mean=0.485/0.456/0.406,std=0.229/0.224/0.225,part=teacher
    supervised=timm:resnet50.a1_in1k

The label names the row and is in no id; the content of the weights and their preprocessing are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from bench.errors import UsageError, unknown
from bench.schema import Schema
from bench.text import quoted

INIT = "init"
"""The name of these rows' pretext task in ids: weights from elsewhere."""
SHOWN = 10
"""The most names of tensors that are listed."""
HUBS = ("timm", "hf_hub", "hf-hub", "local-dir")
"""The beginnings of sources that timm opens, or that are folders as timm and `bench export` write them."""
Match = Literal["name", "order"]
"""How tensors are matched with those of the trunk: by name and shape, or by their order where all shapes agree."""

USUAL: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}
"""The usual means and standard deviations of colour in [0, 1], by the name that `normalize=` takes. Sources: torchvision and most
self-supervised code; Inception, TensorFlow's EfficientNets, many vision transformers; OpenAI's CLIP; none; solo-learn."""


class Weights(Schema):
    """What a row depends on of weights from elsewhere: their content, how it is taken, and the preprocessing they need."""

    sha256: str
    """Of the file; of all tensors' names and content where timm or a hub provides them."""
    preprocessing: Literal["l", "rgb", "l+ab"]
    mean: tuple[float, ...] = ()
    """Of each colour in [0, 1]; empty for lightness, which has one normalisation."""
    std: tuple[float, ...] = ()
    interpolation: str = ""
    """That of the resize in their training, "" where unknown; a row's protocol says what its images were resized by."""
    size: int = 0
    """The side of the images they were trained on, in pixels; 0 where unknown."""
    part: str = ""
    """The part of the file that the user asked for."""
    match: Match = "name"
    partial: bool = False
    """Whether they fill less than 99 % of the encoder's parameters, or are a part of another network, which was allowed."""


class Audit(Schema):
    """How well real images fit what the encoder's batch norms expect, and how much its features differ between images."""

    images: int
    data: str
    first_shift: float | None = None
    """At the first batch norm, how far the means of nine channels in ten are off, in standard deviations; None without one."""
    first_scale: float | None = None
    """The factor, at least 1, by which the standard deviation of its median channel is off."""
    layer: str = ""
    """The batch norm whose inputs are farthest off."""
    shift: float | None = None
    scale: float | None = None
    """The same for that batch norm: both for its median channel."""
    cosine: float | None = None
    """The median cosine between the last features of two images, averaged over places."""
    problem: str = ""
    """What is wrong, "" where nothing is."""


class Origin(Schema):
    """Where weights came from and which of them were loaded, as a record says it; only the first of long lists of names."""

    label: str
    source: str
    supervision: str = "unknown"
    """Which labels were used anywhere in their training: none, a text, or unknown."""
    brings: Literal["encoder", "all"] = "encoder"
    naming: str = ""
    part: str = ""
    loaded: int
    wanted: int
    share: float
    """The share of the encoder's parameters that was loaded."""
    missing: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    audit: Audit | None = None


def as_text(origin: Origin, weights: Weights) -> str:
    """Return the text for `--init` that opens the same weights with the same preprocessing.

    >>> origin = Origin(label="mine", source="a.pth", supervision="none", loaded=1, wanted=1, share=1.0)
    >>> as_text(origin, Weights(sha256="0", preprocessing="rgb", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)))
    'mine=a.pth,mean=0.5/0.5/0.5,std=0.25/0.25/0.25,supervision=none'
    """

    def numbers(values: tuple[float, ...]) -> str:
        return "/".join(f"{value!r}" for value in values)

    said = {"mean": numbers(weights.mean), "std": numbers(weights.std), "interpolation": weights.interpolation}
    said |= {"size": str(weights.size or ""), "part": weights.part, "supervision": origin.supervision}
    options = "".join(f",{name}={value}" for name, value in said.items() if value)
    return f"{origin.label}={origin.source}{options}"


class Init(Schema):
    """A parsed `--init`: label, source, and what the user says of the weights."""

    label: str
    source: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    interpolation: str = ""
    size: int = Field(default=0, ge=0)
    part: str = ""
    supervision: str = ""

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _numbers(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        found = tuple(float(part) for part in value.split("/"))
        return found * 3 if len(found) == 1 else found

    @field_validator("mean", "std")
    @classmethod
    def _three(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if value and len(value) != 3:
            raise ValueError(f"takes one number or three, with slashes between them, but got {len(value)}")
        return value

    @classmethod
    def parse(cls, text: str) -> Init:
        """Return what a text such as `simclr=file.pth,normalize=imagenet` says; UsageError for anything else."""
        label, equals, rest = text.partition("=")
        label = label.strip()
        if not equals or not rest.strip() or not re.fullmatch(r"[\w.+-]+", label):
            raise UsageError(f"--init takes LABEL=SOURCE, for example simclr=weights/simclr_r50.pth, but got {quoted(text)}.")
        options: dict[str, str] = {}
        while True:  # options are at the end: a path may have commas
            before, comma, last = rest.rpartition(",")
            name, has_value, value = last.partition("=")
            if not (comma and has_value and re.fullmatch(r"\s*\w+\s*", name)):
                break
            options[name.strip()] = value.strip()
            rest = before
        known = [name for name in cls.model_fields if name not in ("label", "source")]
        for name in options:
            if name not in (*known, "normalize"):
                raise unknown("setting", name, [*known, "normalize"], f" of --init {label}")
        usual = options.pop("normalize", None)
        said = cls(label=label, source=rest.strip()).with_changes(options, f"--init {label}")
        if usual is not None:
            if usual not in USUAL:
                raise unknown("normalisation", usual, USUAL, f" of --init {label}")
            if said.mean or said.std:
                raise UsageError(f"--init {label}: normalize names a mean and a standard deviation; give it or the two.")
            said = said.model_copy(update={"mean": USUAL[usual][0], "std": USUAL[usual][1]})
        if bool(said.mean) != bool(said.std):
            raise UsageError(f"--init {label} takes both mean and std, or neither.")
        if said.std and min(said.std) <= 0:
            raise UsageError(f"--init {label}: a standard deviation is above 0, but got {min(said.std):g}.")
        return said

    @property
    def kind(self) -> str:
        """What the source begins with, one of HUBS; "" for a file or folder."""
        before, colon, _ = self.source.partition(":")
        return before if colon and before in HUBS else ""


def usual_ones() -> str:
    """Return the usual normalisations as text for an error message."""

    def numbers(values: tuple[float, ...]) -> str:
        return "/".join(f"{value:g}" for value in (values if len(set(values)) > 1 else values[:1]))

    return ", ".join(f"normalize={name} (mean {numbers(mean)}, std {numbers(std)})" for name, (mean, std) in USUAL.items())
