"""The settings of a run: `RunConfig`.

`bench run`, a part of a study's file and the Python call all take a `RunConfig`. A field's name, type, default, range and help
text stand here once, and the command line is made from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from bench.errors import UsageError, unknown
from bench.initialisation import Match
from bench.probe import EVALUATIONS, LEVELLED, Evaluation
from bench.protocol import Schedule, SearchSeeds, Train, Transfer
from bench.schema import Schema
from bench.text import quoted

MOST_SEEDS = 1000
PAPER_SIZE = 256
"""Side of the images in pixels, in the paper and by default."""

Vary = Literal["all", "finetune"]
"""What a seed changes: `all` is pretraining, head and data order; `finetune` is head and data order on one pretrained trunk."""
Leaks = Literal["note", "refuse", "drop"]
"""What happens with test images among the images to pretrain on: they are counted, refused, or dropped from pretraining."""
Precision = Literal["auto", "fp32", "bf16"]
Pruner = Literal["median", "none"]
"""How trials of a search are ended early: `median` those below the median of the complete trials, `none` none."""
Log = Literal["tensorboard", "csv", "wandb", "mlflow"]
Space = dict[str, tuple[float, float]]
"""Ranges (low, high) of learning rates to search, by what a phase trains, and `pretext` for the pretext task's own."""

PRETEXT = "pretext"
"""The name of the pretext task's own learning rate in a search space."""


