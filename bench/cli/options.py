"""What the options of several commands are, and how their texts are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.errors import UsageError
from bench.text import quoted

MOST_SEEDS = 1000

Out = Annotated[Path, typer.Option("--out", help="Folder of pretrained trunks, runs and tables.")]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="A Python file with one plug-in; its name is the file's.")]
Pretext = Annotated[str, typer.Option(help="Pretext tasks by name, separated by commas, or all.")]
Downstream = Annotated[str, typer.Option(help="Downstream tasks by name, separated by commas, or all.")]
ProtocolName = Annotated[str | None, typer.Option(help="paper, paper-code, standard, small or demo.")]
Data = Annotated[str | None, typer.Option(help="Labelled data: a prepared set or a folder.")]
PretrainData = Annotated[str | None, typer.Option(help="Images to pretrain on: a prepared set or a folder.")]
TrunkName = Annotated[str | None, typer.Option(help="unet:depth=8,width=64 or timm:resnet18; ,preprocessing=rgb for colour.")]
Size = Annotated[int | None, typer.Option(help="Side of the images in pixels.", min=8)]
Seed = Annotated[int | None, typer.Option(help="One seed.", min=0)]
Seeds = Annotated[str | None, typer.Option(help="How many seeds, counted from 0, or a list of them: 5 or 0,3,7.")]
Vary = Annotated[
    str, typer.Option(help="What a seed changes: all (pretraining, head, data order), or finetune (one trunk for all seeds).")
]
ScheduleNames = Annotated[
    str | None, typer.Option(help="one-phase, two-phase, frozen, or several by comma; the pretext task's own when left out.")
]
TransferNames = Annotated[str, typer.Option(help="What is inherited: all, encoder (the decoder is new), or both by comma.")]
Labels = Annotated[str, typer.Option(help="Shares of the labelled training images by comma, stratified: 0.01,0.1,1.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting: recipe.lr=1e-4, cgan_color.epochs=5, protocol.batch_size=8, voc_seg.size=64"),
]
SpaceText = Annotated[
    str, typer.Option(help="Learning rates to search: head=1e-4:1e-2,all=1e-5:1e-3,pretext=2e-3 (a fixed one).")
]
Storage = Annotated[str, typer.Option(help="An Optuna RDB URL instead of a journal in --out; workers share --out all the same.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Threads = Annotated[int | None, typer.Option(help="Threads on the CPU.", min=1)]
Workers = Annotated[int | None, typer.Option(help="Data workers; chosen when left out. They never change a result.", min=0)]
CheckpointSeconds = Annotated[float, typer.Option(help="Seconds between checkpoints.", min=0)]

Precision = Annotated[
    str, typer.Option(help="auto, fp32 or bf16; on its own bf16 on a GPU that has it, and on a CPU where it is a tenth faster.")
]
Compiled = Annotated[bool, typer.Option("--compile", help="Compile the networks (torch.compile); pays for long runs on a GPU.")]


def names(text: str) -> tuple[str, ...]:
    """Return the names in a list by comma."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def seeds_of(seed: int | None, seeds: str | None) -> tuple[int, ...]:
    """Read --seed and --seeds: a number alone counts seeds from 0, a list names them."""
    if seed is not None and seeds is not None:
        raise UsageError("--seed names one seed and --seeds counts or lists them; give one of the two.")
    if seeds is None:
        return (seed or 0,)
    parts = names(seeds)
    if not parts or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        raise UsageError(f"--seeds takes how many, or a list: 5 or 0,3,7, but got {quoted(seeds)}.")
    named = tuple(dict.fromkeys(int(part) for part in parts))
    if "," in seeds:
        return named
    if not named[0]:
        raise UsageError("--seeds 0 asks for no run at all; give 1 or more, or a list with a comma (0,).")
    if named[0] > MOST_SEEDS:
        raise UsageError(
            f"--seeds counts seeds, {MOST_SEEDS} at most, but got {seeds}; a list with a comma names them ({seeds},)."
        )
    return tuple(range(named[0]))


def numbers(option: str, text: str) -> tuple[float, ...]:
    """Return the numbers in a list by comma; UsageError names the option."""
    try:
        return tuple(float(part) for part in names(text))
    except ValueError as error:
        raise UsageError(f"{option} takes numbers by comma, but got {quoted(text)}.") from error
