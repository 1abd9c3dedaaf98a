"""What a command asks for becomes jobs: defaults that are the same everywhere, and sentences for what is missing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench import registry
from bench.cli.options import option
from bench.config import RunConfig
from bench.data import catalogue
from bench.errors import DataError, UsageError
from bench.experiment.jobs import MOST_RUNS
from bench.experiment.resolve import Grid, resolve
from bench.protocol import Protocol


@pytest.fixture
def grid(drawn: dict[str, Path]) -> Callable[..., Grid]:
    def call(**given: Any) -> Grid:
        base = {"pretext": "random_init", "downstream": "voc_seg", "data": str(drawn["demo"]), "schedule": "two-phase"}
        return resolve(RunConfig.model_validate({**base, **given}), print)

    return call


def test_photographs_have_the_protocol_small_and_the_demo_data_demo(
    grid: Callable[..., Grid], drawn: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = grid().jobs
    assert (job.protocol, job.size, job.pretrain.trunk) == ("small", 64, "unet:depth=6,width=16")
    assert job.id == grid(protocol="small").jobs[0].id
    for name in ("demo", "demo_unlabelled"):
        catalogue.register(catalogue.read(drawn[name], name))
    for data in ("demo", None):
        assert grid(data=data).jobs[0].protocol == "demo"
    assert "small for photographs and demo for the demo data" in str(option("protocol").annotation.__metadata__[0].help)


def test_a_task_without_the_default_protocol_has_its_first(grid: Callable[..., Grid], monkeypatch: pytest.MonkeyPatch) -> None:
    task = registry.load("downstreams", "voc_seg")
    own: dict[str, Protocol] = {"mine": task.protocols["paper"], "standard": task.protocols["standard"]}
    monkeypatch.setattr(task, "protocols", own)
    monkeypatch.setattr(registry, "protocols", lambda name: registry.load("downstreams", name).protocols)
    assert grid().jobs[0].protocol == "mine"
    assert {job.protocol for job in grid(downstream="voc_seg,voc_cls").jobs} == {"standard"}


@pytest.mark.parametrize(("downstream", "lacking"), [("voc_seg", "has no masks"), ("voc_cls", "has no labels")])
@pytest.mark.parametrize("pretext", ["random_init", "l1_color"])
def test_unlabelled_data_is_told_that_labels_are_missing(
    pretext: str, downstream: str, lacking: str, grid: Callable[..., Grid], tmp_path: Path
) -> None:
    (tmp_path / "photographs").mkdir()
    for place in range(3):
        Image.new("RGB", (40, 40), (place, 0, 0)).save(tmp_path / "photographs" / f"{place}.png")
    with pytest.raises((UsageError, DataError), match=f"photographs {lacking}"):
        grid(pretext=pretext, downstream=downstream, data=str(tmp_path / "photographs"))


def test_labelled_data_without_images_to_pretrain_on_is_told_so(grid: Callable[..., Grid]) -> None:
    with pytest.raises(UsageError, match="needs images to pretrain on"):
        grid(pretext="l1_color")


def test_an_unknown_setting_of_a_recipe_says_what_it_takes(grid: Callable[..., Grid]) -> None:
    with pytest.raises(UsageError) as raised:
        grid(pretext="l1_color", set=("recipe.pictures=1500",))
    said = str(raised.value)
    assert said.startswith("unknown setting 'pictures' of the recipe. It takes, with these defaults: accumulate=1, augmentation=")
    assert "batch_size=32, beta1=0.5," in said
    assert 'statistics="running", visualize_epochs=[1,5,15,20], warmup_epochs=0.0, weight_decay=0.0.' in said
    with pytest.raises(UsageError, match="did you mean 'epochs'"):
        grid(pretext="l1_color", set=("recipe.epoch=1500",))


def test_more_runs_than_a_command_makes_are_refused_at_once(grid: Callable[..., Grid]) -> None:
    shares = tuple(place / 1000 for place in range(1, 102))
    with pytest.raises(UsageError, match=f"at most {MOST_RUNS:,} runs, but this one has 101,000"):
        grid(seeds="1000", labels=shares)
    assert len(grid(seeds="1000").jobs) == 1000


def test_the_jobs_of_further_seeds_differ_in_the_seed_alone(grid: Callable[..., Grid]) -> None:
    one, two = grid(seeds="3,5").jobs
    assert (one.seed, one.pretrain.seed, two.seed, two.pretrain.seed) == (3, 3, 5, 5)
    assert one.model_dump() | {"seed": 0, "pretrain": 0} == two.model_dump() | {"seed": 0, "pretrain": 0}
    assert [job.pretrain.seed for job in grid(seeds="3,5", vary="finetune").jobs] == [3, 3]
    assert two.id == grid(seed=5).jobs[0].id
