"""The studies that come with the program: their records make their tables, and their texts say what the tables say."""

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy import stats

from bench import record
from bench.experiment.study import finished_parts
from bench.experiment.study_file import load
from bench.feature_spread import LEAST_RATIO
from bench.job import Job
from results import statistics
from results.significance import SIGNIFICANT

FOLDER = Path(__file__).parents[2] / "results" / "studies"
STUDIES = sorted(path.parent for path in FOLDER.glob("*/study.toml"))
FINISHED = [folder for folder in STUDIES if set(load(folder / "study.toml").parts) <= set(finished_parts(folder))]
"""The others have records, and no tables yet."""
CLAIM = re.compile(r"^\|(?P<said>.*)\|\s*`(?P<file>[\w./-]+\.csv)` (?P<cells>[^|]+?)\s*\|$")
"""Numbers; in the last column the file, and the cells by which its row is known, with " / " between them where one has blanks."""
NO_SHARES = ("agreement.csv", "sensitivity.csv", "table3.csv")
"""The files whose numbers are no shares of 1, so that a text has them as they are; it has others in per cent or points."""
ANSWERS = (
    ("README.md", "**On photographs**", "\n\n"),
    ("docs/index.md", "On photographs, colorization", "\n\n"),
    ("docs/fairness.md", "| `cgan_color` over |", "**Two earlier answers"),
    ("results/studies/voc_mini_registered/README.md", "- **Classification: yes.**", "\n\n"),
)
"""Where a text gives the answer of the registered study: the file, how the answer begins, and what ends it."""
NUMBER = re.compile(r"(?<![\w.@])(?:p = )?[+-]?\d+\.\d+")


