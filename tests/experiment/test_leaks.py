"""Test images among the images to pretrain on: found by their content, told, counted in the row, refused or dropped."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from bench import record
from bench.config import RunConfig
from bench.data import catalogue, hashes, splits
from bench.data.dataset import decode
from bench.data.splits import FEWEST
from bench.errors import DataError
from bench.experiment import leaks
from bench.experiment.resolve import Grid, resolve
from bench.storage import files
from tests.conftest import QUICK, TINY
from tests.data.made import quiet


@pytest.fixture
def unlabelled(drawn: dict[str, Path], tmp_path: Path) -> Path:
    """Give a folder with 30 images of which none is labelled; images of a test are added to it."""
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    for path in sorted(drawn["demo_unlabelled"].rglob("*.jpg"))[:30]:
        shutil.copy(path, folder)
    return folder


def scored(drawn: dict[str, Path], place: int) -> Path:
    """Return an image of the labelled data's test split, which has numbers 24 to 39."""
    return next(drawn["demo"].rglob(f"demo_{24 + place:06d}.jpg"))


def grid(drawn: dict[str, Path], folder: Path, **options: object) -> Grid:
    asked = {"pretext": "l1_color", "downstream": "voc_cls", "schedule": "two-phase", "protocol": "demo", "size": 32}
    places = {"data": str(drawn["demo"]), "pretrain_data": str(folder)}
    return resolve(RunConfig.model_validate({**asked, **places, **options}), quiet)


def counts(one: Grid) -> tuple[int, int, int]:
    found = leaks.leaks_of(one.jobs[-1], one, quiet)
    assert found is not None
    return found.test.equal, found.test.near, found.dropped


