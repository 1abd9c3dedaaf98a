"""A control is alive: its batch norms have statistics, its features differ between images, or else an alarm rings."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench import record, registry
from bench.data import demo
from bench.experiment import finetuning
from bench.models import batch_norm
from bench.models.modes import inference
from bench.models.network import Model
from bench.models.trunk import inherit_encoder, make_trunk
from bench.storage.files import publish_json

Bench = Callable[..., Any]


def images(count: int, side: int, seed: int = 0) -> Tensor:
    """Draw smooth coloured noise, uint8 (N, 3, S, S)."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)
    return (255 * smooth).to(torch.uint8)


def network(task: str, trunk: str, size: int) -> Model:
    torch.manual_seed(0)
    plugin = registry.load("downstreams", task)
    downstream = plugin(plugin.protocols["paper"].with_changes({"head_width": 16}, "paper"), 20)
    made = make_trunk(trunk)
    return Model(made, downstream.head(made, size), downstream).eval()


def spread(model: Model, seen: list[Tensor]) -> float:
    with torch.no_grad():
        return min(batch_norm.spread(model.trunk, model.features, seen).values())


WHOLE = pytest.param("unet:depth=8,width=64", 256, marks=pytest.mark.integration)


@pytest.mark.parametrize(("trunk", "size"), [("unet:depth=6,width=16", 64), WHOLE, ("timm:resnet18", 64)])
@pytest.mark.parametrize("task", ["voc_cls", "voc_seg"])
def test_the_alarm_rings_on_unmeasured_trunks_in_both_tasks_and_is_silent_once_they_are_measured(
    task: str, trunk: str, size: int
) -> None:
    model, seen = network(task, trunk, size), [images(4, size, seed) for seed in range(3)]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert spread(model, seen) < record.LEAST_RATIO / 3
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())
    chosen = batch_norm.norms_to_measure(model.trunk, "new", model.features, seen[0])
    assert chosen == batch_norm.norms_to_measure(model.trunk, "all", model.features, seen[0])
    decoder = {part for part in model.trunk.up.modules() if isinstance(part, nn.BatchNorm2d)}
    assert decoder & set(chosen) == (decoder if task == "voc_seg" else set()), "what the task runs through, and nothing else"
    batch_norm.measure(model.trunk, chosen, model.features, seen)
    assert spread(model, seen) > 5 * record.LEAST_RATIO
    assert not model.training and all(norm.momentum == 0.1 and not norm.training for norm in chosen)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_parameters())
    assert batch_norm.norms_to_measure(model.trunk, "new", model.features, seen[0]) == []
    assert batch_norm.norms_to_measure(model.trunk, "all", model.features, seen[0]) == chosen


def test_the_heads_input_alone_would_miss_a_dead_decoder() -> None:
    """The first skip has no batch norm: half of what the segmentation's head gets differs between images, come what may."""
    model, seen = network("voc_seg", "unet:depth=6,width=16", 64), images(8, 64)
    with torch.no_grad():
        features = model.downstream.features(model.trunk, model.trunk.preprocessing(seen))
    width = features.shape[1] // 2
    assert features[:, width:].std(dim=0).mean() > 10 * features[:, :width].std(dim=0).mean()
    assert batch_norm.cosine(features) < record.MOST_COSINE
    assert spread(model, [seen]) < record.LEAST_RATIO / 3


def test_measured_statistics_are_those_of_a_formula_written_out() -> None:
    """Two convolutions with batch norm by hand: the mean over batches of each batch's mean and unbiased variance."""
    torch.manual_seed(1)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2)
    )
    seen = [torch.rand(5, 3, 9, 9) for _ in range(3)]
    batch_norm.measure(layers, batch_norm.norms_to_measure(layers, "new", layers, seen[0]), layers, seen)

    def statistics(activation: Tensor) -> tuple[Tensor, Tensor]:
        return activation.mean(dim=(0, 2, 3)), activation.var(dim=(0, 2, 3), unbiased=True)

    first, second = [], []
    with torch.no_grad():
        for some in seen:
            one = layers[0](some)
            first.append(statistics(one))
            mean, variance = one.mean(dim=(0, 2, 3), keepdim=True), one.var(dim=(0, 2, 3), unbiased=False, keepdim=True)
            second.append(statistics(layers[4](torch.relu((one - mean) / (variance + 1e-5).sqrt()))))
    for norm, expected in ((layers[1], first), (layers[5], second)):
        assert torch.allclose(norm.running_mean, torch.stack([mean for mean, _ in expected]).mean(dim=0), atol=1e-5)
        assert torch.allclose(norm.running_var, torch.stack([variance for _, variance in expected]).mean(dim=0), atol=1e-5)
    assert layers.training, "it is given back in the mode that it had"


