"""The measurements are there to be run; without a GPU theirs say so."""

import importlib

import pytest
import torch

from tests.benchmarks import __main__ as benchmarks


@pytest.mark.parametrize("name", benchmarks.NAMES)
def test_every_measurement_can_be_run_by_name(name: str) -> None:
    assert callable(importlib.import_module(f"tests.benchmarks.{name}").measure)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_what_needs_a_gpu_says_that_there_is_none() -> None:
    (figure,) = importlib.import_module("tests.benchmarks.gpu").measure()
    assert figure.what == "there is no GPU here: not measured"
