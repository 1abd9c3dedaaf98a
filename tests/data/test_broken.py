"""Images that do not decode: named, left out only when asked for, and then told wherever the data is named."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bench import record
from bench.data import catalogue
from tests.conftest import reseal
from tests.data.made import devkit


def cut(path: Path) -> None:
    """Take the second half of a file away."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [cut, empty])
@pytest.mark.parametrize("kind", ["JPEGImages", "SegmentationClass"])
def test_preparing_stops_at_a_broken_file_and_says_how_to_leave_it_out(
    bench: Callable, voc: Path, kind: str, spoil: Callable[[Path], None]
) -> None:
    file = sorted((devkit(voc) / kind).iterdir())[3]
    spoil(file)
    done = bench("data", "prepare", "mine", "--root", voc)
    assert done.code == 3 and str(file) in done.err and "--skip-broken" in done.err and done.err.count("\n") == 1
    assert catalogue.prepared() == {}


@pytest.mark.parametrize("kind", ["JPEGImages", "SegmentationClass"])
def test_a_broken_image_leaves_the_images_masks_and_lists(bench: Callable, voc: Path, kind: str) -> None:
    file = sorted((devkit(voc) / kind).iterdir())[3]
    cut(file)
    done = bench("data", "prepare", "mine", "--root", voc, "--skip-broken")
    assert (
        done.code == 0 and f"left out: {file} does not decode" in done.out and "mine is ready: 39 images (1 left out)" in done.out
    )
    dataset = catalogue.prepared()["mine"]
    assert [Path(name).stem for name in dataset.broken] == [file.stem]
    assert file.stem not in {image.id for image in dataset.images}
    assert all(file.stem not in ids for ids in dataset.masks.values())
    assert all(file.stem not in ids for splits in dataset.lists.values() for ids in splits.values())
    assert any("39 (1 left out)" in line for line in bench("data", "list").out.splitlines())
    assert bench("data", "verify", "mine").code == 0


def test_a_whole_data_set_has_the_same_fingerprint_with_and_without_the_option(bench: Callable, voc: Path) -> None:
    bench("data", "prepare", "one", "--root", voc)
    bench("data", "prepare", "two", "--root", voc, "--skip-broken")
    one, two = catalogue.prepared()["one"], catalogue.prepared()["two"]
    assert one.fingerprint == two.fingerprint and two.broken == ()


def test_what_was_left_out_is_part_of_the_fingerprint(bench: Callable, voc: Path) -> None:
    first = sorted((devkit(voc) / "JPEGImages").iterdir())[0]
    cut(first)
    bench("data", "prepare", "one", "--root", voc, "--skip-broken")
    bench("data", "prepare", "two", "--root", voc, "--exclude", first.name)
    one, two = catalogue.prepared()["one"], catalogue.prepared()["two"]
    assert one.images[0].id == two.images[0].id and one.fingerprint != two.fingerprint


def test_a_mask_that_decodes_and_is_wrong_is_not_skipped(bench: Callable, voc: Path) -> None:
    mask = sorted((devkit(voc) / "SegmentationClass").iterdir())[0]
    Image.new("P", (3, 5)).save(mask)
    done = bench("data", "prepare", "mine", "--root", voc, "--skip-broken")
    assert done.code == 3 and str(mask) in done.err and "3x5" in done.err


def test_nothing_left_is_an_error(bench: Callable, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    empty(tmp_path / "images" / "a.jpg")
    done = bench("data", "prepare", "mine", "--root", tmp_path / "images", "--skip-broken")
    assert done.code == 3 and "nothing of mine is left" in done.err


def test_an_index_from_before_the_option_is_still_read(bench: Callable, voc: Path, home: Path) -> None:
    bench("data", "prepare", "mine", "--root", voc)
    path = home / "data" / "mine" / "index.json"
    reseal(path, lambda index: {name: value for name, value in index.items() if name != "broken"})
    assert catalogue.prepared()["mine"].broken == ()


def test_runs_and_tables_say_how_many_images_were_left_out(
    bench: Callable, tiny: Callable, drawn: dict[str, Path], voc: Path, tmp_path: Path
) -> None:
    for place in (0, 7):
        cut(sorted((devkit(voc) / "JPEGImages").iterdir())[place])
    bench("data", "prepare", "mine", "--root", voc, "--skip-broken")
    assert tiny("--pretext", "random_init", "--downstream", "voc_seg", "--data", "mine", "--schedule", "one-phase").code == 0
    assert [one.data.left_out for one in record.read(tmp_path / "runs")] == [2]
    assert "2 images left out" in bench("report", "--out", tmp_path / "runs").out


def test_a_folder_that_was_not_prepared_is_never_thinned_out(tiny: Callable, voc: Path) -> None:
    file = sorted((devkit(voc) / "JPEGImages").iterdir())[0]
    cut(file)
    done = tiny("--pretext", "random_init", "--downstream", "voc_cls", "--data", voc, "--schedule", "one-phase")
    assert done.code == 3 and str(file) in done.err
