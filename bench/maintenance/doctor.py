"""Checks whether the main job could run on this machine, and what results it would give: one row per check, with a verdict.

Everything is tried out (a file is written, a lock is taken twice, the GPU adds two numbers), and nothing of it is left behind.
Torch and packages that need it are imported inside the checks, since the fault may lie in them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import re
import resource
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from bench.errors import BenchError, MachineError
from bench.storage import files, locks, shared
from bench.storage.disk import amount, size
from bench.text import Rows
from bench.training import cpu_load

MAIN_JOB = "bench run --pretext cgan_color --downstream voc_seg"
PACKAGE = "pretext-bench"
LOOKING = 2.0
"""The most seconds spent on measuring the caches."""
PROBE = 1 << 16
"""The bytes of the test file."""

# Bytes that the main job took on the demo data, plus a tenth.
DEMO_NEEDS = {"drawing the demo data": 30_000_000, "demo_unlabelled": 54_000_000, "demo": 15_000_000}
OUT_NEED, LARGEST_CHECKPOINT = 60_000_000, 27_000_000
RESULTS = "results"
MEMORY_NEED = 810_000_000
"""Bytes, in addition to those of a process that has imported torch and nothing else."""

Verdict = Literal["ok", "note", "fails"]


@dataclass(frozen=True)
class Check:
    """One check of the machine; `remedy` says what to do when the main job would fail because of it."""

    name: str
    finding: str
    verdict: Verdict = "ok"
    remedy: str = ""


def examine(out: Path) -> list[Check]:
    """Return the checks of everything that the main job needs, with results in `out`."""
    checks = [*_versions(), _imported("torch"), _imported("torchvision")]
    data: list[Check] = []
    needs = DEMO_NEEDS
    if all(check.verdict != "fails" for check in checks):  # the other checks import torch
        checks += [*_devices(), _memory()]
        data, needs = _data()
    return [*checks, *_folders(out, needs), _caches(out), *data]


def rows(checks: Sequence[Check]) -> Rows:
    """Return the checks as rows of text."""
    return ("Check", "Verdict", "Finding"), [
        (check.name, check.verdict, f"{check.finding}; {check.remedy}" if check.remedy else check.finding) for check in checks
    ]


def as_json(checks: Sequence[Check]) -> str:
    """Return the checks as JSON."""
    return json.dumps({"main_job": not problem_of(checks), "checks": [asdict(check) for check in checks]}, indent=1)


def problem_of(checks: Sequence[Check]) -> MachineError | None:
    """Return an error that says why the main job could not run here and what to do; None when it could run."""
    failed = [check for check in checks if check.verdict == "fails"]
    if not failed:
        return None
    reasons = "; ".join(f"{check.name}: {check.finding}, so {check.remedy}" for check in failed)
    return MachineError(f"`{MAIN_JOB}` could not run here: {reasons}.")


def _versions() -> Iterator[Check]:
    try:
        metadata = importlib.metadata.metadata(PACKAGE)
        asked = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        yield Check("packages", f"{PACKAGE} is not installed, so nothing says which versions it needs", "note")
        return
    try:
        from packaging.requirements import Requirement
        from packaging.specifiers import SpecifierSet
    except ImportError:
        yield Check("packages", "packaging is missing, and without it no versions are compared", "fails", "pip install packaging")
        return
    here, wanted = platform.python_version(), metadata["Requires-Python"] or ""
    if SpecifierSet(wanted).contains(here, prereleases=True):
        yield Check("python", here)
    else:
        yield Check("python", f"{here} is not {wanted}", "fails", f"install {PACKAGE} with a Python {wanted}")
    fitting = []
    for requirement in map(Requirement, asked):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        remedy = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield Check(requirement.name, f"it is missing, but {requirement.specifier} is needed", "fails", remedy)
            continue
        if requirement.specifier.contains(version, prereleases=True):
            fitting.append(f"{requirement.name} {version}")
        else:
            yield Check(requirement.name, f"{version} is installed, but {requirement.specifier} is needed", "fails", remedy)
    yield Check("packages", ", ".join(fitting))


def _imported(name: str) -> Check:
    try:
        version = getattr(importlib.import_module(name), "__version__", "unknown")
    except Exception as error:  # builds that do not fit raise errors of any kind
        reason = " ".join(str(error).split())[:200].rstrip(".")
        remedy = "install torch and torchvision of one release together: pip install --upgrade torch torchvision"
        return Check(name, f"does not import ({reason})", "fails", remedy)
    return Check(name, f"{version} imports{' and fits torch' if name == 'torchvision' else ''}")


def _devices() -> Iterator[Check]:
    import torch

    from bench.training import machine, openmp

    threads, cores = torch.get_num_threads(), cpu_load.cores()
    yield Check("processor", f"{machine.processor()}, {torch.backends.cpu.get_cpu_capability()}")
    over = f"; torch takes more than there are: --threads {cores}" if threads > cores else ""
    yield Check("threads", f"torch takes {threads}; {cores} of {os.cpu_count()} can be used{over}", "note" if over else "ok")
    cuda = torch.cuda.is_available()
    for number in range(torch.cuda.device_count()) if cuda else ():
        yield _gpu(number)
    watched = cpu_load.Neighbours()
    time.sleep(cpu_load.FIRST)
    taken = watched.taken() or 0.0
    crowd = f"other programs take {taken:.1f} of {cores} processors now"
    many = taken > cpu_load.CROWDED and threads > cores - taken + cpu_load.CROWDED
    advice = f"; a step waits for its last thread, so --threads {max(1, round(cores - taken))} may be faster" if many else ""
    yield Check("waiting threads", f"{openmp.settings_text()}; {crowd}{advice}", "note" if many else "ok")
    if cuda:
        with contextlib.suppress(Exception):  # a GPU that cannot start has been said to fail
            fast = machine.has_bf16()
            yield Check("precision", "auto computes in bf16" if fast else "auto computes in fp32: this GPU has no bfloat16")
        finding = "equal within the spread of seeds, not to the bit: a GPU adds in an order that changes; --device cpu is exact"
        yield Check("results", finding, "note")
        finding = "not used on a GPU, since the backward passes of resizing, pooling and padding have none there"
        yield Check("deterministic algorithms", finding, "note")
        return
    times = f"; with AMX it times a step at {machine.BF16_SIZE} px or more, once, and takes bf16 where that is 10 % faster"
    yield Check("precision", f"auto computes in fp32{times if machine.has_amx() else ': this processor has no AMX'}")
    yield Check("results", f"equal to the bit with as many threads (--threads {threads}) and this torch on such a processor")
    yield Check("deterministic algorithms", "all that a processor uses: the number of threads alone decides the order of sums")


def _gpu(number: int) -> Check:
    import torch

    name = f"gpu {number}"
    try:
        free, total = torch.cuda.mem_get_info(number)
        assert torch.ones(2, device=f"cuda:{number}").sum().item() == 2
        return Check(name, f"{torch.cuda.get_device_name(number)}, {amount(free)} free of {amount(total)}")
    except Exception as error:  # torch has several for a driver or a GPU that does not start
        reason = " ".join(str(error).split())[:200].rstrip(".") or "it adds wrongly"
        remedy = "use --device cpu, hide it with CUDA_VISIBLE_DEVICES=, or install the torch that fits its driver"
        return Check(name, f"torch sees it but cannot compute on it ({reason})", "fails" if number == 0 else "note", remedy)


def _memory() -> Check:
    from bench.training import machine

    free = {"the system": machine.free_memory()}
    for folder in cpu_load.control_groups("memory"):
        most = cpu_load.read(folder / "memory.max") or cpu_load.read(folder / "memory.limit_in_bytes")
        used = cpu_load.read(folder / "memory.current") or cpu_load.read(folder / "memory.usage_in_bytes")
        cached = re.search(r"^(?:total_)?inactive_file (\d+)$", cpu_load.read(folder / "memory.stat"), re.MULTILINE)
        if most.strip().isdigit() and used.strip().isdigit():
            free[f"the control group {folder}"] = int(most) - int(used) + int(cached[1] if cached else 0)
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    mapped = cpu_load.read(cpu_load.PROC / "self" / "statm").partition(" ")[0]
    if limit != resource.RLIM_INFINITY and mapped:
        free["the limit on addresses (ulimit -v)"] = limit - int(mapped) * os.sysconf("SC_PAGE_SIZE")
    least = min(free, key=lambda name: free[name])
    finding = f"{amount(max(0, free[least]))} free, and the main job needs {amount(MEMORY_NEED)} more on the demo data"
    if free[least] >= MEMORY_NEED:
        return Check("memory", finding)
    return Check("memory", f"{finding}; {least} has no more", "fails", "end other programs or raise the limit")


@dataclass(frozen=True)
class Folder:
    """A folder that the main job writes to: the option that names it, its path, and the bytes it needs, by purpose."""

    name: str
    option: str
    path: Path
    needs: Mapping[str, int]

    @property
    def place(self) -> Path:
        """The folder itself, or its nearest parent that exists."""
        place = self.path.absolute()
        while not os.path.lexists(place):
            place = place.parent
        return place


def _folders(out: Path, needs: Mapping[str, int]) -> Iterator[Check]:
    both = (
        Folder("home", "$PRETEXT_BENCH_HOME", files.home(), needs),
        Folder("out", "--out", out, {RESULTS: OUT_NEED}),
    )
    on_disk: dict[int, dict[str, int]] = {}
    for folder in both:
        with contextlib.suppress(OSError):
            on_disk.setdefault(folder.place.stat().st_dev, {}).update(folder.needs)
    for folder in both:
        yield from _writing(folder)
        with contextlib.suppress(OSError):
            if shutil.disk_usage(folder.place).total:  # 0 for the kernel's own file systems, such as /proc
                yield _room(folder, on_disk[folder.place.stat().st_dev])


def _writing(folder: Folder) -> Iterator[Check]:
    """Check that a file can be written, renamed and locked, in a temporary folder that is removed afterwards."""
    name = f"{folder.name}: writing"
    probe = files.temporary_name(folder.place / "doctor")
    try:
        files.make_folder(probe)
        files.publish_file(probe / "written", bytes(PROBE))
        yield Check(name, f"{folder.path} can be written")
        yield from _locks(folder, probe)
    except MachineError as error:
        reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else str(error)
        remedy = f"name another folder by {folder.option}, or make room and permission there"
        yield Check(name, f"{folder.path} cannot be written: {reason}", "fails", remedy)
    finally:
        with contextlib.suppress(OSError):
            files.remove(probe)


def _locks(folder: Folder, probe: Path) -> Iterator[Check]:
    """Check what the locks of a folder's file system hold for: between machines, in this one, or not at all."""
    system, fault = shared.of(probe), locks.fault(probe)
    if fault:
        remedy = f"name a folder on another file system by {folder.option}, or give the runs to a --launcher, which divides them"
        yield Check(f"{folder.name}: locks", f"they do not work on {system}: {fault}", "fails", remedy)
        return
    yield Check(f"{folder.name}: locks", "they keep others out, and are free once released")
    alone = not system.is_local and system.reach != "machines"
    yield Check(f"{folder.name}: file system", shared.said(system), "note" if alone else "ok")


