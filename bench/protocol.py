"""The settings of a pretext task's training (`Recipe`) and of a downstream task (`Protocol`)."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from bench.schema import Schema

Schedule = Literal["one-phase", "two-phase", "frozen"]
"""one-phase trains trunk and head at once; two-phase the head on a frozen trunk, then both; frozen trains the head alone."""
Transfer = Literal["all", "encoder"]
"""What a downstream task inherits: the whole trunk, or its encoder with a new decoder."""
Family = Literal["colorization", "classic", "contrastive", "distillation", "masked", "control", "other"]
"""What kind of pretext task one is; `--pretext FAMILY` names all of a kind."""
Trains = Literal["all", "encoder", "decoder", "nothing"]
"""What a pretext task trains of the trunk."""
Annotations = Literal["labels", "masks", "boxes"]
"""What a downstream task reads of an image beside its pixels."""
Augmentation = Literal["none", "flip", "crop"]
"""Random changes to the images of pretraining (`bench.views.augmentation`)."""
Train = Literal["head", "all"]
"""What a phase trains: the head on a frozen trunk, or everything."""
SearchSeeds = Literal["first", "each"]
"""Which seeds of a row have a search for learning rates of their own: the `first`, whose rates all take, or `each`."""
Calibration = Literal["new", "all"]
"""Which batch norms get statistics measured on the training images before the first phase: `new` are those that no training
batch went through, `all` includes the inherited ones."""
Statistics = Literal["running", "batch"]
"""What batch norm normalises with at inference: its running statistics, or those of the batch."""
Rates = dict[Train, tuple[float, float]]
"""Ranges (low, high) of the learning rates that a search may try, by what a phase trains."""


OptimizerName = Literal["adam", "adamw", "sgd", "lars"]
"""Adam, AdamW and SGD with momentum are torch's; LARS (You et al. 2017, https://arxiv.org/abs/1708.03888) is timm's."""
RateSchedule = Literal["constant", "cosine", "step"]
"""How the learning rate goes on after the warm-up: as it is, to 0 by half a cosine, or down by a factor at some steps."""
RateScaling = Literal["none", "linear", "sqrt"]
"""How the learning rate grows with the batch size: not, by batch size / 256, or by its square root."""


class Optimization(Schema):
    """How weights are updated, in pretraining and in fine-tuning alike. A learning rate is the schedule's base rate."""

    optimizer: OptimizerName = "adam"  # the paper's text, section 4.1
    beta2: float = Field(default=0.999, ge=0, lt=1)  # Adam's and AdamW's; torch's default, as Keras's in the released code
    momentum: float = Field(default=0.9, ge=0, lt=1)  # SGD's and LARS's; usual practice
    weight_decay: float = Field(default=0.0, ge=0)  # none in the paper; never on biases and the weights of norms
    lr_schedule: RateSchedule = "constant"  # the released code
    lr_drops: tuple[float, ...] = (0.5, 0.75)  # `step`: the shares of training after which the rate falls; usual practice
    lr_drop_factor: float = Field(default=0.1, gt=0, lt=1)  # `step`: what the rate is multiplied by at a drop; usual practice
    warmup_epochs: float = Field(default=0.0, ge=0)  # the rate rises in equal steps to its base; none in the paper
    lr_scaling: RateScaling = "none"  # none in the paper; linear is Goyal et al. 2017, https://arxiv.org/abs/1706.02677
    clip: float | None = Field(default=None, gt=0)  # the most that the norm of an optimizer's gradients may be; not in the paper
    accumulate: int = Field(default=1, ge=1)  # parts of a batch that are computed one after another; not in the paper

    @model_validator(mode="after")
    def _is_a_schedule(self) -> Self:
        if list(self.lr_drops) != sorted(set(self.lr_drops)) or not all(0 < share < 1 for share in self.lr_drops):
            raise ValueError("lr_drops must be shares between 0 and 1 in ascending order")
        return self


