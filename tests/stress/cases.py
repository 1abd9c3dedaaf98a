"""Cases of broken files: each made from its name alone, run in a forked process, and judged by what the reader does."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import json
import operator
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from tests.stress.mutations import Mutations

HANG = 10.0
"""Seconds after which a case hangs."""


BEGIN = 60.0
"""Seconds that the first reading of the valid file may take, imports included."""


BATCH = 100


ADDRESSES = 4 << 30
"""Bytes of addresses that a process may take beyond those it begins with."""


SENTENCE = 1500
"""Characters of the longest refusal that is still a sentence: it may hold two paths."""


class Refused(Exception):
    """A command ended with another exit code than 0, after a sentence."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.exit_code = code


@dataclass
class Subject:
    """A valid file in its place, and how the program reads it.

    `read` returns something that can be compared. An `exact` file was written by the program: a broken one gives the same or is
    refused. A refusal names one of `names`, the file when there are none, and has one of `codes`.
    """

    path: Path
    read: Callable[[], object]
    examples: Sequence[bytes] = ()
    exact: bool = False
    names: tuple[str, ...] = ()
    codes: tuple[int, ...] = (3,)
    memory: int = 256 << 20
    loud: bool = False
    """A library in C prints its own words on what it reads, which nobody can stop in one thread of several."""
    put: Callable[[bytes], object] | None = None
    """Writes broken content into the file's place, where digests have to follow it."""
    fits: Callable[[object, object], bool] = operator.eq
    """Whether what an exact file gives may be that, given what the valid one gives."""
    tidy: Callable[[], object] = lambda: None
    """Removes what reading left behind."""

    def __post_init__(self) -> None:
        self.examples = self.examples or [self.path.read_bytes()]
        self.names = self.names or (str(self.path),)
        self.valid = self.path.read_bytes() if self.path.is_file() else b""

    def lay(self, content: bytes) -> None:
        """Put content into the file's place."""
        self.tidy()
        (self.put or self.path.write_bytes)(content)


@dataclass(frozen=True)
class Format:
    """A kind of file: how its example is made in a folder, and what is done to it; `share` of all cases are its own."""

    name: str
    make: Callable[[], Subject]
    mutations: Mutations
    share: float = 4


@dataclass(frozen=True)
class Case:
    """A broken file, by its name."""

    format: str
    mutation: str
    seed: int

    @classmethod
    def parse(cls, name: str) -> Case:
        """Return the case of a name."""
        form, mutation, seed = name.split(":")
        return cls(form, mutation, int(seed))

    def __str__(self) -> str:
        return f"{self.format}:{self.mutation}:{self.seed}"

    def content(self, form: Format, subject: Subject) -> tuple[int, bytes]:
        """Return which of the subject's examples is broken, and the broken bytes."""
        rng = random.Random(str(self))
        example = rng.randrange(len(subject.examples))
        return example, form.mutations[self.mutation](rng, subject.examples[example])


@dataclass(frozen=True)
class Outcome:
    """How a case ended: it works, it was refused, or what should not have happened."""

    kind: str
    text: str = ""
    place: str = ""

    @property
    def allowed(self) -> bool:
        """Whether that may happen."""
        return self.kind in ("works", "refused")