def _room(folder: Folder, needs: Mapping[str, int]) -> Check:
    """Check that the disk has room for what the main job writes there, and that its largest file may be that large."""
    name, need, limit = f"{folder.name}: disk", sum(needs.values()), _limit()
    largest = max(LARGEST_CHECKPOINT, *(part for what, part in needs.items() if what != RESULTS), 0)
    if limit is not None and limit < largest:
        finding = f"a file may have {amount(limit)} (ulimit -f), and the main job writes one of {amount(largest)}"
        return Check(name, finding, "fails", "raise the limit")
    free = shutil.disk_usage(folder.place).free
    parts = ", ".join(f"{amount(part)} for {what}" for what, part in needs.items())
    finding = f"{amount(free)} free, and the main job needs {amount(need)} ({parts})"
    if free < need:
        return Check(name, finding, "fails", f"free {amount(need - free)} or name a folder on another disk by {folder.option}")
    return Check(name, finding)


def _limit() -> int | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if limit == resource.RLIM_INFINITY else limit


def _caches(out: Path) -> Check:
    home, until = files.home(), time.monotonic() + LOOKING
    places = {
        "packs": home / "packs",
        "downloads": home / "downloads",
        "indices": home / "paths",
        "hashes": home / "hashes",
        "reports": out / "cache",
        "interrupted work": out / "work",
    }
    sizes = [f"{name} {amount(size(path, until))}" for name, path in places.items()]
    more = ", or more: measuring took too long" if time.monotonic() > until else ""
    return Check("caches", f"{', '.join(sizes)}{more}; see bench clean")


