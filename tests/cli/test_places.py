"""Where a command is started, and what is called from Python: neither stands in the other's way."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.app import app, data_app

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
COMMANDS = [command.name for command in app.registered_commands] + ["data"]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "PRETEXT_BENCH_HOME": str(folder / "home")}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with packages of a user's own, named as ours."""
    for name in ("results", "pretexts", "downstream", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('a folder of the user was imported')\n")
    return tmp_path


def test_a_users_folders_of_our_names_are_left_alone(folder: Path) -> None:
    for words in (["list"], ["list", "columns"], ["metrics", "miou_voc"], ["data", "list"], ["list", "protocols"]):
        done = run(folder, "-m", "bench", *words)
        assert done.returncode == 0 and done.stdout, (words, done.stderr)
    done = run(folder, "-m", "bench", "report")
    assert done.returncode == 2 and "holds no finished runs yet" in done.stderr
    every = (
        "import bench, importlib; [importlib.import_module(m) for m in ('results.report', 'results.page', 'pretexts.cgan_color')]"
    )
    assert run(folder, "-c", every).returncode == 0


def test_names_for_functions_of_python_are_kept_free() -> None:
    assert all(importlib.util.find_spec(f"bench.{name}") is None for name in ("run", "tune", "report"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        app([command, "--help"])
    assert left.value.code == 0
    assert "Example: bench" in capsys.readouterr().out or command == "data"
    assert {one.name for one in data_app.registered_commands} == {"prepare", "verify", "list"}
