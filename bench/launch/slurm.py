"""SLURM through submitit: an array whose tasks each supervise one worker, and are requeued before their time limit."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import time
import typing
import warnings
from pathlib import Path
from typing import Any

from bench.errors import MachineError, UsageError, unknown
from bench.launch.engine import Engine, WorkerState
from bench.launch.launch import Launch, read
from bench.launch.supervisor import KILLED, MARKER, STOPPED, Kept, State, Supervisor, state_file, states_of
from bench.text import quoted

TIMEOUTS = 1000
"""How often a task may reach its time limit; each time it goes on from its own checkpoint."""
NOTICE, SPARE = 90, 10
"""Seconds before the time limit at which SLURM gives notice, unless signal_delay_s says otherwise; those left for the requeue."""
PREEMPTED = 600
"""Seconds for which a task that was sent SIGTERM waits for SLURM to end it: a task that ends itself is not requeued."""
OURS = ("array", "chdir", "error", "input", "job_id", "map_count", "ntasks", "num_gpus", "output", "signal", "wrap", "test_only")
"""Options of sbatch that the launcher sets, and some with which a launch would not work."""
WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "CONFIGURING", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
HELD = "HELD"
"""The state of a job that SLURM could not start on its node, and holds."""
LIMIT = re.compile(r"(\d+-)?\d+(:\d+){0,2}")


class Task(Supervisor):
    """A task of the array: a supervisor that submitit requeues before the time limit; the worker's own checkpoint is on disk."""

    def where(self) -> str:
        """Return SLURM's job and node."""
        job, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        name = f"{job}_{task}" if job else os.environ.get("SLURM_JOB_ID", "?")
        return f"SLURM job {name} on {os.environ.get('SLURMD_NODENAME') or super().where()}"

    def _end(self, code: int, starts: int) -> None:
        """Keep that the worker has ended; where SIGTERM ended it, and not the launch, wait for SLURM to end the task first."""
        if code == STOPPED and self._stopping.is_set() and not self.stopped_for_good():
            self._keep("waits", code, starts)
            deadline = time.monotonic() + PREEMPTED
            while time.monotonic() < deadline and not self.stopped_for_good():
                time.sleep(1)
        super()._end(code, starts)

    def checkpoint(self) -> Any:
        """Have the worker make its checkpoint and end; return what submitit requeues, None where the launch is to end."""
        import submitit

        self.stop()
        notice = int(read(Path(self.folder)).options.get("signal_delay_s", NOTICE))
        self.ended(max(notice - SPARE, notice / 2))
        if self.stopped_for_good():
            self._keep("ended", STOPPED, 0)
            return None
        self._keep("waits", STOPPED, 0)
        return submitit.helpers.DelayedSubmission(Task(self.folder, self.number))