def contents(folder: Path) -> dict[str, bytes]:
    """Return what belongs to a study; pages are made by whoever wants them, and are no part of it."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "report.html")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("folder", FINISHED, ids=lambda folder: folder.name)
def test_the_records_of_a_study_make_its_tables_byte_for_byte(
    folder: Path, bench: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    tables = [path for path in copy.rglob("*.*") if path.relative_to(copy).parts[0] != "records" and path.parent != copy]
    assert tables
    for path in tables:
        path.unlink()
    monkeypatch.chdir(tmp_path)
    plugins = [text for path in sorted(copy.glob("*.py")) for text in ("--plugin", path)]
    done = bench("study", copy, *plugins)
    assert done.code == 0, done.err
    assert contents(copy) == contents(folder)


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_a_study_holds_no_images_and_no_place_of_the_machine_that_made_it(folder: Path) -> None:
    made = contents(folder)
    assert {Path(name).suffix for name in made} <= {".toml", ".md", ".tex", ".csv", ".json", ".npz", ".svg", ".py"}
    for name, content in made.items():
        if name.endswith("record.json"):
            assert b'"/' not in content, name
        if name.endswith(".svg"):
            assert b"<image" not in content and b"base64" not in content, name


@pytest.mark.parametrize("folder", FINISHED, ids=lambda folder: folder.name)
def test_every_interval_holds_its_value_and_every_network_was_alive(folder: Path) -> None:
    tables = sorted(folder.glob("*/leaderboard.csv"))
    assert tables
    for table in tables:
        with table.open(newline="") as file:
            for row in csv.DictReader(file):
                assert float(row["low"]) <= float(row["value"]) <= float(row["high"]), (table, row["pretext"])
                if row["delta"]:
                    assert float(row["delta_low"]) <= float(row["delta"]) <= float(row["delta_high"]), (table, row["pretext"])
                assert row["dead"] == "" and float(row["spread"]) > LEAST_RATIO, (table, row["pretext"])


@pytest.mark.parametrize("folder", FINISHED, ids=lambda folder: folder.name)
def test_the_ids_of_a_studys_records_are_those_that_its_jobs_have_now(folder: Path) -> None:
    """A setting that is new changes no id while it has its default."""
    records = record.read(folder / "records")
    assert len(records) > 5
    for one in records:
        job = Job.model_validate(one.job.model_dump(mode="json"))
        assert (job.id, job.pretrain.id) == (one.id, one.pretrain.id)


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_every_number_that_a_studys_text_claims_is_in_the_file_it_names(folder: Path) -> None:
    lines = [line for text in sorted(folder.glob("*.md")) for line in text.read_text().splitlines()]
    claims = [found for line in lines if (found := CLAIM.match(line))]
    assert folder not in FINISHED or len(claims) > 5
    for claim in claims:
        with (folder / claim["file"]).open(newline="") as file:
            cells = claim["cells"].split(" / " if " / " in claim["cells"] else None)
            found = [row for row in csv.reader(file) if set(cells) <= set(row)]
        assert len(found) == 1, f"{len(found)} rows are {claim['cells']} in {claim['file']}"
        values = {float(cell) for cell in found[0] if re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell)}
        numbers = NUMBER.findall(claim["said"])
        assert numbers, claim["said"]
        for text in numbers:
            said = text.removeprefix("p = ")
            scale = 1 if text != said or claim["file"].endswith(NO_SHARES) else 100
            digits = len(said.partition(".")[2])
            assert any(round(scale * value, digits) == float(said) for value in values), f"{text} is not in {claim['file']}"


@pytest.mark.parametrize(("page", "begin", "end"), ANSWERS, ids=[page for page, *_ in ANSWERS])
def test_every_figure_of_the_answer_is_one_of_the_registered_comparisons(page: str, begin: str, end: str) -> None:
    with (FOLDER / "voc_mini_registered" / "confirmatory" / "confirmatory.csv").open(newline="") as file:
        made = list(csv.DictReader(file))
    text = (FOLDER.parents[1] / page).read_text().partition(begin)[2].partition(end)[0]
    found = re.findall(r"([+-]?\d+\.\d+)[^\[\d]*\[([+-]?\d+\.\d+), ([+-]?\d+\.\d+)\]", text.replace("\n", " "))
    assert len(found) >= 2
    for triple in found:
        digits = len(triple[0].partition(".")[2])
        known = [[round(100 * float(one[name]), digits) for name in ("delta", "delta_low", "delta_high")] for one in made]
        assert [float(value) for value in triple] in known, triple
    for text_of_p in re.findall(r"p = (\d+\.\d+)|\| (\d+\.\d+) \|", text):
        said = next(filter(None, text_of_p))
        assert any(round(float(one["p_holm"]), len(said.partition(".")[2])) == float(said) for one in made), said


def test_what_the_registered_page_says_of_other_tests_and_of_the_floor_is_so() -> None:
    study = FOLDER / "voc_mini_registered"
    values: dict[tuple[str, ...], dict[str, float]] = {}
    with (study / "main" / "per_run.csv").open(newline="") as file:
        for one in csv.DictReader(file):
            if one["evaluation"] == "finetune":
                key = (one["downstream"], one["metric"], f"{one['pretext']}:{one['schedule']}")
                values.setdefault(key, {})[one["seed"]] = float(one["value"])
    with (study / "confirmatory" / "confirmatory.csv").open(newline="") as file:
        asked = list(csv.DictReader(file))
    p_values = []
    for one in asked:
        row, against = (name if ":" in name else f"{name}:two-phase" for name in (one["row"], one["baseline"]))
        first, second = (values[one["task"], one["metric"], name] for name in (row, against))
        differences = [first[seed] - second[seed] for seed in first]
        p_values.append(float(stats.ttest_1samp(differences, 0).pvalue))
    changed = [
        f"{p:.3f}"
        for one, p in zip(asked, statistics.holm(p_values), strict=True)
        if (p < SIGNIFICANT) != (one["told_apart"] == "True")
    ]
    text = (study / "README.md").read_text()
    assert changed == ["0.048", "0.049"]
    assert all(f"(p = {p})" in text for p in changed)
    with (study / "main" / "per_class.csv").open(newline="") as file:
        classes = list(csv.DictReader(file))
    fine_tuned = [one for one in classes if (one["evaluation"], one["metric"]) == ("finetune", "miou_voc@1")]
    cows = [float(one["value"]) for one in fine_tuned if one["class"] == "cow"]
    assert "Cow has an IoU below 0.01 % in all 40 runs" in text
    assert len(cows) == 40 and max(cows) < 0.0001
    trivial = (study / "main" / "table4.md").read_text()
    assert "| class prior | 20.34 [" in trivial and "the class prior has 20.34 points" in text
    assert "| 10.11 [" in trivial and "everywhere 10.11 of" in text
