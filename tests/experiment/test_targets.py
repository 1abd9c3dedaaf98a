"""Several data sets in one command: which task is on which data, what does not go together, and a column for each."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench
from bench import record
from bench.config import RunConfig
from bench.data import catalogue, demo
from bench.errors import DataError, UsageError
from bench.experiment import targets
from bench.experiment.resolve import Grid, resolve
from results import board
from results.predictions import reader


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Draw labelled images that are in no other data set."""
    places = demo.make(tmp_path / "other", 16, 30, 20)
    for file in (places["demo"] / "VOCdevkit" / "VOC2012" / "JPEGImages").iterdir():
        file.write_bytes(file.read_bytes() + b"\0")  # other bytes, so another data set
    return places["demo"]


@pytest.fixture
def grid(drawn: dict[str, Path]) -> Callable[..., Grid]:
    def call(downstream: str, **given: Any) -> Grid:
        base = {"pretext": "random_init", "protocol": "demo", "schedule": "frozen", "downstream": downstream}
        return resolve(RunConfig.model_validate({**base, **given}), lambda text: None)

    return call


def on(found: Grid) -> list[tuple[str, str]]:
    return [(job.downstream, found.data_name_of(job)) for job in found.jobs]


def test_each_task_is_on_the_data_that_is_written_behind_it(
    grid: Callable[..., Grid], drawn: dict[str, Path], other: Path
) -> None:
    first, second = str(drawn["demo"]), str(other)
    found = grid(f"segmentation@{first},multilabel@{second},voc_seg", data=first)
    assert on(found) == [("segmentation", first), ("multilabel", second), ("voc_seg", first)]
    assert {job.data_fingerprint for job in found.jobs} == {data.fingerprint for data in found.data.values()}
    same = grid(f"segmentation@{first},segmentation@{second}", set=(f"segmentation@{second}.epochs=3",))
    assert [job.protocol for job in same.jobs] == ["demo", "demo+epochs=3"]


def test_a_task_without_data_takes_that_of_its_kind(grid: Callable[..., Grid], drawn: dict[str, Path], other: Path) -> None:
    first, second = str(drawn["demo"]), str(other)
    assert on(grid(f"voc_cls,voc_seg@{first}")) == [("voc_cls", first), ("voc_seg", first)]
    assert on(grid(f"multilabel,segmentation@{second}")) == [("multilabel", second), ("segmentation", second)]
    assert on(grid(f"multilabel,segmentation@{second}", data=first)) == [("multilabel", first), ("segmentation", second)]


def test_photographs_and_the_demo_data_are_not_in_one_command(other: Path) -> None:
    config = RunConfig(pretext=("random_init",), downstream=(f"segmentation@{other}", "voc_seg"))
    with pytest.raises(UsageError, match="voc_seg would be on the synthetic demo data beside other data"):
        targets.targets_of(config)


def test_synthetic_data_under_another_name_is_not_beside_photographs(
    grid: Callable[..., Grid], drawn: dict[str, Path], other: Path
) -> None:
    (other / "VOCdevkit" / "VOC2012" / "SYNTHETIC.txt").unlink()
    with pytest.raises(UsageError, match="is synthetic and other data here is not, and such scores share no table"):
        grid(f"segmentation@{drawn['demo']},segmentation@{other}")


def test_metrics_of_images_with_one_class_are_refused_elsewhere(grid: Callable[..., Grid], drawn: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="acc_top1 is of images that have one class each, and multilabel is for others too"):
        grid(f"multilabel@{drawn['demo']}", set=('multilabel.metrics=["map_voc","acc_top1"]',))


def test_a_metric_that_is_better_when_lower_is_no_main_metric(grid: Callable[..., Grid], drawn: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="hd95 is better when lower, so it is no main metric; name another one first"):
        grid(f"segmentation@{drawn['demo']}", set=('segmentation.metrics=["hd95","dice"]',))


def test_two_names_of_the_same_images_are_refused(grid: Callable[..., Grid], drawn: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(drawn["demo"], tmp_path / "copy"))
    with pytest.raises(UsageError, match="have the same images; a command for each"):
        grid(f"voc_seg@{drawn['demo']},voc_cls@{copy}")


def test_classes_asks_for_images_of_one_class(grid: Callable[..., Grid], drawn: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="classes is for images that have one class each, and labelled has images with none or"):
        grid(f"classes@{drawn['demo']}")


