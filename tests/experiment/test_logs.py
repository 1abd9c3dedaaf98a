"""--log: each tool has what the record has, by its own reader; nothing is lost or doubled; a tool that fails costs no run."""

import importlib.util
import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench import record
from bench.storage import offline
from bench.training import loggers, trackers
from bench.training.trackers import allowed
from tests import logs
from tests.conftest import QUICK, TINY

Bench = Callable[..., Any]
KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed"))
    for kind, package in trackers.PACKAGES.items()
]
FROZEN = ("--pretext", "l1_color", "--downstream", "voc_cls", "--schedule", "frozen")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let no key, server or mode of the machine reach a test."""
    for name in (
        "WANDB_API_KEY",
        "WANDB_MODE",
        "WANDB_PROJECT",
        "WANDB_SERVICE",
        "MLFLOW_TRACKING_URI",
        "MLFLOW_EXPERIMENT_NAME",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def written(kind: str, out: Path, part: str, name: str) -> tuple[dict[str, list[tuple[int, float]]], dict[str, Any]]:
    return logs.read(kind, out / part / name, out, name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tool_has_the_losses_of_the_record(kind: str, tiny: Bench, tmp_path: Path) -> None:
    done = tiny(*FROZEN, "--log", kind)
    assert done.code == 0 and not done.err, done.err
    said = [line for line in done.out.splitlines() if "still at work" not in line]
    assert not any(kind in line for line in said), "the screen stays clean"
    out = tmp_path / "runs"
    (one,) = record.read(out)
    head = f"{one.job.downstream} phase 1 (frozen trunk)"
    means = {"pretrain l1_color/epoch loss/generator": [epoch["generator"] for epoch in one.pretrain.history]}
    parts = [("pretrained", one.pretrain, means), ("runs", one, {f"{head}/epoch loss/loss": one.losses[0]})]
    for part, made, expected in parts:
        name, count, batch = made.id, made.data.counts["train"], 32 if part == "runs" else 8
        sizes = [batch] * (count // batch) + [count % batch] * (count % batch > 0)
        values, facts = written(kind, out, part, name)
        assert facts["id"] == name and facts["kind"] == {"runs": "run"}.get(part, "pretraining")
        tag, value = ("settings.head_width", 16) if part == "runs" else ("recipe.batch_size", 8)
        assert float(facts[tag]) == value
        for tag, losses in expected.items():
            name_of = allowed if kind == "mlflow" else str
            found = values[name_of(tag)]
            assert [step for step, _ in found] == list(range(1, len(losses) + 1))
            assert [value for _, value in found] == pytest.approx(losses, rel=1e-6)
            each = values[name_of(tag.replace("epoch loss", "loss"))]
            assert [step for step, _ in each] == list(range(1, len(losses) * len(sizes) + 1))
            by_epoch = np.reshape([value for _, value in each], (len(losses), len(sizes)))
            assert np.average(by_epoch, axis=1, weights=sizes) == pytest.approx(losses, rel=1e-5)
            rates = values[name_of(tag.replace("epoch loss", "learning rate"))]
            falling = part == "pretrained"  # along the recipe's cosine; the protocol of classification has a constant rate
            assert len(rates) == len(losses) and all(value > 0 for _, value in rates)
            assert len({value for _, value in rates}) == (len(rates) if falling else 1)
            assert len(values[name_of(tag.rpartition("/epoch loss")[0] + "/images per second")]) == len(losses)


@pytest.mark.parametrize("kind", [one for one in KINDS if one.values[0] != "csv"])
def test_a_tool_that_can_has_figure_7(kind: str, tiny: Bench, tmp_path: Path) -> None:
    assert tiny(*FROZEN, "--log", kind, "--epochs", "1").code == 0
    out = tmp_path / "runs"
    (one,) = record.read(out)
    folder = out / "pretrained" / one.pretrain.id
    found = logs.figures(kind, folder, out, one.pretrain.id)
    assert len(found) == 2
    whole = np.asarray(Image.open(folder / "figure7.png"))
    shown = [np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image in found]
    assert any(image.shape == whole.shape and (image == whole).all() for image in shown)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tool_has_the_score_of_every_epoch_of_a_trial(kind: str, tiny: Bench, tmp_path: Path) -> None:
    assert tiny(*FROZEN, "--log", kind, "--tune", "1", "--epochs", "3").code == 0
    out = tmp_path / "runs"
    (one,) = record.read(out)
    assert one.tuning is not None
    (folder,) = (out / "studies").glob("*/trials/*") if kind != "mlflow" else (out / "studies").glob("*")
    name = folder.name if kind != "mlflow" else trial_of(out)
    values, facts = logs.read(kind, folder, out, name)
    tag = f"voc_cls phase 1 (frozen trunk)/validation/{one.tuning.metric}"
    scores = values[allowed(tag) if kind == "mlflow" else tag]
    assert [step for step, _ in scores] == [1, 2, 3] and facts["kind"] == "trial"
    assert scores[-1][1] == pytest.approx(one.tuning.trials[0].value, rel=1e-6)


def trial_of(out: Path) -> str:
    """Return the name of the only trial in MLflow."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("pretext-bench")
    (run,) = client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")
    return str(run.info.run_name)


