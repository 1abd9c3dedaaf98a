"""Names lead to plug-ins, by folder, entry point or file."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bench import registry
from bench.errors import DataError, UsageError
from pretexts.l1_color import L1Color
from tests.results.made import make, publish


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
        ("def", "does not load: SyntaxError"),
        ("x = 1", "has 0 classes that derive from Pretext or Downstream"),
        ("from bench.contract import Pretext\nclass A(Pretext): pass\nclass B(Pretext): pass", "has 2 classes"),
        ("\0", "does not load"),
        ("x = " + "-" * 100_000 + "1", "does not load"),
        ("# coding: no-such", "does not load"),
        ("from bench.contract import Pretext\nimport sys\nclass A(Pretext): pass\nsys.exit(0)", "does not load: SystemExit: 0"),
        (
            "from bench.contract import Pretext\nclass A(Pretext): pass\n"
            "class E(Exception):\n    def __str__(self): 1 / 0\nraise E",
            "does not load: E: E",
        ),
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
    for ask in (registry.load, lambda kind, name: registry.names(kind, [name])):
        with pytest.raises(UsageError, match="--plugin"):
            ask("pretexts", "upside_down")


LISTS = ("pretexts", "downstreams", "protocols", "trunks", "metrics", "runs", "columns")


@pytest.mark.parametrize(
    "words", [*(["list", name] for name in LISTS), ["list"], ["data", "list"], ["metrics"], ["run", "--help"]]
)
def test_help_and_lists_need_no_torch(words: list[str], tmp_path: Path) -> None:
    publish(tmp_path / "runs", make("random_init", 0, 0.2))
    code = (
        f"import sys; sys.argv = ['bench', *{words!r}]\nfrom bench.__main__ import main\n"
        "try: main()\nfinally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") > 1 or words == ["data", "list"]


def test_the_protocols_that_are_listed_are_those_of_the_tasks() -> None:
    for name in registry.summaries("downstreams"):
        assert registry.protocols(name) == registry.load("downstreams", name).protocols != {}


@pytest.mark.parametrize(
    ("kind", "text", "missing"),
    [
        ("pretexts", "class A(Pretext): pass", "A lacks make_batch(), training_step(), which a Pretext needs"),
        ("pretexts", "class A(Pretext):\n    def optimizers(self): return {}", "A lacks make_batch(), training_step()"),
        ("downstreams", "class A(Downstream): title = 'a'", "A lacks features(), head(), loss(), predictions(), data, protocols"),
    ],
)
def test_an_incomplete_plug_in_names_its_file_and_what_is_missing(
    kind: str, text: str, missing: str, tmp_path: Path, bench: Callable
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"from bench.contract import Downstream, Pretext\n{text}")
    chosen = (
        ("--pretext", "mine", "--downstream", "voc_seg") if kind == "pretexts" else ("--pretext", "all", "--downstream", "mine")
    )
    done = bench("run", "--plugin", path, *chosen, "--data", "demo", "--out", tmp_path / "runs")
    assert done.code == 3 and f"the plug-in {path} is incomplete: its class {missing}" in done.err, done.err
    assert not (tmp_path / "home" / "data").exists()  # before any data is made


def test_a_plug_in_that_hides_its_class_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from bench.contract import Pretext\nclass A(Pretext): pass\n__file__ = None\nA.__module__ = 'x'")
    registry.add_plugin(path)
    with pytest.raises(DataError, match=rf"{path} has 0 classes that derive from Pretext"):
        registry.source_digest("pretexts", "mine") and registry.load("pretexts", "mine")


def test_a_plug_in_is_the_file_as_it_is_now(tmp_path: Path) -> None:
    """Python finds its compiled code again by second and size; a plug-in edited within a second would be the one before."""
    path = tmp_path / "mine.py"
    loaded = []
    for version in (1, 2):
        path.write_text(f"from bench.contract import Pretext\nclass A(Pretext): version = {version}")
        os.utime(path, (1_700_000_000, 1_700_000_000))
        code = (
            "from pathlib import Path\nfrom bench import registry\n"
            f"registry.add_plugin(Path({str(path)!r}))\nprint(registry.load('pretexts', 'mine').version)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        loaded.append(done.stdout.strip())
    assert loaded == ["1", "2"]


def test_one_class_under_two_names_is_one_class(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from bench.contract import Pretext\nclass A(Pretext): pass\nB = A")
    registry.add_plugin(path)
    assert registry.load("pretexts", "mine").__name__ == "A"


def test_a_plug_in_is_read_in_the_encoding_that_it_declares(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    text = '# coding: latin-1\n"""R\u00e9sum\u00e9."""\nfrom bench.contract import Pretext\nclass A(Pretext): pass'
    path.write_bytes(text.encode("latin-1"))
    registry.add_plugin(path)
    assert registry.summaries("pretexts")["mine"] == "R\u00e9sum\u00e9."
    assert registry.load("pretexts", "mine").__name__ == "A"


def test_a_list_tells_of_a_task_what_its_class_says() -> None:
    for name in registry.summaries("pretexts"):
        task = registry.load("pretexts", name)
        assert registry.facts(name) == {fact: getattr(task, fact) for fact in registry.FACTS}, name


def test_groups_stand_for_several_tasks() -> None:
    assert registry.names("pretexts", ["all"]) == ["cgan_color", "inpainting", "l1_color", "random_init"]
    coloured = {name for name in registry.summaries("pretexts") if name.endswith("_color")}
    assert {*coloured, "chroma_gan", "split_brain"} == set(registry.names("pretexts", ["colorization"])) and len(coloured) == 5
    assert registry.names("pretexts", ["contrastive"]) == ["moco", "simclr"]
    assert registry.names("pretexts", ["distillation"]) == ["dino"]
    assert registry.names("pretexts", ["every"]) == list(registry.summaries("pretexts"))
    assert registry.names("pretexts", ["rotation:shuffled", "rotation"]) == ["rotation:shuffled", "rotation"]
    for wrong in ("rotation:sorted", "all:shuffled", "nobody:shuffled"):
        with pytest.raises(UsageError):
            registry.names("pretexts", [wrong])
    with pytest.raises(UsageError):
        registry.names("downstreams", ["voc_cls:shuffled"])
