"""The shell completes names quickly: of tasks, protocols, data sets, runs and metrics."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli import completion
from bench.metrics import METRICS
from tests.results.made import make, publish

pytestmark = pytest.mark.integration
SECONDS, TRIES = 0.4, 5
"""The most processor time of the quickest of some tries; 0.25 s was measured, and other programs make a processor slower."""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    publish(tmp_path / "runs", make("random_init", 0, 0.2))
    publish(tmp_path / "other", make("cgan_color", 0, 0.2))
    (tmp_path / "home" / "data" / "photographs").mkdir(parents=True)
    (tmp_path / "home" / "data" / "photographs" / "index.json").write_text("not read")
    return tmp_path


def completed(typed: str, folder: Path) -> list[str]:
    """Return what bash would complete the last word of a line to; assert that it was quick and needed no large package."""
    code = "import sys\nfrom bench.__main__ import main\ntry: main()\nfinally: assert not {'torch', 'numpy'} & {*sys.modules}"
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1), "_BENCH_COMPLETE": "complete_bash"}
    taken = []
    while not taken or (min(taken) >= SECONDS and len(taken) < TRIES):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.argv[0] = 'bench'\n{code}"],
            cwd=folder, env={**os.environ, **words}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "Error" not in done.stderr, done.stderr
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < SECONDS
    return done.stdout.split()


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("bench run --pretext cg", ["cgan_color"]),
        ("bench run --pretext al", ["all"]),
        ("bench run --pretext cla", ["classic", "class_color"]),
        ("bench run --pretext cgan_color,r", [f"cgan_color,{name}" for name in ("random_init", "relative_patch", "rotation")]),
        ("bench run --plugin x/upside_down.py --pretext u", ["upside_down"]),
        ("bench run --downstream voc_s", ["voc_seg"]),
        ("bench run --protocol s", ["standard", "small"]),
        ("bench run --data ph", ["photographs"]),
        ("bench run --pretrain-data d", ["demo"]),
        ("bench run --schedule one-phase,t", ["one-phase,two-phase"]),
        ("bench run --precision b", ["bf16"]),
        ("bench data verify p", ["photographs"]),
        ("bench data prepare voc20", ["voc2007", "voc2012"]),
        ("bench list prot", ["protocols"]),
        ("bench report --metric map_voc07,miou_p", ["map_voc07,miou_paper"]),
        ("bench run --pretext zzz", []),
    ],
)  # fmt: skip
def test_a_name_is_completed(typed: str, names: list[str], here: Path) -> None:
    assert completed(typed, here) == names


def test_metrics_are_completed_whole() -> None:
    assert completion.metrics(None) == list(METRICS)  # type: ignore[arg-type]


def test_protocols_are_listed_without_torch(here: Path) -> None:
    """With torch, text took 2 to 4 seconds and 930 MB to print; now it is to take less than one."""
    code = "import sys; sys.argv[:] = ['bench', 'list', 'protocols']\nfrom bench.__main__ import main\ntry: main()\n"
    code += "finally: assert not {'torch', 'numpy'} & {*sys.modules}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "Error" not in done.stderr and "paper-code\tvoc_seg\t" in done.stdout, done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_runs_are_completed_from_the_output_folder(here: Path) -> None:
    (mine,), (other,) = completed("bench show r", here), completed("bench reproduce --out other c", here)
    assert mine.startswith("random_init-voc_seg-") and other.startswith("cgan_color-voc_seg-")
    assert completed("bench report --runs r", here) == [mine]
    assert completed("bench show --out nothing r", here) == []


def test_completion_can_be_installed(here: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "--help"], cwd=here, capture_output=True, text=True, check=False)
    assert "--install-completion" in done.stdout
