"""A preregistered study: its confirmatory comparisons are those that its file names, of runs made under that file, no others."""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.errors import DataError
from bench.experiment import study_file

Bench = Callable[..., "object"]
HEAD = """power = "2 seeds tell nothing"
budget = "no search"
negative = "no row is told apart"

[questions]
beats = "Does colorization beat random initialisation?"
null = "Is a row that differs by its name alone told apart?"
"""
COMPARISONS = """
[[comparisons]]
question = "beats"
parts = ["main"]
task = "voc_cls"
row = "l1_color"
against = "random_init:two-phase"
metric = "map_voc"

[[comparisons]]
question = "beats"
parts = ["main"]
task = "voc_cls"
row = "l1_color"
against = "random_init:one-phase"
metric = "acc_keras"
"""
STUDY = """title = "t"
preregistration = "preregistration.toml"
[tables.main]
parts = ["main"]
metrics = ["map_voc"]
"""


@pytest.fixture
def registered(folder: Path) -> Path:
    """A study whose grid and comparisons are in its preregistration, and its table in study.toml."""
    text = (folder / "study.toml").read_text()
    options = text[text.index("[options]") : text.index("[parts.encoder]")].replace("tune = 1\n", "")
    (folder / "preregistration.toml").write_text(HEAD + options + COMPARISONS)
    (folder / "study.toml").write_text(STUDY)
    return folder


def lines(folder: Path, table: str = "confirmatory/confirmatory.csv") -> list[dict[str, str]]:
    with (folder / table).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.integration
def test_what_was_registered_is_confirmed_by_runs_that_were_made_under_it(bench: Bench, registered: Path, tmp_path: Path) -> None:
    sha256 = hashlib.sha256((registered / "preregistration.toml").read_bytes()).hexdigest()
    command = ("study", registered, "--out", tmp_path / "runs")
    done = bench(*command)
    assert done.code == 0 and "Confirmatory comparisons" in done.out and "Exploratory, main. Table 4" in done.out, done.err
    assert done.out.index("Confirmatory comparisons") < done.out.index("Exploratory, main")
    made = [json.loads(path.read_bytes()) for path in registered.glob("records/runs/*/record.json")]
    assert len(made) == 6
    assert {one["provenance"]["preregistration"] for one in made} == {sha256}
    assert {one["pretrain"]["provenance"]["preregistration"] for one in made} == {sha256}

    first, second = lines(registered)
    (shown,) = [one for one in lines(registered, "main/leaderboard.csv") if one["pretext"] == "l1_color"]
    assert [first[name] for name in ("delta", "delta_low", "delta_high", "p")] == [
        shown[name] for name in ("delta", "delta_low", "delta_high", "p")
    ]
    p_values = sorted(float(one["p"]) for one in (first, second))
    holm = [min(1.0, 2 * p_values[0]), max(min(1.0, 2 * p_values[0]), p_values[1])]
    assert sorted(float(one["p_holm"]) for one in (first, second)) == pytest.approx(holm, abs=1e-8)
    assert {one["refused"] for one in (first, second)} == {""} and first["seeds"] == "2"

    # the same records under a file that was changed afterwards confirm nothing
    text = (registered / "preregistration.toml").read_text()
    (registered / "preregistration.toml").write_text(text + "# changed\n")
    again = bench(*command)
    assert (
        again.code == 0
        and f"not made under this preregistration, but under another, {sha256[:12]}" in lines(registered)[0]["refused"]
    )
    assert "refused" in again.out and not any(one["p_holm"] or one["delta"] for one in lines(registered))
    (registered / "preregistration.toml").write_text(text)
    assert bench(*command).code == 0 and lines(registered) == [first, second]


@pytest.mark.integration
def test_runs_of_before_the_preregistration_and_other_seeds_confirm_nothing(
    bench: Bench, registered: Path, tmp_path: Path
) -> None:
    plan, file = registered / "preregistration.toml", registered / "study.toml"
    text = plan.read_text()
    file.write_text(
        STUDY.replace('preregistration = "preregistration.toml"\n', "") + text[text.index("[options]") : text.index("\n[[")]
    )
    command = ("study", registered, "--out", tmp_path / "runs")
    before = bench(*command)
    assert before.code == 0 and "Confirmatory" not in before.out and not (registered / "confirmatory").exists()
    file.write_text(STUDY)
    assert bench("study", registered, "--out", tmp_path / "fresh").code == 0
    assert all(one["refused"].endswith("was not made under this preregistration, but under none") for one in lines(registered))

    other = bench("study", registered, "--out", tmp_path / "more", "--seeds", "1", "--into", tmp_path / "other")
    assert other.code == 0 and "Confirmatory" not in other.out and not (tmp_path / "other" / "confirmatory").exists()
    own = bench("study", registered, "--out", tmp_path / "more", "--seeds", "1", "--into", registered)
    assert own.code == 2 and "name a folder other than the study's own" in own.err

    # nothing of before is taken over: neither an output folder with checkpoints, trunks or searches, nor a record beside the file
    (registered / "records" / "parts.json").unlink()
    refused = bench(*command)
    assert refused.code == 2 and "holds work from before the preregistration" in refused.err
    refused = bench("study", registered, "--out", tmp_path / "new")
    assert refused.code == 5 and "was not made under this preregistration; remove it" in refused.err
    plan.write_text(text + "# changed\n")
    refused = bench("study", registered, "--out", tmp_path / "new")
    assert refused.code == 2 and "holds work under another preregistration" in refused.err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('question = "beats"', 'question = "beat"', "belongs to no question ('beat')"),
        ('parts = ["main"]', 'parts = ["more"]', "is about a part that the preregistration does not have (more)"),
        ('against = "random_init:two-phase"', 'against = "l1_color"', "compares a row with itself"),
        ('metric = "acc_keras"', 'metric = "acc_kears"', "did you mean 'acc_keras'"),
        ("negative =", "negativ =", "negative"),
        (
            'against = "random_init:one-phase"\nmetric = "acc_keras"',
            'against = "random_init:two-phase"\nmetric = "map_voc"',
            "twice",
        ),
    ],
)
def test_a_preregistration_that_cannot_be_kept_is_named_with_the_reason(registered: Path, old: str, new: str, said: str) -> None:
    path = registered / "preregistration.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=r"preregistration\.toml") as refused:
        study_file.load(registered / "study.toml")
    assert said in str(refused.value)


