"""The tools that --log can write with: TensorBoard, CSV files, Weights & Biases, MLflow; each by Lightning's own logger.

No tool asks a question on the terminal, and none but those whose user names a server uses the network.
"""

from __future__ import annotations

import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from bench.errors import UsageError
from bench.storage import files, locks, offline

PROJECT = "pretext-bench"
"""The name of the project (wandb) or experiment (mlflow), unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME says another."""
PACKAGES = {"tensorboard": "tensorboard", "csv": "lightning", "wandb": "wandb", "mlflow": "mlflow"}
"""The package of each tool; all but the one for CSV files are extras."""
LONGEST = 60.0
"""The most seconds that a run waits for wandb's server, at its beginning and at its end."""
MOST_IN_ONE = 1000
"""The most values that MLflow takes in one request."""


def check(kinds: Iterable[str]) -> None:
    """Raise UsageError for a tool whose package is not installed."""
    for kind in kinds:
        if find_spec(PACKAGES[kind]) is None:
            raise UsageError(f"--log {kind} needs the extra: pip install 'pretext-bench[{kind}]'.")


@dataclass(frozen=True)
class Subject:
    """What is logged: a pretraining, a run or a trial of a search."""

    name: str
    """The job's id, by which a user finds it in a tool."""
    kind: str
    """pretraining, run or trial."""
    facts: dict[str, Any]
    """The job as a flat dictionary of numbers and texts."""
    work: Path
    """The working folder, in which the tools' folders lie while it trains."""
    out: Path
    """The output folder of the command, in which the database of MLflow lies."""
    echo: Callable[[str], object]
    doing: Callable[[str], object]
    """Notes what is being done, for a user who waits."""


@dataclass(frozen=True)
class Entry:
    """What is known at one time: some values, or a figure."""

    stage: str
    at: int
    """How many training steps of the stage were made before."""
    step: int
    """The place on the x axis: the number of the training step, or of the epoch, counted from 1."""
    values: dict[str, float] = field(default_factory=dict)
    figure: str = ""
    """The figure's tag; the figure itself is in `file`."""
    file: str = ""
    """The figure's PNG file, in the folder of the journal."""


class Tracker(Protocol):
    """One of the tools."""

    rebuilt: bool
    """Whether a resumed subject is written anew from its beginning, since the tool's files are only here."""

    def begin(self, state: dict[str, Any]) -> None:
        """Begin, or go on after an interruption; `state` is what an earlier call left there, and is kept on the disk."""

    def write(self, entries: list[Entry], folder: Path) -> None:
        """Write entries, whose figures are in `folder`, so that a kill does not lose them."""

    def close(self, status: str) -> None:
        """End: `status` is success, failed or interrupted."""


class TensorBoard:
    """Event files, by Lightning's TensorBoardLogger."""

    rebuilt = True

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.logger: Any = None

    def begin(self, state: dict[str, Any]) -> None:
        """Begin with an empty folder."""
        from lightning.pytorch.loggers import TensorBoardLogger

        self.close("interrupted")
        files.remove(self.subject.work / "tensorboard")
        self.logger = TensorBoardLogger(self.subject.work, name="", version="tensorboard", default_hp_metric=False)
        self.logger.log_hyperparams(self.subject.facts)
        self.logger.experiment.add_hparams(self.subject.facts, {}, run_name=".")

    def write(self, entries: list[Entry], folder: Path) -> None:
        """Write entries and flush the file."""
        for entry in entries:
            self.logger.log_metrics(entry.values, entry.step)
            if entry.figure:
                pixels = np.asarray(Image.open(folder / entry.file))
                self.logger.experiment.add_image(entry.figure, pixels, entry.step, dataformats="HWC")
        self.logger.experiment.flush()

    def close(self, status: str) -> None:
        """Close the event file."""
        if self.logger is not None:
            self.logger.finalize("success")
            self.logger = None


class Csv:
    """A CSV file, by Lightning's CSVLogger: a row for each step and for each epoch; figures are left out."""

    rebuilt = True

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.logger: Any = None

    def begin(self, state: dict[str, Any]) -> None:
        """Begin with an empty folder."""
        from lightning.pytorch.loggers import CSVLogger

        files.remove(self.subject.work / "csv")
        self.logger = CSVLogger(self.subject.work, name="", version="csv")
        self.logger.log_hyperparams(self.subject.facts)

    def write(self, entries: list[Entry], folder: Path) -> None:
        """Write rows and flush the file."""
        for entry in entries:
            if entry.values:
                self.logger.log_metrics(entry.values, entry.step)
        self.logger.save()

    def close(self, status: str) -> None:
        """Write the last rows."""
        if self.logger is not None:
            self.logger.finalize(status)