def test_all_tools_of_a_killed_run_have_what_those_of_an_undisturbed_one_have(
    tiny: Bench, drawn: dict[str, Path], tmp_path: Path
) -> None:
    kinds = [kind for kind, package in trackers.PACKAGES.items() if importlib.util.find_spec(package)]
    every_step = ("--checkpoint-seconds", "0", "--log", ",".join(kinds))
    assert tiny(*FROZEN, *every_step).code == 0
    out = tmp_path / "killed"
    data = ("--data", str(drawn["demo"]), "--pretrain-data", str(drawn["demo_unlabelled"]), "--out", str(out))
    command = [sys.executable, "-m", "bench", "run", *FROZEN, *TINY, *QUICK, *data, *every_step]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None and not any(
        int(path.name.split("-")[0]) >= 9 for path in (out / "work").glob("l1_color-voc_cls-*/phase-1/*.safetensors")
    ):
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "killed too late to say anything"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr and "goes on from step" in done.stdout, done.stderr
    (one,) = record.read(out)
    for kind in kinds:
        for part, name in (("pretrained", one.pretrain.id), ("runs", one.id)):
            found = [written(kind, place, part, name)[0] for place in (out, tmp_path / "runs")]
            for values in found:
                assert values.pop(next(tag for tag in values if "per second" in tag))
            assert {tag: sorted(these) for tag, these in found[0].items()} == found[1], kind


def test_a_missing_package_is_named_before_anything_else(tiny: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorboard", "wandb", "mlflow"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, name, None)  # type: ignore[arg-type]
            done = tiny(*FROZEN, "--log", f"csv,{name}")
        assert done.code == 2 and done.err.count("\n") == 1
        assert f"--log {name} needs the extra: pip install 'pretext-bench[{name}]'." in done.err


class Broken(trackers.Csv):
    """A tool whose disk or server goes away after some values, or was never there."""

    writes = 3

    def begin(self, state: dict[str, Any]) -> None:
        if not self.writes:
            raise ConnectionError("no route\nto host")

    def write(self, entries: list[trackers.Entry], folder: Path) -> None:
        self.writes -= 1
        if not self.writes:
            raise OSError(28, "No space left on device")

    def close(self, status: str) -> None:
        raise AssertionError("a tool that failed is not asked again")


def test_a_tool_that_fails_during_a_run_costs_a_line_and_not_the_run(
    tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(trackers.KINDS, "tensorboard", Broken)
    monkeypatch.setattr(loggers, "EVERY", 0.0)
    done = tiny(*FROZEN, "--log", "tensorboard,csv", "--epochs", "2")
    assert done.code == 0, done.err
    assert done.out.count("warning: --log tensorboard fails ([Errno 28] No space left on device); what it has of l1_color-") == 2
    (one,) = record.read(tmp_path / "runs")
    values, _ = written("csv", tmp_path / "runs", "runs", one.id)
    assert len(values["voc_cls phase 1 (frozen trunk)/loss/loss"]) == 2, "the other tool has everything"


def test_a_tool_that_never_works_ends_the_command_before_anything_is_trained(
    tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(trackers.KINDS, "tensorboard", Broken)
    monkeypatch.setattr(Broken, "writes", 0)
    done = tiny(*FROZEN, "--log", "tensorboard")
    assert done.code in (4, 5) and "--log tensorboard does not work (no route to host); leave it out" in done.err + done.out
    assert not (tmp_path / "runs" / "pretrained").exists()


def test_wandb_is_offline_with_offline_and_without_a_key(tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    modes: list[str] = []
    init = wandb.init

    def noted(**options: Any) -> Any:
        modes.append(options["mode"])
        return init(**{**options, "mode": "offline"})

    monkeypatch.setattr(wandb, "init", noted)
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen", "--epochs", "1", "--log", "wandb")
    assert tiny(*asked).code == 0
    monkeypatch.setattr(wandb, "login", lambda *, prompt, verify: not prompt and not verify)  # as when there is a key
    assert tiny(*asked, "--out", tmp_path / "key").code == 0
    monkeypatch.setenv(offline.VARIABLE, "1")
    assert tiny(*asked, "--out", tmp_path / "offline").code == 0
    assert modes == ["offline", "online", "offline"]


def test_a_tool_that_is_asked_for_changes_no_id(tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen", "--epochs", "1")
    assert tiny(*asked, "--log", "csv").code == 0
    done = tiny(*asked)
    assert done.code == 0 and "finished before" in done.out
