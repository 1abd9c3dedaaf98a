"""Ray: one actor for each GPU, or for some processors, of a cluster; each actor supervises one worker and outlives its node."""

from __future__ import annotations

import logging
import os
import socket
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from typing import Any

from bench.errors import MachineError, UsageError
from bench.launch.engine import Engine, WorkerState
from bench.launch.launch import Launch
from bench.launch.supervisor import KILLED, MARKER, Kept, State, Supervisor, kept, state_file, states_of
from bench.storage import files, locks
from bench.text import quoted

NAMESPACE = "pretext-bench"
AUTO, LOCAL = "auto", "local"
"""The cluster that this machine belongs to, and one of this machine alone that is started and ends with the command."""
STARTS = 120
"""Seconds in which a worker that was started holds its lock, on a busy machine."""


class Actor:
    """An actor that runs a supervisor from the time it is placed, and ends with it; Ray places it again when its node is lost."""

    def __init__(self, folder: str, number: int, environment: dict[str, str]) -> None:
        import ray

        self._itself = ray.get_runtime_context().current_actor
        self._supervisor = Supervisor(folder, number, environment)
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._failed: Exception | None = None
        self._thread.start()

    def _supervise(self) -> None:
        import ray

        try:
            self._supervisor()
        except Exception as error:  # the head asks for it
            self._failed = error
            return
        ray.kill(self._itself, no_restart=True)

    def end(self) -> None:
        """Wait until the worker has ended; raise what kept it from being run."""
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def stop(self) -> None:
        """Have the worker make its checkpoint and end."""
        self._supervisor.stop()


class Ray(Engine):
    """Starts an actor for each worker on a Ray cluster."""

    def __init__(self) -> None:
        self._launch: Launch | None = None
        self._actors: dict[int, Any] = {}
        self._ends: dict[int, Any] = {}

    def check(self, launch: Launch) -> None:
        """Connect to the cluster; UsageError where no node has what a worker needs, MachineError where there is no cluster."""
        places(launch)

    def start(self, launch: Launch) -> dict[str, Any]:
        """Create the actors; return the cluster's address."""
        connect(launch.options.get("address", AUTO))
        import ray

        self._launch = launch.keep()
        (launch.folder / MARKER).unlink(missing_ok=True)
        for number in range(launch.workers):
            self._create(number)
        return {"address": ray.get_runtime_context().gcs_address}

    def poll(self) -> list[WorkerState]:
        """Return the states of the workers; MachineError when a node cannot run one."""
        return states_of(self._now.folder, self._now.workers, self._scheduled)

    def restart(self, number: int) -> None:
        """Create the actor of a worker that has ended again."""
        import ray

        ray.kill(self._actors[number], no_restart=True)
        state_file(self._now.folder, number).unlink(missing_ok=True)
        self._create(number)

    def stop(self) -> None:
        """Have all workers make their checkpoints and end; those that were not placed yet end as soon as they are."""
        (self._now.folder / MARKER).touch()
        for actor in self._actors.values():
            actor.stop.remote()

    @classmethod
    def states(cls, launch: Launch) -> list[WorkerState]:
        """Return the states of a launch's workers from what is kept of them and their locks, without asking the cluster."""

        def scheduled(number: int, one: Kept | None) -> State:
            if locks.is_held(launch.folder / f"worker-{number}.lock"):
                return "runs", None
            if one is None or one.state == "waits":
                return "waits", None
            begun = (datetime.now().astimezone() - datetime.fromisoformat(one.since)).total_seconds()
            return ("runs", None) if begun < STARTS else ("ended", KILLED)

        return states_of(launch.folder, launch.workers, scheduled)

    @property
    def _now(self) -> Launch:
        assert self._launch is not None, "start comes first"
        return self._launch

    def _create(self, number: int) -> None:
        import ray

        launch, needs = self._now, needs_of(self._now)
        environment = {name: value for name, value in os.environ.items() if name.startswith("PRETEXT_BENCH_")}
        environment |= {"PRETEXT_BENCH_HOME": str(files.home().absolute()), "OMP_NUM_THREADS": str(needs["CPU"])}
        placed = ray.remote(Actor).options(
            name=f"{launch.id}-{number}-{os.urandom(2).hex()}",
            lifetime="detached",
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=4,
            num_cpus=needs["CPU"],
            num_gpus=needs.get("GPU", 0),
            scheduling_strategy="SPREAD",
        )
        self._actors[number] = placed.remote(str(launch.folder), number, environment)
        self._ends[number] = self._actors[number].end.remote()

    def _scheduled(self, number: int, one: Kept | None) -> State:
        import ray

        if ray.wait([self._ends[number]], timeout=0)[0]:
            try:
                ray.get(self._ends[number])
            except ray.exceptions.RayTaskError as error:
                cause = str(error.cause).rstrip(".")
                raise MachineError(
                    f"a node of the Ray cluster cannot run worker {number}: {cause}; see docs/clusters.md."
                ) from None
            except ray.exceptions.RayError:
                pass
            now = kept(self._now.folder, number)  # it may have ended since
            return "ended", now.code if now is not None and now.state == "ended" else KILLED
        return ("runs" if one is not None and one.state == "runs" else "waits"), None


