"""The shell completes names quickly: of tasks, protocols, data sets, runs and metrics."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.results.made import make, publish

pytestmark = pytest.mark.integration
SECONDS = 0.6
"""The most processor time of one completion; 0.25 s was measured where nothing else ran."""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    publish(tmp_path / "runs", make("random_init", 0, 0.2))
    publish(tmp_path / "other", make("cgan_color", 0, 0.2))
    (tmp_path / "home" / "data" / "photographs").mkdir(parents=True)
    (tmp_path / "home" / "data" / "photographs" / "index.json").write_text("not read")
    return tmp_path


def completed(typed: str, folder: Path) -> list[str]:
    """Return what bash would complete the last word of a line to; assert that it was quick and needed no torch."""
    code = "import sys\nfrom bench.__main__ import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1), "_BENCH_COMPLETE": "complete_bash"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'bench'\n{code}"],
        cwd=folder, env={**os.environ, **words}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "Error" not in done.stderr, done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS
    return done.stdout.split()


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("bench run --pretext c", ["cgan_color"]),
        ("bench run --pretext a", ["all"]),
        ("bench run --pretext cgan_color,", [f"cgan_color,{name}" for name in ("all", "inpainting", "l1_color", "random_init")]),
        ("bench run --plugin x/rotation.py --pretext r", ["random_init", "rotation"]),
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


def test_runs_are_completed_from_the_output_folder(here: Path) -> None:
    (mine,), (other,) = completed("bench show r", here), completed("bench reproduce --out other c", here)
    assert mine.startswith("random_init-voc_seg-") and other.startswith("cgan_color-voc_seg-")
    assert completed("bench report --runs r", here) == [mine]
    assert completed("bench show --out nothing r", here) == []


def test_completion_can_be_installed(here: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "--help"], cwd=here, capture_output=True, text=True, check=False)
    assert "--install-completion" in done.stdout