def names(text: str) -> tuple[str, ...]:
    """Return the names in a comma-separated list."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def numbers(option: str, text: str) -> tuple[float, ...]:
    """Return the numbers in a comma-separated list; UsageError names the option."""
    try:
        return tuple(float(part) for part in names(text))
    except ValueError as error:
        raise UsageError(f"{option} takes comma-separated numbers, but got {quoted(text)}.") from error


def _split(value: Any) -> Any:
    return names(value) if isinstance(value, str) else value


def _numbers(option: str) -> BeforeValidator:
    def read(value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return (float(value),)
        return numbers(option, value) if isinstance(value, str) else value

    return BeforeValidator(read)


def read_evaluations(value: Any) -> Any:
    """Return the evaluations that `--evaluate` names, each once; `all` stands for every one. UsageError for another name."""
    found: dict[str, None] = {}
    for name in _split(value):
        if name != "all" and name not in EVALUATIONS:
            raise unknown("evaluation", str(name), [*EVALUATIONS, "all"])
        found |= dict.fromkeys(EVALUATIONS if name == "all" else [name])
    return tuple(found)


def read_watch(value: Any) -> Any:
    """Return what `--watch` asks for, such as knn:5, as it is; UsageError for anything else."""
    probe, _, epochs = str(value).partition(":")
    if value and (probe != "knn" or not (epochs.isascii() and epochs.isdigit() and int(epochs[:9]) > 0)):
        raise UsageError(f"--watch takes knn:N, a kNN probe every N epochs, for example knn:5, but got {quoted(value)}.")
    return value


def _choices(kind: str, choices: Any) -> BeforeValidator:
    """Return a validator for one of `choices` or a comma-separated list of them; its UsageError names the nearest."""
    known = get_args(choices)

    def check(value: Any) -> Any:
        several = _split(value) if isinstance(value, str) else value
        for name in several if isinstance(several, tuple | list) else ():
            if name not in known:
                raise unknown(kind, str(name), known)
        return value

    return BeforeValidator(check)


def read_seeds(value: Any) -> Any:
    """Return the seeds that `--seeds` asks for: 5 is 0 to 4, and 0,3,7 is these three. UsageError for anything else."""
    if value is None or isinstance(value, tuple):
        return value
    if isinstance(value, list):
        value = ",".join(map(str, value)) + ("," if len(value) == 1 else "")
    text = str(value)
    parts = names(text)
    if not parts or isinstance(value, bool) or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        raise UsageError(f"--seeds takes a number of seeds (5) or a list of seeds (0,3,7), but got {quoted(value)}.")
    named = tuple(dict.fromkeys(int(part) for part in parts))
    if "," in text:
        return named
    if not named[0]:
        raise UsageError("--seeds takes at least 1 seed, but got 0; for seed 0 alone give a list, 0, with the comma.")
    if named[0] > MOST_SEEDS:
        raise UsageError(
            f"--seeds takes at most {MOST_SEEDS} seeds, but got {text}; for this seed alone give a list, {text}, with the comma."
        )
    return tuple(range(named[0]))


def read_space(value: Any) -> Any:
    """Return the ranges in a text such as `head=1e-4:1e-2,all=1e-5:1e-3,pretext=1e-3`, where the last is one fixed rate.

    UsageError for anything else.
    """
    if not isinstance(value, str):
        return value
    ranges: Space = {}
    for part in names(value):
        name, _, limits = part.partition("=")
        low, colon, high = limits.partition(":")
        if name not in (*get_args(Train), PRETEXT):
            raise UsageError(f"--space has ranges for head, all and {PRETEXT}, but got {quoted(name)}.")
        try:
            ranges[name] = (float(low), float(high if colon else low))
        except ValueError as error:
            raise UsageError(
                f"--space takes ranges (head=1e-4:1e-2,all=1e-5:1e-3) or a fixed rate (all=1e-4), but got {quoted(part)}."
            ) from error
        if not 0 < ranges[name][0] <= ranges[name][1] < math.inf:
            raise UsageError(f"--space: 0 < low <= high must hold, but got {quoted(part)}.")
    return ranges


def as_space(ranges: Mapping[str, tuple[float, float]]) -> str:
    """Return ranges as a text that `--space` takes.

    >>> as_space({"head": (1e-4, 1e-2), "all": (1e-5, 1e-3)})
    'head=0.0001:0.01,all=1e-05:0.001'
    """
    return ",".join(f"{name}={low:g}:{high:g}" for name, (low, high) in ranges.items())


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]


class MachineConfig(Schema):
    """Device, threads and precision of a command. A row states precision and compilation; the rest changes rounding at most."""

    PLACES: ClassVar[set[str]] = {"device", "devices", "threads", "workers", "checkpoint_seconds"}
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    devices: str = Field(
        "",
        description="Several devices: all, a number (4), GPUs (0,1,2,3) or cpu:N; one run on all of them, or with --launcher a "
        "worker on each.",
    )
    threads: int | None = Field(None, ge=1, description="Threads on the CPU, of each process.")
    workers: int | None = Field(None, ge=0, description="Data workers; chosen when left out. They never change a result.")
    checkpoint_seconds: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=True,
        description="Seconds between checkpoints; when left out 30, or more so that they take at most 1 % of the time.",
    )
    precision: Annotated[Precision, _choices("precision", Precision)] = Field(
        "auto", description="fp32, bf16 or auto: bf16 on a GPU that has it and on a CPU where it is a tenth faster, else fp32."
    )
    compiled: bool = Field(
        False, alias="compile", description="Compile the networks (torch.compile); it may pay in long runs on a GPU."
    )


class RunConfig(MachineConfig):
    """The configuration of `bench run`: a field for each option. A field that is None is chosen by data, protocol or machine."""

    pretext: Names = Field(
        (),
        description="Pretext tasks, separated by commas: by name, all (the usual four), every, or a family such as classic; "
        "NAME:encoder brings its encoder alone, NAME:shuffled trains on answers of other images, NAME@LABEL begins with an "
        "--init.",
    )
    init: tuple[str, ...] = Field(
        (), description="A row of weights from elsewhere, LABEL=SOURCE: a file, timm:NAME.TAG, hf_hub:NAME or local-dir:FOLDER."
    )
    match: Annotated[Match, _choices("way to match", Match)] = Field(
        "name", description="How tensors of --init are matched: by name, or by their order where all shapes agree."
    )
    partial: bool = Field(False, description="Allow --init to fill less than 99 % of the encoder, or to be another network's.")
    downstream: Names = Field(
        description="Downstream tasks by name, separated by commas, or all; TASK@DATA names a task's labelled data."
    )
    protocol: str | None = Field(
        None,
        description="paper, paper-code, standard, small or demo; left out, small for photographs and demo for the demo data.",
    )
    data: str | None = Field(None, description="Labelled data: a prepared set or a folder.")
    pretrain_data: str | None = Field(None, description="Images to pretrain on: a prepared set or a folder.")
    trunk: str | None = Field(None, description="unet:depth=8,width=64 or timm:resnet18; ,preprocessing=rgb for colour.")
    size: int | None = Field(None, ge=8, description="Side of the images in pixels.")
    seed: int | None = Field(None, ge=0, description="One seed.")
    seeds: Annotated[tuple[int, ...] | None, BeforeValidator(read_seeds)] = Field(
        None, description="How many seeds, counted from 0, or a list of them: 5 or 0,3,7."
    )
    vary: Annotated[Vary, _choices("kind of variation", Vary)] = Field(
        "all", description="What a seed changes: all (pretraining, head, data order), or finetune (one trunk for all seeds)."
    )
    schedule: Annotated[tuple[Schedule, ...], BeforeValidator(_split), _choices("schedule", Schedule)] = Field(
        (), description="one-phase, two-phase, frozen, or several, separated by commas; the pretext task's own when left out."
    )
    transfer: Annotated[tuple[Transfer, ...], BeforeValidator(_split), _choices("transfer", Transfer)] = Field(
        (), description="What is inherited: all, encoder (the decoder is new), or both; by what the rows bring when left out."
    )
    labels: Annotated[tuple[float, ...], _numbers("--labels")] = Field(
        (1.0,), description="Shares of the labelled training images to use, stratified, separated by commas: 0.01,0.1,1."
    )
    evaluate: Annotated[tuple[Evaluation, ...], BeforeValidator(read_evaluations)] = Field(
        ("finetune",),
        description="What is asked of a trunk, separated by commas: finetune (the schedules), and probes of its frozen features, "
        "knn, linear, svm, lowshot, dense-linear, dense-knn; or all.",
    )
    level: int | None = Field(
        None, ge=1, description="The encoder level that probes read, from 1, the finest; chosen on validation when left out."
    )
    watch: Annotated[str, BeforeValidator(read_watch)] = Field(
        "", description="A probe during pretraining for the curves alone, and every how many epochs: knn:5."
    )
    epochs: int | None = Field(
        None,
        ge=1,
        description="Epochs of fine-tuning in all, over which a schedule's phases are spread in proportion; for those of "
        "pretraining --set recipe.epochs=N.",
    )
    settings: tuple[str, ...] = Field(
        (),
        alias="set",
        description="Change a setting of all tasks or of a named one: recipe.lr=1e-4, protocol.batch_size=8, cgan_color.epochs=5",
    )
    rates: Annotated[tuple[float, ...], _numbers("--rates")] = Field(
        (), description="The learning rate of each phase, separated by commas, instead of the protocol's."
    )
    tune: int = Field(0, ge=0, strict=True, description="Trials of the search for the learning rates of a row; 0 for none.")
    space: Annotated[Space, BeforeValidator(read_space)] = Field(
        {}, description="Ranges of learning rates to search: head=1e-4:1e-2,all=1e-5:1e-3,pretext=2e-3 (one fixed rate)."
    )
    pruner: Annotated[Pruner, _choices("pruner", Pruner)] = Field(
        "median",
        description="Which trials of a search end early: median, those below the median of the others, or none, so that up to 8 "
        "trials do not depend on the order in which several workers finish them.",
    )
    search: Annotated[SearchSeeds, _choices("way to search", SearchSeeds)] = Field(
        "first",
        description="Which seeds search: first, for all seeds of a row, or each, so that intervals know of the luck of a search.",
    )
    storage: str = Field("", description="An Optuna database URL instead of a journal in --out; workers still share one --out.")
    leaks: Annotated[Leaks, _choices("way with leaks", Leaks)] = Field(
        "note", description="Test images among those to pretrain on: note (count them), refuse, or drop them from pretraining."
    )
    log: Annotated[tuple[Log, ...], BeforeValidator(_split), _choices("log", Log)] = Field(
        (),
        description="Log what happens during training, beside every run: tensorboard, csv, wandb, mlflow, separated by commas.",
    )

    keep_networks: bool = Field(False, description="Keep the fine-tuned network of every run, for bench export --network.")

    WHERE: ClassVar[frozenset[str]] = frozenset(MachineConfig.PLACES | {"storage", "log", "keep_networks", "watch"})
    """Fields that say where the work is done and do not change what a run means."""

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        if self.seed is not None and self.seeds is not None:
            raise UsageError("--seed names one seed and --seeds counts or lists them; give one of the two.")
        if self.rates and self.tune:
            raise UsageError("--rates gives the learning rates and --tune searches them; give one of the two.")
        if (self.space or self.storage or self.pruner != "median" or self.search != "first") and not self.tune:
            raise UsageError("--space, --search, --pruner and --storage belong to a search; say how many trials with --tune N.")
        if not all(self.tasks) or "" in self._named_data:
            raise UsageError("--downstream takes TASK or TASK@DATA, for example voc_seg@voc2012.")
        if not self.labels:
            raise UsageError("--labels takes at least one share, for example 0.01,0.1,1.")
        for share in self.labels:
            if not 0 < share <= 1:
                raise UsageError(f"--labels takes shares above 0 and at most 1, for example 0.01,0.1,1, but got {share:g}.")
        if not self.pretext and not self.init:
            raise UsageError("name at least one row: --pretext NAME for a pretext task, --init LABEL=SOURCE for weights.")
        self._check_evaluations()
        if not self.init and (self.match != "name" or self.partial):
            raise UsageError("--match and --partial say how weights of --init are loaded.")
        return self

    def _check_evaluations(self) -> None:
        """Raise UsageError for options of fine-tuning without it, and for a level that no probe reads."""
        if not self.evaluate:
            raise UsageError(f"--evaluate takes at least one of {', '.join(EVALUATIONS)}.")
        options = {
            "epochs": self.epochs,
            "rates": self.rates,
            "schedule": self.schedule,
            "transfer": self.transfer,
            "tune": self.tune,
        }
        given = next((name for name, value in options.items() if value), None)
        if given and "finetune" not in self.evaluate:
            raise UsageError(f"--{given} belongs to fine-tuning, which --evaluate leaves out; add finetune, or leave it out.")
        if self.level is not None and not set(self.evaluate) & set(LEVELLED):
            reading = ", ".join(name for name in LEVELLED if name in EVALUATIONS)
            raise UsageError(f"--level is the encoder level that {reading} read, and --evaluate names none of them.")

    @property
    def watch_every(self) -> int:
        """Every how many epochs of pretraining a probe watches; 0 for never."""
        return int(self.watch.partition(":")[2] or 0)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The downstream tasks, without the data that TASK@DATA names."""
        return tuple(task.partition("@")[0] for task in self.downstream)

    @property
    def targets(self) -> tuple[tuple[str, str | None], ...]:
        """The downstream tasks, each with the data that TASK@DATA names, None where it names none."""
        return tuple((task, data if at else None) for task, at, data in (one.partition("@") for one in self.downstream))

    @property
    def labelled_data(self) -> tuple[str, ...]:
        """The labelled data that `data` and TASK@DATA name."""
        return self._named_data

    @property
    def _named_data(self) -> tuple[str, ...]:
        behind = [data for _, at, data in (task.partition("@") for task in self.downstream) if at]
        return tuple(dict.fromkeys(([] if self.data is None else [self.data]) + behind))

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds to run: those of `seed` or `seeds`, 0 alone when neither is given."""
        return self.seeds if self.seeds is not None else (self.seed or 0,)

    def meaning(self) -> dict[str, Any]:
        """Return the fields that the results depend on, as JSON values: those without their default, outside of `WHERE`."""
        return self.model_dump(mode="json", exclude=set(self.WHERE), exclude_defaults=True)
