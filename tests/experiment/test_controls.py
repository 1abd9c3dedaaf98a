"""The controls: what is inherited, how many labels, which phases, what a seed varies; each visible in the row."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import record
from bench.config import RunConfig
from bench.data import catalogue, demo, splits
from bench.errors import DataError
from bench.experiment import finetuning as runs
from bench.experiment import resolve
from bench.models.trunk import inherit_encoder, make_trunk

Bench = Callable[..., "object"]


def test_a_new_trunk_inherits_the_encoder_and_nothing_else() -> None:
    torch.manual_seed(0)
    trained, fresh = make_trunk("unet:depth=4,width=4"), make_trunk("unet:depth=4,width=4")
    for buffer in trained.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2)
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    for name, tensor in inherit_encoder(fresh, trained).state_dict().items():
        assert torch.equal(tensor, (trained.state_dict() if name.startswith("down.") else before)[name]), name


def test_what_is_inherited_is_in_the_row_and_makes_a_difference(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "l1_color,random_init", "--downstream", "voc_seg", "--schedule", "two-phase")
    assert tiny(*asked, "--transfer", "all,encoder").code == 0
    records = record.read(tmp_path / "runs")
    assert sorted((one.pretext, one.job.transfer) for one in records) == [
        ("l1_color", "all"), ("l1_color", "encoder"), ("random_init", "all"), ("random_init", "encoder"),
    ]  # fmt: skip
    assert len({one.weights for one in records}) == 4 and len({one.pretrain.id for one in records}) == 2
    assert "Segmentation, encoder alone" in bench("report", "--out", tmp_path / "runs").out


def test_shares_of_labels_are_nested_stratified_and_kept(drawn: dict[str, Path], tmp_path: Path) -> None:
    data = catalogue.open_dataset(str(drawn["demo"]), print)
    split = splits.open_splits(data, "official", "labels")
    whole = set(split.ids("train"))
    half, tenth = (splits.open_share(data, split, share) for share in (0.5, 0.1))
    assert len(half.ids("train")) == round(len(whole) / 2) and len(tenth.ids("train")) == 2
    assert set(tenth.ids("train")) < whole and set(half.ids("train")) < whole
    assert half.members["test"] == split.members["test"]
    hundredth = splits.open_share(data, split, 0.01)
    assert set(hundredth.ids("train")) <= set(tenth.ids("train"))
    assert splits.open_share(data, split, 0.5) == half and splits.open_share(data, split, 1) is split
    labels = np.abs(data.labels(split.ids("train"))).mean(axis=0)
    assert np.abs(np.abs(data.labels(half.ids("train"))).mean(axis=0) - labels).max() < 0.15
    (path,) = (tmp_path / "home" / "splits").glob("*-0.5-*.json")
    path.write_text("{}")
    with pytest.raises(DataError, match="not a file of splits"):
        splits.open_share(data, split, 0.5)


def test_a_share_of_the_labels_stands_on_a_board_of_its_own(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen")
    assert tiny(*asked, "--labels", "0.5,1").code == 0
    half, whole = sorted(record.read(tmp_path / "runs"), key=lambda one: one.job.labels)
    assert (half.job.labels, half.data.counts["train"], whole.data.counts["train"]) == (0.5, 13, 24) or half.data.counts[
        "train"
    ] == 12
    assert half.data.fitted != whole.data.fitted and half.data.splits_fingerprint == whole.data.splits_fingerprint
    report = bench("report", "--out", tmp_path / "runs").out
    assert "50 % of the labels" in report and "labels differs" in report.replace("\n", " ")


def test_a_frozen_trunk_stays_as_it_is_to_the_end(tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, trunks = [], []
    train, make_model = runs.train, runs.make_model

    def made(job: object, trunk: torch.nn.Module, classes: int) -> object:
        trunks.append(trunk)
        return make_model(job, trunk, classes)

    def watched(stage: object, *rest: object) -> object:
        before = {name: tensor.clone() for name, tensor in trunks[-1].state_dict().items()}
        history = train(stage, *rest)
        kept.append(all(torch.equal(before[name], tensor) for name, tensor in trunks[-1].state_dict().items()))
        return history

    monkeypatch.setattr(runs, "make_model", made)
    monkeypatch.setattr(runs, "train", watched)
    asked = ("--pretext", "l1_color", "--downstream", "all", "--schedule", "frozen")
    assert tiny(*asked, "--set", "protocol.head_width=16").code == 0
    assert kept == [True, True]


def test_a_head_of_no_width_is_a_linear_probe(tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen")
    assert tiny(*asked, "--set", "protocol.head_width=0").code == 0
    (one,) = record.read(tmp_path / "runs")
    assert one.head.startswith("Linear(")


def test_seeds_vary_everything_or_fine_tuning_alone(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "l1_color", "--downstream", "voc_cls", "--schedule", "frozen", "--seeds", "4,7")
    assert tiny(*asked, "--vary", "finetune").code == 0
    found = record.read(tmp_path / "runs")
    assert sorted(one.job.seed for one in found) == [4, 7] and {one.pretrain.job.seed for one in found} == {4}
    assert len({one.weights for one in found}) == 2
    assert "l1_color (frozen; one trunk, seed 4)" in bench("report", "--out", tmp_path / "runs").out
    assert tiny(*asked).code == 0
    assert {one.pretrain.job.seed for one in record.read(tmp_path / "runs")} == {4, 7}
    report = bench("report", "--out", tmp_path / "runs").out
    assert "l1_color (frozen; one trunk, seed 4)" in report and "  l1_color (frozen)  " in report


def test_event_files_lie_beside_the_run(tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "l1_color", "--downstream", "voc_cls", "--schedule", "frozen", "--log", "tensorboard")
    assert tiny(*asked).code == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for kind, epochs in (("runs", 16), ("pretrained", 2)):
        (folder,) = (tmp_path / "runs" / kind).glob("*/tensorboard")
        events = EventAccumulator(str(folder))
        events.Reload()
        (name,) = (tag for tag in events.Tags()["scalars"] if "/epoch loss/" in tag)
        assert [event.step for event in events.Scalars(name)] == list(range(1, epochs + 1))


def test_a_phase_that_another_run_has_trained_already_has_event_files_of_its_own(tiny: Bench, tmp_path: Path) -> None:
    head = '{"train": "head", "epochs": 2, "lr": 0.01}'
    phases = f'{{"frozen": [{head}], "two-phase": [{head}, {{"train": "all", "epochs": 1, "lr": 0.001}}]}}'
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen,two-phase", "--log", "tensorboard")
    assert tiny(*asked, "--set", f"protocol.schedules={phases}").code == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for one in record.read(tmp_path / "runs"):
        events = EventAccumulator(str(tmp_path / "runs" / "runs" / one.id / "tensorboard"))
        events.Reload()
        found = [tag for tag in events.Tags()["scalars"] if "/epoch loss/" in tag]
        assert len(found) == len(one.job.phases), (one.job.schedule, found)


def test_a_setting_of_one_downstream_task_leaves_the_other_alone(drawn: dict[str, Path]) -> None:
    asked = RunConfig(
        pretext=("random_init",),
        downstream=("voc_cls", "voc_seg"),
        data=str(drawn["demo"]),
        set=("protocol.batch_size=4", "voc_seg.batch_size=2", "voc_seg.void=background"),
    )
    jobs = {job.downstream: job for job in resolve.resolve(asked, print).jobs}
    assert (jobs["voc_cls"].settings.batch_size, jobs["voc_seg"].settings.batch_size) == (4, 2)
    assert jobs["voc_cls"].protocol.endswith("+batch_size=4") and "void" not in jobs["voc_cls"].protocol
    assert jobs["voc_seg"].settings.void == "background"


def test_a_share_of_the_labels_is_a_share_of_those_that_choose_rates_too(tmp_path: Path) -> None:
    data = catalogue.open_dataset(str(demo.make(tmp_path / "drawn", 1, 200, 4)["demo"]), print)
    whole = splits.open_splits(data, "official", "labels")
    half, tenth = (splits.open_share(data, whole, share) for share in (0.5, 0.1))
    count = len(whole.ids("val"))
    assert count >= 16 and len(half.ids("val")) == round(count / 2) and len(tenth.ids("val")) == 2
    assert set(tenth.ids("val")) < set(whole.ids("val")) and set(half.ids("val")) < set(whole.ids("val"))
