"""The shell completes names without a large package: of tasks, protocols, data sets, runs and metrics."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli import completion
from bench.metrics import METRICS
from tests.results.made import make, publish

pytestmark = pytest.mark.integration
RUN = """import sys
sys.argv[:], before = ARGUMENTS, {*sys.modules}
from bench.__main__ import main
try:
    main()
finally:
    ours = before | {*sys.stdlib_module_names, "bench", "downstream", "pretexts"}
    found = {name.split(".")[0] for name in sys.modules if name not in before} - ours
    print("packages", *(name for name in found if not name.startswith("_sysconfigdata")), file=sys.stderr)
"""
SMALL = {"annotated_doc", "annotated_types", "click", "pydantic", "pydantic_core", "shellingham", "typer"}
SMALL |= {"platformdirs", "typing_extensions", "typing_inspection"}
"""The packages that a completion may import; `python -m tests.benchmarks report` measures its time."""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    publish(tmp_path / "runs", make("random_init", 0, 0.2))
    publish(tmp_path / "other", make("cgan_color", 0, 0.2))
    (tmp_path / "home" / "data" / "photographs").mkdir(parents=True)
    (tmp_path / "home" / "data" / "photographs" / "index.json").write_text("not read")
    return tmp_path


def printed(arguments: list[str], folder: Path, **environment: str) -> tuple[str, set[str]]:
    """Return what the program prints, and the packages that it imported for it."""
    code = RUN.replace("ARGUMENTS", repr(["bench", *arguments]))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert "Error" not in done.stderr, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("packages"))
    return done.stdout, {*line.split()[1:]}


def completed(typed: str, folder: Path) -> list[str]:
    """Return what bash would complete the last word of a line to; assert that no large package was imported for it."""
    last = str(len(typed.split(" ")) - 1)
    found, packages = printed([], folder, COMP_WORDS=typed, COMP_CWORD=last, _BENCH_COMPLETE="complete_bash")
    assert {"typer", "pydantic"} <= packages <= SMALL
    return found.split()


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
    """With torch, text took 2 to 4 seconds and 930 MB to print."""
    found, packages = printed(["list", "protocols"], here)
    assert "paper-code\tvoc_seg\t" in found and "typer" in packages and not {"torch", "numpy"} & packages


def test_runs_are_completed_from_the_output_folder(here: Path) -> None:
    (mine,), (other,) = completed("bench show r", here), completed("bench reproduce --out other c", here)
    assert mine.startswith("random_init-voc_seg-") and other.startswith("cgan_color-voc_seg-")
    assert completed("bench report --runs r", here) == [mine]
    assert completed("bench show --out nothing r", here) == []


def test_completion_can_be_installed(here: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "--help"], cwd=here, capture_output=True, text=True, check=False)
    assert "--install-completion" in done.stdout
