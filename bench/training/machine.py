"""The machine that a command computes on: device, precision, threads and data workers, set up through Lightning Fabric."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TypeVar

import torch

from bench.config import MachineConfig
from bench.contract import Trunk
from bench.errors import DataError, Interrupted, UsageError
from bench.schema import digest_of
from bench.storage import files, launched, seal
from bench.training import cpu_load, devices, fabric, leading
from bench.training.throughput import images_per_second
from bench.training.world import World

Precision = Literal["fp32", "bf16"]
MEMORY, PROCESSOR = Path("/proc/meminfo"), Path("/proc/cpuinfo")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
BF16_SIZE = 128
"""The least side of images in pixels at which a CPU with AMX (bfloat16 matrix products) is timed to see if bfloat16 is faster."""
REPEATED = 5.0
"""Seconds in which a second signal is the first one again: a terminal sends Ctrl-C to all processes, and so does their engine."""
FASTER = 1.1
"""Precision `auto` chooses bfloat16 on a CPU only if it is at least this many times as fast as float32."""
M = TypeVar("M", bound=torch.nn.Module)


@dataclass
class Stop:
    """Whether a signal asked the command to stop; the training loop checks it after every step."""

    signal_number: int = 0
    deferred: bool = False
    """Whether several processes are to stop together, at the next `Machine.check`."""
    at: float = 0.0
    """When the signal came."""

    def check(self) -> None:
        """Raise Interrupted when a signal came."""
        if self.signal_number and not self.deferred:
            raise Interrupted(self.signal_number)


@dataclass(frozen=True)
class Machine:
    """Where and how networks are computed. Nothing here changes what is computed, except by rounding, so no id depends on it."""

    fabric: Any
    device: torch.device
    precision: Precision
    workers: int | None
    checkpoint_seconds: float | None
    """Seconds between checkpoints; None where the training loop chooses (`bench.training.loop`)."""
    compiled: bool = False
    precision_known: bool = True
    """Whether a run computes in this precision; not where a plan does not time which one is faster, as the run will."""
    stop: Stop = field(default_factory=Stop)
    notice: Callable[[], object] = lambda: None
    """Tells the user once when other programs slow training (`bench.training.cpu_load`)."""
    say: Callable[[str], object] = lambda text: None
    """Tells the user how a run is computed."""
    world: World = field(default_factory=World)
    """The processes that work on a run together."""

    @contextmanager
    def part(self, name: str, *facts: Any) -> Iterator[None]:
        """Do the block with all processes (`World.part`); a signal stops them together, where they `check`."""
        with self.world.part(name, *facts):
            self.stop.deferred = self.world.size > 1
            try:
                yield
            finally:
                self.stop.deferred = not self.world.leads

    def check(self) -> None:
        """Raise Interrupted when a signal came, in a part on all processes together."""
        if not self.world.working:
            self.stop.check()
            return
        number = self.world.share(self.stop.signal_number)
        if number:
            raise Interrupted(number)

    def place(self, module: M) -> M:
        """Move a module to the device and return it: channels-last on a GPU, for faster convolutions; compiled if configured."""
        module.to(self.device)
        if self.device.type == "cuda":
            module.to(memory_format=torch.channels_last)
        for part in module.children() if self.compiled else ():
            if isinstance(part, Trunk):  # a downstream task may encode and not decode
                part.encode = torch.compile(part.encode)  # type: ignore[method-assign]
                part.decode = torch.compile(part.decode)  # type: ignore[method-assign]
            else:
                part.compile()
        return module

    def data_workers(self, changes_images: bool) -> int:
        """Return the number of data workers: as configured; else 0 on a CPU, and on a GPU at most 2, or 16 with augmentation."""
        if self.workers is not None:
            return self.workers
        if self.device.type != "cuda":
            return 0
        return min(16 if changes_images else 2, os.cpu_count() or 1)

    def room(self, share: int, held: int = 0) -> int:
        """Return the bytes that a cache may hold on the device in all: 1/`share` of what is free without the `held` bytes.

        On a GPU, memory that torch keeps for its next tensors is free as well.
        """
        if self.device.type != "cuda":
            return (free_memory() + held) // share
        kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return (int(torch.cuda.mem_get_info(self.device)[0]) + kept + held) // share

    def autocast(self) -> Any:
        """Return the context manager in which networks compute with the machine's precision."""
        return self.fabric.autocast()

    def reset_peak_memory(self) -> None:
        """Reset the GPU's peak memory; the peak of a process on the CPU cannot be reset."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_memory(self) -> int:
        """Return the peak memory in bytes: of torch on the GPU since `reset_peak_memory`, else of this process since it began."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    @property
    def arithmetic(self) -> str:
        """The precision as a row states it, with whether networks were compiled."""
        return f"{self.precision}, compiled" if self.compiled else self.precision

    def __str__(self) -> str:
        return f"{self.device.type}, {self.arithmetic}"

    def describe(self) -> dict[str, Any]:
        """Return what a record says about the machine. Threads, processor and instructions decide how sums are rounded."""
        cuda = self.device.type == "cuda"
        capability = torch.cuda.get_device_capability(self.device) if cuda else ()
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else processor(),
            "capability": ".".join(map(str, capability)) if cuda else torch.backends.cpu.get_cpu_capability(),
            "type": self.device.type,
            "precision": self.precision,
            "compiled": self.compiled,
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "system": " ".join(filter(None, (platform.system(), platform.machine(), *platform.libc_ver()))),
            **({"processes": self.world.size} if self.world.size > 1 else {}),
        }


