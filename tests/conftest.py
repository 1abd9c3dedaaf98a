"""A small synthetic VOC and COCO data set, a home folder of its own for every test, and the command line in this process."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench import registry
from bench.data import demo, packs
from bench.storage import files, offline, seal
from tests.standin import StandIn, standing_in

TINY = ("--trunk", "unet:depth=5,width=8", "--size", "32", "--threads", "1", "--device", "cpu", "--protocol", "demo")
QUICK = ("--set", "recipe.epochs=2", "--set", "recipe.batch_size=8", "--set", "protocol.head_width=16")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Draw 48 unlabelled and 40 labelled images, once."""
    return demo.make(tmp_path_factory.mktemp("drawn"), 48, 24, 16)


def write_rows(path: Path, array: NDArray[np.uint8]) -> tuple[packs.Rows, str]:
    """Write squares of uint8 as an array of a pack; return its rows, and the digest that a manifest keeps."""
    with packs.Writer(path, array.shape) as writer:
        for row in array:
            writer.append(row)
        digest = writer.finish()
    return packs.Rows.open(path, len(array), array.shape[1], digest), digest


def reseal(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change a sealed file and seal it again, as another version of the program would have written it."""
    files.publish_json(path, change(json.loads(seal.read(path, "a file", "."))))


@pytest.fixture
def voc(drawn: dict[str, Path], tmp_path: Path) -> Path:
    """Give a copy of the labelled images that may be broken."""
    return Path(shutil.copytree(drawn["demo"], tmp_path / "voc"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep every test's prepared data, packs and splits to itself, and its plug-ins."""
    monkeypatch.setenv("PRETEXT_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(offline.VARIABLE, "0")
    monkeypatch.setattr(registry, "_given", {})
    monkeypatch.setattr("bench.experiment.start.AT_START", 0.0)  # no steps are timed before a run, which is of seconds
    torch.set_num_threads(1)
    return tmp_path / "home"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Give a stand-in for a GPU, which `--device cuda` takes."""
    with standing_in(monkeypatch) as gpus:
        yield gpus


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Give stand-ins for two GPUs."""
    with standing_in(monkeypatch, 2) as gpus:
        yield gpus


@pytest.fixture(scope="session")
def flock_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the faults library: in a process that LD_PRELOAD gives it to, `flock` is what FAULTS_FLOCK says."""
    from tests.stress.server import SOURCE

    if shutil.which("cc") is None:
        pytest.skip("no C compiler (cc) to build the faults with")
    library = tmp_path_factory.mktemp("flock") / "faults.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


COMMANDS = {"bench", "tiny", "server", "flock_library"}
"""Fixtures that run the command line or a server: a test that has one is no unit test."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its place and by what it runs: unit, integration, stress or browser.

    A test that has a stand-in for a GPU, or needs a card, is marked gpu as well; one that needs a card is skipped without one.
    card is marked by hand, and so is integration where a test takes seconds without any of these.
    """
    no_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
    for item in items:
        if item.get_closest_marker("card"):
            item.add_marker(no_card)
        if item.get_closest_marker("card") or {"gpu", "two_gpus"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("gpu")
        if item.get_closest_marker("integration"):
            continue
        fixtures, source = set(getattr(item, "fixturenames", ())), inspect.getsource(getattr(item, "function", type(item)))
        if "stress" in item.path.parts:
            kind = "stress"
        elif fixtures & {"browser", "opened"}:
            kind = "browser"
        elif fixtures & COMMANDS or "golden" in item.path.parts or "subprocess" in source:
            kind = "integration"
        else:
            kind = "unit"
        item.add_marker(kind)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="try every write that may fail, not one in a few")


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
