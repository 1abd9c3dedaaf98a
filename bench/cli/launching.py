"""The options of a launch, `--launcher` and its own, and how `bench run`, `bench tune` and `bench study` use them."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.config import RunConfig
from bench.errors import BenchError, UsageError, unknown
from bench.text import duration, quoted

if TYPE_CHECKING:
    from bench.cli.screen import Screen
    from bench.experiment.session import Session
    from bench.experiment.step_times import StepTimes
    from bench.experiment.study_file import Study
    from bench.launch.engine import Engine
    from bench.launch.head import Head
    from bench.launch.launch import Launch
    from bench.launch.planned import Planned, PlannedRun, Progress

LAUNCHERS = ("local", "slurm", "ray")
OPTIONS = {
    "launcher": Annotated[
        str | None,
        typer.Option(
            "--launcher",
            help="Share the runs among workers: local (one for each of --devices), slurm (a job array) or ray (a Ray cluster).",
            autocompletion=lambda: list(LAUNCHERS),
        ),
    ],
    "launch_workers": Annotated[
        int | None,
        typer.Option(
            "--launch-workers",
            help="How many workers; by default one for each device, all that a Ray cluster has room for, and 1 for slurm.",
            min=1,
            max=10_000,
        ),
    ],
    "detach": Annotated[bool, typer.Option("--detach", help="End once the workers have started; bench status tells of them.")],
    "slurm": Annotated[
        str | None,
        typer.Option("--slurm", help="Options of sbatch, separated by commas: partition=main,time=60,gpus_per_node=1."),
    ],
    "ray": Annotated[str | None, typer.Option("--ray", help="The Ray cluster: auto (the one here), local, or an address.")],
}
"""The options of a launch: a command has all of them in the place of its parameter `launch`."""
FLAGS = ("--detach",)


@dataclass(frozen=True)
class Wanted:
    """What the options of a launch say; `launcher` is "" where a command works by itself."""

    launcher: Literal["", "local", "slurm", "ray"] = ""
    launch_workers: int | None = None
    detach: bool = False
    slurm: str = ""
    ray: str = ""

    @property
    def is_asked(self) -> bool:
        """Whether a plan is to tell of workers."""
        return bool(self.launcher or self.launch_workers)

    def check(self, plan: bool = False) -> None:
        """Raise UsageError for a number of workers that belongs neither to a launch nor to a plan."""
        if self.launch_workers and not (self.launcher or plan):
            raise UsageError("--launch-workers belongs to --launcher local, slurm or ray, or to --plan; give one of them.")

    @property
    def options(self) -> dict[str, str]:
        """What the engine is told: for SLURM by name, for Ray the address."""
        if self.launcher == "ray":
            return {"address": self.ray or "auto"}
        pairs = [part.partition("=") for part in self.slurm.split(",") if part.strip()]
        for name, _, value in pairs:
            if not name.strip():
                raise UsageError(f"--slurm takes NAME=VALUE, separated by commas, but got {quoted('=' + value)}.")
        named = [name.strip() for name, _, _ in pairs]
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice:
            raise UsageError(f"--slurm has {twice} twice; give it once.")
        return {name.strip(): value.strip() for name, _, value in pairs}


NONE = Wanted()


def parameters() -> list[inspect.Parameter]:
    """Return the options of a launch as parameters of a command."""
    kind = inspect.Parameter.KEYWORD_ONLY
    defaults: dict[str, Any] = {"detach": False}
    return [inspect.Parameter(name, kind, default=defaults.get(name), annotation=one) for name, one in OPTIONS.items()]


def wanted(given: dict[str, Any]) -> Wanted:
    """Return what the options of a launch say; UsageError where they do not fit together."""
    found = Wanted(**{name: value for name, value in given.items() if value is not None})
    if found.launcher and found.launcher not in LAUNCHERS:
        raise unknown("launcher", found.launcher, LAUNCHERS)
    for name, of in (("slurm", "slurm"), ("ray", "ray")):
        if getattr(found, name) and found.launcher != of:
            raise UsageError(f"--{name} belongs to --launcher {of}; give both.")
    if found.slurm == "" and given.get("slurm") is not None:
        raise UsageError("--slurm takes NAME=VALUE, separated by commas, for example partition=main,time=60, but got nothing.")
    if found.detach and found.ray == "local":
        raise UsageError("--ray local ends with the command; leave out --detach, or start Ray and give --ray auto.")
    if found.detach and not found.launcher:
        raise UsageError("--detach belongs to --launcher local, slurm or ray; give both.")
    return found


def words_of(words: Sequence[str], without: Sequence[str]) -> tuple[str, ...]:
    """Return a command's words without some options and their values.

    >>> words_of(["run", "--launcher", "local", "--size", "32", "--slurm=time=60", "--detach"], ["--launcher", "--slurm"])
    ('run', '--size', '32', '--detach')
    """
    kept: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        name = word.partition("=")[0]
        if not (name in without or (before in without and before not in FLAGS and "=" not in before)):
            kept.append(word)
    return tuple(kept)


def launch_of(asked: Wanted, config: RunConfig, out: Path) -> Launch:
    """Return the launch that a command asks for, not begun; UsageError for devices that are not there."""
    from bench.launch import launch as launches

    assert asked.launcher, "a launch is asked for"
    own: tuple[tuple[str, ...], ...] = ()
    without = [f"--{name.replace('_', '-')}" for name in OPTIONS]
    workers = asked.launch_workers or 1
    if asked.launcher == "local":
        from bench.training import cpu_load
        from bench.training.devices import named

        devices = named(config.devices or ("cpu" if config.device == "cpu" else "all"), config.device)
        workers = asked.launch_workers or len(devices)
        if config.devices and workers < len(devices):
            raise UsageError(f"--devices names {len(devices)} devices, but --launch-workers says {workers} workers.")
        threads = max(1, cpu_load.cores() // workers)
        each = [("--device", devices[number % len(devices)]) for number in range(workers)]
        own = tuple((*one, *(() if config.threads else ("--threads", str(threads)))) for one in each)
        without.append("--devices")
    made = launches.Launch(
        id=launches.new_id(),
        launcher=asked.launcher,
        out=str(out.resolve()),
        cwd=str(Path.cwd()),
        words=words_of(sys.argv[1:], without),
        own=own,
        workers=workers,
        created=launches.now(),
        options=asked.options,
        devices=config.devices,
        detached=asked.detach,
    )
    if asked.launcher == "ray" and not asked.launch_workers:
        from bench.launch.ray_engine import places

        return made.model_copy(update={"workers": places(made)})
    return made


def of_head(asked: Wanted, config: RunConfig) -> RunConfig:
    """Return the configuration of the command that launches, which computes on no device of a worker; else the same."""
    return config.model_copy(update={"device": "cpu", "devices": ""}) if asked.launcher else config


def opened(asked: Wanted, config: RunConfig, out: Path, screen: Screen) -> tuple[Launch, Session]:
    """Return the launch that a command asks for, not begun, and the session of the command that launches."""
    from bench.experiment.session import open_session

    launch = launch_of(asked, config, out)
    threads = next((int(words[words.index("--threads") + 1]) for words in launch.own if "--threads" in words), config.threads)
    own = of_head(asked, config).model_copy(update={"threads": threads})
    return launch, open_session(own, out, screen, planning=True)


def times_for(launch: Launch, session: Session) -> StepTimes:
    """Return the times of steps; they are measured where the workers compute on this machine's processor."""
    from bench.experiment import start
    from bench.experiment.step_times import StepTimes

    here = any(words[:2] == ("--device", "cpu") for words in launch.own)
    return StepTimes(session.machine, time.monotonic() + (start.AT_START if here else 0.0))


