"""A control is alive in every run: its features differ between images, or else an alarm rings."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench import record
from bench.data import demo
from bench.experiment import finetuning
from bench.models import batch_norm
from bench.models.trunk import make_trunk
from bench.storage.files import publish_json

Bench = Callable[..., Any]

NOTHING = {  # what is looked at comes before the first phase, so that none needs to be trained
    "one-phase": [{"train": "all", "epochs": 0, "lr": 1e-3}],
    "two-phase": [{"train": "head", "epochs": 0, "lr": 1e-3}, {"train": "all", "epochs": 0, "lr": 1e-3}],
    "frozen": [{"train": "head", "epochs": 0, "lr": 1e-3}],
}


EVERYTHING = (
    "--pretext", "all", "--downstream", "all", "--transfer", "all,encoder", "--schedule", "one-phase,two-phase,frozen",
    "--set", f"protocol.schedules={json.dumps(NOTHING)}",
    # steps enough for running averages: after ten they are still a third of what they began with
    "--set", "recipe.epochs=5", "--set", "recipe.batch_size=2",
)  # fmt: skip


@pytest.mark.parametrize("protocol", ["paper", "paper-code", "standard", "small", "demo"])
def test_every_initialisation_transfer_schedule_and_protocol_is_alive(protocol: str, tiny: Bench, tmp_path: Path) -> None:
    done = tiny(*EVERYTHING, "--protocol", protocol)
    assert done.code == 0 and "dead network" not in done.out, done.err or done.out
    records = record.read(tmp_path / "runs")
    assert len(records) == 3 * 3 * 2 + 3 + 3 * 4 * 2  # classification, where random weights have one way; segmentation
    for one in records:
        assert one.spread is not None and one.spread.ratio is not None and not one.spread.problem, one.spread
        measures = one.job.settings.statistics == "running"
        decoder = "trunk.up." if (one.job.transfer, one.downstream) == ("encoder", "voc_seg") else None
        new = "trunk." if one.pretext == "random_init" else decoder
        assert bool(one.spread.measured) == (measures and new is not None) == bool(one.spread.measured_on)
        assert all(f"trunk.{name}".startswith(new or "nothing") for name in one.spread.measured)


def test_with_calibration_all_inherited_statistics_are_measured_anew(tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "l1_color,random_init", "--downstream", "voc_seg", "--schedule", "frozen")
    assert tiny(*asked).code == 0 and tiny(*asked, "--set", "protocol.calibration=all").code == 0
    found = {(one.pretext, one.job.settings.calibration): one for one in record.read(tmp_path / "runs")}
    measured = {key: len(one.spread.measured) for key, one in found.items()}  # type: ignore[union-attr]
    assert measured["l1_color", "new"] == 0 < measured["l1_color", "all"] == measured["random_init", "new"]
    assert "calibration" not in found["l1_color", "new"].job.settings.identity()
    assert found["l1_color", "new"].weights != found["l1_color", "all"].weights
    same = found["random_init", "new"], found["random_init", "all"]
    assert same[0].predictions == same[1].predictions and same[0].id != same[1].id


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the measuring, as the program did before: the control of the control."""
    monkeypatch.setattr(batch_norm, "measure", lambda *_: None)


def test_without_the_measuring_the_alarm_rings_in_run_record_and_table(
    unmeasured: None, tiny: Bench, bench: Bench, tmp_path: Path
) -> None:
    done = tiny(*EVERYTHING)
    dead = {
        (one.pretext, one.job.transfer, one.downstream)
        for one in record.read(tmp_path / "runs")
        if one.spread and one.spread.problem
    }
    assert dead >= {("random_init", "all", "voc_cls"), ("random_init", "all", "voc_seg"), ("l1_color", "encoder", "voc_seg")}
    assert not any(transfer == "all" for pretext, transfer, _ in dead if pretext != "random_init")
    assert done.out.count("warning: a dead network: images differ in ") == sum(
        bool(one.spread and one.spread.problem) for one in record.read(tmp_path / "runs")
    )
    assert "‡: dead before fine-tuning" in bench("report", "--out", tmp_path / "runs").out
    assert "images differ in up." in (tmp_path / "runs" / "leaderboard.csv").read_text()


