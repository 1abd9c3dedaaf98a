"""Rows of weights from elsewhere: which runs a grid has, and what it says of a file that does not name its network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from bench import record
from bench.models.trunk import make_trunk
from tests.conftest import TINY

QUICK = ("--schedule", "frozen", "--epochs", "1")


def test_a_run_that_two_rows_have_in_common_is_made_and_counted_once(tiny: Callable, tmp_path: Path) -> None:
    """`random_init` and `random_init:encoder` share their run of a task without a decoder; its table said n=2 of one seed."""
    torch.manual_seed(0)
    save_file(make_trunk("unet:depth=5,width=8").down.state_dict(), tmp_path / "mine.safetensors")
    rows = ("--pretext", "random_init,random_init:encoder", "--init", f"mine={tmp_path / 'mine.safetensors'}")
    done = tiny(*rows, "--downstream", "voc_cls,voc_seg", *QUICK)
    assert done.code == 0, done.err
    assert "[5/5]" in done.out and "finished before" not in done.out and "n=2" not in done.out
    assert len(record.read(tmp_path / "runs")) == 5


def test_a_file_that_does_not_name_its_network_asks_for_the_trunk(
    bench: Callable, drawn: dict[str, Path], tmp_path: Path
) -> None:
    """It was said to fill 0 % of a U-Net that nobody had asked for."""
    save_file({"layer1.0.conv1.weight": torch.zeros(4, 4, 3, 3)}, tmp_path / "mine.safetensors")
    asked = ("run", "--init", f"mine={tmp_path / 'mine.safetensors'}", "--downstream", "voc_cls", "--data", drawn["demo"])
    refused = bench(*asked, "--size", "32", "--out", tmp_path / "runs")
    assert refused.code == 2 and "does not say which network it holds" in refused.err and "--trunk timm:" in refused.err
    named = bench(*asked, "--size", "32", "--out", tmp_path / "runs", "--trunk", "unet:depth=5,width=8")
    assert named.code == 3 and "fills 0 %" in named.err and "layer1.0.conv1.weight" in named.err


def test_a_model_card_names_no_folder_of_its_maker(bench: Callable, drawn: dict[str, Path], tmp_path: Path) -> None:
    """The card, which is made for a hub, had the whole path of the file."""
    torch.manual_seed(0)
    save_file(make_trunk("unet:depth=5,width=8").down.state_dict(), tmp_path / "mine.safetensors")
    asked = ("run", *TINY, "--init", f"mine={tmp_path / 'mine.safetensors'}", "--downstream", "voc_cls", "--data", drawn["demo"])
    asked = (*asked, "--out", tmp_path / "runs", *QUICK)
    assert bench(*asked).code == 0
    (one,) = record.read(tmp_path / "runs")
    assert bench("export", one.id, "--out", tmp_path / "runs", "--to", tmp_path / "card").code == 0
    card = (tmp_path / "card" / "README.md").read_text()
    assert "mine.safetensors, SHA-256" in card and str(tmp_path) not in card
