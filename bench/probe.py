"""Probes: evaluations of a frozen trunk's features, beside the schedules that fine-tune it. Here are their settings.

A probe's choices (level, k, penalty, rate) are made on the validation split or by cross-validation on the training images, never
on the test split; what choosing there would have reported is kept beside the result and is never the result.
"""

from __future__ import annotations

import inspect
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field

from bench.errors import UsageError, unknown
from bench.schema import Schema

Evaluation = Literal["finetune", "knn", "linear", "svm", "lowshot", "dense-linear", "dense-knn"]
"""What `--evaluate` takes; finetune is the protocol's schedules, and the others are probes."""
Level = Annotated[int | None, Field(ge=1)]
"""The encoder level whose features are probed, counted from 1, the finest; None: chosen with the other settings."""
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def _several(value: Any) -> Any:
    return tuple(dict.fromkeys(value)) if isinstance(value, list | tuple) else (value,)


Counts = Annotated[tuple[Count, ...], BeforeValidator(_several), Field(min_length=1)]
Positives = Annotated[tuple[Positive, ...], BeforeValidator(_several), Field(min_length=1)]


class Probe(Schema):
    """What all probes have: a name, the data that they are for, and how their settings are chosen."""

    title: ClassVar[str]
    """What a column's title says of it."""
    needs: ClassVar[Literal["labels", "masks"]]
    by: ClassVar[str] = "the validation split"
    """What its settings are chosen on."""
    validates: ClassVar[bool] = True
    """Whether it chooses on the validation split."""
    varies: ClassVar[bool] = False
    """Whether a seed changes more than the trunk: places, samples, an order of images or initial weights are drawn."""


class Knn(Probe):
    """Weighted votes of the nearest training images by cosine similarity of their features at one encoder level.

    A neighbour's vote weighs exp(similarity / temperature). The score of a class is the weight of the neighbours that show it
    over the weight of those for which it is judged: one in which all its objects are difficult does not vote. k and the level
    are chosen on the validation split; then train and val vote together. Source: Wu et al. 2018, arXiv:1805.01978, section 3.4;
    k as in DINO's eval_knn.py.
    """

    kind: Literal["knn"]
    title: ClassVar[str] = "kNN"
    needs: ClassVar[Literal["labels", "masks"]] = "labels"
    k: Counts = (5, 10, 20, 50, 100, 200)
    temperature: float = Field(default=0.07, gt=0)  # Wu et al. 2018
    level: Level = None


class Linear(Probe):
    """L2-regularised logistic regression of each class on standardised features of one encoder level, by L-BFGS.

    It minimises sum_i log(1 + exp(-y_i (w x_i + b))) + penalty |w|^2 / 2, as scikit-learn's LogisticRegression with C = 1 /
    penalty. One penalty serves all classes. Penalty and level are chosen on the validation split, and the regression is fitted
    again to train and val.
    """

    kind: Literal["linear"]
    title: ClassVar[str] = "linear"
    needs: ClassVar[Literal["labels", "masks"]] = "labels"
    penalties: Positives = tuple(10.0 ** (power / 2) for power in range(11))
    level: Level = None


class LinearSgd(Probe):
    """Linear heads on standardised features, trained by SGD at many learning rates at once; the best on validation is kept.

    DINOv2's protocol: 13 rates, scaled by batch size / 256; the last encoder level or the last four together, averaged over
    places; 10 epochs, momentum 0.9, no weight decay, a cosine schedule. The loss is binary cross-entropy, summed over classes.
    The head that is best on the validation split is trained again on train and val. Source: facebookresearch/dinov2,
    dinov2/eval/linear.py.
    """

    kind: Literal["linear-sgd"]
    title: ClassVar[str] = "linear by SGD"
    varies: ClassVar[bool] = True
    needs: ClassVar[Literal["labels", "masks"]] = "labels"
    rates: Positives = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
    layers: Counts = (1, 4)  # how many of the last levels, side by side
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=128, ge=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    level: Level = None  # instead of `layers`


class Svm(Probe):
    """VISSL's VOC07 protocol: a linear SVM for each class on features of length 1, its cost by 3-fold cross-validation.

    Squared hinge, L2 penalty, positives weigh twice, a cost of its own for each class by average precision, fitted to train and
    val by scikit-learn's LinearSVC. The encoder level, which VISSL does not choose, is the one whose SVMs of cost 1, fitted to
    the training split, are best on the validation split. Source: facebookresearch/vissl, vissl/utils/svm_utils/svm_trainer.py.
    """

    kind: Literal["svm"]
    title: ClassVar[str] = "SVM"
    needs: ClassVar[Literal["labels", "masks"]] = "labels"
    by: ClassVar[str] = "3-fold cross-validation, the level on the validation split"
    costs: Positives = (0.01, 0.1, 1, 2, 5, 10, 15, 20, 50, 100, 1000)
    folds: int = Field(default=3, ge=2)
    positives: float = Field(default=2.0, gt=0)  # the weight of a positive to that of a negative
    max_iter: int = Field(default=2000, ge=1)  # of LinearSVC, as VISSL's
    level: Level = None


