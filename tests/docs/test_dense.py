"""The contract of plug-ins as the documentation has it, and its dense example, run as it stands there."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench import record, registry
from bench.contract import Pretext, Recipe
from bench.models.trunk import make_trunk
from tests.docs.test_docs import ROOT, plugin


def test_the_dense_plug_in_runs_with_its_own_setting(tiny: Callable, bench: Callable, tmp_path: Path) -> None:
    path = tmp_path / "edges.py"
    path.write_text(plugin("docs/your-pretext-task.md", "Edges"))
    asked = ("--plugin", path, "--pretext", "edges", "--downstream", "voc_seg")
    assert tiny(*asked).code == 0 and tiny(*asked, "--set", "edges.noise=0.3").code == 0
    one, other = sorted((found.pretrain for found in record.read(tmp_path / "runs")), key=lambda found: found.recipe["noise"])
    assert (one.recipe["noise"], other.recipe["noise"]) == (0.1, 0.3) and one.weights != other.weights  # 0.1: the preset of demo
    assert set(one.evaluation) == {"error"} and set(one.baselines) == {"no edges", "median edge"}
    assert (tmp_path / "runs" / "pretrained" / one.id / "figure7.png").is_file()
    refused = tiny(*asked, "--set", "edges.noise=-1")
    assert refused.code == 2 and "noise" in refused.err and "takes at least 0" in refused.err
    table3 = bench("report", "--out", tmp_path / "runs").out
    assert "median edge" in table3 and "edges (noise=0.3)" in table3


@pytest.mark.parametrize("trunk", ["unet:depth=5,width=8", "unet:depth=5,width=8,preprocessing=rgb"])
def test_the_dense_plug_in_learns_edges_in_encoder_and_decoder(trunk: str, tmp_path: Path) -> None:
    path = tmp_path / "edges.py"
    path.write_text(plugin("docs/your-pretext-task.md", "Edges"))
    registry.add_plugin(path)
    found = registry.load("pretexts", "edges")
    torch.manual_seed(0)
    task = found(found.Recipe(lr=3e-3, noise=0.05), make_trunk(trunk))
    before = {name: value.clone() for name, value in task.trunk.named_parameters()}
    optimizer, generator = task.optimizers()["loss"], torch.Generator().manual_seed(0)
    images = torch.full((16, 3, 32, 32), 60, dtype=torch.uint8)
    for place in range(16):
        images[place, :, 4 + place % 8 : 20, 6 : 14 + place % 6] = 220
    for _ in range(150):
        for name, loss in task.training_step(task.make_batch(images, generator)):
            assert name == "loss"
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    task.eval()
    with torch.no_grad():
        error, trivial = task.evaluate(images, generator)["error"], task.baselines(images, images)
        rows = task.visualize(images, generator)
    assert error.shape == (16,) and error.mean() < 0.6 * min(scores["error"].mean() for scores in trivial.values())
    changed = {name.partition(".")[0] for name, value in task.trunk.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"down", "up"}
    assert all(row.shape == (16, 3, 32, 32) and row.dtype == torch.uint8 for row in rows.values())


def test_the_settings_of_every_recipe_are_in_the_table_with_their_defaults() -> None:
    text = (ROOT / "docs" / "your-pretext-task.md").read_text()
    for name, default in Recipe().model_dump().items():
        shown = ", ".join(map(str, default)) if isinstance(default, tuple) else default
        assert re.search(rf"^\| `{name}` \| `?{shown}`? \|", text, re.MULTILINE), name


def test_the_contract_of_the_documentation_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "your-pretext-task.md").read_text()
    methods = {name for name, value in vars(Pretext).items() if inspect.isfunction(value) and name[0] != "_"}
    attributes = set(Pretext.__annotations__)
    assert {*methods, *attributes} == {
        name for name in (*methods, *attributes) if re.search(rf"^\| `{name}[`(]", text, re.MULTILINE)
    }
    assert len(methods) == 9 and len(attributes) == 11