def test_what_was_inherited_keeps_its_statistics_and_only_the_new_decoder_is_measured() -> None:
    torch.manual_seed(0)
    trained, fresh = make_trunk("unet:depth=5,width=8"), make_trunk("unet:depth=5,width=8")
    trained.train()
    for seed in range(3):
        trained(trained.preprocessing(images(4, 32, seed)))
    heir = inherit_encoder(fresh, trained)
    names = {part: name for name, part in heir.named_modules()}

    def forward(some: Tensor) -> Tensor:
        return heir(heir.preprocessing(some))

    heir.eval()
    chosen = batch_norm.norms_to_measure(heir, "new", forward, images(4, 32))
    assert chosen and all(names[norm].startswith("up.") for norm in chosen) and batch_norm.never_used(heir) == chosen
    kept = {name: buffer.clone() for name, buffer in heir.down.named_buffers()}
    batch_norm.measure(heir, chosen, forward, [images(4, 32, 9)])
    assert all(torch.equal(buffer, kept[name]) for name, buffer in heir.down.named_buffers())
    assert len(batch_norm.norms_to_measure(heir, "all", forward, images(4, 32))) > len(chosen)


def test_all_images_are_taken_up_to_a_number_in_an_order_of_their_own() -> None:
    chosen = batch_norm.positions(5000, 16)
    assert len(chosen) == 128 and {len(some) for some in chosen} == {16} and len(np.unique(np.concatenate(chosen))) == 2048
    assert abs(np.corrcoef(np.concatenate(chosen), np.arange(2048))[0, 1]) < 0.1, "images sorted by class are mixed"
    again = batch_norm.positions(5000, 16)
    assert all(np.array_equal(one, other) for one, other in zip(chosen, again, strict=True))
    for count, batch_size, most, sizes in (
        (70, 32, 2048, [24, 23, 23]), (24, 16, 2048, [12, 12]), (7, 32, 2048, [7]), (3, 2, 2048, [3]), (2, 2, 2048, [2]),
        (3000, 4096, 2048, [2048]), (300, 65, 64, [64]), (300, 128, 64, [64]), (300, 33, 64, [32, 32]),
    ):  # fmt: skip
        found = batch_norm.positions(count, batch_size, most)
        assert [len(some) for some in found] == sizes
        assert len(np.unique(np.concatenate(found))) == min(count, most)
    assert batch_norm.positions(1, 32) == [] == batch_norm.positions(0, 32)


def test_without_batch_norm_features_that_are_all_alike_are_found() -> None:
    alike = torch.ones(6, 40) + 0.001 * torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    assert batch_norm.cosine(alike) > record.MOST_COSINE
    assert record.FeatureSpread(images=6, cosine=batch_norm.cosine(alike)).problem
    other = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0))
    assert abs(batch_norm.cosine(other)) < 0.5
    by_hand = [
        float(nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)) for i, a in enumerate(other) for b in other[:i]
    ]
    assert batch_norm.cosine(other) == pytest.approx(float(torch.tensor(by_hand).median()), abs=1e-6)
    assert batch_norm.cosine(torch.zeros(4, 9)) == 1.0


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
    assert len(records) == 2 * 3 * (3 * 2 + 1)
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


def test_looking_at_a_network_changes_nothing_of_it() -> None:
    model, seen = network("voc_seg", "unet:depth=5,width=8", 32), [images(4, 32)]
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with inference(model):
        spread(model, seen)
    assert model.training and all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())
    assert all(norm.track_running_stats for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))
    assert not any(part._forward_hooks for part in model.modules())


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
    plugin = tmp_path / "rotation.py"
    plugin.write_text(PLUGIN)
    asked = ("--plugin", plugin, "--pretext", "rotation", "--downstream", "all", "--schedule", "frozen")
    assert tiny(*asked).code == 0
    found = {one.downstream: one for one in record.read(tmp_path / "runs")}
    assert found["voc_seg"].spread is not None and all(name.startswith("up.") for name in found["voc_seg"].spread.measured)
    assert found["voc_cls"].spread is not None and found["voc_cls"].spread.measured == ()
    one = found["voc_seg"]
    publish_json(
        tmp_path / "runs" / "runs" / one.id / "record.json", one.model_copy(update={"spread": None}).model_dump(mode="json")
    )
    refused = tiny(*asked)
    assert refused.code == 5 and "did not measure the batch-norm statistics of parts that rotation does not train" in refused.err
