"""Rows of weights from elsewhere, through the command line: columns, ids, the round trip by export, what is said and refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench import record
from bench.errors import DataError
from bench.experiment.reproduction import reproduce
from bench.record import Record

Run = Callable[..., "object"]
RESNET = ("--trunk", "timm:resnet10t,preprocessing=rgb", "--size", "32", "--set", "protocol.head_width=0")
HALF = "normalize=half,supervision=ImageNet-1k labels"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Return a file of a random resnet10t in timm's names, with statistics as training leaves them."""
    import timm

    torch.manual_seed(5)
    model = timm.create_model("resnet10t", num_classes=7)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    return path


def records(tmp_path: Path, folder: str = "runs") -> dict[tuple[str, str, str], Record]:
    return {(one.pretext, one.downstream, one.job.transfer): one for one in record.read(tmp_path / folder)}


def test_a_mixed_grid_has_a_column_for_the_encoder_alone_and_one_for_the_whole_trunk(
    tiny: Run, bench: Run, tmp_path: Path, weights: Path
) -> None:
    asked = ("--pretext", "random_init,l1_color", "--init", f"mine={weights},{HALF}", *RESNET)
    done = tiny(*asked, "--downstream", "voc_cls,voc_seg", "--schedule", "frozen")
    assert done.code == 0, done.err
    assert "mine: loaded 84 of 84 tensors (100 % of the encoder's parameters), named as timm" in done.out
    assert "left over: fc.weight, fc.bias" in done.out or "left over: fc.bias, fc.weight" in done.out
    found = records(tmp_path)
    assert set(found) == {
        *((row, "voc_cls", "all") for row in ("random_init", "l1_color", "mine")),
        *((row, "voc_seg", "encoder") for row in ("random_init", "l1_color", "mine")),
        *((row, "voc_seg", "all") for row in ("random_init", "l1_color")),
    }
    assert {one.job.frozen for key, one in found.items() if key[1:] == ("voc_seg", "encoder")} == {"encoder"}
    assert {one.job.frozen for key, one in found.items() if key[2] == "all"} == {"trunk"}
    report = bench("report", "--out", tmp_path / "runs").out
    assert "Segmentation, encoder alone (miou_voc@1, %)" in report and "mine (frozen; ImageNet-1k labels)" in report
    assert "mine: weights from weights.safetensors, SHA-256" in report
    board = json.loads(bench("report", "--out", tmp_path / "runs", "--json").out)["leaderboard"]
    of_row = {(row["pretext"], row["downstream"], row["transfer"]): row for row in board}
    assert of_row["mine", "voc_seg", "encoder"]["supervision"] == "ImageNet-1k labels"
    assert of_row["random_init", "voc_cls", "all"]["supervision"] == "none"
    assert of_row["mine", "voc_seg", "encoder"]["baseline"].startswith("random_init")
    assert (of_row["mine", "voc_cls", "all"]["vary"], of_row["l1_color", "voc_cls", "all"]["vary"]) == ("finetune", "all")


def test_random_init_can_bring_its_encoder_alone(tiny: Run, tmp_path: Path) -> None:
    assert tiny("--pretext", "random_init:encoder", "--downstream", "voc_cls,voc_seg", "--schedule", "frozen").code == 0
    assert set(records(tmp_path)) == {("random_init", "voc_cls", "all"), ("random_init", "voc_seg", "encoder")}
    done = tiny("--pretext", "random_init:decoder", "--downstream", "voc_seg")
    assert done.code == 2 and "NAME, NAME:encoder" in done.err


def test_the_label_is_in_no_id_and_the_content_and_the_preprocessing_are(tiny: Run, tmp_path: Path, weights: Path) -> None:
    asked = (*RESNET, "--downstream", "voc_cls", "--schedule", "frozen", "--plan", "--json")

    def planned(init: str) -> str:
        done = tiny("--init", init, *asked)
        assert done.code == 0, done.err
        (line,) = [one for one in json.loads(done.out)["lines"] if one["kind"] == "run"]
        return str(line["name"]).split()[0]

    first = planned(f"one={weights},{HALF}")
    assert planned(f"two={weights},{HALF}") == first and first.startswith("init-voc_cls-")
    assert planned(f"one={weights},normalize=imagenet") != first
    state = load_file(weights)
    state["layer1.0.conv1.weight"] += 1e-3
    save_file(state, weights)
    assert planned(f"one={weights},{HALF}") != first


