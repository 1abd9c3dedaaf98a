"""What the documentation says of probes is what the program does."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from bench import record
from bench.probe import EVALUATIONS, PROBES
from tests.docs.test_docs import ROOT, shown

PAGE = (ROOT / "docs" / "probes.md").read_text()


def test_the_page_has_every_evaluation_in_its_table_with_what_it_needs() -> None:
    needs = dict(re.findall(r"^\| `(\w[\w-]*)` \|.*\| (\w+) \|$", PAGE, re.MULTILINE))
    assert needs.pop("finetune") == "either" and list(needs) == list(EVALUATIONS[1:])
    assert needs == {name: PROBES[name].needs for name in needs}


def test_the_first_command_of_the_page_gives_its_three_columns_and_the_files_beside_the_record(
    tiny: Callable, tmp_path: Path
) -> None:
    words = shlex.split(shown(PAGE)[0])[2:]
    words[words.index("random_init,cgan_color")] = "random_init,l1_color"  # the quicker one
    done = tiny(*words)
    assert done.code == 0, done.err
    assert all(f"Classification, {PROBES[name].title} (" in done.out for name in ("knn", "linear", "linear-sgd"))
    kept = set(re.findall(r"`(\w+\.(?:npz|json))`", PAGE))
    for one in record.read(tmp_path / "runs"):
        there = {path.name for path in (tmp_path / "runs" / "runs" / one.id).iterdir()}
        assert {"record.json", "predictions.npz"} <= there <= kept | {"split.json"}


def test_the_settings_of_the_page_can_be_changed_as_it_says(tiny: Callable) -> None:
    line = next(line for line in shown(PAGE) if "--set" in line)
    done = tiny(*shlex.split(line)[2:], "--plan")
    assert done.code == 0, done.err


def test_a_trunk_is_watched_as_the_page_says(tiny: Callable, tmp_path: Path) -> None:
    line = next(line for line in shown(PAGE) if "--watch" in line).replace("cgan_color", "l1_color")
    done = tiny(*shlex.split(line)[2:])
    assert done.code == 0, done.err
    assert {tuple(one.epoch for one in found.pretrain.watched) for found in record.read(tmp_path / "runs")} == {(2,)}  # the last
