"""Faults 25 to 27: tampered checkpoints and records, places that cannot be written, mistakes in plug-ins."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bench.errors import DataError
from bench.training import checkpoint
from tests.conftest import reseal
from tests.stress.faults.bench import OFTEN, Bench, checkpoints, send, when
from tests.stress.server import FAIL_FROM, FAIL_ONCE, Fault


def test_25_a_tampered_checkpoint_is_refused_and_nothing_in_it_runs(bench: Bench) -> None:
    bench.run("l1_color", "voc_seg", *OFTEN, meanwhile=when(lambda: checkpoints(bench), send(signal.SIGKILL)))
    (path,) = checkpoints(bench)[-1:]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    flipped = bench.run("l1_color")
    assert flipped.code == 3 and path.name in flipped.err and "is damaged" in flipped.err
    mark = bench.folder / "executed"
    torch.save(Payload(mark), path)
    renamed = path.with_name(f"{path.stem.split('-')[0]}-{checkpoint.files.sha256(path)}.safetensors")
    path.rename(renamed)
    payload = bench.run("l1_color")
    assert payload.code == 3 and renamed.name in payload.err and not mark.exists()
    renamed.unlink()
    assert bench.run("l1_color").code == 0
    (weights,) = bench.out.glob("pretrained/*/*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refused = bench.run("l1_color", "voc_cls")
    assert refused.code == 3 and "is damaged" in refused.err and weights.name in refused.err


class Payload:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def test_26_a_checkpoint_of_another_version_or_recipe_is_refused_with_what_differs(bench: Bench, tmp_path: Path) -> None:
    bench.run("l1_color", "voc_seg", *OFTEN, meanwhile=when(lambda: checkpoints(bench), send(signal.SIGKILL)))
    (path,) = checkpoints(bench)[-1:]
    assert bench.run("l1_color", "voc_seg", "--set", "l1_color.lr=1e-4", meanwhile=send(signal.SIGKILL)).code
    other = (
        next((place for place in (bench.out / "work").glob("l1_color-*") if place != path.parent), None) or bench.out / "work/x"
    )
    other.mkdir(exist_ok=True)
    network = nn.Linear(2, 2)
    facts = {"step": 1, "stage": {"id": "another"}, "history": {}, "sums": {}}
    for version, match in ((1, "has version 1, but this program"), (checkpoint.VERSION, "")):
        folder = tmp_path / f"version-{version}"
        folder.mkdir()
        draft = folder / "draft"
        save_file(dict(network.state_dict()), str(draft), metadata={"facts": json.dumps({**facts, "version": version})})
        draft.rename(folder / f"1-{checkpoint.files.sha256(draft)}.safetensors")
        if match:
            with pytest.raises(DataError, match=match):
                checkpoint.load(folder, network, {})
    shutil.copy(path, other / path.name)
    shutil.rmtree(path.parent)
    other.rename(path.parent)
    tampered = checkpoint._read(path.parent / path.name)[1]
    assert tampered["stage"]["id"] == path.parent.name
    assert bench.run("l1_color").code == 0


@pytest.mark.parametrize("which", ["out", "home"])
def test_27_an_output_or_home_that_cannot_be_written_fails_before_any_work(which: str, bench: Bench) -> None:
    (bench.folder / "file").write_text("not a folder")
    setattr(bench, which, bench.folder / "file" / "below")
    refused = bench.server.run(*bench.command("l1_color", "voc_seg"), home=bench.home)
    code, words = {"out": (2, "--out takes a folder"), "home": (4, "choose another folder")}[which]
    assert refused.code == code and str(bench.folder / "file") in refused.err and words in refused.err
    assert not (bench.folder / "runs" / "work").exists() and not (bench.folder / "home" / "packs").exists()


def test_27_offline_with_nothing_prepared_fails_before_any_work_and_says_what_to_run(bench: Bench) -> None:
    for command in (("run", "--pretext", "cgan_color", "--downstream", "voc_seg", "--data", "voc2012", "--out", bench.out),
                    ("data", "prepare", "voc2012")):  # fmt: skip
        refused = bench("--offline", *command)
        assert refused.code == 4 and "bench data prepare voc2012" in refused.err
    assert not (bench.home / "packs").exists() and not (bench.home / "demo").exists()


def test_a_failing_write_of_a_lock_or_a_cache_costs_nothing(bench: Bench, undisturbed: object) -> None:
    (bench.out / "locks").mkdir(parents=True)
    ended = bench.run("l1_color", fault=Fault(FAIL_FROM, 3, (bench.out / "locks",)))  # 1 and 2 make the first lock
    assert ended.code == 4 and "cannot lock" in ended.err
    assert bench.run("l1_color", fault=Fault(FAIL_ONCE, 3, (bench.out / "locks",))).code == 0
    assert bench.weights() == undisturbed


def test_a_record_that_was_changed_by_hand_and_sealed_again_is_another_version_only_when_it_says_so(bench: Bench) -> None:
    assert bench.run().code == 0
    (path,) = bench.out.glob("runs/*/record.json")
    reseal(path, lambda value: {**value, "version": 99})
    refused = bench("report", "--out", bench.out)
    assert refused.code == 3 and "it has version 99" in refused.err


PLUGIN = '''"""A task with a mistake."""

import torch

from bench.contract import Pretext


class Mistaken(Pretext):
    """One player, and a name that is not there."""

    def optimizers(self):
        return {"all": torch.optim.Adam(self.parameters(), lr=self.recipe.lr)}

    def make_batch(self, images, generator):
        return {"images": imagess}

    def training_step(self, batch):
        yield "all", batch["images"].sum()
'''


def test_a_mistake_in_a_plug_in_is_one_sentence_with_its_line_and_a_traceback_when_asked(bench: Bench) -> None:
    path = bench.folder / "mistaken.py"
    path.write_text(PLUGIN)
    line = PLUGIN[: PLUGIN.index("imagess")].count("\n") + 1
    command = bench.command("mistaken", "voc_seg", "--plugin", path)
    failed = bench.server.run(*command, home=bench.home)
    assert failed.code == 1 and "Traceback" not in failed.err
    assert f"unexpected NameError at {path}, line {line}: name 'imagess' is not defined" in failed.err
    shown = bench.server.run(*command, home=bench.home, environment={"PRETEXT_BENCH_TRACEBACK": "1"})
    assert shown.code == 1 and "Traceback" in shown.err and f'"{path}", line {line}' in shown.err
