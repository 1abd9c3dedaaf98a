"""Broken files of every format are read as the valid one, or refused in one sentence; and the fuzzer notices what is not."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.errors import DataError, MachineError
from tests.stress import fuzz, mutations
from tests.stress.cases import Case, Format, Outcome, Subject
from tests.stress.formats import formats_below

CASES = int(os.environ.get("FUZZ_CASES", "500"))
NAMES = sorted(formats_below(Path()))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Run every format's cases in a process of their own, as `make soak` does; return what became of them."""
    result = tmp_path_factory.mktemp("fuzz") / "found.json"
    words = [sys.executable, "-m", "tests.stress.fuzz", "--cases", str(CASES), "--json", str(result)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=3600)
    assert result.is_file(), done.stderr[-2000:]
    facts: dict[str, dict[str, Any]] = json.loads(result.read_text())
    assert sum(format_["cases"] for format_ in facts.values()) >= CASES
    return facts


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_file_works_or_is_refused_by_its_name(name: str, found: dict[str, dict[str, Any]]) -> None:
    facts = found[name]
    assert not facts["findings"]
    assert facts["works"] + facts["refused"] == facts["cases"] > 0


def test_files_that_the_program_wrote_are_not_read_when_they_are_broken(found: dict[str, dict[str, Any]]) -> None:
    for name in (
        "index",
        "split",
        "hashes",
        "pack-manifest",
        "pack-images",
        "tuning",
        "record",
        "predictions",
        "examples",
        "weights",
        "checkpoint",
    ):
        assert found[name]["refused"] >= 0.8 * found[name]["cases"], name


def test_mutations_change_nearly_every_file_and_are_the_same_every_time(tmp_path: Path) -> None:
    content = json.dumps({"images": [{"file_name": f"{n}.jpg", "id": n} for n in range(9)]}, indent=1).encode()
    subject = Subject(tmp_path / "a.json", lambda: None, [content])
    for changes in (mutations.BYTES, mutations.JSON, mutations.TEXT):
        form = Format("json", lambda: subject, changes)
        cases = [Case("json", mutation, seed) for mutation in changes for seed in range(20)]
        first = [case.content(form, subject) for case in cases]
        assert first == [Case.parse(str(case)).content(form, subject) for case in cases]
        assert sum(broken != content for _, broken in first) > 0.8 * len(cases)


def test_the_first_cases_of_a_long_run_are_those_of_a_short_one() -> None:
    def form(name: str, share: float) -> Format:
        return Format(name, lambda: pytest.fail("made"), mutations.BYTES, share)

    formats = {name: form(name, share) for name, share in (("a", 4), ("b", 0.01))}
    short, long = fuzz.plan(formats, 50), fuzz.plan(formats, 5000)
    assert [len(short["b"]), len(long["b"]), sum(map(len, long.values()))] == [1, 12, 5000]
    assert short["a"] == long["a"][: len(short["a"])]


def hang() -> None:
    time.sleep(60)


def leave() -> None:
    os.kill(os.getpid(), 9)


def crash() -> None:
    ctypes.string_at(0)


def eat() -> bytes:
    return bytes(b"x" * (300 << 20))[:1]


class Cycle:
    """Garbage of 100 MiB that only a collection frees."""

    def __init__(self) -> None:
        self.itself = self
        self.content = b"x" * (100 << 20)


def collect_and_eat() -> bytes:
    gc.collect()
    return eat()


def litter_and_eat() -> bytes:
    gc.collect()
    Cycle()
    return bytes(b"x" * (200 << 20))[:1]


def warn() -> None:
    warnings.warn("mind the gap", UserWarning, stacklevel=1)


def write() -> None:
    os.write(2, b"libsomething: error")


def fail(error: BaseException) -> Callable[[], object]:
    def read() -> object:
        raise error

    return read


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (lambda: "as it was", "works"),
        (lambda: "other", "wrong"),
        (hang, "hang"),
        (leave, "killed"),
        (crash, "killed"),
        (eat, "memory"),
        (collect_and_eat, "memory"),
        (litter_and_eat, "memory"),
        (lambda: bytes(100 << 30), "traceback"),
        (warn, "noise"),
        (write, "noise"),
        (fail(KeyError("x")), "traceback"),
        (fail(SystemExit(0)), "traceback"),
        (fail(DataError("the file is damaged.")), "nameless"),
        (fail(DataError("FILE is\ndamaged.")), "lines"),
        (fail(DataError("FILE is damaged" + "." * 5000)), "long"),
        (fail(MachineError("FILE is damaged.")), "code"),
        (fail(DataError("FILE is damaged.")), "refused"),
    ],
)
def test_the_fuzzer_notices(read: Callable[[], object], kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"valid")

    def read_broken() -> object:
        return "as it was" if path.read_bytes() == b"valid" else read()

    *freed, held = [bytearray(b"x" * 100_000) for _ in range(5000)]
    freed.clear()  # 500 MB of the heap, which stay with the process as long as what lies above them is held

    def make() -> Subject:
        Cycle()
        # What a case gives as it works must be the valid file's: `eat` and the like are noticed for something else.
        fits = (lambda *_: True) if kind not in ("works", "wrong") else lambda one, other: one == other
        return Subject(path, read_broken, [b"valid"], exact=True, fits=fits, names=("FILE",))

    form = Format("made", make, {"grow": lambda rng, content: content + b"!"})
    cases = [Case("made", "grow", seed) for seed in range(2)]
    outcomes = [outcome for _, outcome in fuzz.run(form, cases, hang=1.0 if kind == "hang" else 30.0)]
    assert [outcome.kind for outcome in outcomes] == [kind, kind]
    assert path.read_bytes() == b"valid"
    assert held


def test_a_broken_file_with_a_finding_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"valid")
    form = Format("made", lambda: Subject(path, fail(KeyError("x"))), {"cut": lambda rng, content: content[:2]})
    ((case, outcome),) = fuzz.run(form, [Case("made", "cut", 0)], keep=tmp_path / "kept")
    assert (str(case), outcome) == ("made:cut:0", Outcome("traceback", "KeyError: 'x'", outcome.place))
    assert (tmp_path / "kept" / "made-cut-0-file").read_bytes() == b"va"
