"""`import bench`: the same runs as the command line's, the same errors, and features that are the trunk's own."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import bench as bench_package
from bench import record
from bench.errors import BenchError, DataError, UsageError
from bench.models import exported
from bench.models.trunk import make_trunk
from tests.docs.test_docs import plugin

SETTINGS = {"recipe.epochs": 2, "recipe.batch_size": 8, "protocol.head_width": 16}
TINY = {"trunk": "unet:depth=5,width=8", "size": 32, "threads": 1, "device": "cpu", "protocol": "demo", "set": SETTINGS}
Call = Callable[..., Any]


@pytest.fixture
def small(drawn: dict[str, Path], tmp_path: Path) -> Call:
    """Call `bench.run` on the small data with a tiny trunk; results go to tmp_path / "python"."""

    def call(**options: Any) -> Any:
        data = {"data": drawn["demo"], "pretrain_data": drawn["demo_unlabelled"], "out": tmp_path / "python"}
        return bench_package.run(**{**TINY, **data, **options})

    return call


def test_a_call_gives_the_runs_of_the_command_line(tiny: Call, small: Call, tmp_path: Path) -> None:
    assert tiny("--pretext", "random_init,l1_color", "--downstream", "voc_cls,voc_seg", "--schedule", "two-phase").code == 0
    frame = small(pretext=["random_init", "l1_color"], downstream=["voc_cls", "voc_seg"], schedule="two-phase")
    theirs = {one.id: one for one in record.read(tmp_path / "runs")}
    assert set(frame["run_id"]) == set(theirs) and len(frame) == 4
    for line in frame.to_dict("records"):
        one = theirs[line["run_id"]]
        assert {name: line[name] for name in one.metrics if name in one.metric_ids} == one.metrics
        assert (line["row"], line["downstream"], line["schedule"], line["seed"]) == (one.pretext, one.downstream, "two-phase", 0)
    again = small(pretext="random_init,l1_color", downstream="voc_cls,voc_seg", schedule=["two-phase"])
    assert again.equals(frame)  # finished before: also the seconds are those of the records


def test_keywords_of_several_kinds_say_the_same(small: Call, drawn: dict[str, Path]) -> None:
    one = {"pretext": "random_init", "downstream": "voc_cls", "schedule": "frozen"}
    ways = ({}, {"set": [f"{name}={value}" for name, value in SETTINGS.items()]}, {"data": str(drawn["demo"])}, {"labels": 1})
    (identity,) = {small(**one, **way)["run_id"][0] for way in (*ways, {"seed": 0}, {"seeds": [0]}, {"epochs": None})}
    assert identity.startswith("random_init-voc_cls-")


def test_a_search_returns_its_rates_and_a_run_uses_them(drawn: dict[str, Path], tmp_path: Path, small: Call) -> None:
    asked = {"pretext": "random_init", "downstream": "voc_cls", "schedule": "two-phase", "epochs": 2}
    data = {"data": drawn["demo"], "out": tmp_path / "python"}
    found = bench_package.tune(trials=2, **{**TINY, **data, **asked})
    assert len(found) == 1 and found["trials"][0] == 2 and 0 <= found["best_value"][0] <= 1
    small(**asked, tune=2)
    (made,) = record.read(tmp_path / "python")
    assert made.tuning is not None and made.tuning.study == found["study"][0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"pretxt": "random_init"}, "unknown keyword 'pretxt'; did you mean 'pretext'?"),
        ({"settings": {}}, "unknown keyword 'settings'"),
        ({"downstream": "voc_cls"}, "name at least one row"),
        ({"pretext": "random_init"}, "--downstream is missing"),
        ({"pretext": "nobody", "downstream": "voc_cls"}, "unknown pretext 'nobody'"),
        ({"pretext": "random_init", "downstream": "voc_cls", "size": "large"}, "--size takes a whole number"),
        ({"pretext": "random_init", "downstream": "voc_cls", "init": {"a": "no.pth"}}, "no.pth is not there"),
        ({"pretext": "random_init", "downstream": "voc_cls", "init": {"a b": "no.pth"}}, "--init takes LABEL=SOURCE"),
        ({"pretext": "random_init", "downstream": "voc_cls", "plugin": "no.py"}, "no such Python file"),
    ],
)
def test_a_wrong_call_is_told_by_one_sentence(options: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        bench_package.run(**options, out=tmp_path / "runs")
    assert told in str(raised.value) and "\n" not in str(raised.value)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    for call in (bench_package.report, bench_package.leaderboard):
        with pytest.raises(UsageError, match="holds no finished runs"):
            call(tmp_path / "nothing")
    with pytest.raises(UsageError):
        bench_package.load_trunk(tmp_path / "nothing")
    with pytest.raises(DataError, match="no data set"):
        bench_package.run(pretext="random_init", downstream="voc_cls", data=tmp_path / "nothing", out=tmp_path / "runs")


def test_frames_are_those_of_the_report(small: Call, bench: Call, tmp_path: Path) -> None:
    import pandas

    small(pretext="random_init", downstream="voc_cls,voc_seg", schedule="frozen")
    tables = bench_package.report(tmp_path / "python")
    assert bench("report", "--out", tmp_path / "python").code == 0
    written = pandas.read_csv(tmp_path / "python" / "leaderboard.csv")
    board = bench_package.leaderboard(tmp_path / "python")
    assert list(board.columns) == list(written.columns) and np.allclose(board["value"], written["value"], atol=1e-6)
    assert {"table4", "leaderboard", "per_run"} <= set(tables) and tables["leaderboard"].equals(board)
    one = bench_package.report(str(tmp_path / "python"), metric="map_voc")["table4"]
    assert "map_voc@1" in set(one["metric"])


def test_an_edited_plug_in_is_loaded_again_in_the_same_process(small: Call, tmp_path: Path) -> None:
    """In a notebook, the record had the digest of the new text and the weights of the old one."""
    path = tmp_path / "upside_down.py"
    text = plugin("README.md", "UpsideDown")
    runs = []
    loss = 'yield "loss", '
    assert loss in text
    for edited in (loss, f"{loss}0 * "):
        path.write_text(text.replace(loss, edited))
        frame = small(plugin=path, pretext="upside_down", downstream="voc_cls", schedule="frozen")
        runs.append({one.id: one for one in record.read(tmp_path / "python")}[frame["run_id"][0]].pretrain)
    assert runs[0].job.source != runs[1].job.source
    first, second = (load_file(tmp_path / "python" / "pretrained" / one.id / "pretext.safetensors") for one in runs)
    assert not torch.equal(first["classifier.weight"], second["classifier.weight"])  # the second one was not trained
    with pytest.raises(UsageError, match="unknown pretext 'upside_down'"):
        small(pretext="upside_down", downstream="voc_cls", schedule="frozen")  # as on the command line, it is named each time


@pytest.fixture
def trunk() -> Any:
    torch.manual_seed(0)
    return make_trunk("timm:resnet18,preprocessing=rgb").eval()


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Write three images of different sizes."""
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, side in zip(paths, (40, 64, 81), strict=True):
        Image.fromarray(generator.integers(0, 256, (side, 48, 3), dtype=np.uint8)).save(path)
    return paths


