"""What a user asks for: the texts of options, and plug-in files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from bench import registry
from bench.experiment import resolve, study_file
from tests.stress.cases import Format, Subject
from tests.stress.documents import PYTHON
from tests.stress.ground import TRUNK, Ground, quiet
from tests.stress.mutations import BYTES, JSON, TEXT


def texts(ground: Ground) -> list[Format]:
    """The texts of options, each read as `bench run` reads it."""
    path = ground.folder / "text"

    def option(valid: Sequence[str], use: Callable[[str], object], *names: str) -> Callable[[], Subject]:
        def make_it() -> Subject:
            assert ground.grid
            path.write_text(valid[0])
            return Subject(
                path,
                lambda: use(os.fsdecode(path.read_bytes()).replace("\0", "")),  # as an argument of a process arrives
                [text.encode() for text in valid],
                names=names,
                codes=(2,),
            )

        return make_it

    def resolved(**changes: Any) -> str:
        grid = resolve.resolve(ground.config(**changes), quiet)
        return grid.jobs[0].id

    settings = (
        "recipe.lr=1e-4",
        "protocol.batch_size=8",
        "l1_color.visualize_epochs=[1,5]",
        "protocol.head_width=0",
        "recipe.epochs=5",
    )
    changes = {**BYTES, **TEXT, **{name: JSON[name] for name in ("deep", "mark")}}
    forms: dict[str, Callable[[], Subject]] = {
        "option-set": option(settings, lambda text: resolved(set=(text,)), "--set", "setting", "recipe", "protocol"),
        "option-rates": option(["1e-3,1e-4"], lambda text: resolved(rates=text), "--rates"),
        "option-labels": option(["0.01,0.1,1"], lambda text: resolved(labels=text), "--labels"),
        "option-seeds": option(["5", "0,3,7"], lambda text: resolved(seeds=text), "--seeds"),
        "option-space": option(
            ["head=1e-4:1e-2,all=1e-5:1e-3", "all=1e-4"], lambda text: resolved(tune=8, space=text), "--space"
        ),
        "option-trunk": option([TRUNK, "unet:depth=4,preprocessing=rgb"], lambda text: resolved(trunk=text), "trunk", "U-Net"),
    }

    def plugin() -> Subject:
        place = ground.folder / "turning.py"
        place.write_text(ROTATION)

        def read() -> object:
            registry._given.clear()
            registry.add_plugin(place)
            named = registry.summaries("pretexts")["turning"]
            loaded = registry.load("pretexts", "turning")
            registry.source_digest("pretexts", "turning")
            return named, loaded.__name__

        def tidy() -> None:
            for name in [name for name in sys.modules if name.startswith("bench_plugin_")]:
                del sys.modules[name]

        return Subject(place, read, tidy=tidy, names=(str(place), "unknown pretext 'turning'"), codes=(3, 2))

    def studied() -> Subject:
        place = ground.folder / "study.toml"
        place.write_text(STUDY)
        return Subject(place, lambda: study_file.load(place).model_dump_json(), names=(str(place),))

    return [
        Format("study", studied, {**BYTES, **TEXT}, 3),
        *(Format(name, make_it, changes, 2) for name, make_it in forms.items()),
        Format("plugin", plugin, {**BYTES, **TEXT, **PYTHON}, 6),
    ]


STUDY = """title = "Does it work?"
[options]
protocol = "small"
data = "voc_mini"
seeds = [0, 3]
labels = 0.1
set = ["recipe.epochs=5"]
[parts.main]
pretext = ["random_init", "cgan_color"]
downstream = "voc_seg"
tune = 5
space = "all=1e-4:1e-2"
[tables.main]
parts = ["main"]
metrics = ["acc_keras"]
"""

ROTATION = '''"""Rotation prediction: by how many quarter turns was the image turned?"""

import torch
from torch import nn

from bench.contract import Pretext


class Rotation(Pretext):
    """Four-way classification of the rotation, from the bottleneck."""

    def __init__(self, recipe, trunk):
        super().__init__(recipe, trunk)
        self.classifier = nn.Linear(trunk.bottleneck_channels, 4)

    def optimizers(self):
        return {"classifier": torch.optim.Adam(self.parameters(), lr=self.recipe.lr)}

    def make_batch(self, images, generator):
        return {"seen": self.trunk.preprocessing(images)}

    def training_step(self, batch):
        yield "classifier", self.classifier(self.trunk.encode(batch["seen"])[-1].mean(dim=(2, 3))).mean()
'''
