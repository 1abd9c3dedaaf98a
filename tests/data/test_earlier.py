"""Data sets that an earlier version prepared: looked at once, and refused where this version reads them otherwise."""

from pathlib import Path
from typing import Any

import pytest

from bench.data import catalogue
from bench.errors import DataError
from tests.data.made import write_own


def prepared_earlier(tmp_path: Path, **as_it_was: Any) -> Path:
    """Prepare a data set as an earlier version would have; `as_it_was` are the fields that it read otherwise."""
    root = write_own(tmp_path / "d", classes=1)
    made = catalogue.register(catalogue.read(root, "mine"))
    earlier = {"surveyed": False, "findings": {}, "mask_findings": {}, **as_it_was}
    catalogue._save(catalogue._index("mine").parent, made.model_copy(update=earlier))
    return root


def test_masks_are_looked_at_once_and_what_is_not_used_is_counted(tmp_path: Path) -> None:
    root = prepared_earlier(tmp_path)
    (root / "Annotations" / "notes.md").write_text("")
    said: list[str] = []
    dataset = catalogue.open_dataset("mine", said.append)
    assert said == ["looking at mine again, which an earlier version prepared (once)"]
    assert dataset.findings == {"files in Annotations that are no .xml file": 1} and dataset.mask_findings
    assert catalogue.open_dataset("mine", pytest.fail).fingerprint == dataset.fingerprint == catalogue.verify("mine").fingerprint


@pytest.mark.parametrize(
    ("as_it_was", "what"),
    [
        ({"classes": ("background", "aeroplane"), "scored": ("background", "aeroplane")}, "classes.txt"),
        ({"lists": {"Main": {}, "Segmentation": {}}}, "lists"),
    ],
)
def test_one_that_was_read_otherwise_has_to_be_prepared_again(tmp_path: Path, as_it_was: dict[str, Any], what: str) -> None:
    root = prepared_earlier(tmp_path, **as_it_was)
    if what == "classes.txt":
        (root / "classes.txt").write_text("background\naeroplane\n")
        with pytest.raises(DataError, match=r"no class 'background' to score|read its classes\.txt"):
            catalogue.open_dataset("mine", print)
    else:
        with pytest.raises(DataError, match="read its lists otherwise; prepare it again: `bench data prepare mine --root"):
            catalogue.open_dataset("mine", print)


def test_one_whose_folder_is_gone_is_taken_as_it_is(tmp_path: Path) -> None:
    root = prepared_earlier(tmp_path)
    root.rename(tmp_path / "elsewhere")
    assert not catalogue.open_dataset("mine", pytest.fail).surveyed
