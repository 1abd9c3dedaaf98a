"""Names lead to plug-ins, by folder, entry point or file."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bench import registry
from bench.errors import DataError, UsageError
from pretexts.l1_color import L1Color


def test_all_is_every_name_and_a_name_counts_once() -> None:
    assert registry.names("pretexts", ["l1_color", "all", "l1_color"]) == ["l1_color", "cgan_color", "inpainting", "random_init"]


def test_an_entry_point_is_a_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("theirs", "pretexts.l1_color:L1Color", "bench.pretexts")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "bench.pretexts" else [])
    assert "theirs" in registry.summaries("pretexts")
    assert registry.load("pretexts", "theirs") is L1Color
    assert len(registry.source_digest("pretexts", "theirs")) == 16
    broken = EntryPoint("theirs", "no.such.module:X", "bench.pretexts")
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken])
    with pytest.raises(DataError, match="does not load"):
        registry.load("pretexts", "theirs")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def", "does not parse"),
        ("x = 1", "no class that derives from Pretext or Downstream"),
        ("from bench.contract import Pretext\nclass A(Pretext): pass\nclass B(Pretext): pass", "has 2 classes"),
        ("from bench.contract import Pretext\nimport no_such_module\nclass A(Pretext): pass", "no_such_module"),
    ],
)
def test_a_file_that_is_no_plug_in_says_why(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    registry.add_plugin(tmp_path / "mine.py")
    with pytest.raises(DataError, match=message):
        registry.load("pretexts", "mine")


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'random_init'"):
        registry.load("pretexts", "random_inti")


def test_help_and_names_need_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['bench', 'list', 'pretexts']\nfrom bench.__main__ import main\n"
        "try: main()\nfinally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cgan_color" in done.stdout
