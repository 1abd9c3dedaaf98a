"""What others pickled beside their weights: harmless contents are passed over, and nothing is run or imported."""

import argparse
import collections
import copyreg
import datetime
import os
import pathlib
import random
import sys
import types
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.data import AttributeDict
from torch import nn

from bench.models.weights_file import DICTIONARIES, INERT, LISTS, read
from tests.models.test_weights_file import FORMATS, STATE, refused, same


def with_pickle(path: Path, pickled: bytes, modern: bool = True) -> Path:
    """Write a file as torch does, with a pickle of our own in it."""
    if modern:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02" + pickled + b".")
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")
    else:
        torch.save({}, path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes().replace(b"\x80\x02}q\x00.", b"\x80\x02" + pickled + b"."))
    return path


def as_global(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


HARMLESS: dict[str, Any] = {
    "namespace": argparse.Namespace(lr=0.1, out=pathlib.Path("/x"), betas=(0.9, 0.95), nested=argparse.Namespace(a=1)),
    "simple namespace": types.SimpleNamespace(a=1),
    "path": {pathlib.Path("a/b"): 1, "windows": pathlib.PureWindowsPath("c:/x")},
    "NumPy scalars": {np.int64(3): np.float64(1.5), "b": np.bool_(True), "f": np.float32(2), "date": np.datetime64("2020-01-01")},
    "NumPy arrays": [np.ones(3), np.array(["a", {"b": 1}], dtype=object), np.array(["ab"]), np.zeros(1, dtype=[("a", "f4")])],
    "random states": [
        np.random.RandomState(0).get_state(),
        np.random.default_rng(0),
        np.random.RandomState(0),
        random.getstate(),
    ],
    "ordered": collections.OrderedDict(a=collections.Counter("aab")),
    "defaultdict": [collections.defaultdict(list, a=[1]), collections.defaultdict(int), collections.defaultdict(dict, b={})],
    "deque": collections.deque([1, 2], maxlen=3),
    "dates": [datetime.datetime.now(datetime.UTC), datetime.timedelta(1), datetime.date(2020, 1, 1)],
    "sets": [{1, 2}, frozenset([3]), range(3), slice(1, 2), 1j, b"abc", bytearray(b"x"), 10**30],
    "types": [int, dict, list, torch.float16, torch.device("cpu"), torch.Size([1])],
    "identifier": uuid.UUID(int=1),
    "Lightning's AttributeDict": AttributeDict(lr=0.1, inner=AttributeDict(a=1)),
}


@pytest.mark.parametrize("modern", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("what", HARMLESS)
def test_harmless_contents_are_passed_over(tmp_path: Path, what: str, modern: bool) -> None:
    whole = {"args": HARMLESS[what], "teacher": STATE, "epoch": 100}
    torch.save(whole, tmp_path / "a.pth", _use_new_zipfile_serialization=modern)
    same(read(tmp_path / "a.pth"), {f"teacher.{name}": tensor for name, tensor in STATE.items()})


class Attributes(dict):  # type: ignore[type-arg]
    """A dictionary with attributes, as those of configuration packages are."""


class Node:
    """An object whose state is a dictionary, as OmegaConf's are."""


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, type], Any]:
    """Return a function that makes an object of a class of some name, whose package is there only while it is saved."""

    def make(name: str, kind: type) -> Any:
        module, _, attribute = name.rpartition(".")
        made = type(attribute, (kind,), {"__module__": module})
        parts = module.split(".")
        for place in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:place]), types.ModuleType(".".join(parts[:place])))
        setattr(sys.modules[module], attribute, made)
        return made()

    return make