def _data() -> tuple[list[Check], dict[str, int]]:
    """Return a check for each prepared data set, and the bytes that the main job still has to write for those it uses."""
    from bench.config import PAPER_SIZE
    from bench.data import catalogue

    labelled, unlabelled, _ = catalogue.defaults(None)
    checks = []
    needs = {name: need for name, need in DEMO_NEEDS.items() if labelled == catalogue.DEMO_LABELLED and not _packed(name)}
    if (files.home() / "demo").is_dir():
        needs.pop("drawing the demo data", None)
    for index in sorted((files.home() / "data").glob("*/index.json")):
        name = index.parent.name
        missing = name in (labelled, unlabelled) and not _packed(name)
        try:
            dataset = catalogue.read_index(index)
        except BenchError as error:
            verdict: Verdict = "fails" if name in (labelled, unlabelled) and name not in DEMO_NEEDS else "note"
            checks.append(
                Check(f"data: {name}", str(error).rstrip("."), verdict, f"remove {index.parent}, then prepare it again")
            )
            continue
        finding = f"{len(dataset.images):,} images at {dataset.root}"
        if dataset.root.is_dir():
            checks.append(Check(f"data: {name}", finding))
        else:
            remedy = f"bench data prepare {name} --root DIR"
            checks.append(Check(f"data: {name}", f"{finding}, which is gone", "fails" if missing else "note", remedy))
        if missing and name not in DEMO_NEEDS:
            masks = max((len(ids) for ids in dataset.masks.values()), default=0)
            needs[name] = (masks * 4 if name == labelled else len(dataset.images) * 3) * PAPER_SIZE**2
    if not checks:
        checks.append(Check("data", "none is prepared; without --data the demo data is drawn"))
    return checks, needs


def _packed(name: str) -> bool:
    return any((files.home() / "packs").glob(f"{name}-*/manifest.json"))