def last_losses(out: Path) -> list[float]:
    (one,) = record.read(out)
    losses: list[float] = one.losses[0]
    return losses


def test_a_head_alone_on_a_measured_random_trunk_learns_more_than_the_class_prior(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classification on the demo's labelled images, the trunk frozen throughout: dead, the loss stands still."""
    data = demo.make(tmp_path / "drawn", 2)["demo"]
    asked = ("run", "--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen", "--protocol", "demo")
    asked += ("--data", data, "--threads", 1, "--device", "cpu", "--out")
    assert bench(*asked, tmp_path / "measured").code == 0
    monkeypatch.setattr(batch_norm, "measure", lambda *_: None)
    dead = bench(*asked, tmp_path / "dead")
    assert dead.code == 0 and "dead network" in dead.out
    (one,) = record.read(tmp_path / "measured")
    prior = np.array(one.data.prior)
    entropy = float(np.mean(-prior * np.log(prior) - (1 - prior) * np.log(1 - prior)))  # what a head without features reaches
    alive, still = last_losses(tmp_path / "measured"), last_losses(tmp_path / "dead")
    assert alive[-1] < entropy - 0.02 and alive[3] - alive[-1] > 0.02, alive
    assert still[3] - still[-1] < 0.01, still


def test_statistics_are_measured_once_for_trials_and_without_the_validation_images(
    tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    measure = batch_norm.measure

    def counted(trunk: nn.Module, chosen: list[Any], forward: Any, batches: Iterator[Tensor]) -> None:
        seen = list(batches)
        rows.append(sum(map(len, seen)))
        measure(trunk, chosen, forward, seen)

    trained: list[tuple[str, set[int]]] = []
    opened = finetuning.open_task_data

    def watched(job: Any, *rest: Any) -> Any:
        found = opened(job, *rest)
        trained.append((job.split, set(found.training.rows.tolist())))
        return found

    monkeypatch.setattr(batch_norm, "measure", counted)
    monkeypatch.setattr(finetuning, "open_task_data", watched)
    asked = ("--pretext", "random_init", "--downstream", "voc_seg", "--schedule", "two-phase", "--tune", 3)
    assert tiny(*asked, "--set", "protocol.batch_size=2").code == 0
    assert [split for split, _ in trained] == ["val", "val", "val", "test"]
    assert trained[0][1] < trained[-1][1], "trials train without the validation images"
    assert rows == [len(trained[0][1]), len(trained[-1][1])]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_that_is_interrupted_after_the_measuring_ends_with_the_same_bits(seed: int, tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_seg", "--schedule", "two-phase", "--seed", seed)
    assert tiny(*asked).code == 0
    (whole,) = record.read(tmp_path / "runs")
    apart = ("--out", tmp_path / "apart")
    stopped = {"left": 3}
    train = finetuning.train

    def stops(stage: Any, split: Any, machine: Any, *rest: Any) -> Any:
        if stopped["left"]:
            stopped["left"] -= 1
            machine.stop.signal_number = 15
        return train(stage, split, machine, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "train", stops)
        assert [tiny(*asked, *apart).code for _ in range(3)] == [143] * 3
    assert tiny(*asked, *apart).code == 0
    (again,) = record.read(tmp_path / "apart")
    assert (again.weights, again.predictions, again.spread) == (whole.weights, whole.predictions, whole.spread)


@pytest.mark.parametrize("batch_size", [65, 4096])
def test_the_alarm_is_not_silenced_by_a_batch_size(
    batch_size: int, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_norm, "measure", lambda *_: None)
    data = demo.make(tmp_path / "drawn", 2, 90, 8)["demo"]
    asked = ("run", "--pretext", "random_init", "--downstream", "voc_seg", "--schedule", "frozen", "--protocol", "demo")
    asked += ("--trunk", "unet:depth=5,width=8", "--size", 32, "--data", data, "--threads", 1, "--device", "cpu")
    done = bench(*asked, "--set", f"protocol.batch_size={batch_size}", "--out", tmp_path / "runs")
    (one,) = record.read(tmp_path / "runs")
    assert "a dead network" in done.out and one.spread is not None and one.spread.images == 64


class Changed:
    """Makes a random trunk that is alive but for one layer."""

    def __init__(self, change: Callable[[nn.Module], object]) -> None:
        self.change = change

    def __call__(self, name: str) -> Any:
        trunk = make_trunk(name)
        with torch.no_grad():
            self.change(trunk)
        return trunk


@pytest.mark.parametrize("task", ["voc_cls", "voc_seg"])
@pytest.mark.parametrize(
    "change",
    [
        lambda trunk: trunk.down[1][0].weight.zero_(),
        lambda trunk: (trunk.down[-1][0].weight.zero_(), trunk.down[-1][0].bias.fill_(1.0)),
        lambda trunk: trunk.down[2][0].weight.fill_(float("nan")),
    ],
    ids=["a layer of zeros", "a constant bottleneck", "numbers that are none"],
)
def test_the_alarm_rings_on_a_layer_that_is_dead_under_batch_statistics_too(
    task: str, change: Callable[[Any], object], tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.experiment.pretraining.make_trunk", Changed(change))
    frozen = {"frozen": NOTHING["frozen"]}
    asked = ("--pretext", "random_init", "--downstream", task, "--schedule", "frozen")
    done = tiny(*asked, "--set", f"protocol.schedules={json.dumps(frozen)}")
    assert done.code == 0 and "a dead network" in done.out, done.out + done.err


def test_networks_that_begin_with_weights_of_zero_are_alive(tiny: Bench, tmp_path: Path) -> None:
    """timm lets the last batch norm of each residual block begin at zero, which passes the block by."""
    asked = ("--pretext", "random_init", "--downstream", "all", "--schedule", "frozen", "--size", 64)
    for trunk in ("timm:resnet18", "timm:convnext_atto,preprocessing=rgb"):
        done = tiny(*asked, "--trunk", trunk, "--set", f"protocol.schedules={json.dumps({'frozen': NOTHING['frozen']})}")
        assert done.code == 0 and "a dead network" not in done.out, done.out + done.err
    for one in record.read(tmp_path / "runs"):
        assert one.spread is not None and one.spread.cosine is not None and not one.spread.problem
        assert (one.spread.ratio is None) == (one.job.pretrain.trunk.startswith("timm:convnext") and one.downstream == "voc_cls")


def test_a_pretext_task_that_was_not_trained_is_measured_and_has_an_id_of_its_own(tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "l1_color", "--downstream", "voc_seg", "--schedule", "frozen", "--set", "l1_color.epochs=0")
    assert tiny(*asked).code == 0
    (one,) = record.read(tmp_path / "runs")
    assert one.job.statistics_version == 2 and one.spread is not None and one.spread.measured and not one.spread.problem


PLUGIN = (Path(__file__).parents[2] / "README.md").read_text().split("```python\n")[1].split("```")[0]


def test_a_plug_ins_run_of_before_is_not_taken_for_one_with_measured_statistics(tiny: Bench, tmp_path: Path) -> None:
    """README's plug-in trains the encoder; its decoder is new in segmentation, and its run's id cannot tell."""
    plugin = tmp_path / "upside_down.py"
    plugin.write_text(PLUGIN)
    asked = ("--plugin", plugin, "--pretext", "upside_down", "--downstream", "all", "--schedule", "frozen")
    assert tiny(*asked).code == 0
    found = {one.downstream: one for one in record.read(tmp_path / "runs")}
    assert found["voc_seg"].spread is not None and all(name.startswith("up.") for name in found["voc_seg"].spread.measured)
    assert found["voc_cls"].spread is not None and found["voc_cls"].spread.measured == ()
    one = found["voc_seg"]
    publish_json(
        tmp_path / "runs" / "runs" / one.id / "record.json", one.model_copy(update={"spread": None}).model_dump(mode="json")
    )
    refused = tiny(*asked)
    said = "did not measure the batch-norm statistics of parts that upside_down does not train"
    assert refused.code == 5 and said in refused.err