class Slurm(Engine):
    """Submits an array of tasks to SLURM, each with one worker."""

    def __init__(self) -> None:
        self._launch: Launch | None = None
        self._seen: dict[str, str] = {}
        self._asked, self._began = 0.0, time.monotonic()

    def check(self, launch: Launch) -> None:
        """Raise UsageError for an option that SLURM does not have, MachineError where submitit or SLURM is missing."""
        executor_of(launch)

    def preview(self, launch: Launch) -> str:
        """Return the script that sbatch would be given."""
        executor = executor_of(launch)
        if launch.workers > 1:
            executor.parameters["map_count"] = launch.workers
        return str(executor._make_submission_file_text(executor._submitit_command_str, ""))

    def start(self, launch: Launch) -> dict[str, Any]:
        """Submit the array; return the job of each worker."""
        self._launch = launch.keep()
        (launch.folder / MARKER).unlink(missing_ok=True)
        jobs = self._submit(range(launch.workers))
        self._launch = launch.model_copy(update={"facts": {"jobs": jobs}})
        return self._launch.facts

    def poll(self) -> list[WorkerState]:
        """Return the states of the workers; the scheduler is asked every second at first, and every 30 s in the end."""
        if time.monotonic() - self._asked > min(30.0, max(1.0, (time.monotonic() - self._began) / 60)):
            self._seen = jobs_of(self._now.facts["jobs"].values(), self._seen)
            self._asked = time.monotonic()
        return _states(self._now, self._seen)

    def restart(self, number: int) -> None:
        """Submit a worker that has ended again, as a job of its own."""
        launch = self._now
        _ask("scancel", launch.facts["jobs"][str(number)])  # where it is held
        state_file(launch.folder, number).unlink(missing_ok=True)
        facts = {"jobs": {**launch.facts["jobs"], **self._submit([number])}}
        self._launch, self._asked = launch.model_copy(update={"facts": facts}).keep(), 0.0

    def stop(self) -> None:
        """Send SIGTERM to all workers, and take those that have not begun out of the queue."""
        launch = self._now
        (launch.folder / MARKER).touch()
        jobs = sorted(set(launch.facts["jobs"].values()))
        for words in (["--state=PENDING"], ["--signal=TERM"]):
            _ask("scancel", *words, *jobs)

    @classmethod
    def states(cls, launch: Launch) -> list[WorkerState]:
        """Return the states of a launch's workers, from squeue and what is kept of them."""
        return _states(launch, jobs_of(launch.facts.get("jobs", {}).values(), {}))

    @property
    def _now(self) -> Launch:
        assert self._launch is not None, "start comes first"
        return self._launch

    def _submit(self, numbers: typing.Iterable[int]) -> dict[str, str]:
        """Submit a task for each worker and return their jobs; MachineError with what sbatch says when it refuses."""
        import submitit

        launch = self._now
        executor, numbers = executor_of(launch), list(numbers)
        settings = {"SLURM_CONF": os.environ["SLURM_CONF"]} if "SLURM_CONF" in os.environ else {}
        try:
            # without the variables of a job that this command may be in, which would change what srun does in the new one
            with submitit.helpers.clean_env(), submitit.core.utils.environment_variables(**settings), executor.batch():
                jobs = [executor.submit(Task(str(launch.folder), number)) for number in numbers]
        except submitit.core.utils.FailedJobError as error:
            raise MachineError(f"SLURM refused the job: {_first(str(error))}.") from error
        return {str(number): job.job_id for number, job in zip(numbers, jobs, strict=True)}


