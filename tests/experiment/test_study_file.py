"""`study.toml`: what it may say, and what is named when it says something else."""

from pathlib import Path

import pytest

from bench.errors import DataError
from bench.experiment import study_file


def test_another_file_has_a_folder_of_its_own(folder: Path) -> None:
    assert study_file.own_folder(folder / "study.toml") == folder
    assert study_file.own_folder(folder / "smaller.toml") == folder / "smaller"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title", "titel", "title"),
        ("[parts.main]", "[parts.'a/b']", "ASCII letters"),
        ("[tables.main]", "[tables.records]", "records"),
        ('parts = ["main"]', 'parts = ["mian"]', "did you mean 'main'"),
        ("seeds = 2", 'seeds = "two"', "--seeds"),
        ("seeds = 2", "sedes = 2", "; did you mean 'seeds'? Of "),
        ("[options]", "options = 3\n[other]", "options must be a table"),
        ("tune = 1", "tune = -1", "tune"),
        ("tune = 1", "tune = true", "tune"),
        ('"acc_keras"', '"acc_kears"', "did you mean 'acc_keras'"),
        ("tune = 1", "tune = 1\nrates = [0.1]", "--rates"),
        ("protocol", "protocol protocol", "not a study"),
        ("seeds = 2", "seeds = 2\npretrain_data = 'other'", "twice"),
        ("tune = 1", 'tune = 1\nlike = "mian"', "did you mean 'main'"),
        ("tune = 1", "tune = 1\nlike = 3", "unknown part '3', which parts.main is like"),
        ("tune = 1", 'tune = 1\nlike = "main"', "parts.main is like main, itself like 'main'"),
    ],
)
def test_a_file_that_is_no_study_is_named_with_the_reason(folder: Path, old: str, new: str, said: str) -> None:
    path = folder / "study.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=r"study\.toml") as refused:
        study_file.load(path)
    assert said in str(refused.value)


def test_a_part_like_another_has_its_options_and_its_own_before_them(folder: Path) -> None:
    path = folder / "study.toml"
    path.write_text(path.read_text() + '[parts.more]\nlike = "encoder"\nseeds = 3\npretrain_data = "own"\n')
    parts = study_file.load(path).parts
    assert parts["more"] == parts["encoder"].model_copy(update={"seeds": (0, 1, 2), "pretrain_data": "own"})
    assert study_file.load(path, {"seeds": "1"}).parts["more"].all_seeds == (0,)


def test_what_does_not_change_a_result_is_not_part_of_what_was_asked(folder: Path) -> None:
    path = folder / "study.toml"
    first = study_file.load(path).parts["main"].meaning()
    assert study_file.load(path, {"device": "cuda", "threads": 7, "workers": 3}).parts["main"].meaning() == first
    assert study_file.load(path, {"seeds": "3"}).parts["main"].meaning() != first


def test_looks_that_do_not_grow_are_refused(folder: Path) -> None:
    text = (path := folder / "study.toml").read_text()
    for looks in ("[5, 3]", "[1, 3]", "[3, 3]"):
        path.write_text(f"looks = {looks}\n{text}")
        with pytest.raises(DataError, match="looks"):
            study_file.load(path)
    path.write_text(f"looks = [3, 5]\n{text}")
    assert study_file.load(path).looks == (3, 5)


def test_settings_of_the_command_come_after_those_of_the_file(folder: Path) -> None:
    settings = study_file.load(folder / "study.toml", {"set": ["recipe.lr=1"]}).parts["main"].settings
    assert settings == ("recipe.epochs=1", "recipe.batch_size=8", "protocol.head_width=16", "recipe.lr=1")
