"""What was found on a GPU, as gpu.csv and gpu.md."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench.storage import files
from tests.benchmarks.common import Figure
from tests.gpu.speed import STAND_IN

COLUMNS = ("device", "torch", "cuda", "part", "what", "value", "unit", "goal")


@dataclass
class Part:
    """What a part of the trial found, why it failed ("" where it did not), and how long it took."""

    name: str
    found: list[str | Figure] = field(default_factory=list)
    failure: str = ""
    seconds: float = 0.0


def is_stand_in() -> bool:
    """Tell whether the GPU is one that is not there."""
    return torch.cuda.get_device_name().startswith(STAND_IN)


def machine() -> str:
    """Return what was tried, as text."""
    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}"


def line(found: str | Figure) -> str:
    """Return a figure, or what else was found, as text."""
    if isinstance(found, str):
        return found
    return f"{found.what}: {found.value:,.4g} {found.unit}{f' ({found.goal})' if found.goal else ''}"


def write(out: Path, parts: Sequence[Part]) -> tuple[Path, Path]:
    """Write gpu.csv, a line for each figure and one for each part's seconds, and gpu.md, and return their paths."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    common = (torch.cuda.get_device_name(), torch.__version__, torch.version.cuda or "")
    for part in parts:
        for one in [*part.found, Figure("seconds" if not part.failure else "seconds until it failed", part.seconds, "s")]:
            if isinstance(one, Figure):
                value = "" if math.isnan(one.value) else f"{one.value:.6g}"
                rows.writerow((*common, part.name, one.what, value, one.unit, one.goal))
    return files.publish_file(out / "gpu.csv", text.getvalue()), files.publish_file(out / "gpu.md", _page(parts))


def _page(parts: Sequence[Part]) -> str:
    lines = [f"# {machine()}", ""]
    if is_stand_in():
        lines += ["This is a stand-in for a GPU on the processor: its figures say nothing of a card.", ""]
    for part in parts:
        lines += [f"## {part.name}", "", f"{f'Failed: {part.failure}' if part.failure else 'Well'}, in {part.seconds:.0f} s.", ""]
        figures = [one for one in part.found if isinstance(one, Figure)]
        lines += [f"- {_cell(one)}" for one in part.found if isinstance(one, str)]
        if figures:
            lines += ["", "| what | value | unit | goal |", "|---|---:|---|---|"]
            lines += [f"| {_cell(one.what)} | {one.value:,.4g} | {one.unit} | {one.goal} |" for one in figures]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
