"""The measurements are there to be run; without a GPU theirs say so."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import choices

FOLDER = Path(benchmarks.__file__).parent


@pytest.mark.parametrize("name", benchmarks.NAMES)
def test_every_measurement_can_be_run_by_name(name: str) -> None:
    assert callable(importlib.import_module(f"tests.benchmarks.{name}").measure)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_what_a_measurement_imports_in_a_process_of_its_own_is_there(path: Path) -> None:
    """A linter does not look into a program that is a text."""
    for text in re.findall(r'^[A-Z]+ = """\n(.*?)^"""', path.read_text(), re.DOTALL | re.MULTILINE):
        wanted = "\n".join(line for line in text.splitlines() if re.match(r"(import|from) ", line))
        done = subprocess.run([sys.executable, "-c", wanted], capture_output=True, text=True, cwd=FOLDER.parents[1], check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("choice", [choice for choice in choices.CHOICES if choice != "compiled"])  # it needs a compiler
def test_a_choice_of_the_step_can_be_measured(choice: str) -> None:
    seconds, rate = choices.one(choice, 32, 5, 4, 4, 2, 1)
    assert seconds > 0 and rate > 0
    assert choices.step.make_trunk.__name__ == "make_trunk"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_what_needs_a_gpu_says_that_there_is_none() -> None:
    (figure,) = importlib.import_module("tests.benchmarks.gpu").measure()
    assert figure.what == "there is no GPU here: not measured"
