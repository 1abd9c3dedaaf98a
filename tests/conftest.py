"""A small synthetic VOC and COCO data set, a home folder of its own for every test, and the command line in this process."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from bench import network, registry
from bench.data import demo

TINY = ("--trunk", "unet:depth=5,width=8", "--size", "32", "--threads", "1", "--device", "cpu", "--protocol", "demo")
QUICK = ("--set", "recipe.epochs=2", "--set", "recipe.batch_size=8", "--set", "protocol.head_width=16")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Draw 48 unlabelled and 40 labelled pictures, once."""
    return demo.make(tmp_path_factory.mktemp("drawn"), 48, 24, 16)


@pytest.fixture
def voc(drawn: dict[str, Path], tmp_path: Path) -> Path:
    """Give a copy of the labelled pictures that may be broken."""
    return Path(shutil.copytree(drawn["demo"], tmp_path / "voc"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep every test's prepared data, packs and splits to itself, and its plug-ins."""
    monkeypatch.setenv("PRETEXT_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(network.VARIABLE, "0")
    monkeypatch.setattr(registry, "_given", {})
    torch.set_num_threads(1)
    return tmp_path / "home"


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run the command line in this process, as the script does."""
    from bench.__main__ import main

    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def tiny(bench: Callable[..., Outcome], drawn: dict[str, Path], tmp_path: Path) -> Callable[..., Outcome]:
    """Run `bench run` on the small data with a tiny trunk; results go to tmp_path / "runs"."""

    def call(*arguments: object) -> Outcome:
        data = ("--data", drawn["demo"], "--pretrain-data", drawn["demo_unlabelled"], "--out", tmp_path / "runs")
        return bench("run", *TINY, *QUICK, *data, *arguments)

    return call