@pytest.mark.parametrize("trunk", ["unet:depth=5,width=8", "timm:resnet10t,preprocessing=rgb"])
def test_an_exported_trunk_that_comes_back_scores_the_same_to_the_bit(tiny: Run, bench: Run, tmp_path: Path, trunk: str) -> None:
    asked = ("--trunk", trunk, "--size", "32", "--downstream", "voc_cls,voc_seg", "--set", "protocol.head_width=0", "--seed", "3")
    assert tiny("--pretext", "l1_color", *asked).code == 0
    assert bench("export", "l1_color", "--to", tmp_path / "out", "--out", tmp_path / "runs", "--license", "mit").code == 0
    done = tiny("--init", f"back={tmp_path / 'out'}", *asked)
    assert done.code == 0, done.err
    found = records(tmp_path)
    for task in ("voc_cls", "voc_seg"):
        ours, back = found["l1_color", task, "all"], found["back", task, "all"]
        assert (ours.predictions, ours.weights, ours.metrics) == (back.predictions, back.weights, back.metrics)
        assert back.pretrain.supervision == "none" and back.pretrain.origin is not None
    assert "license: mit" in (tmp_path / "out" / "README.md").read_text()


def test_an_exported_encoder_is_opened_by_timm_with_the_features_of_the_trunk(tiny: Run, bench: Run, tmp_path: Path) -> None:
    import timm

    import bench as package

    assert tiny("--pretext", "l1_color", *RESNET, "--downstream", "voc_cls").code == 0
    assert bench("export", "l1_color", "--to", tmp_path / "out", "--out", tmp_path / "runs").code == 0
    trunk = package.load_trunk(tmp_path / "out")
    images = torch.rand(2, 3, 32, 32)
    encoder = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, features_only=True).eval()
    plain = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    with torch.no_grad():
        for ours, theirs in zip(trunk.encode(images), encoder(images), strict=True):
            assert torch.equal(ours, theirs)
        assert torch.equal(plain.forward_features(images), trunk.encode(images)[-1])


def test_a_changed_file_of_an_export_is_refused(tiny: Run, bench: Run, tmp_path: Path) -> None:
    assert tiny("--pretext", "l1_color", *RESNET, "--downstream", "voc_cls").code == 0
    assert bench("export", "l1_color", "--to", tmp_path / "out", "--out", tmp_path / "runs").code == 0
    path = tmp_path / "out" / "decoder.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\x80?")
    import bench as package

    with pytest.raises(DataError, match=r"decoder\.safetensors is damaged"):
        package.load_trunk(tmp_path / "out")
    again = bench("export", "l1_color", "--to", tmp_path / "out", "--out", tmp_path / "runs")
    assert again.code == 2 and "is not empty" in again.err


def test_a_kept_network_is_exported_and_another_is_not(tiny: Run, bench: Run, tmp_path: Path) -> None:
    assert tiny("--pretext", "random_init", "--downstream", "voc_seg", "--schedule", "one-phase", "--keep-networks").code == 0
    (one,) = record.read(tmp_path / "runs")
    done = bench("export", one.id, "--network", "--to", tmp_path / "net", "--out", tmp_path / "runs")
    assert done.code == 0 and "head.safetensors" in done.out
    ours = json.loads((tmp_path / "net" / "config.json").read_text())["pretext_bench"]
    assert ours["supervision"] == f"labels of {one.data.name}" and ours["run"] == one.id
    import bench as package

    assert package.load_trunk(tmp_path / "net").stride == 32
    (tmp_path / "runs" / "runs" / one.id / "network.safetensors").unlink()
    again = bench("export", one.id, "--network", "--to", tmp_path / "net2", "--out", tmp_path / "runs")
    assert again.code == 2 and "--keep-networks" in again.err