@dataclass
class Part:
    """A grid that a launch makes: a command's, or a part of a study, with the work that it has."""

    session: Session
    planned: Planned


class Launcher:
    """Runs the grids of a command by workers, and gives their records."""

    def __init__(self, asked: Wanted, launch: Launch, parts: Sequence[Part], screen: Screen) -> None:
        from bench.launch.engines import engine_class
        from bench.launch.planned import Progress

        self.asked, self.launch, self.parts, self.screen = asked, launch, parts, screen
        self.engine: Engine = engine_class(launch.launcher)()
        self.progress = [Progress(part.planned, Path(launch.out), launch.id) for part in parts]
        self.done = 0

    def run(self) -> Head | None:
        """Start the workers and wait until they have made all; None with --detach, at once."""
        from bench.launch import launch as launches
        from bench.launch import planned, sharing
        from bench.launch.cost import Meter
        from bench.launch.head import Head
        from bench.launch.status import at_work
        from bench.storage import files
        from bench.training import machine

        launch, stop = self.launch, self.parts[0].session.machine.stop
        self.engine.check(launch)
        for other in at_work(Path(launch.out)):
            self.screen.echo(f"launch {other.id} by {other.launcher} is at work in {launch.out} too, and both share its runs")
        files.make_folder(launch.folder)
        planned.keep([part.planned for part in self.parts], launch.folder)
        head = Head(self.engine, launch, self.progress, self.screen.echo, self._tell, self.screen.doing)
        began = time.monotonic()
        with ExitStack() as held:
            held.enter_context(machine.stoppable(stop))
            if not self.asked.detach:
                held.enter_context(sharing.holding(launch.folder, sharing.HEAD))
            self.screen.echo(f"launch {launch.id}: {launch.workers} worker{'s' * (launch.workers > 1)} by {launch.launcher}")
            head.start()
            meter = Meter(self.progress)
            self.done = sum(len(part.made) for part in self.progress)
            if self.asked.detach:
                self.screen.echo(f"the workers go on; next: bench status --out {launch.out}")
                return None
            head.watch(stop)
        wall = time.monotonic() - began
        self.screen.echo(f"the workers have ended after {duration(wall)}")
        spent = meter.cost(launch.workers, wall)
        for line in spent.spent():
            self.screen.echo(line)
        kept = launches.read(launch.folder)  # the engine keeps workers that were started again
        kept.model_copy(update={"measured": {**spent.data(), "codes": head.codes}}).keep()
        return head

    def _tell(self, part: Progress, run: PlannedRun) -> None:
        """Say that a run is finished, and its scores."""
        from bench.experiment.grid import score
        from bench.record import read_one, record_path

        self.done += 1
        total = sum(len(one.planned.runs) for one in self.progress)
        record = read_one(record_path(part.out, part.made[run.id]))
        scores = ", ".join(f"{name} {score(record.metrics[name])}" for name in record.metric_ids)
        self.screen.echo(f"[{self.done}/{total}] {record.id} ({run.title}): {scores}")