@cache
def processor() -> str:
    """Return the CPU's name with family, model and stepping, since the name in a virtual machine may not say which CPU it is."""
    text = PROCESSOR.read_text(errors="replace") if PROCESSOR.is_file() else ""
    facts = dict(re.findall(r"^(model name|cpu family|model|stepping)\s*: (.+)$", text, re.MULTILINE))
    if "model name" not in facts:
        return platform.processor() or platform.machine() or "unknown"
    kind = ", ".join(f"{name} {facts[name]}" for name in ("cpu family", "model", "stepping") if name in facts)
    return f"{facts['model name'].strip()} ({kind})" if kind else facts["model name"].strip()


def free_memory() -> int:
    """Return the available memory of the system in bytes; all its memory where the available part is unknown."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", MEMORY.read_text()) if MEMORY.is_file() else None
    return int(found[1]) * 1024 if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_device(device: str) -> tuple[str, str]:
    """Return kind and number of the device `auto`, `cpu`, `cuda` or `cuda:N`; UsageError for a device that is not there."""
    kind, colon, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and (kind != "cuda" or not (number.isascii() and number.isdigit()))):
        raise UsageError(f"--device takes auto, cpu, cuda or cuda:N, but got {device!r}.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device here; use --device cpu or auto.")
    if number and int(number) >= torch.cuda.device_count():
        raise UsageError(f"--device {device}: there are {torch.cuda.device_count()} CUDA devices, counted from 0.")
    return kind, number


def make_machine(config: MachineConfig, trunk: str = "", size: int = 0, timed: bool = True) -> Machine:
    """Return the machine of a configuration.

    Precision `auto` is bfloat16 on a GPU that has it. On a CPU it is float32, unless the CPU has AMX, images have at least
    `BF16_SIZE` pixels a side, and a forward and backward pass of `trunk` at `size` px, timed once, is a tenth faster in bfloat16.
    If that must not be `timed` and was not before, it is float32.
    """
    import logging
    import warnings

    places = devices.of_processes(config)
    kind, number = check_device(places[leading.here()[0] if leading.launched() else 0])
    warnings.filterwarnings("ignore", module="lightning.*")
    for logger in ("lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    elif leading.launched():
        torch.set_num_threads(max(1, cpu_load.cores() // len(places)))
    use_cuda = kind == "cuda" or (kind == "auto" and torch.cuda.is_available())
    if use_cuda:  # else torch asks GPU 0 what it can, and pins memory for it
        torch.cuda.set_device(int(number or 0))
    wanted = config.precision
    in_bf16 = (has_bf16() if use_cuda else bf16_pays(trunk, size, timed)) if wanted == "auto" else wanted == "bf16"
    chosen: Precision = "bf16" if in_bf16 else "fp32"
    own = torch.device("cuda", int(number or 0)) if use_cuda else torch.device("cpu")
    several = leading.launched() and timed
    made = fabric.together(places, own.type, chosen) if several else (fabric.alone if timed else PlanFabric)(own, chosen)
    if use_cuda:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    else:
        _keep_freed_memory()
    known = in_bf16 is not None
    world = World.joined() if several else World()
    stop = Stop(deferred=not world.leads)
    return Machine(
        made, made.device, chosen, config.workers, config.checkpoint_seconds, config.compiled, known, stop, world=world
    )


@dataclass(frozen=True)
class PlanFabric:
    """What is needed of Fabric to time a step for a plan, which answers before Fabric would be imported."""

    device: torch.device
    precision: Precision

    def autocast(self) -> Any:
        """Return the context manager in which networks compute with the precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def has_bf16() -> bool:
    """Tell whether torch's current GPU computes bfloat16 in hardware; emulation is many times slower than float32."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def has_amx() -> bool:
    """Tell whether the processor has AMX, its bfloat16 matrix products; without AMX fp32 was faster in all measurements."""
    features: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in torch 2.11
    return bool(features.get("amx_bf16"))


def bf16_pays(trunk: str, size: int, timed: bool = True) -> bool | None:
    """Tell whether the processor trains a trunk at least a tenth faster in bfloat16 than in float32.

    Without AMX, and below `BF16_SIZE` pixels, the answer is no and nothing is timed. Otherwise both are timed once, and the
    result is kept below the home folder, so that an interrupted run resumes in the same precision. Where it is not kept yet and
    must not be `timed`, the answer is None.
    """
    if not trunk or size < BF16_SIZE or not has_amx():
        return False
    what = {
        "processor": processor(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "trunk": trunk,
        "size": size,
    }
    path = files.home() / "timings" / f"{digest_of(what)[:16]}.json"
    try:
        known = seal.load(path, "a timing", "remove it, and it is made again")
        return bool(known["bf16"] >= FASTER * known["fp32"])
    except (DataError, KeyError, TypeError):
        if not timed:
            return None
        speeds = {precision: images_per_second(trunk, size, precision=precision) for precision in ("fp32", "bf16")}
    files.publish_json(path, {**what, **speeds})
    return speeds["bf16"] >= FASTER * speeds["fp32"]


def _keep_freed_memory() -> None:
    """Keep freed memory in the process for the next training step.

    By default glibc returns large blocks to the kernel, which clears every page before it hands the block out again. Nothing is
    done where the address space is limited (`ulimit -v`): memory that the heap keeps would leave no addresses to map files at.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def give_memory_back() -> None:
    """Give freed memory back to the system after a failed run, so that the next runs have it if memory had run out."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    with suppress(RuntimeError):  # a GPU that failed may fail here again, and a next run says so
        torch.cuda.empty_cache()


@contextmanager
def stoppable(stop: Stop) -> Iterator[None]:
    """Inside the block, the first SIGINT or SIGTERM asks the training loop to stop, and the second ends the process at once.

    Where SIGINT is Python's own (a script, a notebook) the second one is a KeyboardInterrupt, and a notebook's kernel lives on.
    Without effect outside the main thread, which alone may handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    worker = launched.here() is not None  # a scheduler sends a signal to all processes, and its supervisor sends it on

    def ask(number: int, _: FrameType | None) -> None:
        if stop.signal_number and (leading.launched() or worker) and time.monotonic() - stop.at < REPEATED:
            return
        if stop.signal_number:
            if before[signal.Signals(number)] is signal.default_int_handler:
                raise KeyboardInterrupt("stopped at once; the same call goes on from the last checkpoint.")
            with suppress(OSError):
                os.write(2, b"bench: stopped at once; the same command goes on from the last checkpoint\n")
            os._exit(128 + number)
        stop.signal_number, stop.at = number, time.monotonic()

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
