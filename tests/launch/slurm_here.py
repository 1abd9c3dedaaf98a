"""A real SLURM of several one-CPU nodes inside this machine, for tests: its daemons, keys, ports and files are its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "sinfo", "scontrol")
PATIENCE = 30.0
"""The seconds within which all nodes must be idle."""
SETTINGS = """ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
ReturnToService=2
MpiDefault=none
KillWait=20
GresTypes=gpu
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=1 Gres=gpu:1 Features=a100 State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=preempt Nodes=ALL MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Return why no SLURM can be started here; "" where one can."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    lacking = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if lacking:
        return f"SLURM needs {', '.join(lacking)} (Debian's slurm-wlm and munge)"
    return "" if os.geteuid() == 0 else "SLURM's daemons need the user root"


@contextlib.contextmanager
def slurm(folder: Path, nodes: int = 2) -> Iterator[dict[str, str]]:
    """Start a SLURM with its files in a new `folder`; give the environment in which its commands find it, and end it."""
    for name in ("state", *(f"spool-n{number}" for number in range(1, nodes + 1))):
        (folder / name).mkdir(parents=True)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    begun: list[subprocess.Popen[bytes]] = []

    def start(name: str, *words: str) -> None:
        with (folder / "daemons.log").open("ab") as log:
            command = [name, *words]
            begun.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    host, control, first = socket.gethostname().split(".")[0], *_free_ports(nodes)
    settings = SETTINGS.format(host=host, control=control, first=first, last=first + nodes - 1, nodes=nodes, folder=folder)
    (folder / "slurm.conf").write_text(settings)
    (folder / "card").touch()  # no card, but SLURM counts it as one of each node
    (folder / "gres.conf").write_text(f"Name=gpu File={folder / 'card'}\n")
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    places = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid"}
    places |= {"log-file": "munged.log", "seed-file": "munged.seed"}
    try:
        start("munged", "--foreground", "--force", *(f"--{name}={folder / file}" for name, file in places.items()))
        _wait(lambda: (folder / "munge.socket").exists(), "munged did not start", folder)
        start("slurmctld", "-c", "-D")
        for number in range(1, nodes + 1):
            start("slurmd", "-D", "-N", f"n{number}")

        def idle() -> bool:
            told = subprocess.run(["sinfo", "-h", "-o", "%D", "-t", "idle"], env=environment, capture_output=True, text=True)
            return told.stdout.strip() == str(nodes)

        _wait(idle, "the nodes are not idle", folder)
        yield environment
    finally:
        with contextlib.suppress(OSError, AssertionError, subprocess.TimeoutExpired):
            for words in (["--full", "--signal=KILL"], []):  # the tasks, then the jobs
                subprocess.run(["scancel", *words, "--user=root"], env=environment, capture_output=True, timeout=20)

            def empty() -> bool:
                return not subprocess.run(["squeue", "-h"], env=environment, capture_output=True, timeout=20).stdout

            _wait(empty, "jobs are left", folder)
        for process in reversed(begun):
            process.send_signal(signal.SIGTERM)
        for process in reversed(begun):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_ports(nodes: int) -> tuple[int, int]:
    """Return a free port for the controller, and the first of `nodes` free ports in a row."""
    for first in range(20000 + os.getpid() % 9000, 60000, nodes + 1):
        with contextlib.ExitStack() as opened:
            try:
                for port in range(first, first + nodes + 1):
                    opened.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first, first + 1
    raise OSError("no free ports")


def _wait(ready: object, otherwise: str, folder: Path) -> None:
    assert callable(ready)
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > deadline:
            said = "\n".join(path.read_text(errors="replace")[-1000:] for path in sorted(folder.glob("*.log")))
            raise AssertionError(f"{otherwise} within {PATIENCE:g} s:\n{said}")
        time.sleep(0.2)
