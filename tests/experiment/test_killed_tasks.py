"""Tasks with a schedule, with a teacher and with a queue: killed through the command line, they end as if nothing had been."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bench import record
from tests.conftest import QUICK, TINY
from tests.experiment.test_runs import end_when

TEACHING = '''"""A student finds what a teacher, its moving average, says of the mirrored image, among what it said before."""
import torch
from torch.nn.functional import cross_entropy, normalize
from bench.contract import Pretext
from bench.models.teacher import Teacher

class Taught(Pretext):
    trains = "encoder"

    def __init__(self, recipe, trunk):
        super().__init__(recipe, trunk)
        self.teacher = Teacher(trunk)
        self.register_buffer("queue", torch.randn(24, trunk.bottleneck_channels))

    def optimizers(self):
        return {"loss": self.optimizer(self.trunk.down)}

    def make_batch(self, images, generator):
        noise = torch.rand(images.shape, generator=generator, device=images.device)
        return {"inputs": self.trunk.preprocessing(images) + 0.1 * self.trunk.preprocessing((noise * 255).byte())}

    def training_step(self, batch):
        student = self.trunk.encode(batch["inputs"])[-1].mean(dim=(2, 3))
        with torch.no_grad():
            said = self.teacher.network.encode(batch["inputs"].flip(3))[-1].mean(dim=(2, 3))
        found = normalize(student, dim=1) @ normalize(torch.cat([said, self.queue]), dim=1).T
        yield "loss", cross_entropy(found / 0.2, torch.arange(len(said), device=said.device))
        self.teacher.follow(self.trunk, 0.9)
        self.queue.copy_(torch.cat([said, self.queue])[:24])
'''
UPDATES = ("optimizer=lars", "lr=0.3", "lr_schedule=cosine", "warmup_epochs=1", "weight_decay=1e-4", "epochs=3", "batch_size=8")


@pytest.mark.parametrize("name", ["simclr", "moco", "dino", "taught"])
def test_a_killed_task_ends_bit_equal_to_an_undisturbed_one(name: str, drawn: dict[str, Path], tmp_path: Path) -> None:
    plugin = tmp_path / "taught.py"
    plugin.write_text(TEACHING)
    data = ("--data", drawn["demo"], "--pretrain-data", drawn["demo_unlabelled"])
    changed = [part for setting in UPDATES for part in ("--set", f"{name}.{setting}")]
    asked = ("run", *TINY, *QUICK, *data, "--plugin", plugin, "--pretext", name, *changed, "--downstream", "voc_cls")

    def command(out: Path) -> list[str]:
        rest = ("--schedule", "frozen", "--checkpoint-seconds", "0", "--out", out)
        return [sys.executable, "-m", "bench", *map(str, (*asked, *rest))]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), check=True, capture_output=True)

    def step() -> int:
        steps = [int(path.name.split("-")[0]) for path in (killed / "work").glob(f"{name}-*/*.safetensors")]
        return max(steps, default=0)

    for least in (3, 9):  # in the first epoch, while the rate rises, and in the second, while it falls
        process = subprocess.Popen(command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert end_when(process, signal.SIGKILL, lambda least=least: step() >= least) == -signal.SIGKILL
        assert not (killed / "pretrained").exists(), "killed too late to say anything"
    last = subprocess.run(command(killed), capture_output=True, text=True, check=False)
    assert last.returncode == 0 and "goes on from step" in last.stdout, last.stderr

    def trained(out: Path) -> tuple[Any, dict[str, torch.Tensor]]:
        (one,) = record.read(out)
        return one, load_file(out / "pretrained" / one.pretrain.id / "pretext.safetensors")

    (reference, expected), (found, made) = trained(whole), trained(killed)
    assert expected.keys() == made.keys() and all(torch.equal(tensor, made[key]) for key, tensor in expected.items())
    assert (found.metrics, found.losses, found.pretrain.history) == (
        reference.metrics,
        reference.losses,
        reference.pretrain.history,
    )
    if name == "taught":
        assert any(
            not torch.equal(expected[f"teacher.network.{key.removeprefix('trunk.')}"], expected[key])
            for key in expected
            if key.startswith("trunk.down") and key.endswith("weight")
        )
