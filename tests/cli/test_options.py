"""An option is a field of `RunConfig`, and nothing else says anything about it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.options import config_of, fields, option
from bench.config import MachineConfig, RunConfig
from bench.errors import UsageError
from bench.experiment import resolve

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
with mock.patch.object(run, "begin", lambda *_: None), mock.patch.object(run, "check_places", lambda *_: sys.exit(0)):
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
    data, other = str(drawn["demo"]), "other"
    base = {"pretext": "random_init", "protocol": "demo"}
    at = RunConfig.model_validate({**base, "downstream": f"voc_cls@{data},voc_seg"})
    plain = RunConfig.model_validate({**base, "downstream": "voc_cls,voc_seg", "data": data})
    assert [job.id for job in resolve.resolve(at, print).jobs] == [job.id for job in resolve.resolve(plain, print).jobs]
    for wrong, said in (
        ({"downstream": f"voc_cls@{data},voc_seg@{other}"}, "one labelled data set"),
        ({"downstream": "voc_cls@demo", "data": "voc2012"}, "one labelled data set, but got voc2012, demo"),
        ({"downstream": "voc_cls@"}, "TASK@DATA"),
        ({"downstream": "@demo"}, "TASK@DATA"),
    ):
        with pytest.raises(UsageError, match=said):
            RunConfig.model_validate({**base, **wrong})
