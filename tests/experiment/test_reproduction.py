"""A run is told, written as a command, and made again to the bit."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench import record
from bench.config import MachineConfig
from bench.experiment import reproduction, resolve
from bench.storage.files import publish_json
from bench.training import machine
from tests.conftest import QUICK, TINY

Bench = Callable[..., "object"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--pretext", "random_init", "--schedule", "one-phase"),
        ("--pretext", "cgan_color", "--set", "cgan_color.l1_weight=10", "--seed", 3),
        ("--pretext", "l1_color", "--transfer", "encoder", "--labels", "0.5", "--rates", "0.001,0.0003"),
        ("--pretext", "l1_color", "--schedule", "frozen", "--set", "protocol.augmentation=flip"),
        ("--pretext", "l1_color", "--tune", 2),
        ("--pretext", "random_init", "--schedule", "one-phase", "--labels", "0.333333333333"),
    ],
)
def test_the_command_of_a_run_asks_for_that_run(
    tiny: Bench, bench: Bench, tmp_path: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny(*arguments, "--downstream", "voc_cls").code == 0
    (one,) = record.read(tmp_path / "runs")
    words = reproduction.command(one)
    shown = bench("show", one.id, "--out", tmp_path / "runs")
    assert shown.out.splitlines()[-1] == shlex.join(words) and words[:2] == ["bench", "run"]
    for text in (one.id, one.weights, one.pretrain.weights, "cost of pretraining", "commit", "split", f"seed\t{one.job.seed}"):
        assert text in shown.out
    asked: list[resolve.Grid] = []
    original = resolve.resolve
    monkeypatch.setattr("bench.experiment.session.resolve", lambda *rest: asked.append(original(*rest)) or asked[0])
    assert bench(*words[1:], "--plan", "--device", "cpu", "--out", tmp_path / "other").code == 0
    (job,) = asked[0].jobs
    searched = {"study": one.job.study, "trials": one.job.trials}
    assert job.model_copy(update=searched).id == one.id


def test_sizes_and_trunks_of_a_protocol_are_not_asked_for_twice(bench: Bench, drawn: dict[str, Path], tmp_path: Path) -> None:
    data = ("--data", drawn["demo"], "--pretrain-data", drawn["demo_unlabelled"], "--out", tmp_path / "runs", "--device", "cpu")
    own = ("--set", "protocol.size=32", "--set", 'protocol.trunk="unet:depth=5,width=8"', *QUICK)
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen", "--threads", 1, "--protocol", "demo")
    assert bench("run", *data, *own, *asked).code == 0
    (one,) = record.read(tmp_path / "runs")
    again_at = bench(*reproduction.command(one)[1:], "--device", "cpu", "--out", tmp_path / "runs")
    assert again_at.code == 0 and "finished before" in again_at.out


def test_a_run_is_reproduced_to_the_bit_and_what_differs_is_told(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    assert tiny("--pretext", "l1_color", "--downstream", "voc_seg", "--tune", 2).code == 0
    (one,) = record.read(out)
    same = bench("reproduce", one.id[:-3], "--out", out, "--device", "cpu")
    assert same.code == 0, same.err
    assert "differs" not in same.out and same.out.count("equal") == 3 + 3 and "was reproduced to the bit" in same.out
    (made,) = record.read(out / "reproduced" / one.id)
    assert made.weights == one.weights and made.tuning == one.tuning and made.id == one.id
    assert not (out / "reproduced" / one.id / "studies").exists()
    path = out / "runs" / one.id / "record.json"
    publish_json(path, one.model_copy(update={"metrics": {**one.metrics, "miou_voc@1": 0.99}}).model_dump(mode="json"))
    other = bench("reproduce", one.id, "--out", out, "--device", "cpu", "--threads", 1)
    assert other.code == 1 and "was not reproduced" in other.err and "differs" in other.out
    publish_json(path, one.model_copy(update={"weights": "0" * 64}).model_dump(mode="json"))
    assert bench("reproduce", one.id, "--out", out, "--device", "cpu").code == 1
    rough = bench("reproduce", one.id, "--out", out, "--device", "cpu", "--tolerance", 0.1)
    assert rough.code == 0 and "reproduced with other bits" in rough.out


def test_on_another_processor_metrics_are_compared_and_what_differs_is_told(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    assert tiny("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen").code == 0
    (one,) = record.read(out)
    here = one.provenance["machine"]
    assert here["capability"] == torch.backends.cpu.get_cpu_capability() and here["device"] == machine.processor()
    changes = {"capability": "AVX2", "device": "another processor"}
    elsewhere = {**one.provenance, "machine": {**here, **changes}, "versions": {**one.provenance["versions"], "torch": "2.11.0"}}
    path = out / "runs" / one.id / "record.json"
    other = one.model_copy(update={"provenance": elsewhere, "weights": "0" * 64})
    publish_json(path, other.model_dump(mode="json"))
    made = bench("reproduce", one.id, "--out", out, "--device", "cpu")
    assert made.code == 0 and "reproduced with other bits" in made.out, made.err
    for said in ("processor another processor, here", "instructions AVX2, here", "torch 2.11.0, here"):
        assert said in made.out.replace("\n", " ")
    assert "threads" not in made.out.splitlines()[-1]
    publish_json(path, other.model_copy(update={"metrics": {**one.metrics, "map_voc@1": 0.99}}).model_dump(mode="json"))
    assert "not reproduced" in bench("reproduce", one.id, "--out", out, "--device", "cpu").err
    before = {name: value for name, value in here.items() if name != "capability"}
    publish_json(path, other.model_copy(update={"provenance": {**elsewhere, "machine": before}}).model_dump(mode="json"))
    assert "instructions not recorded, here" in bench("reproduce", one.id, "--out", out, "--device", "cpu").out.replace("\n", " ")


def test_a_run_of_before_is_shown_with_what_changed_and_not_made_again(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    assert tiny("--pretext", "l1_color", "--downstream", "voc_seg", "--transfer", "encoder", "--schedule", "frozen").code == 0
    (one,) = record.read(out)
    job = one.job.model_copy(update={"statistics_version": 1})
    before = one.model_copy(update={"id": job.id, "job": job, "spread": None})
    (out / "runs" / one.id).rename(out / "runs" / before.id)
    publish_json(out / "runs" / before.id / "record.json", before.model_dump(mode="json"))
    one = before
    said = "the batch norms of untrained parts had no measured statistics when the run was made"
    shown = bench("show", one.id, "--out", out)
    assert shown.code == 0 and "--transfer encoder" in shown.out and said in shown.err
    refused = bench("reproduce", one.id, "--out", out, "--device", "cpu")
    assert refused.code == 2 and said in refused.err
    assert "‡" in bench("report", "--out", out).out


def test_a_run_on_other_data_is_not_called_the_same(bench: Bench, voc: Path, drawn: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "runs"
    data = ("--data", voc, "--pretrain-data", drawn["demo_unlabelled"], "--out", out)
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen")
    assert bench("run", *TINY, *QUICK, *data, *asked).code == 0
    (one,) = record.read(out)
    image = next((voc / "VOC2012" / "JPEGImages").glob("*.jpg")) if (voc / "VOC2012").is_dir() else next(voc.rglob("*.jpg"))
    image.write_bytes(next(p for p in voc.rglob("*.jpg") if p != image).read_bytes())
    refused = bench("reproduce", one.id, "--out", out, "--device", "cpu")
    assert refused.code == 3 and "has fingerprint" in refused.err
    unknown = bench("show", "nothing", "--out", out)
    assert unknown.code == 2 and "unknown run" in unknown.err


def test_precision_compilation_and_threads_are_asked_for_again(tiny: Bench, tmp_path: Path) -> None:
    assert tiny("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen").code == 0
    (one,) = record.read(tmp_path / "runs")
    assert "--compile" not in reproduction.command(one)
    machine_of_run = {**one.provenance["machine"], "compiled": True, "precision": "bf16", "threads": 7}
    other = one.model_copy(update={"provenance": {**one.provenance, "machine": machine_of_run}})
    words = reproduction.command(other)
    assert words[-5:] == ["--threads", "7", "--precision", "bf16", "--compile"]
    config = reproduction.config_of(other, MachineConfig())
    assert (config.compiled, config.precision, config.threads) == (True, "bf16", 7)
    assert reproduction.config_of(other, MachineConfig(threads=3)).threads == 3


def test_a_run_on_other_splits_is_not_made_again(tiny: Bench, bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    assert tiny("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen").code == 0
    (one,) = record.read(out)
    job = one.job.model_copy(update={"splits_fingerprint": "0" * 64})
    (out / "runs" / one.id).rename(out / "runs" / job.id)
    other = one.model_copy(update={"id": job.id, "job": job})
    publish_json(out / "runs" / job.id / "record.json", other.model_dump(mode="json"))
    refused = bench("reproduce", job.id, "--out", out, "--device", "cpu")
    assert refused.code == 3 and "splits of" in refused.err and "are not those of" in refused.err


def test_the_tolerance_is_the_users(tiny: Bench, tmp_path: Path) -> None:
    assert tiny("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen").code == 0
    (one,) = record.read(tmp_path / "runs")
    name = one.metric_ids[0]
    other = one.model_copy(update={"metrics": {**one.metrics, name: one.metrics[name] + 0.05}, "weights": "0" * 64})
    assert not reproduction.compare(one, other).equal
    assert reproduction.compare(one, other, 0.1).equal and not reproduction.compare(one, other, 0.01).equal