@pytest.mark.parametrize("modern", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    "name", [name for name in (*INERT, *DICTIONARIES) if name.split(".")[0] in ("omegaconf", "easydict", "yacs")]
)
def test_settings_of_packages_that_are_not_here_are_passed_over(
    tmp_path: Path, foreign: Callable[[str, type], Any], name: str, modern: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = foreign(name, Attributes if name in DICTIONARIES else Node)
    if name in DICTIONARIES:
        made["lr"] = 0.1
    made.__dict__["_content"] = {"a": 1, "parent": made}
    torch.save({"config": made, "model": STATE}, tmp_path / "a.pth", _use_new_zipfile_serialization=modern)
    monkeypatch.undo()
    before = set(sys.modules)
    same(read(tmp_path / "a.pth"), {f"model.{there}": tensor for there, tensor in STATE.items()})
    assert {name for name in set(sys.modules) - before if not name.startswith("encodings.")} == set() and name.split(".")[
        0
    ] not in sys.modules


@pytest.mark.parametrize("name", [*INERT, *DICTIONARIES, *LISTS])
def test_an_inert_type_is_never_imported_and_nothing_is_called_through_it(tmp_path: Path, name: str) -> None:
    """It is made, given a state and put into a dictionary; a call of what was made is refused, whatever the arguments."""
    before = set(sys.modules)
    state = b"" if name in LISTS else b"}X\x01\x00\x00\x00aK\x01sb"
    made = as_global(name) + b"K\x07\x85R" + state
    assert "holds no tensors" in refused(with_pickle(tmp_path / "a.pth", b"}X\x01\x00\x00\x00x" + made + b"s"))
    as_new = as_global(name) + b")\x81" + state
    assert "holds no tensors" in refused(with_pickle(tmp_path / "b.pth", b"}X\x01\x00\x00\x00x" + as_new + b"s"))
    command = b"X\x04\x00\x00\x00true\x85R"
    assert "is pickled in a way that is not read" in refused(with_pickle(tmp_path / "c.pth", made + command))
    through = as_global(name) + as_global("posix.system") + b"\x85R" + command
    assert "posix.system, which could run" in refused(with_pickle(tmp_path / "d.pth", through))
    assert {name for name in set(sys.modules) - before if not name.startswith("encodings.")} == set()


class Runs:
    """An object whose pickle runs something."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.made_by = (function, args)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.made_by


class Empty(nn.Module):
    """A module of this test."""


@pytest.mark.parametrize("modern", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    ("evil", "name"),
    [
        (lambda canary: Runs(os.system, f"touch {canary}"), "posix.system"),
        (lambda canary: Runs(eval, f"open({str(canary)!r}, 'w')"), "eval"),
        (lambda canary: Runs(exec, f"open({str(canary)!r}, 'w')"), "exec"),
        (lambda canary: Runs(vars(copyreg)["_reconstructor"], Path, object, str(canary)), "copyreg._reconstructor"),
        (lambda canary: Runs(getattr, Path(canary), "touch"), "getattr"),
        (lambda canary: Runs(__import__, "this"), "__import__"),
        (lambda canary: Empty(), "tests.models.test_pickles.Empty"),
        (lambda canary: nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (lambda canary: Runs(torch.load, str(canary)), "torch.serialization.load"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_runs_code_is_refused_by_its_name_and_runs_nothing(
    tmp_path: Path, evil: Callable[[Path], Any], name: str, modern: bool
) -> None:
    canary, path = tmp_path / "canary", tmp_path / "a.pth"
    torch.save({"state_dict": STATE, "x": evil(canary)}, path, _use_new_zipfile_serialization=modern)
    assert f"{name}, which could run a program when it is read, and is refused" in refused(path).replace("builtins.", "")
    assert not canary.exists() and "this" not in sys.modules


@pytest.mark.parametrize("modern", FORMATS.values(), ids=FORMATS)
def test_a_class_of_an_unknown_module_is_refused_and_not_imported(tmp_path: Path, modern: bool) -> None:
    (tmp_path / "unknown_module.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nclass Thing: pass\n")
    sys.path.insert(0, str(tmp_path))
    try:
        path = with_pickle(tmp_path / "a.pth", as_global("unknown_module.Thing") + b")R", modern)
        assert "holds unknown_module.Thing, which could run" in refused(path)
    finally:
        sys.path.remove(str(tmp_path))
    assert not (tmp_path / "canary").exists() and "unknown_module" not in sys.modules


def test_what_a_library_allowed_in_this_process_is_refused_all_the_same(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "x": Empty()}, tmp_path / "a.pth")
    with torch.serialization.safe_globals([Empty]):
        before = set(torch.serialization.get_safe_globals())
        assert "test_pickles.Empty" in refused(tmp_path / "a.pth")
        assert set(torch.serialization.get_safe_globals()) == before


def test_another_pickle_protocol_is_refused_and_said(tmp_path: Path) -> None:
    torch.save({"state_dict": {**STATE, "x" * 300: torch.ones(1)}}, tmp_path / "a.pth", pickle_protocol=4)
    assert "by torch.save without a pickle_protocol" in refused(tmp_path / "a.pth")


def test_methods_that_a_dictionary_brings_along_are_not_called(tmp_path: Path) -> None:
    ordered = as_global("collections.OrderedDict") + b")R}X\x05\x00\x00\x00itemsK\x05sb"
    assert "holds no tensors" in refused(with_pickle(tmp_path / "a.pth", ordered))
