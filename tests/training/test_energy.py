"""Joules from the counters that a machine has, and None where it has none."""

from pathlib import Path

import pytest
import torch

from bench.training.energy import Meter

CPU = torch.device("cpu")


def zone(folder: Path, name: str, microjoules: int, limit: int = 1_000_000_000) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{limit}\n")


def test_joules_are_summed_over_packages_and_counters_wrap(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 1_000_000)
    zone(tmp_path, "intel-rapl:1", 999_000_000)
    zone(tmp_path, "intel-rapl:0:0", 5)  # a part of package 0 is not counted again
    meter = Meter(CPU, tmp_path)
    assert meter.joules() == 0
    zone(tmp_path, "intel-rapl:0", 4_000_000)
    zone(tmp_path, "intel-rapl:1", 1_000_000)
    assert meter.joules() == pytest.approx(3 + 2)


def test_a_machine_that_does_not_tell_has_none(tmp_path: Path) -> None:
    assert Meter(CPU, tmp_path).joules() is None
    zone(tmp_path, "intel-rapl:0", 1)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("secret")
    assert Meter(CPU, tmp_path).joules() is None
    assert Meter(torch.device("cuda"), tmp_path).joules() is None or torch.cuda.is_available()