class LowShot(Probe):
    """Ridge regression of every class from k labelled positives a class, for several k and draws.

    A draw orders each class's positives by chance. A sample is the first k of every class, with all their labels, so a class that
    often stands beside others has more than k, and smaller samples lie in larger ones. Features have length 1. Level and penalty
    are chosen by the leave-one-out error within the sample, so no other label is used. The numbers of positives and draws are
    those of Goyal et al. 2019, arXiv:1905.01235, whose samples are drawn for each class apart.
    """

    kind: Literal["lowshot"]
    title: ClassVar[str] = "low-shot"
    needs: ClassVar[Literal["labels", "masks"]] = "labels"
    by: ClassVar[str] = "leave-one-out cross-validation within each sample"
    validates: ClassVar[bool] = False
    varies: ClassVar[bool] = True
    shots: Counts = (1, 2, 4, 8, 16, 32, 64, 96)
    draws: int = Field(default=5, ge=1, le=100)
    penalties: Positives = tuple(10.0**power for power in range(-4, 3))
    level: Level = None


class DenseLinear(Probe):
    """One linear layer on dense features: multinomial logistic regression of each place's classes, by L-BFGS.

    Features are all encoder levels, brought to stride 4 (coarser ones bilinearly, finer ones by averaging) and side by side, or
    the last decoder activation, brought to that stride; they are standardised. A place's target is the share of each class in its
    pixels. `places` places an image are drawn for training. Logits are enlarged to the image and scored at the masks' original
    resolution. The penalty is chosen on the validation split, and the layer is fitted again to train and val.
    """

    kind: Literal["dense-linear"]
    title: ClassVar[str] = "dense linear"
    varies: ClassVar[bool] = True
    needs: ClassVar[Literal["labels", "masks"]] = "masks"
    source: Literal["encoder", "decoder"] = "encoder"
    penalties: Positives = (1.0, 30.0, 1000.0)
    places: int = Field(default=16, ge=1)


class DenseKnn(Probe):
    """Weighted votes of the nearest training places by cosine similarity of dense features.

    Features are those of dense-linear, standardised. A memory of `memory` places, as many of each training image, votes with its
    shares of classes, weighted by exp(similarity / temperature). Scores are enlarged to the image and scored at the masks'
    original resolution. k is chosen on the validation split; then train and val vote together. Source: Balazevic et al. 2023,
    arXiv:2306.01667.
    """

    kind: Literal["dense-knn"]
    title: ClassVar[str] = "dense kNN"
    varies: ClassVar[bool] = True
    needs: ClassVar[Literal["labels", "masks"]] = "masks"
    source: Literal["encoder", "decoder"] = "encoder"
    k: Counts = (3, 10, 30)  # the paper: 30
    temperature: float = Field(default=0.07, gt=0)  # that of knn, not the paper's
    memory: int = Field(default=10_000, ge=1)


AnyProbe = Annotated[Knn | Linear | LinearSgd | Svm | LowShot | DenseLinear | DenseKnn, Field(discriminator="kind")]
PROBES: dict[str, type[Probe]] = {
    get_args(probe.model_fields["kind"].annotation)[0]: probe
    for probe in (Knn, Linear, LinearSgd, Svm, LowShot, DenseLinear, DenseKnn)
}  # fmt: skip
"""The probes by name."""
OF_EVALUATION: dict[str, tuple[str, ...]] = {"linear": ("linear", "linear-sgd")}
"""The probes of an evaluation that has several."""
EVALUATIONS: tuple[str, ...] = get_args(Evaluation)
LEVELLED = tuple(name for name, probe in PROBES.items() if "level" in probe.model_fields)
"""The probes that choose an encoder level, or take the one of `--level`."""
DECODED = ("dense-linear", "dense-knn")
"""The probes that have a second column on the last decoder activation."""


def make(name: str, changes: dict[str, Any]) -> Any:
    """Return a probe by name with changed settings; UsageError for one that does not exist or does not fit."""
    if name not in PROBES:
        raise unknown("probe", name, PROBES)
    if "kind" in changes:
        raise UsageError(f"{name}.kind cannot be changed: it is the probe's name.")
    default: Any = PROBES[name]
    return default(kind=name).with_changes(changes, f"probe {name}")


def explanation(name: str) -> str:
    """Return what a probe is, with its source."""
    return inspect.cleandoc(PROBES[name].__doc__ or "")
