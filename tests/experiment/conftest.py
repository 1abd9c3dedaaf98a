"""A small study for the tests of studies."""

from pathlib import Path

import pytest

STUDY = """
title = "Which of three?"

[options]
protocol = "demo"
trunk = "unet:depth=5,width=8"
size = 32
threads = 1
device = "cpu"
data = {data!r}
pretrain-data = {pretrain!r}
seeds = 2
set = ["recipe.epochs=1", "recipe.batch_size=8", "protocol.head_width=16"]

[parts.main]
pretext = ["random_init", "l1_color"]
downstream = "voc_cls"
tune = 1

[parts.encoder]
pretext = "l1_color"
downstream = ["voc_cls"]
transfer = "encoder"
tune = 1

[tables.main]
parts = ["main"]

[tables.accuracy]
parts = ["main", "encoder"]
metrics = ["acc_keras", "miou_paper"]
baseline = "l1_color"
leave_out = ["random_init:one-phase"]
"""


@pytest.fixture
def folder(drawn: dict[str, Path], tmp_path: Path) -> Path:
    place = tmp_path / "which"
    place.mkdir()
    (place / "study.toml").write_text(STUDY.format(data=str(drawn["demo"]), pretrain=str(drawn["demo_unlabelled"])))
    return place
