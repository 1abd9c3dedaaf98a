"""An option is a field of `RunConfig`, and nothing else says anything about it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli import run
from bench.cli.options import config_of, fields, option
from bench.config import MachineConfig, RunConfig
from bench.errors import UsageError
from bench.experiment import resolve
from bench.training.machine import make_machine

ADDED = """
import sys
from pydantic import Field
import bench.config

class WithShine(bench.config.RunConfig):
    shine: int = Field(3, ge=1, description="How much the rows shine.")

bench.config.RunConfig = WithShine
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ADDED + code], capture_output=True, text=True, check=False, env={"COLUMNS": "200"}
    )


def test_an_option_is_added_in_one_place(tmp_path: Path) -> None:
    """A field alone puts an option into the help, onto the command line and into a study's file."""
    shown = python("from bench.cli.app import app; app(['run', '--help'])").stdout
    assert "--shine" in shown and "How much the rows shine." in shown and "x>=1" in shown and "(3)" in shown
    found = python("""
from unittest import mock
from bench.cli import common, run
from bench.cli.app import app
with mock.patch.object(run, "begin", lambda *_, **__: None), mock.patch.object(run, "check_places", lambda *_: sys.exit(0)):
    with mock.patch.object(run, "config_of", lambda options: print(options) or bench.config.RunConfig.model_validate(options)):
        app(["run", "--pretext", "random_init", "--downstream", "voc_cls", "--shine", "7"])
""")
    assert found.returncode == 0 and "'shine': 7" in found.stdout, found.stderr
    refused = python("from bench.cli.app import app; app(['run', '--pretext', 'a', '--downstream', 'b', '--shine', '0'])")
    assert refused.returncode == 2 and "--shine" in refused.stderr, refused.stderr
    file = tmp_path / "study.toml"
    file.write_text('title = "t"\n[options]\nshine = 5\n[parts.main]\npretext = "random_init"\ndownstream = "voc_cls"\n')
    read = python(f"from pathlib import Path; from bench.experiment import study_file; "
                  f"print(study_file.load(Path({str(file)!r})).parts['main'].model_dump_json())")  # fmt: skip
    assert json.loads(read.stdout)["shine"] == 5, read.stderr


def test_every_field_is_an_option_with_help() -> None:
    assert set(fields()) == set(RunConfig.model_fields) and fields()[-len(MachineConfig.model_fields) :] == tuple(
        MachineConfig.model_fields
    )
    for name in fields():
        assert option(name).annotation.__metadata__[0].help


def test_an_option_that_is_not_given_is_the_configurations_default() -> None:
    assert config_of({"pretext": "a", "downstream": "b"}) == RunConfig(pretext=("a",), downstream=("b",))
    with pytest.raises(UsageError, match="--set"):
        config_of({"pretext": "a", "downstream": "b", "set": [3]})


def test_a_downstream_task_may_name_its_data(drawn: dict[str, Path]) -> None:
    data = str(drawn["demo"])
    base = {"pretext": "random_init", "protocol": "demo"}
    at = RunConfig.model_validate({**base, "downstream": f"voc_cls@{data},voc_seg"})
    plain = RunConfig.model_validate({**base, "downstream": "voc_cls,voc_seg", "data": data})
    assert [job.id for job in resolve.resolve(at, print).jobs] == [job.id for job in resolve.resolve(plain, print).jobs]
    for wrong, said in (
        ({"downstream": "voc_cls@"}, "TASK@DATA"),
        ({"downstream": "@demo"}, "TASK@DATA"),
    ):
        with pytest.raises(UsageError, match=said):
            RunConfig.model_validate({**base, **wrong})


GIVEN = {
    "pretext": "l1_color", "downstream": "voc_seg", "protocol": "small", "data": "here", "pretrain_data": "there",
    "trunk": "unet", "size": "64", "seed": "3", "seeds": "2", "vary": "finetune", "schedule": "frozen",
    "transfer": "encoder", "labels": "0.5", "epochs": "5", "settings": "recipe.lr=1", "rates": "0.1", "tune": "4",
    "space": "head=1e-3", "storage": "sqlite://", "log": "tensorboard", "leaks": "drop",
    "evaluate": "finetune,knn", "level": "2", "watch": "knn:5",
    "init": "mine=weights.pth", "match": "order", "partial": None, "keep_networks": None,
    "pruner": "none", "search": "each", "device": "cpu", "devices": "cpu:2", "threads": "3", "workers": "2",
    "checkpoint_seconds": "7", "precision": "fp32", "compiled": None,
}  # fmt: skip


@pytest.mark.parametrize("name", fields())
def test_an_option_reaches_the_configuration(name: str, monkeypatch: pytest.MonkeyPatch, bench: Callable) -> None:
    """Each option is given alone, and all that differs from the defaults is that field."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(run, "config_of", lambda options: asked.append(options) or sys.exit(0))
    words = [word for key in dict.fromkeys(("pretext", "downstream", name)) for word in given(key)]
    assert bench("run", *words).code == 0
    needed: dict[str, Any] = {"tune": 4} if name in ("space", "search", "pruner", "storage") else {}
    needed |= {"init": ("mine=weights.pth",)} if name in ("match", "partial") else {}
    needed |= {"evaluate": "knn"} if name == "level" else {}
    plain = RunConfig.model_validate({"pretext": "a", "downstream": "b", **({"tune": 4} if "tune" in needed else {})})
    config = RunConfig.model_validate({**needed, **asked[0]})
    assert set(config.differences(plain)) == {"pretext", "downstream", name} | needed.keys() & {"init", "evaluate"}


def given(name: str) -> list[str]:
    flag = f"--{(RunConfig.model_fields[name].alias or name).replace('_', '-')}"
    return [flag] if GIVEN[name] is None else [flag, GIVEN[name]]


def test_what_a_machine_is_told_is_what_it_does() -> None:
    told = make_machine(MachineConfig(device="cpu", workers=3, threads=1, checkpoint_seconds=7.0))
    assert told.data_workers(False) == told.data_workers(True) == 3 and told.checkpoint_seconds == 7
    assert make_machine(MachineConfig.model_validate({"device": "cpu", "threads": 1, "compile": True})).compiled
    assert not make_machine(MachineConfig(device="cpu", threads=1)).compiled


def test_a_seed_that_is_listed_twice_is_one() -> None:
    assert RunConfig(pretext=("a",), downstream=("b",), seeds="0,0,3").all_seeds == (0, 3)  # type: ignore[arg-type]