def connect(address: str) -> None:
    """Connect to a Ray cluster, or start one of this machine for the address `local`; MachineError where there is none.

    A cluster that is started here sends no usage statistics and has no dashboard. Nothing of Ray is printed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    try:
        import ray
    except ImportError as error:
        raise MachineError("--launcher ray needs the extra ray: pip install 'pretext-bench[ray]'.") from error
    if ray.is_initialized():
        return
    if address not in (AUTO, LOCAL):
        _check_answers(address)
    own = {"include_dashboard": False} if address == LOCAL else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ray.init(address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.CRITICAL, **own)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise _no_cluster(address, " ".join(str(error).split())[:200].rstrip(".")) from error
    with suppress(AttributeError):  # it prints what befalls nodes and actors, also without log_to_driver
        ray._private.worker.print_to_stdstream = lambda data, ignore_prefix: None


def _check_answers(address: str) -> None:
    """Raise UsageError for what is no HOST:PORT, MachineError where nothing listens: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdecimal()):
        raise UsageError(f"--ray takes auto, local or the HOST:PORT of a cluster's head, but got {quoted(address)}.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from error


def _no_cluster(address: str, why: str) -> MachineError:
    return MachineError(f"no Ray cluster answers at --ray {address} ({why}); start one with `ray start --head`.")


def needs_of(launch: Launch) -> dict[str, int]:
    """Return the processors and GPUs that a worker of a launch needs: of --devices, --threads and --device."""
    threads = int(_option(launch.words, "--threads") or 1)
    kind, _, count = launch.devices.partition(":")
    if kind == "cpu":
        return {"CPU": threads * int(count or 1)}
    if kind == "all":
        raise UsageError("--devices all: with --launcher ray say how many devices each worker takes, for example --devices 2.")
    devices = len(kind.split(",")) if "," in kind else int(kind or 1)
    if _option(launch.words, "--device") == "cpu":
        return {"CPU": threads * devices}
    import ray

    gpus = ray.cluster_resources().get("GPU", 0) if ray.is_initialized() else 1
    return {"CPU": threads, "GPU": devices} if gpus else {"CPU": threads * devices}


def places(launch: Launch) -> int:
    """Return how many workers of a launch find room in its cluster at once; UsageError where not even one does."""
    connect(launch.options.get("address", AUTO))
    import ray

    needs = needs_of(launch)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    found = sum(int(min(node.get(name, 0) // amount for name, amount in needs.items())) for node in nodes)
    if not found:
        wanted = " and ".join(f"{amount} {name}{'s' * (amount > 1)}" for name, amount in needs.items())
        raise UsageError(f"a worker needs {wanted} on one node, and no node of the Ray cluster has them.")
    return found


def _option(words: Sequence[str], name: str) -> str:
    """Return the value of an option among the words of a command; "" where it is not given."""
    for word, after in pairwise((*words, "")):
        if word == name or word.startswith(f"{name}="):
            return after if word == name else word.partition("=")[2]
    return ""