def turned(source: Path, target: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    decode(source).rotate(90, expand=True).save(target.with_suffix(".png"), exif=exif)


ADDED: dict[str, tuple[Callable[[Path, Path], object], tuple[int, int, int]]] = {
    "a copy": (shutil.copy, (1, 0, 0)),
    "a symbolic link": (lambda source, target: target.symlink_to(source), (1, 0, 0)),
    "a PNG of it": (lambda source, target: decode(source).save(target.with_suffix(".png")), (1, 0, 0)),
    "turned, with an EXIF orientation": (turned, (1, 0, 0)),
    "saved again": (lambda source, target: decode(source).save(target, quality=60), (0, 1, 0)),
    "mirrored, twice as large": (
        lambda source, target: ImageOps.mirror(decode(source)).resize((128, 128)).save(target),
        (0, 1, 0),
    ),
    "one of one colour": (lambda source, target: Image.new("RGB", (64, 64), "grey").save(target), (0, 0, 0)),
    "nothing": (lambda source, target: None, (0, 0, 0)),
}


@pytest.mark.parametrize("how", ADDED)
def test_a_test_image_in_the_pretraining_folder_is_found_however_it_came_there(
    drawn: dict[str, Path], unlabelled: Path, how: str
) -> None:
    add, expected = ADDED[how]
    add(scored(drawn, 3), unlabelled / "000000000000_added.jpg")
    assert counts(grid(drawn, unlabelled)) == expected


def test_names_and_order_do_not_matter(drawn: dict[str, Path], unlabelled: Path) -> None:
    for place in (0, 5):
        shutil.copy(scored(drawn, place), unlabelled / f"{9 - place}_demo_000001.jpg")
    for number, path in enumerate(sorted(unlabelled.iterdir(), key=lambda path: path.name[::-1])):
        path.rename(unlabelled / f"demo_{24 + number:06d}_.jpg")
    found = grid(drawn, unlabelled)
    training = leaks.pretraining_splits(found.jobs[0].pretrain, found, quiet).ids("train")
    assert len(training) >= 30 and counts(found) == (2, 0, 0)


def test_one_folder_for_both_leaks_all_that_is_trained_on(drawn: dict[str, Path]) -> None:
    found = grid(drawn, drawn["demo"])
    training = {*leaks.pretraining_splits(found.jobs[0].pretrain, found, quiet).ids("train")}
    expected = sum(f"demo_{number:06d}" in training for number in range(24, 40))
    assert expected > 10 and counts(found) == (expected, 0, 0)
    leaking = leaks.leaks_of(found.jobs[0], found, quiet)
    assert leaking is not None and leaking.val.equal > 0


def test_random_initialisation_has_no_leaks(drawn: dict[str, Path], unlabelled: Path) -> None:
    shutil.copy(scored(drawn, 0), unlabelled)
    alone = grid(drawn, unlabelled, pretext="random_init", leaks="refuse")
    assert leaks.leaks_of(alone.jobs[0], alone, quiet) is None
    leaks.check(alone, True, pytest.fail)
    both = grid(drawn, unlabelled, pretext="random_init,l1_color")
    assert [leaks.leaks_of(job, both, quiet) is None for job in both.jobs] == [True, False]


def test_refusing_names_the_images_and_what_to_do(drawn: dict[str, Path], unlabelled: Path) -> None:
    for place in range(5):
        shutil.copy(scored(drawn, place), unlabelled)
    with pytest.raises(DataError) as error:  # the fifth is one of the images that the pretext task is scored on
        leaks.check(grid(drawn, unlabelled), True, quiet)
    assert str(error.value) == (
        "voc_cls: 4 of the 16 test images are among the 34 images to pretrain on (4 equal, 0 near: demo_000024, demo_000025, "
        "demo_000027, ...); --leaks drop leaves them out of pretraining, and --leaks note only counts them."
    )


def test_dropping_changes_the_trunks_id_only_where_something_is_dropped(drawn: dict[str, Path], unlabelled: Path) -> None:
    clean = [grid(drawn, unlabelled, leaks=way).jobs for way in ("note", "refuse", "drop")]
    assert clean[0] == clean[1] == clean[2] and "held_out" not in clean[0][0].pretrain.identity()
    shutil.copy(scored(drawn, 0), unlabelled / "000000000000_added.jpg")
    noted, dropped = grid(drawn, unlabelled), grid(drawn, unlabelled, leaks="drop")
    assert (counts(noted), counts(dropped)) == ((1, 0, 0), (0, 0, 1))
    (one,), (other,) = noted.jobs, dropped.jobs
    assert one.pretrain.id != other.pretrain.id and other.pretrain.held_out is not None
    assert other.pretrain.held_out.data_fingerprint == next(iter(noted.data.values())).fingerprint
    left = leaks.pretraining_splits(other.pretrain, dropped, quiet)
    whole = leaks.pretraining_splits(one.pretrain, noted, quiet)
    assert {*whole.ids("train")} - {*left.ids("train")} == {"000000000000_added.jpg"}
    assert left.ids("test") == whole.ids("test")


def test_one_trunk_without_leaks_serves_all_tasks_and_says_for_which_test_images(
    drawn: dict[str, Path], unlabelled: Path
) -> None:
    shutil.copy(scored(drawn, 0), unlabelled / "000000000000_added.jpg")
    ids = {
        grid(drawn, unlabelled, leaks="drop", downstream=tasks).jobs[-1].pretrain.id
        for tasks in ("voc_cls", "voc_seg", "voc_cls,voc_seg")
    }
    assert len(ids) == 1
    other = grid(drawn, unlabelled, leaks="drop", set=("protocol.split_scheme=paper-70-20-10",))
    assert other.jobs[-1].pretrain.id not in ids


def test_test_images_of_a_task_that_is_not_run_are_dropped_too(drawn: dict[str, Path], voc: Path, unlabelled: Path) -> None:
    """Else the trunk would be another one when that task is run as well."""
    sets = next(voc.rglob("ImageSets"))
    ids = (sets / "Segmentation" / "val.txt").read_text().split()
    (sets / "Main" / "val.txt").write_text("\n".join(ids[8:]))
    (sets / "Segmentation" / "val.txt").write_text("\n".join(ids[:8]))
    shutil.copy(scored(drawn, 0), unlabelled / "000000000000_added.jpg")
    found = grid({"demo": voc}, unlabelled, leaks="drop")
    assert counts(found) == (0, 0, 1)


def test_dropping_all_is_refused(drawn: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "only"
    folder.mkdir()
    for place in range(16):
        shutil.copy(scored(drawn, place), folder)
    with pytest.raises(DataError, match="leaves nothing of only to pretrain on: all of its 15 training images are equal or near"):
        grid(drawn, folder, leaks="drop")


def test_a_row_without_leaks_cannot_be_made_again_from_other_images(drawn: dict[str, Path], unlabelled: Path) -> None:
    shutil.copy(scored(drawn, 0), unlabelled / "000000000000_added.jpg")
    found = grid(drawn, unlabelled, leaks="drop")
    job = found.jobs[0].pretrain.model_copy(update={"splits_fingerprint": "0" * 64})
    with pytest.raises(DataError, match="the images that --leaks drop leaves of unlabelled here are not those of l1_color-"):
        leaks.pretraining_splits(job, found, quiet)


RUN = ("--pretext", "random_init,l1_color", "--downstream", "voc_cls", "--schedule", "two-phase")


@pytest.mark.integration
def test_leaks_stand_on_the_screen_in_the_row_and_in_the_table(
    bench: Callable, drawn: dict[str, Path], unlabelled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    shutil.copy(scored(drawn, 0), unlabelled / "000000000000_added.jpg")
    decode(scored(drawn, 1)).save(unlabelled / "000000000000_other.jpg", quality=50)
    command = ("run", *TINY, *QUICK, *RUN, "--data", drawn["demo"], "--pretrain-data", unlabelled, "--out", out)
    refused = bench(*command, "--leaks", "refuse")
    assert refused.code == 3 and "2 of the 16 test images" in refused.err and not (out / "runs").exists()
    done = bench(*command)
    assert "voc_cls: 2 of the 16 test images are among the 31 images to pretrain on (1 equal, 1 near: " in done.out
    dropped = bench(*command, "--leaks", "drop")
    assert done.code == dropped.code == 0, dropped.err
    assert "none of the 16 test images is among the 29 images to pretrain on; 2 were dropped from pretraining" in dropped.out
    found = {one.id: one.leaks for one in record.read(out)}
    assert sorted(str(one and (one.test.equal, one.test.near, one.dropped)) for one in found.values()) == [
        "(0, 0, 2)",
        "(1, 1, 0)",
        "None",
    ]
    trained = {one.pretrain.id: one.pretrain.data.counts["train"] for one in record.read(out) if one.pretrain.data}
    assert sorted(trained.values()) == [29, 31]
    report = bench("report", "--out", out)
    assert "¶: pretrained on images that it is scored on: l1_color in Classification 2 of 16 (1 equal, 1 near)." in report.out
    assert "Images dropped from pretraining, since a test image is equal or near: l1_color (leaks dropped) 2." in report.out
    assert [line.count("¶") for line in report.out.splitlines() if line.strip().startswith("l1_color ")][:2] == [1, 0]
    with (out / "leaderboard.csv").open(newline="") as file:
        rows = {(row["pretext"], row["leaks_equal"], row["leaks_near"], row["leaks_dropped"]) for row in csv.DictReader(file)}
    assert rows == {("random_init", "", "", ""), ("l1_color", "1", "1", "0"), ("l1_color", "0", "0", "2")}
    again = next(name for name, one in found.items() if one and one.dropped)
    assert "--leaks drop" in bench("show", again, "--out", out).out.splitlines()[-1]
    reproduced = bench("reproduce", again, "--out", out)
    assert reproduced.code == 0 and "was reproduced to the bit" in reproduced.out


@pytest.mark.integration
@pytest.mark.parametrize("searched", [(), ("--tune", "1")])
def test_finished_runs_are_printed_without_hashing_or_comparing_anything(
    tiny: Callable, monkeypatch: pytest.MonkeyPatch, searched: tuple[str, ...]
) -> None:
    assert "none of the 16 test images is among the 46 images to pretrain on" in tiny(*RUN, *searched).out
    for name in ("open_hashes", "hash_of", "compare"):
        monkeypatch.setattr(hashes, name, lambda *_, name=name: pytest.fail(f"{name} was called again"))
    again = tiny(*RUN, *searched)
    assert again.code == 0 and again.out.count("finished before") == 2


def test_the_test_and_the_validation_images_are_compared_at_once(
    drawn: dict[str, Path], unlabelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = grid(drawn, unlabelled)
    scores = splits.open_splits(next(iter(found.data.values())), "official", "labels")
    for split, place in (("val", 0), ("test", 2)):
        shutil.copy(next(drawn["demo"].rglob(f"{scores.ids(split)[place]}.jpg")), unlabelled / f"00000000000_{split}.jpg")
    found, opened, read = grid(drawn, unlabelled), [], hashes.open_hashes
    monkeypatch.setattr(hashes, "open_hashes", lambda data, echo: opened.append(data.name) or read(data, echo))
    leaking = leaks.leaks_of(found.jobs[0], found, quiet)
    assert leaking is not None and len(opened) == 2
    assert (leaking.val.some, leaking.test.some) == ((scores.ids("val")[0],), (scores.ids("test")[2],))
    assert (leaking.val.images, leaking.test.images) == (len(scores.ids("val")), 16)


def test_what_is_left_of_the_images_to_pretrain_on_is_found_out_once(
    drawn: dict[str, Path], unlabelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a plan compares the images again for each trunk, seed and protocol."""
    shutil.copy(scored(drawn, 0), unlabelled / "000000000000_added.jpg")
    first = grid(drawn, unlabelled, leaks="drop", seeds=2)
    left = leaks.pretraining_splits(first.jobs[0].pretrain, first, quiet)
    with monkeypatch.context() as without_hashes:
        without_hashes.setattr(hashes, "open_hashes", lambda *_: pytest.fail("compared again"))
        again = grid(drawn, unlabelled, leaks="drop", seeds=2, pretext="l1_color,inpainting")
        for job in again.jobs:
            assert leaks.pretraining_splits(job.pretrain, again, quiet) == left
    shutil.copy(scored(drawn, 1), unlabelled / "000000000000_other.jpg")  # other images are compared anew
    other = grid(drawn, unlabelled, leaks="drop")
    assert "000000000000_other.jpg" not in leaks.pretraining_splits(other.jobs[0].pretrain, other, quiet).ids("train")


def test_a_damaged_file_of_splits_is_said_and_its_test_images_are_not_left_in(drawn: dict[str, Path], unlabelled: Path) -> None:
    shutil.copy(scored(drawn, 0), unlabelled / "000000000000_added.jpg")
    paper = {"leaks": "drop", "set": ("protocol.split_scheme=paper-70-20-10",)}
    whole = grid(drawn, unlabelled, leaks="note", set=paper["set"])
    splits.open_splits(next(iter(whole.data.values())), "paper-70-20-10", "SegmentationClass")
    (path,) = (files.home() / "splits").glob("*paper-70-20-10-SegmentationClass*")
    path.write_text("{")
    with pytest.raises(DataError, match=r"SegmentationClass.* is not a file of splits"):
        grid(drawn, unlabelled, **paper)


def test_lists_that_cannot_be_used_for_a_task_still_name_images_that_are_scored(
    drawn: dict[str, Path], voc: Path, unlabelled: Path
) -> None:
    """The lists of segmentation contradict each other; classification alone is run."""
    lists = next(voc.rglob("ImageSets"))
    ids = (lists / "Segmentation" / "val.txt").read_text().split()
    (lists / "Main" / "val.txt").write_text("\n".join(ids[8:]))
    (lists / "Segmentation" / "train.txt").write_text("\n".join(ids))
    (lists / "Segmentation" / "val.txt").write_text("\n".join(ids[:8]))
    shutil.copy(scored(drawn, 0), unlabelled / "000000000000_added.jpg")
    assert counts(grid({"demo": voc}, unlabelled, leaks="drop")) == (0, 0, 1)


def test_masks_too_few_to_divide_keep_no_task_from_running(drawn: dict[str, Path], voc: Path, unlabelled: Path) -> None:
    for path in sorted(next(voc.rglob("SegmentationClass")).iterdir())[FEWEST - 1 :]:
        path.unlink()
    for name in ("train", "val"):
        (next(voc.rglob("Segmentation")) / f"{name}.txt").write_text("")
    with pytest.raises(DataError, match=f"at least {FEWEST} are needed"):
        splits.open_splits(catalogue.open_dataset(str(voc), quiet), "paper-70-20-10", "SegmentationClass")
    paper = ("protocol.split_scheme=paper-70-20-10",)
    assert counts(grid({"demo": voc}, unlabelled, leaks="drop", set=paper))[2] == 0