def plan(formats: Mapping[str, Format], count: int, first: int = 0) -> dict[str, list[Case]]:
    """Return `count` cases by format, every mutation of one in turn, at least one of each format."""
    whole = sum(form.share for form in formats.values())
    found, given, reached = {}, 0, 0
    for form in formats.values():
        reached += form.share
        until = max(given + 1, round(count * reached / whole))
        names = list(form.mutations)
        found[form.name] = [Case(form.name, names[n % len(names)], first + n // len(names)) for n in range(until - given)]
        given = until
    return found


def run(form: Format, cases: Sequence[Case], hang: float = HANG, keep: Path | None = None) -> Iterator[tuple[Case, Outcome]]:
    """Yield what becomes of each case of a format; broken files with a finding are kept in a folder."""
    subject = form.make()
    try:
        waiting = list(cases)
        while waiting:
            batch = waiting[:BATCH]
            done = 0
            for case, outcome in _forked(form, subject, batch, hang):
                done += 1
                if keep is not None and not outcome.allowed:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{case}-{subject.path.name}".replace(":", "-")).write_bytes(case.content(form, subject)[1])
                yield case, outcome
            waiting = waiting[done:]
    finally:
        subject.tidy()
        if subject.valid:
            subject.path.write_bytes(subject.valid)


def _forked(form: Format, subject: Subject, cases: Sequence[Case], hang: float) -> Iterator[tuple[Case, Outcome]]:
    """Run cases in a process of their own until one hangs or kills it; yield those that ended."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(form, subject, cases, writing)
    os.close(writing)
    left = b""
    ended = 0
    begun = False
    try:
        while ended < len(cases):
            ready, _, _ = select.select([reading], [], [], hang if begun else BEGIN)
            if not ready:
                yield cases[ended], Outcome("hang", f"not done after {hang:g} seconds")
                return
            got = os.read(reading, 1 << 16)
            if not got:
                break
            *lines, left = (left + got).split(b"\n")
            for line in lines:
                if not line:
                    begun = True
                    continue
                yield cases[ended], Outcome(**json.loads(line))
                ended += 1
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(reading)
    if ended < len(cases):
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
        yield cases[ended], Outcome("killed", f"the process ended with {how}")


def _work(form: Format, subject: Subject, cases: Sequence[Case], writing: int) -> None:
    """Write an empty line when all is ready, run cases and write a line of JSON for each; never return."""
    code = 1
    try:
        faulthandler.disable()
        noise = Path(tempfile.mkstemp()[1])
        silent = os.open(noise, os.O_RDWR | os.O_APPEND)
        noise.unlink()
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        _give_back()
        gc.freeze()
        _limit()
        expected: list[object] = []
        for example in subject.examples if subject.exact else ():
            subject.lay(example)
            expected.append(subject.read())
        os.write(writing, b"\n")
        for case in cases:
            example, content = case.content(form, subject)
            subject.lay(content)
            outcome = judge(subject, expected[example] if expected else None, silent)
            os.write(writing, json.dumps(vars(outcome)).encode() + b"\n")
        code = 0
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        outcome = Outcome(
            "harness", f"{type(error).__name__}: {str(error)[:300]}", f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
        )
        os.write(writing, json.dumps(vars(outcome)).encode() + b"\n")
    finally:
        os._exit(code)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
    limit = _status("VmSize") + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _status(field_name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field_name}:"):
            return int(line.split()[1]) << 10
    return 0


def _give_back() -> None:
    """Give old garbage and freed heap back to the system; a case that took its memory from there would not be seen to grow."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def judge(subject: Subject, expected: object, silent: int | None = None) -> Outcome:
    """Read the file in its place and say what came of it; `silent` is the file that all printing goes to."""
    _give_back()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    if silent is not None:
        os.ftruncate(silent, 0)
    with warnings.catch_warnings(record=True) as warned:
        outcome = _read(subject, expected)
    grown = _status("VmHWM") - before
    shown = next(iter(warned), None)
    if outcome.allowed and grown > subject.memory:
        return Outcome("memory", f"{grown >> 20} MiB more than before, {subject.memory >> 20} are allowed; {outcome.text}")
    if outcome.allowed and shown is not None:
        return Outcome(
            "noise", f"{shown.category.__name__}: {str(shown.message)[:200]}", f"{Path(shown.filename).name}:{shown.lineno}"
        )
    if outcome.kind == "works" and not subject.loud and silent is not None and (printed := os.pread(silent, 300, 0)):
        return Outcome("noise", printed.decode(errors="replace"))
    return outcome


def _read(subject: Subject, expected: object) -> Outcome:
    try:
        found = subject.read()
    except (BenchError, Refused) as error:
        sentence = str(error)
        fit = [
            ("code", error.exit_code in subject.codes, f"exit code {error.exit_code}"),
            ("nameless", any(name in sentence for name in subject.names), f"names none of {subject.names}"),
            ("long", len(sentence) <= SENTENCE, f"{len(sentence)} characters"),
            ("lines", "\n" not in sentence.strip(), "more than one line"),
        ]
        wrong = next(((kind, why) for kind, good, why in fit if not good), None)
        return Outcome(wrong[0], f"{wrong[1]}: {sentence[:300]}") if wrong else Outcome("refused", sentence[:300])
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "/site-packages/" not in frame.filename and "/tests/" not in frame.filename]
        frame = (ours or frames)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        with contextlib.suppress(Exception):
            traceback.print_exc()
        try:
            said = str(error)[:300]
        except Exception:
            said = "(does not echo)"
        return Outcome("traceback", f"{type(error).__name__}: {said}", where)
    if subject.exact and not subject.fits(expected, found):
        return Outcome("wrong", "another result, and not a word about it")
    return Outcome("works")


@contextlib.contextmanager
def ground(folder: Path | None = None) -> Iterator[Path]:
    """Give a folder that every example lies below, with the program's home in it; it is removed at the end."""
    place = Path(tempfile.mkdtemp(prefix="fuzz-")) if folder is None else folder
    place.mkdir(parents=True, exist_ok=True)
    os.environ["PRETEXT_BENCH_HOME"] = str(place / "home")
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    try:
        yield place.resolve()
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
