"""The journal of --log: it is cut back to the checkpoint, and each tool has every value once."""

import contextlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.storage import offline
from bench.training import loggers, trackers
from bench.training.loggers import Journal, JournalLogger
from bench.training.trackers import Entry, Subject
from tests import logs

KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed"))
    for kind, package in trackers.PACKAGES.items()
]


class Quiet:
    """A screen that shows nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def opened(kind: str, place: Path, worked: set[str]) -> JournalLogger:
    subject = Subject("task-0123", "run", {"id": "task-0123", "seed": 0}, place / "work", place, print, print)
    return JournalLogger([kind], Quiet(), subject, worked)


def trained(logger: JournalLogger, stage: str, done: int, last: int, plus: float = 0.0) -> None:
    """Log a stage of epochs of 4 steps from step `done` to step `last`."""
    logger.stage(stage, 5, 4, done)
    for step in range(done + 1, last + 1):
        logger.losses(step, {"loss": step + plus})
        if step % 4 == 0:
            logger.epoch(step // 4 - 1, {"loss": step + plus}, 1.0, 10)
            logger.values(step // 4 - 1, {"validation/map": step / 100})
            logger.figure(step // 4 - 1, "picture", np.full((4, 6, 3), step, np.uint8))


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
def test_a_tool_has_every_value_once_after_a_kill(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies at step 10 of the second stage; the checkpoints are at step 2 of the first and at step 5 of the second."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv(offline.VARIABLE, "1")
    monkeypatch.setattr(loggers, "EVERY", 0.0)
    first = opened(kind, tmp_path, set())
    trained(first, "one", 0, 8)
    trained(first, "two", 0, 10)
    first.tools[kind].close("interrupted")
    with (tmp_path / "work" / "log" / "values.jsonl").open("a") as file:
        file.write('{"stage": "two", "at": 11, "st')
    second = opened(kind, tmp_path, set())
    trained(second, "one", 2, 8)
    trained(second, "two", 5, 12)
    second.close("success")
    values, facts = logs.read(kind, tmp_path / "work", tmp_path, "task-0123")
    assert facts["id"] == "task-0123" and float(facts["seed"]) == 0
    for stage, steps in (("one", 8), ("two", 12)):
        epochs = range(1, steps // 4 + 1)
        assert sorted(values[f"{stage}/loss/loss"]) == [(step, step) for step in range(1, steps + 1)]
        assert sorted(values[f"{stage}/epoch loss/loss"]) == [(epoch, epoch * 4) for epoch in epochs]
        scores = sorted(values[f"{stage}/validation/map"])
        assert [epoch for epoch, _ in scores] == list(epochs)
        assert [score for _, score in scores] == pytest.approx([epoch / 25 for epoch in epochs])


@pytest.mark.integration
def test_files_that_are_only_here_have_the_values_of_the_network_that_went_on(tmp_path: Path) -> None:
    """On a GPU, what is trained again after a kill has other last digits."""
    first = opened("csv", tmp_path, set())
    trained(first, "one", 0, 8)
    first.hand_over()
    second = opened("csv", tmp_path, set())
    trained(second, "one", 6, 8, plus=0.5)
    second.close("success")
    values, _ = logs.read("csv", tmp_path / "work", tmp_path, "task-0123")
    assert values["one/loss/loss"] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7.5), (8, 8.5)]


def test_a_journal_is_cut_back_to_the_checkpoint_of_its_own_stage(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert not journal.rewind("one", 0)
    entries = [Entry(stage, at, at, {"x": 0.1}) for stage in ("one", "two") for at in (1, 2, 3)]
    for entry in entries:
        journal.add(entry)
    again = Journal(tmp_path)
    assert list(again.read()) == entries
    assert not again.rewind("one", 3) and again.rewind("two", 1)
    assert [(entry.stage, entry.at) for entry in again.read()] == [("one", 1), ("one", 2), ("one", 3), ("two", 1)]


def test_a_server_of_wandb_is_sent_nothing_twice(tmp_path: Path) -> None:
    tool = trackers.Wandb(Subject("task", "run", {}, tmp_path, tmp_path, print, print))
    tool.rebuilt, tool.steps, sent = False, {"one/loss": 2}, []
    tool.logger = type("Sink", (), {"log_metrics": staticmethod(lambda values, step: sent.append((step, values)))})
    tool.write([Entry("one", at, at, {"one/loss": at / 2, "one/rate": 1.0}) for at in (1, 2, 3)], tmp_path)
    tool.write([Entry("one", 3, 3, {"one/loss": 9.0})], tmp_path)
    assert sent == [(1, {"one/rate": 1.0}), (2, {"one/rate": 1.0}), (3, {"one/loss": 1.5, "one/rate": 1.0})]
    assert tool.steps == {"one/loss": 3, "one/rate": 3}


def children() -> set[str]:
    """Return the command lines of the processes that this one has started and that live."""
    numbers = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
    found = set()
    for number in numbers:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found.add(Path(f"/proc/{number}/cmdline").read_text().replace("\0", " "))
    return found


@pytest.mark.integration
def test_an_offline_file_of_wandb_is_whole_when_its_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is copied at once; wandb's own process writes the last of it after `finish` has returned."""
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_SERVICE", raising=False)
    monkeypatch.setenv(offline.VARIABLE, "1")
    logger = opened("wandb", tmp_path, set())
    trained(logger, "one", 0, 20)
    assert any("wandb-core" in child for child in children())
    logger.close("success")
    assert not any("wandb-core" in child for child in children())
    values, _ = logs.read("wandb", tmp_path / "work", tmp_path, "task-0123")
    assert len(values["one/loss/loss"]) == 20