def executor_of(launch: Launch) -> Any:
    """Return submitit's executor with the parameters of a launch; UsageError and MachineError as in `Slurm.check`."""
    try:
        import submitit
    except ImportError as error:
        raise MachineError("--launcher slurm needs the extra slurm: pip install 'pretext-bench[slurm]'.") from error
    for program in ("sbatch", "srun", "squeue", "scancel"):
        if shutil.which(program) is None:
            raise MachineError(
                f"--launcher slurm needs {program}, which is not here; run the command where SLURM's programs are."
            )
    parameters = parameters_of(launch.options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        executor = submitit.SlurmExecutor(launch.folder / "slurm", max_num_timeout=TIMEOUTS)
        executor.update_parameters(**parameters)
    return executor


def parameters_of(options: dict[str, str]) -> dict[str, Any]:
    """Return submitit's parameters for what --slurm says; UsageError for an option that neither submitit nor sbatch knows."""
    from submitit.slurm.slurm import _make_sbatch_string

    hints = typing.get_type_hints(_make_sbatch_string)
    own = {name for name in inspect.signature(_make_sbatch_string).parameters if name not in ("command", "folder", *OURS)}
    found: dict[str, Any] = {"job_name": "bench", "wckey": None}
    more: dict[str, Any] = {"requeue": True}
    for given, value in options.items():
        name = given.replace("-", "_")
        if name in OURS:
            raise UsageError(f"--slurm {given} is set by the launcher; leave it out.")
        if name in ("nodes", "ntasks_per_node") and value != "1":
            raise UsageError(f"--slurm {given}={value}: each worker is one task on one node; ask for more workers instead.")
        if name in ("partition", "time", "account", "qos", "constraint") and not value:
            raise UsageError(f"--slurm {given} takes a value, for example partition=main,time=60, but got none.")
        if name in own:
            found[name] = _typed(given, value, hints[name])
        elif name in (known := _options_of_sbatch()):
            more[name] = value or True
        else:
            raise unknown("option of --slurm", given, {*own, *known} - set(OURS))
    notice = found.get("signal_delay_s", NOTICE)
    if "time" in found and 60 * found["time"] <= notice:
        raise UsageError(
            f"--slurm time={options['time']}: a task is told {notice} s before its limit that it ends, so it needs more time "
            "than that, or a shorter signal_delay_s."
        )
    if "cpus_per_task" in found and "srun_args" not in found:  # srun does not take it over from sbatch since SLURM 22.05
        found["srun_args"] = [f"--cpus-per-task={found['cpus_per_task']}"]
    return {**found, "additional_parameters": more}


def _typed(name: str, value: str, hint: Any) -> Any:
    """Return the value of an option of submitit as the type that it takes."""
    if name == "time":
        return _minutes(value)
    kinds = typing.get_args(hint) or (hint,)
    if bool in kinds and value.lower() in ("", "true", "1", "yes"):
        return True
    if str in kinds:
        return value
    if int in kinds:
        counted = re.fullmatch(r"(\w+:)?\d+", value) if "gpus" in name else re.fullmatch(r"\d+", value)
        if counted is None:
            raise UsageError(f"--slurm {name} takes a whole number, but got {quoted(value)}.")
        return int(value) if value.isdecimal() else value
    return False if kinds == (bool,) else [value]


def _minutes(value: str) -> int:
    """Return a time limit in minutes: minutes, H:MM:SS, D-HH or D-HH:MM:SS, as sbatch takes them."""
    if not LIMIT.fullmatch(value):
        raise UsageError(f"--slurm time takes minutes (60), H:MM:SS or D-HH:MM:SS, but got {quoted(value)}.")
    days, dash, rest = value.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, minutes, seconds = 0, *(*parts, 0)[:2]
    found = (int(days or 0) * 24 + hours) * 60 + minutes + (seconds > 0)
    if found < 1:
        raise UsageError(f"--slurm time takes at least 1 minute, but got {quoted(value)}.")
    return found


def _options_of_sbatch() -> set[str]:
    """Return the names of the long options that this machine's sbatch has."""
    code, out, error = _ask("sbatch", "--help")
    if code:
        raise MachineError(f"SLURM cannot be asked here: {_first(error)}.")
    return {name.replace("-", "_") for name in re.findall(r"--([a-z][a-z-]+)", out)}


def jobs_of(jobs: typing.Iterable[str], seen: dict[str, str]) -> dict[str, str]:
    """Return the state of each of some jobs that SLURM still knows, such as RUNNING; what was `seen` where it does not answer."""
    found: dict[str, str] = {}
    for first in sorted({job.split("_")[0] for job in jobs}, key=int):
        code, out, error = _ask("squeue", "-h", "-r", "-t", "all", "-o", "%F %K %A %T %r", "-j", first)
        if code and "Invalid job id" not in error:
            return seen
        for line in out.splitlines():
            array, task, job, state, reason = line.split(maxsplit=4)
            found[f"{array}_{task}" if task.isdecimal() else job] = HELD if reason.startswith("launch failed") else state
    return found


def _states(launch: Launch, seen: dict[str, str]) -> list[WorkerState]:
    jobs = launch.facts.get("jobs", {})

    def scheduled(number: int, one: Kept | None) -> State:
        state = seen.get(jobs.get(str(number), ""))
        if state in WAITING:
            return "waits", None
        if state in RUNNING:
            return ("runs" if one is not None and one.state == "runs" else "waits"), None
        return "ended", STOPPED if state == "CANCELLED" else KILLED

    return states_of(launch.folder, launch.workers, scheduled)


def _first(error: str) -> str:
    """Return the first line that tells of an error, without the name of the program."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    told = [line.partition("rror:")[2].strip() for line in lines if "rror:" in line]
    return next(iter([*told, *lines]), "it does not say why").rstrip(".")


def _ask(*words: str) -> tuple[int, str, str]:
    """Run a program of SLURM; return its exit code and what it prints."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, "", str(error)
    return done.returncode, done.stdout, done.stderr