class Recipe(Optimization):
    """How a pretext task trains. Defaults are from the paper (Sensors 2022, 22, 1599, section 4.1); each names its source.

    With `accumulate` a step is the same as without, but for batch norm, which sees a part of a batch at a time, for dropout and
    random masks, and for losses that compare the images of a batch, as a contrastive loss, which has only its part's negatives,
    or that leave some out, as that of `class_color`, a mean over the coloured images of a part. What a task does after a step, as
    `moco` with its queue and `dino` with its centre, it does with the first part alone.
    """

    epochs: int = Field(default=20, ge=0)  # the paper's text
    images: int | None = Field(default=None, ge=2)  # of the training images, as many; None: all, as in the paper
    augmentation: Augmentation = "none"  # random changes to training images, before the task's own; none in the paper
    batch_size: int = Field(default=32, ge=2)  # the paper's text; images in an update of the weights
    lr: float = Field(default=2e-3, gt=0)  # the paper's text
    beta1: float = Field(default=0.5, ge=0, lt=1)  # Adam's and AdamW's; the released code; the paper's text names Adam only
    statistics: Statistics = "running"  # usual practice; the released code uses the batch's, the paper's text does not say
    visualize_epochs: tuple[int, ...] = (1, 5, 15, 20)  # epochs after which example images are kept, as in Figure 7
    evaluation_images: int = Field(default=4000, ge=1)  # the paper's text: 4,000 test images


class Phase(Schema):
    """One stretch of a schedule: what is trained, for how many epochs, and how fast."""

    train: Train
    epochs: int = Field(ge=0)
    lr: float = Field(gt=0)


class Protocol(Optimization):
    """How a downstream task is trained and scored. Two rows stand in one column only when all of it is equal.

    The settings of `Optimization` hold in each of a schedule's phases, and a rate falls to its end in each of them.
    """

    told_only: ClassVar[frozenset[str]] = frozenset({"summary"})

    summary: str
    size: int | None = Field(default=None, ge=8)  # side of the images in pixels; None: that of pretraining
    trunk: str = "unet"  # where --trunk names none
    split_scheme: str  # a name from bench.data.splits
    fit: tuple[str, ...] = ("train",)  # the splits that are trained on before the test split is scored
    masks: str = "SegmentationClass"  # the folder of the masks
    resize: Literal["squash", "letterbox", "crop"]  # squash changes proportions, letterbox pads, crop cuts
    interpolation: Literal["bilinear", "nearest"] = "bilinear"  # of the resize
    augmentation: Literal["none", "crop", "flip", "scale"] = "none"  # random changes to training images
    batch_size: int = Field(ge=2)  # images a step
    schedules: dict[Schedule, tuple[Phase, ...]]
    epochs: int | None = Field(default=None, ge=1)  # in all, spread over a schedule's phases in proportion; None: the phases' own
    void: Literal["ignore", "background"] = "ignore"  # what void pixels count as
    difficult: Literal["positive", "ignore"] = "positive"  # what objects marked difficult count as
    statistics: Statistics = "running"
    calibration: Calibration = "new"
    evaluate_one_by_one: bool = False  # score in batches of one image
    evaluate_on: Literal["input", "whole"] = "input"  # the network's input, or whole images in tiles of its size
    beta1: float = Field(default=0.9, ge=0, lt=1)  # Adam's and AdamW's; torch's default, as Keras's in the released code
    head_width: int = Field(default=4096, ge=0)  # 0: one linear layer
    pyramid_width: int = Field(default=256, ge=1)  # detection: channels of each level of the feature pyramid; torchvision's
    anchor_scale: float = Field(default=8.0, gt=0)  # detection: the side of a level's anchors in its strides; torchvision's
    proposals: int = Field(default=512, ge=1)  # detection: regions of an image that train the box head, half of those scored
    most_steps: int | None = Field(default=None, ge=1)  # the most training steps of all phases together; None: the epochs' own
    pool: Literal["flatten", "average"] = "flatten"  # how the bottleneck becomes a vector
    metrics: tuple[str, ...] = Field(min_length=1)  # the first is the main metric
    space: Rates = {"head": (1e-4, 1e-2), "all": (2e-5, 5e-3)}

    @model_validator(mode="after")
    def _fits_together(self) -> Protocol:
        if not self.fit or not set(self.fit) <= {"train", "val"}:
            raise ValueError("fit must name train, val or both: the test split is never trained on")
        if self.split_scheme == "pretraining":
            raise ValueError("the split scheme must be one of labelled images, official or paper-70-20-10")
        if self.resize == "crop" and self.augmentation not in ("crop", "scale"):
            raise ValueError("resize crop needs augmentation crop or scale, which cut the images to size")
        if self.evaluate_on == "whole" and self.resize != "crop":
            raise ValueError("evaluate_on whole needs resize crop, which alone keeps whole images")
        return self