class Wandb:
    """A run of Weights & Biases, by Lightning's WandbLogger: sent to the server, or kept in a folder when offline.

    It is offline with --offline, without a key, and when WANDB_MODE says so.
    """

    rebuilt = True

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.run: Any = None
        self.logger: Any = None
        self.steps: dict[str, int] = {}

    def begin(self, state: dict[str, Any]) -> None:
        """Begin a run, or go on with the one that an earlier process began on the server."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else it looks up a server for reports of its own faults
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb
        from lightning.pytorch.loggers import WandbLogger

        self.close("interrupted")
        mode: Any = "offline" if offline.is_forbidden() else os.environ.get("WANDB_MODE")
        mode = mode or ("online" if wandb.login(prompt=False, verify=False) else "offline")
        self.rebuilt = mode == "offline"
        if self.rebuilt:
            state.clear()
            files.remove(self.subject.work / "wandb")
        name = state.setdefault("run", f"{self.subject.name}-{uuid.uuid4().hex[:8]}")
        self.steps = state.setdefault("steps", {})
        self.subject.work.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=self.subject.name,
            id=name,
            job_type=self.subject.kind,
            dir=self.subject.work,
            mode=mode,
            reinit="create_new",  # a run of the user's own in this process stays as it is
            resume=None if self.rebuilt else "allow",
            settings=wandb.Settings(
                silent=True, console="off", init_timeout=LONGEST, finish_timeout=LONGEST, finish_timeout_raises=True
            ),
        )
        self.run.define_metric("trainer/global_step")
        self.run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        self.logger = WandbLogger(experiment=self.run)
        self.logger.log_hyperparams(self.subject.facts)

    def write(self, entries: list[Entry], folder: Path) -> None:
        """Hand entries to wandb's own process, which outlives a kill of this one."""
        for entry in entries:
            new = {tag: value for tag, value in entry.values.items() if self._is_new(tag, entry.step)}
            if new:
                self.logger.log_metrics(new, entry.step)
            if entry.figure and self._is_new(entry.figure, entry.step):
                self.logger.log_image(entry.figure, [str(folder / entry.file)], entry.step)

    def _is_new(self, tag: str, step: int) -> bool:
        """Tell whether a value is none of those that the server has; the steps of a tag only grow."""
        if self.rebuilt:
            return True
        known = self.steps.get(tag, 0)
        self.steps[tag] = max(known, step)
        return bool(step > known)

    def close(self, status: str) -> None:
        """Wait until everything is written or sent."""
        if self.run is not None:
            import wandb

            self.logger.finalize(status)
            run, self.run = self.run, None
            run.finish(exit_code=int(status != "success"))
            if self.rebuilt and wandb.run is None:  # the file is whole only once wandb's process has ended; none but ours uses it
                wandb.teardown()


class Mlflow:
    """A run of MLflow, by Lightning's MLFlowLogger: on the server of MLFLOW_TRACKING_URI, else in `mlflow.db` in --out."""

    rebuilt = False
    STATUS = {"success": "success", "failed": "failed", "interrupted": "KILLED"}

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.logger: Any = None
        self.there: set[tuple[str, int]] = set()

    def begin(self, state: dict[str, Any]) -> None:
        """Begin a run, or go on with the one that an earlier process began, whose values are not written twice."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # 7 by default, which are minutes when a server is away
        import mlflow
        from lightning.pytorch.loggers import MLFlowLogger

        before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
        for noisy in ("alembic", "lightning.pytorch.loggers.mlflow", "mlflow"):  # MONAI may have imported it with its own level
            logging.getLogger(noisy).setLevel(logging.ERROR)
        out, server = self.subject.out.absolute(), os.environ.get("MLFLOW_TRACKING_URI")
        with locks.lock(out / "locks" / "mlflow.lock", self.subject.echo):  # the first process makes the tables
            self.logger = MLFlowLogger(
                experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT,
                run_name=self.subject.name,
                tracking_uri=server or f"sqlite:///{out / 'mlflow.db'}",
                tags={"kind": self.subject.kind},
                artifact_location=None if server else (out / "mlflow-artifacts").as_uri(),
                run_id=state.get("run"),
            )
            client = self.logger.experiment
        mlflow.set_tracking_uri(before)  # Lightning leaves its own to the process and to those that it starts
        if "run" not in state:
            state["run"] = self.logger.run_id
            self.logger.log_hyperparams(self.subject.facts)
            return
        client.update_run(state["run"], status="RUNNING")
        names = client.get_run(state["run"]).data.metrics
        self.there = {(name, value.step) for name in names for value in client.get_metric_history(state["run"], name)}

    def write(self, entries: list[Entry], folder: Path) -> None:
        """Write entries in as few requests as MLflow allows: one for each step would take longer than many a step itself."""
        from mlflow.entities import Metric

        now, client, run = time.time_ns() // 1_000_000, self.logger.experiment, self.logger.run_id
        values = [(allowed(tag), value, entry.step) for entry in entries for tag, value in entry.values.items()]
        metrics = [Metric(tag, value, now, step) for tag, value, step in values if (tag, step) not in self.there]
        for first in range(0, len(metrics), MOST_IN_ONE):
            client.log_batch(run, metrics=metrics[first : first + MOST_IN_ONE])
        for entry in entries:
            if entry.figure:
                client.log_artifact(run, str(folder / entry.file), allowed(entry.figure))

    def close(self, status: str) -> None:
        """Say how the run ended."""
        if self.logger is not None:
            self.logger.finalize(self.STATUS[status])


def allowed(tag: str) -> str:
    """Return a tag without the characters that MLflow does not allow in it.

    >>> allowed("voc_cls phase 1 (frozen trunk)/loss/loss")
    'voc_cls phase 1 frozen trunk/loss/loss'
    """
    return re.sub(r"[^\w/. -]", "", tag, flags=re.ASCII)


KINDS: dict[str, Callable[[Subject], Tracker]] = {"tensorboard": TensorBoard, "csv": Csv, "wandb": Wandb, "mlflow": Mlflow}
FOLDERS = ("tensorboard", "csv", "wandb")
"""The tools' folders: in a working folder while it trains, in the run's own folder afterwards."""