def run_launched(asked: Wanted, config: RunConfig, out: Path, screen: Screen, searches: bool = False) -> None:
    """Run a grid, or with `searches` its searches alone, by workers, and show what `bench run` shows at its end."""
    from bench.cli.ending import show
    from bench.experiment.plan import plan
    from bench.launch.planning import planned

    launch, session = opened(asked, config, out, screen)
    made = plan(session, times_for(launch, session), others=False, runs=not searches)
    launcher = Launcher(asked, launch, [Part(session, planned(session, made, searches_only=searches))], screen)
    head = launcher.run()
    if head is None:
        return
    (part,) = launcher.progress
    if searches:
        _tell_searches(part, screen)
    else:
        show(head.records(part), session.out, screen)
    head.check(part)


def run_study(asked: Wanted, study: Study, out: Path, into: Path, only: Sequence[str], screen: Screen) -> list[str]:
    """Run a study's missing runs by workers and keep the records of its finished parts; return the reasons of the others."""
    from bench.experiment import study as studies
    from bench.experiment.plan import plan
    from bench.launch.planning import planned

    launch, parts, done = None, list[Part](), dict[str, int]()
    for name, config in studies.to_do(study, out, into, only, screen):
        begun, session = opened(asked, config, out, screen)
        session = replace(session, preregistration=studies.sha256_of(study))
        launch = launch or begun
        studies.copy_reusable(into, session)
        made = plan(session, times_for(launch, session), done, studies.reusable_records(into, session), others=False)
        parts.append(Part(session, planned(session, made, name)))
    if launch is None:
        return []
    launcher = Launcher(asked, launch, parts, screen)
    head, failed = launcher.run(), list[str]()
    if head is None:
        return failed
    for part in launcher.progress:
        name = part.planned.name
        try:
            head.check(part)
            studies.publish_part(into, out, name, study.parts[name], head.records(part))
        except BenchError as error:
            failed.append(f"{name}: {error}")
            screen.echo(f"  {failed[-1]}")
    return failed


def _tell_searches(part: Progress, screen: Screen) -> None:
    from bench.experiment.tuning import path_of
    from bench.record import read_tuning

    for name in part.rates:
        tuning = read_tuning(path_of(name, part.planned.searches[name].trials, part.out))
        rates = ", ".join(f"{phase} {rate:.3g}" for phase, rate in tuning.best.items())
        screen.echo(f"{name}: best {tuning.metric} {tuning.best_value:.4f} on val with {rates}")


def is_worker() -> bool:
    """Tell whether this process is a worker of a launch: the command that launched it shows the tables."""
    from bench.storage import launched

    return launched.here() is not None
