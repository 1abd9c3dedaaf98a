"""Our step of the conditional GAN at the paper's size against the authors' in Keras, on the same machine.

Keras needs an environment of its own, named by KERAS_PYTHON (`make bench` makes one).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bench.config import MachineConfig
from bench.training.machine import make_machine
from tests.benchmarks.common import Figure, photographs, ratio, workplace
from tests.benchmarks.step import session, trained

BATCHES = (4, 16)


def measure() -> list[Figure]:
    """Return images/s of both at two batch sizes, measured in turns, and their ratios."""
    python = os.environ.get("KERAS_PYTHON", "")
    if not Path(python).is_file():
        return [Figure("Keras is not there: name its Python in KERAS_PYTHON", float("nan"), "")]
    precision = make_machine(MachineConfig(device="cpu"), trunk="unet:depth=8,width=64", size=256).precision
    found: list[Figure] = []
    with workplace() as folder:
        for batch in BATCHES:
            images = photographs(folder / f"images{batch}", round(max(8, 2 * batch) / 0.95), 320, 240)[0].parent
            settings = (f"recipe.batch_size={batch}",)
            made = session(folder / f"out{batch}", images, "cgan_color", 256, "unet", *settings)
            ours = theirs = 0.0
            for seed in range(2):
                ours = max(ours, trained(made, seed))
                script = str(Path(__file__).with_name("keras_step.py"))
                done = subprocess.run([python, script, str(batch)], stdout=subprocess.PIPE, text=True, check=True)
                theirs = max(theirs, float(done.stdout.split()[-1]))
            found += [
                Figure(f"our epoch, 256 px, batch {batch}, {precision}", ours, "images/s"),
                Figure(f"the authors' step in Keras, 256 px, batch {batch}", theirs, "images/s"),
                ratio(f"ours against the authors', batch {batch}", ours / theirs, 1.5),
            ]
    return found
