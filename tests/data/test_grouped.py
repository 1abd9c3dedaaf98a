"""Splits of images that belong together, and splits that a data set names itself."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from bench.data import grouped, splits
from bench.data.dataset import Dataset, ImageFile
from bench.errors import DataError


def make(groups: list[str], labels: list[tuple[int, ...]] | None = None, **fields: object) -> Dataset:
    images = tuple(
        ImageFile(f"i{place:03}", f"i{place:03}.png", labels=labels[place] if labels else None, group=group)
        for place, group in enumerate(groups)
    )
    classes = tuple("abcdef"[: len(labels[0])]) if labels else ()
    made = {"name": "mine", "kind": "csv", "root": Path("/"), "images": images, "classes": classes, "scored": classes, **fields}
    return Dataset.model_validate({**made, "fingerprint": "f" * 64, "grouped_by": fields.get("grouped_by", "patient")})


def sides(dataset: Dataset, found: splits.Splits) -> list[set[str]]:
    known = {image.id: image.group for image in dataset.images}
    return [{known[one] for one in ids} for ids in found.members.values()]


def patients(seed: int, count: int = 300, of: int = 40) -> tuple[list[str], list[tuple[int, ...]]]:
    """Return images of patients of very different sizes, each of which mostly shows one of four classes."""
    random = np.random.default_rng(seed)
    groups = random.choice(of, count, p=(weights := random.pareto(1.5, of) + 0.1) / weights.sum())
    usual = random.integers(0, 4, of)
    shown = [int(usual[one]) if random.random() < 0.8 else int(random.integers(4)) for one in groups]
    return [f"p{one}" for one in groups], [tuple(int(place == one) for place in range(4)) for one in shown]


@pytest.mark.parametrize("seed", range(10))
def test_no_group_is_on_two_sides_of_any_split_or_share(seed: int) -> None:
    groups, labels = patients(seed)
    dataset = make(groups, labels)
    found = splits.open_splits(dataset, "paper-70-20-10", "labels")
    assert sorted(one for ids in found.members.values() for one in ids) == sorted(image.id for image in dataset.images)
    for some in (found, splits.open_share(dataset, found, 0.1)):
        train, val, test = sides(dataset, some)  # in any order
        assert train and val and test and not (train & val or train & test or val & test)
    assert found.grouped_by == "patient"


def test_without_their_groups_the_same_images_are_on_two_sides() -> None:
    groups, labels = patients(0)
    found = splits.open_splits(make(groups, labels, grouped_by="", name="plain"), "paper-70-20-10", "labels")
    train, val, test = sides(make(groups, labels), found)
    assert train & val and train & test


def test_groups_are_shared_out_as_evenly_as_by_scikit_learn() -> None:
    """The distance of class shares from those of all images, for a tenth that is scored: ours and StratifiedGroupKFold's."""
    ours, theirs, sizes = [], [], []
    for seed in range(20):
        groups, labels = patients(seed, of=60)
        shown = np.array(labels)
        _, _, test = grouped.divide(groups, shown, (0.7, 0.2, 0.1), "mine")
        folds = StratifiedGroupKFold(10, shuffle=True, random_state=0).split(shown, shown.argmax(axis=1), groups)
        whole = shown.mean(axis=0)
        ours.append(np.abs(shown[test].mean(axis=0) - whole).mean())
        theirs.append(np.mean([np.abs(shown[fold].mean(axis=0) - whole).mean() for _, fold in folds]))
        sizes.append(len(test) / len(shown))
    assert np.mean(ours) <= np.mean(theirs)
    assert 0.07 < np.mean(sizes) < 0.13


def test_a_split_is_the_same_on_every_machine() -> None:
    """The digest of a made split: numpy's generators and the order of names decide, and neither depends on the machine."""
    groups, labels = patients(3, count=60, of=12)
    together = splits.open_splits(make(groups, labels), "paper-70-20-10", "labels").fingerprint
    apart = splits.open_splits(make(groups, labels, grouped_by="", name="plain"), "paper-70-20-10", "labels").fingerprint
    assert (together[:16], apart[:16]) == ("2ac8e6d653d5230a", "ba0d8bd277671ff3")


def test_the_order_of_the_files_on_the_disk_changes_no_side() -> None:
    groups, labels = patients(1)
    order = np.random.default_rng(0).permutation(len(groups))
    chosen = [groups[place] for place in order]
    one = grouped.divide(groups, np.array(labels), (0.7, 0.2, 0.1), "mine")
    other = grouped.divide(chosen, np.array(labels)[order], (0.7, 0.2, 0.1), "mine")
    for ours, theirs in zip(one, other, strict=True):
        assert {groups[row] for row in ours} == {chosen[row] for row in theirs}


def test_fewer_groups_than_splits_are_refused() -> None:
    dataset = make(["p1"] * 10 + ["p2"] * 10, [(1, 0)] * 20)
    with pytest.raises(DataError, match="has 2 groups, which do not fill 3 splits"):
        splits.open_splits(dataset, "paper-70-20-10", "labels")


def given(dataset: Dataset, **parts: range) -> Dataset:
    return dataset.model_copy(update={"given": {name: tuple(f"i{place:03}" for place in some) for name, some in parts.items()}})


def test_the_splits_that_a_data_set_names_are_taken() -> None:
    dataset = make([""] * 40, [(1, 0)] * 20 + [(0, 1)] * 20, grouped_by="")
    found = splits.open_splits(given(dataset, train=range(0, 40, 2), test=range(1, 40, 2)), "own", "labels")
    assert found.members["test"] == tuple(f"i{place:03}" for place in range(1, 40, 2))
    assert len(found.members["val"]) == 2 and len(found.members["train"]) == 18 and found.scored_list == "mine's own split test"
    only_val = given(dataset, train=range(0, 30), val=range(30, 40)).model_copy(update={"name": "other"})
    assert splits.open_splits(only_val, "own", "labels").members["test"] == tuple(f"i{place:03}" for place in range(30, 40))
    drawn = splits.open_splits(dataset.model_copy(update={"name": "third"}), "own", "labels")
    assert {name: len(ids) for name, ids in drawn.members.items()} == {"train": 28, "val": 8, "test": 4}


def test_splits_of_the_data_set_that_share_a_group_are_refused() -> None:
    dataset = given(make(["p1", "p2"] * 10, [(1, 0)] * 20), train=range(12), test=range(12, 20))
    with pytest.raises(DataError, match="patient 'p1' is in the train and the test split; mend the splits, or let the images"):
        splits.open_splits(dataset, "own", "labels")


def test_a_data_set_without_a_scored_split_is_refused() -> None:
    dataset = given(make([""] * 20, [(1, 0)] * 20, grouped_by=""), train=range(20))
    with pytest.raises(DataError, match="none of its images with labels is in val or test"):
        splits.open_splits(dataset, "own", "labels")