def test_a_row_of_weights_is_made_again_from_its_record_unless_the_file_changed(
    tiny: Run, bench: Run, tmp_path: Path, weights: Path
) -> None:
    assert tiny("--init", f"mine={weights},{HALF}", *RESNET, "--downstream", "voc_cls", "--schedule", "frozen").code == 0
    (one,) = record.read(tmp_path / "runs")
    done = bench("reproduce", one.id, "--out", tmp_path / "runs")
    assert done.code == 0 and "reproduced to the bit" in done.out, done.err
    shown = bench("show", one.id, "--out", tmp_path / "runs").out
    assert f"--init 'mine={weights},mean=0.5/0.5/0.5,std=0.5/0.5/0.5,supervision=ImageNet-1k labels'" in shown
    state = load_file(weights)
    state["conv1.0.weight"] *= 2
    save_file(state, weights)
    changed = bench("reproduce", one.id, "--out", tmp_path / "runs")
    assert changed.code == 3 and "its SHA-256 differs" in changed.err
    assert reproduce.__module__


def test_what_is_wrong_with_an_init_is_said_before_anything_runs(tiny: Run, tmp_path: Path, weights: Path) -> None:
    asked = (*RESNET, "--downstream", "voc_cls")
    for init, code, said in (
        (f"mine={weights}", 2, "does not say how its images were normalised"),
        (f"mine={weights},normalize=imagnet", 2, "did you mean 'imagenet'"),
        (f"mine={weights},mean=0.5", 2, "both mean and std"),
        (f"mine={weights},normalise=half", 2, "did you mean 'normalize'"),
        (str(weights), 2, "takes LABEL=SOURCE"),
        (f"l1_color={weights},{HALF}", 2, "a pretext task has this name"),
        ("mine=nowhere.pth,normalize=half", 2, "not there"),
    ):
        done = tiny("--init", init, *asked)
        assert (done.code, done.out) == (code, "") and said in done.err, (init, done.err)
    done = tiny("--init", f"mine={weights},{HALF}", "--trunk", "timm:resnet18,preprocessing=rgb", "--size", "32", *asked[4:])
    assert done.code == 3 and "% of the parameters" in done.err and "Missing: " in done.err and "Left over" in done.err
    done = tiny("--init", f"mine={weights}", "--trunk", "timm:resnet10t", "--size", "32", *asked[4:])
    assert done.code == 2 and "give --trunk timm:resnet10t,preprocessing=rgb" in done.err
    assert not (tmp_path / "runs" / "runs").exists()


def test_two_rows_of_weights_have_searches_of_their_own(tiny: Run, tmp_path: Path, weights: Path) -> None:
    other = tmp_path / "other.safetensors"
    state = load_file(weights)
    save_file({name: tensor + 0.01 if tensor.is_floating_point() else tensor for name, tensor in state.items()}, other)
    asked = ("--init", f"one={weights},{HALF}", "--init", f"two={other},{HALF}", *RESNET, "--downstream", "voc_cls")
    done = tiny(*asked, "--schedule", "frozen", "--tune", "1")
    assert done.code == 0, done.err
    found = records(tmp_path)
    assert {key[0] for key in found} == {"one", "two"}
    assert len({one.job.study for one in found.values()}) == 2
    assert "(one, seed 0, frozen" in done.out and "(two, seed 0, frozen" in done.out


def test_a_row_is_partial_only_where_something_had_to_be_allowed(tiny: Run, bench: Run, tmp_path: Path, weights: Path) -> None:
    part = tmp_path / "part.safetensors"
    save_file({name: tensor for name, tensor in load_file(weights).items() if not name.startswith("layer4")}, part)
    asked = ("--init", f"whole={weights},{HALF}", "--init", f"part={part},{HALF}", *RESNET, "--downstream", "voc_cls")
    assert tiny(*asked).code == 3
    done = tiny(*asked, "--schedule", "frozen", "--partial")
    assert done.code == 0, done.err
    found = {one.pretext: one.job.pretrain.weights for one in record.read(tmp_path / "runs")}
    assert not found["whole"].partial and found["part"].partial  # type: ignore[union-attr]
    report = bench("report", "--out", tmp_path / "runs").out
    assert "whole (frozen; ImageNet-1k labels)" in report and "(--partial)" in report
    assert "part (frozen; ImageNet-1k labels; partial, " in report
