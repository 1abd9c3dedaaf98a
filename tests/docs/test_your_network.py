"""What the documentation says of networks from elsewhere: the lines are run with a tiny network in the place of the reader's."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import bench as bench_package
from bench import initialisation, record
from tests.conftest import TINY
from tests.docs.test_docs import ROOT, shown

PAGE = (ROOT / "docs" / "your-network.md").read_text()
README = (ROOT / "README.md").read_text()
QUICK = (*TINY[2:], "--set", "protocol.head_width=16", "--epochs", "2")


def python(text: str, word: str) -> str:
    """Return the block of Python in a page that has a word."""
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if word in block]
    return str(found)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a ResNet-18 as MoCo saves it, with both its networks, and make its folder the working directory."""
    torch.manual_seed(0)
    state = timm.create_model("resnet18", num_classes=8).state_dict()
    both = {f"module.encoder_{which}.{name}": value for which in "qk" for name, value in state.items()}
    torch.save({"epoch": 1, "arch": "resnet18", "state_dict": both}, tmp_path / "simclr_r50.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "simclr_r50.pth"


def adapted(line: str, drawn: dict[str, Path]) -> list[str]:
    """Return the words of a command of a page, for the small network and data."""
    line = line.replace("weights/", "").replace("resnet50", "resnet18").replace("--size 128", "")
    return [*shlex.split(line)[1:], *QUICK, "--data", str(drawn["demo"])]


def test_the_first_command_of_the_page_gives_both_columns_and_the_lines_that_it_shows(
    bench: Callable, checkpoint: Path, drawn: dict[str, Path]
) -> None:
    done = bench(*adapted(shown(PAGE)[0], drawn), "--schedule", "frozen")
    assert done.code == 0, done.err
    assert "mine: loaded 120 of 120 tensors (100 % of the encoder's parameters) from 'state_dict.module.encoder_q'" in done.out
    lines = re.search(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert lines is not None
    for line in lines[1].replace("318 of 318", "120 of 120").splitlines():
        assert line in done.out
    assert "Segmentation, encoder alone" in done.out
    made = {(one.pretext, one.downstream, one.job.transfer) for one in record.read(Path("runs"))}
    assert {("random_init", "voc_seg", "all"), ("random_init", "voc_seg", "encoder"), ("mine", "voc_seg", "encoder")} <= made
    assert ("mine", "voc_seg", "all") not in made


def test_the_command_of_the_readme_runs(bench: Callable, checkpoint: Path, drawn: dict[str, Path]) -> None:
    (line,) = [line for line in shown(README) if "--init" in line]
    done = bench(*adapted(line, drawn), "--schedule", "frozen")
    assert done.code == 0 and "simclr_r50.pth" in done.out, done.err


def test_load_and_use_of_the_readme_and_the_page(
    tiny: Callable, bench: Callable, drawn: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = tiny("--pretext", "cgan_color", "--downstream", "voc_seg", "--schedule", "frozen", "--out", "runs/demo")
    assert made.code == 0, made.err
    for name in ("photo.jpg", "cat.jpg", "dog.jpg"):
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (50, 40, 3), dtype=np.uint8)).save(name)
    block = python(README, "bench.embed")
    assert len(block.strip().splitlines()) <= 5
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["features"].shape == (1, names["trunk"].bottleneck_channels) and np.isfinite(names["features"]).all()
    exec(python(PAGE, "bench.embed"), names)
    assert names["features"].shape == (2, names["trunk"].bottleneck_channels)
    (run,) = record.read(tmp_path / "runs" / "demo")
    (export,) = [line for line in shown(PAGE) if line.startswith("bench export")]
    words = export.replace("cgan_color-voc_seg-0a1b2c3d4e5f", run.id).replace("my-trunk", "other-trunk")
    done = bench(*shlex.split(words)[1:], "--out", "runs/demo")
    assert done.code == 0 and "license: apache-2.0" in Path("other-trunk/README.md").read_text(), done.err
    own = ("--init", "mine=other-trunk", "--downstream", "voc_seg", "--schedule", "frozen", "--set", "protocol.head_width=16")
    again = bench("run", *TINY, *own, "--data", drawn["demo"], "--out", "runs")
    assert again.code == 0, again.err
    (back,) = record.read(tmp_path / "runs")
    assert back.metrics == run.metrics  # to the bit
    assert bench_package.load_trunk("other-trunk").trained_at == 32


def test_the_usual_normalisations_of_the_page_are_those_of_the_program() -> None:
    found = dict(re.findall(r"^\| `(\w+)` \| ([\d./]+) \|", PAGE, re.MULTILINE))
    assert set(found) == set(initialisation.USUAL)
    for name, text in found.items():
        numbers = [float(part) for part in text.split("/")]
        assert np.allclose(numbers * (3 // len(numbers)), initialisation.USUAL[name][0], atol=1e-3)
    for name in initialisation.Init.model_fields:
        assert name in ("label", "source") or f"{name}=" in PAGE