def test_files_images_and_arrays_have_the_same_features(trunk: Any, photos: list[Path]) -> None:
    images = [Image.open(path).convert("RGB") for path in photos]
    squashed = np.stack([np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)) for image in images])
    tensor = torch.from_numpy(squashed).permute(0, 3, 1, 2)
    kinds = (photos, map(str, photos), images, [np.asarray(image) for image in images], squashed, tensor)
    first, *others = [bench_package.embed(trunk, kind, size=32) for kind in kinds]
    assert first.shape == (3, trunk.bottleneck_channels) and first.dtype == np.float32
    assert all(np.array_equal(first, other) for other in others)
    by_hand = trunk.encode(trunk.preprocessing(tensor))[-1].mean(dim=(2, 3))
    assert np.allclose(first, by_hand.detach().numpy(), atol=1e-5)
    assert len({line.tobytes() for line in first}) == 3  # the network sees its input


def test_more_images_than_fit_at_once_keep_their_order(trunk: Any, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bench_package.embed(trunk, photos, size=32)
    monkeypatch.setattr("bench.python.TOGETHER", 2)
    assert np.allclose(bench_package.embed(trunk, photos, size=32), whole, atol=1e-5)
    assert bench_package.embed(trunk, [], size=32).shape == (0, trunk.bottleneck_channels)


@pytest.mark.parametrize(
    ("images", "size", "told"),
    [
        (torch.zeros(1, 3, 32, 32), 32, "uint8"),
        ([np.zeros((32, 32), np.uint8)], 32, "three channels"),
        ([np.zeros((32, 32, 4), np.uint8)], 32, "three channels"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), None, "needs a size"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), 33, "multiples of 32"),
        ("photo.png", 32, "a list of images"),
        (Path("photo.png"), 32, "a list of images"),
        (Image.new("RGB", (32, 32)), 32, "a list of images"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), 32, "a list of images"),
    ],
)
def test_images_that_are_none_are_refused(trunk: Any, images: Any, size: int | None, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        bench_package.embed(trunk, images, size=size)


def test_a_broken_file_is_named(trunk: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(BenchError, match=r"broken\.png"):
        bench_package.embed(trunk, [tmp_path / "broken.png"], size=32)
    with pytest.raises(BenchError, match=r"nowhere\.png"):
        bench_package.embed(trunk, [tmp_path / "nowhere.png"], size=32)


def test_an_exported_trunk_knows_its_size_and_stays_as_it_was(trunk: Any, photos: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "trunk"
    folder.mkdir()
    exported.write(folder, trunk, "timm:resnet18,preprocessing=rgb", 32, {"label": "mine"})
    loaded = bench_package.load_trunk(str(folder))
    assert np.array_equal(bench_package.embed(loaded, photos), bench_package.embed(trunk, photos, size=32))
    loaded.train()
    before: dict[str, Tensor] = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    bench_package.embed(loaded, photos)
    assert loaded.training and all(torch.equal(before[name], tensor) for name, tensor in loaded.state_dict().items())


SCRIPT = """
import bench

def main():
    frame = bench.run(pretext="random_init", downstream="voc_cls", schedule="one-phase", workers=2, threads=1, device="cpu",
                      trunk="unet:depth=5,width=8", size=32, protocol="demo", epochs=1, data={data!r}, out={out!r})
    print("LINES", len(frame), frame["run_id"][0])

"""


@pytest.mark.parametrize("ending", ["main()", 'if __name__ == "__main__":\n    main()'], ids=["bare", "guarded"])
def test_a_script_with_data_workers_runs_with_and_without_a_guard(ending: str, drawn: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(data=str(drawn["demo"]), out=str(tmp_path / "runs")) + ending)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("LINES 1 random_init-voc_cls-") == 1


def test_the_import_is_quick() -> None:
    """The package and the names of its functions load neither torch nor pandas."""
    code = "import sys, bench; bench.run, dir(bench); print({'torch', 'pandas', 'timm', 'lightning'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_functions_list_their_keywords() -> None:
    import inspect

    run, tune = (set(inspect.signature(one).parameters) for one in (bench_package.run, bench_package.tune))
    assert {"pretext", "init", "set", "compile", "keep_networks", "out", "plugin"} <= run and "settings" not in run
    assert {"trials", "space"} <= tune and not {"seeds", "rates", "tune", "log"} & tune
    assert set(bench_package.__all__) <= set(dir(bench_package))
    with warnings.catch_warnings(), pytest.raises(AttributeError, match="no attribute 'rnu'"):
        _ = bench_package.rnu
