"""What a user chooses when a data set is prepared is used, said, and found again by `bench data verify`; or it is refused."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.data import catalogue
from bench.errors import DataError, UsageError
from tests.data.made import write_own
from tests.data.own import prepared


@pytest.mark.parametrize("pattern", ["foo*", "p0?", "p00.png"])
def test_an_exclude_that_matches_nothing_is_refused(tmp_path: Path, pattern: str) -> None:
    root = write_own(tmp_path)
    with pytest.raises(UsageError, match=r"leaves nothing out: .* as in 'p00\.jpg'"):
        catalogue.read(root, "mine", catalogue.Choices(exclude=["p01*", pattern]))


@pytest.mark.parametrize("value", ["200=1", "#010203=1"])
def test_a_map_that_changes_nothing_is_refused(tmp_path: Path, home: Path, value: str) -> None:
    root = write_own(tmp_path / "d")
    with pytest.raises(UsageError, match=re.escape(f"--map {value} changes nothing: no mask of {root} has ")):
        prepared(root, value)
    assert prepared(root, "255=0", "003=03").mask_values == ("003=03", "255=0")


@pytest.mark.parametrize("change", ["bicycle", "", None])
def test_verify_sees_that_other_classes_are_scored_now(tmp_path: Path, home: Path, change: str | None) -> None:
    root = write_own(tmp_path / "d")
    file = root / "scored_classes.txt"
    file.write_text("aeroplane")
    made = catalogue.register(catalogue.read(root, "mine"))
    assert catalogue.verify("mine").fingerprint == made.fingerprint
    file.unlink() if change is None else file.write_text(change)
    with pytest.raises(DataError, match=r"has changed since it was prepared|names no class"):
        catalogue.verify("mine")


def test_verify_scores_what_the_option_named(tmp_path: Path, home: Path) -> None:
    root = write_own(tmp_path / "d")
    (root / "scored_classes.txt").write_text("bicycle")
    made = catalogue.register(catalogue.read(root, "mine", catalogue.Choices(score=["aeroplane"])))
    assert made.scored == ("aeroplane",) and catalogue.verify("mine").fingerprint == made.fingerprint


@pytest.mark.integration
def test_choices_are_told_and_a_class_that_is_not_there_is_a_mistake_of_usage(bench: Callable, tmp_path: Path) -> None:
    root = write_own(tmp_path / "d")
    for score, said in (("aeroplane,Bird", "has no class 'Bird' to score"), (",", "and got none")):
        refused = bench("data", "prepare", "mine", "--root", root, "--score", score)
        assert refused.code == 2 and said in refused.err
    told = bench("data", "prepare", "mine", "--root", root, "--score", "aeroplane", "--map", "255=0")
    assert told.code == 0 and "  scored: aeroplane\n" in told.out and "  values of masks changed by --map: 255=0\n" in told.out