def test_a_study_adds_parts_and_tables_to_those_of_its_preregistration(registered: Path) -> None:
    file = registered / "study.toml"
    later = '[parts.later]\nlike = "main"\nseeds = 3\n[parts.own]\npretext = "rotation"\ndownstream = "voc_cls"\n'
    file.write_text(STUDY + "[options]\ntune = 3\n" + later)
    study = study_file.load(file)
    assert study.parts["later"] == study.parts["main"].model_copy(update={"seeds": (0, 1, 2)})
    assert study.parts["own"].tune == 3 and study.preregistration is not None and study.preregistration.parts == ("main",)
    file.write_text(STUDY + '[parts.main]\npretext = "rotation"\ndownstream = "voc_cls"\n')
    with pytest.raises(DataError, match="is a part of preregistration"):
        study_file.load(file)
    file.write_text(STUDY.replace('"preregistration.toml"', '"../preregistration.toml"'))
    with pytest.raises(DataError, match="must be the name of a file"):
        study_file.load(file)


def test_another_fingerprint_of_registered_data_is_refused(registered: Path) -> None:
    plan, file = registered / "preregistration.toml", registered / "study.toml"
    plan.write_text(plan.read_text().replace("[[comparisons]]", '[fingerprints]\nlabelled = "abcd"\n[[comparisons]]', 1))
    file.write_text(STUDY + '[fingerprints]\nlabelled = ""\n')
    with pytest.raises(DataError, match="the fingerprint of labelled is in preregistration"):
        study_file.load(file)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('row = "l1_color"', 'row = "l1_colour"', "no row is l1_colour; there are l1_color, l1_color:two-phase"),
        ('task = "voc_cls"', 'task = "voc_clss"', "its parts have voc_cls, finetune"),
        ('task = "voc_cls"', 'task = "voc_cls"\nevaluation = "knn"', "its parts have voc_cls, finetune"),
        ('against = "random_init:two-phase"', 'against = "random_init"', "random_init names 2 rows"),
        ('against = "random_init:two-phase"', 'against = "l1_color:two-phase"', "both sides are the same runs"),
        ('metric = "map_voc"', 'metric = "miou_voc"', "the metrics are"),
        ("seeds = 2", "seeds = 1", "one seed gives no test"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_told_before_anything_is_computed(
    bench: Bench, registered: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = registered / "preregistration.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    for plan in (("--plan",), ()):
        done = bench("study", registered, "--out", tmp_path / "runs", *plan)
        assert done.code == 3 and "the preregistration cannot be kept: " in done.err and said in done.err, done.err
    assert not any((tmp_path / "runs").glob("*/*/record.json"))


PLUGIN = """
from pretexts.random_init import RandomInit


class Nothing(RandomInit):
    TITLE = "nothing is trained"
    schedules = ("two-phase",)
"""


def test_a_plug_in_is_compared_only_where_its_file_is_registered(bench: Bench, registered: Path, tmp_path: Path) -> None:
    """A file of the user's under a built-in name would otherwise stand for that task."""
    plan, plugin = registered / "preregistration.toml", tmp_path / "l1_color.py"
    plugin.write_text(PLUGIN)
    command = ("study", registered, "--out", tmp_path / "runs", "--plugin", plugin)
    refused = bench(*command, "--plan")
    assert refused.code == 3 and "l1_color is a plug-in's" in refused.err
    sha256 = hashlib.sha256(plugin.read_bytes()).hexdigest()
    plan.write_text(plan.read_text().replace("[questions]", f'[plugins]\nl1_color = "{sha256}"\n[questions]'))
    assert bench(*command, "--plan").code == 0
    plan.write_text(plan.read_text().replace(sha256, "0" * 64))
    assert bench(*command, "--plan").code == 3
