"""The devices that `--devices` names: all, 4, 0,1,2,3 or cpu:4."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bench.config import MachineConfig
from bench.errors import UsageError
from bench.text import quoted
from bench.training import leading

MOST = 1024


def named(text: str, device: str = "auto") -> tuple[str, ...]:
    """Return the devices that `--devices` names, such as ("cuda:0", "cuda:1") or ("cpu", "cpu"); none for an empty text.

    `all` is every GPU, or the processor where there is none; a number is that many GPUs, or processes on the processor where
    there is no GPU or `device` is cpu; a list names GPUs, and cpu:N is N processes on the processor. UsageError for anything
    else, and for GPUs that are not there.
    """
    text = text.strip()
    if not text:
        return ()
    gpus = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
    kind, colon, count = text.partition(":")
    if kind == "cpu" and (not colon or _number(count)):
        return ("cpu",) * (int(count) if colon else 1)
    if text == "all":
        return tuple(f"cuda:{number}" for number in range(gpus)) or ("cpu",)
    if "," in text and all(part.strip().isdecimal() for part in text.strip(",").split(",")):
        wanted = [int(part) for part in text.strip(",").split(",")]
        if len(set(wanted)) < len(wanted):
            raise UsageError(f"--devices {text} names a GPU twice.")
    elif _number(text):
        if not gpus:
            return ("cpu",) * int(text)
        wanted = list(range(int(text)))
    else:
        raise UsageError(f"--devices takes all, a number (4), a list of GPUs (0,1,2,3) or cpu:N, but got {quoted(text)}.")
    if max(wanted) >= gpus:
        raise UsageError(f"--devices {text} needs GPU {max(wanted)}, but torch sees {gpus} GPUs, counted from 0.")
    return tuple(f"cuda:{number}" for number in wanted)


def _number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= MOST


def of_processes(config: MachineConfig) -> Sequence[str]:
    """Return the devices of the processes of this machine that work on a run together, this one's alone for a process alone.

    UsageError where --devices does not fit the processes that there are.
    """
    if not leading.launched():
        found = named(config.devices, config.device)
        if len(found) > 1:
            raise UsageError(f"--devices {config.devices} needs a process for each device; use the command line, or torchrun.")
        return found or (config.device,)
    if config.compiled:
        raise UsageError("--compile is for one device; leave it out with several.")
    _, here = leading.here()
    found = named(config.devices or str(here), config.device)
    if len(found) != here:
        raise UsageError(
            f"--devices {config.devices} names {len(found)} devices, but this machine has {here} processes of the run."
        )
    return found