def test_tasks_on_voc_say_what_they_are_called_elsewhere(
    grid: Callable[..., Grid], drawn: dict[str, Path], tmp_path: Path
) -> None:
    for place, file in enumerate(sorted((drawn["demo"] / "VOCdevkit" / "VOC2012" / "JPEGImages").iterdir())):
        folder = tmp_path / "mine" / ("cat", "dog")[place % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / file.name)
    with pytest.raises(
        DataError, match=r"the tasks on VOC\. Of other data .* mine has what these tasks need: classes@mine, mult"
    ):
        grid(f"voc_cls@{tmp_path / 'mine'}")
    with pytest.raises(DataError, match=r"mine has no boxes; it has what these tasks need: classes@mine, multilabel@mine\."):
        grid(f"detection@{tmp_path / 'mine'}")
    assert on(grid(f"classes@{tmp_path / 'mine'}"))[0][0] == "classes"


def test_a_task_with_boxes_has_no_probes_and_says_so(grid: Callable[..., Grid], drawn: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="voc_det is a task with boxes, for which there is finetune alone, and no probe"):
        grid("voc_det", data=str(drawn["demo"]), evaluate="knn", schedule="")


def test_dropping_leaks_of_two_data_sets_is_refused(grid: Callable[..., Grid], drawn: dict[str, Path], other: Path) -> None:
    with pytest.raises(UsageError, match="--leaks drop takes one labelled data set, and this command has"):
        grid(
            f"segmentation@{drawn['demo']},segmentation@{other}",
            pretext="l1_color",
            leaks="drop",
            pretrain_data=str(drawn["demo_unlabelled"]),
        )


def test_a_table_has_a_column_for_each_task_and_data_set(drawn: dict[str, Path], other: Path, tmp_path: Path) -> None:
    prepared = {name: catalogue.register(catalogue.read(root, name)) for name, root in (("one", drawn["demo"]), ("two", other))}
    frame = bench.run(
        pretext="random_init", downstream="segmentation@one,segmentation@two,multilabel@two,detection@one", protocol="demo",
        schedule="frozen", trunk="unet:depth=5,width=8", size=32, out=tmp_path / "out", device="cpu", threads=1,
        set=["protocol.head_width=16", "segmentation@two.epochs=3", "protocol.epochs=1", "detection.pyramid_width=8"],
    )  # fmt: skip
    records = record.read(tmp_path / "out")
    assert len(frame) == len(records) == 4
    for one in records:
        assert one.data.fingerprint == prepared[one.data.name].fingerprint and one.provenance["data"] == one.data.name
        assert one.job.phases[0].epochs == (3 if (one.downstream, one.data.name) == ("segmentation", "two") else 1)
    (table,) = board.boards(records, reader(tmp_path / "out"), resamples=50)
    titles = [column.title for column in table.columns]
    assert titles == [
        "Detection on one (synthetic)", "Multilabel on two (synthetic)", "Segmentation on one (synthetic)",
        "Segmentation on two (synthetic)",
    ]  # fmt: skip
    assert all(cell.estimate is not None for cell in table.rows[0].cells)


def test_training_ends_after_the_most_steps_and_its_rate_with_it(drawn: dict[str, Path], tmp_path: Path) -> None:
    def run(name: str, *settings: str) -> record.Record:
        bench.run(
            pretext="random_init", downstream="voc_cls", data=str(drawn["demo"]), protocol="demo", schedule="two-phase",
            trunk="unet:depth=5,width=8", size=32, out=tmp_path / name, device="cpu", threads=1, log="csv",
            set=["protocol.head_width=16", "protocol.batch_size=8", "protocol.lr_schedule=cosine", *settings],
        )  # fmt: skip
        (made,) = record.read(tmp_path / name)
        return made

    # 24 images in 3 steps an epoch: 2 epochs of the head are 6 steps, 2 of everything 6 more
    whole = run("whole", "protocol.epochs=4")
    cut = run("cut", "protocol.epochs=4", "protocol.most_steps=8")
    assert (whole.cost.images, cut.cost.images) == (12 * 8, 8 * 8)
    assert [len(losses) for losses in cut.losses] == [2, 1] and cut.losses[0] == whole.losses[0]
    assert cut.id != whole.id and "most_steps=8" in cut.job.protocol
    assert not np.isclose(cut.losses[1][0], whole.losses[1][0])  # its rate falls to the end of two steps, not of six
