"""The second computation agrees with a study's tables, and finds what is changed in tables, predictions or records."""

from __future__ import annotations

import ast
import csv
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.recompute.__main__ import main
from tests.recompute.registered import asked_for, registered_comparisons
from tests.recompute.report import Report
from tests.recompute.runs import read_runs, split
from tests.recompute.tested import holm, holm_by_closure

pytestmark = pytest.mark.integration
STUDY = Path(__file__).parents[2] / "results" / "studies" / "voc_mini"
TABLE = "gan_against_l1"
START = "2030-01-02T00:00:00+00:00"
"""When all runs of the registered study in this file started."""
PLAN = """
[options]
protocol = "small"
data = "voc_mini"
trunk = "unet:depth=6"
size = 64
tune = 5
set = ["cgan_color.epochs=12", "l1_color.epochs=12"]

[parts.first]
downstream = "voc_cls"
seeds = [0, 1]

[parts.second]
like = "first"
seeds = [2]

[[comparisons]]
parts = ["first", "second"]
task = "voc_cls"
row = "cgan_color:two-phase"
against = "l1_color"
metric = "map_voc"
"""


def test_a_row_is_split_at_its_schedule_alone() -> None:
    rows = ("l1_color", "l1_color:one-phase", "l1_color:shuffled", "l1_color:shuffled:one-phase")
    tasks = ("l1_color", "l1_color", "l1_color:shuffled", "l1_color:shuffled")
    assert [split(row) for row in rows] == list(zip(tasks, ("", "one-phase", "", "one-phase"), strict=True))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Copy one table of the study, and the runs of its rows."""
    shutil.copytree(STUDY / TABLE, tmp_path / "study" / TABLE)
    for line in lines(tmp_path / "study"):
        for name in json.loads(line["run_ids"]):
            runs = Path("records", "runs", name)
            shutil.copytree(STUDY / runs, tmp_path / "study" / runs)
    return tmp_path / "study"


def lines(study: Path) -> list[dict[str, str]]:
    with (study / TABLE / "leaderboard.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def recomputed(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str]]:
    """Return the exit status and the findings, which are printed where they arise and again at the end."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    printed = capsys.readouterr().out
    return code, printed.rpartition(" findings\n")[2].splitlines()


def change(run: Path, changed: Callable[[dict[str, Any]], object]) -> None:
    """Change a record and seal it again."""
    record = json.loads((run / "record.json").read_text())
    del record["sha256"]
    changed(record)
    text = json.dumps(record)[1:]
    seal = hashlib.sha256(text.encode()).hexdigest()
    (run / "record.json").write_text(f'{{"sha256": "{seal}",{text}')


def git(folder: Path, *words: str) -> str:
    environment = {**os.environ, "GIT_COMMITTER_DATE": "2030-01-01T00:00:00+00:00"}
    names = ("-c", "user.name=Reader", "-c", "user.email=reader@example.org", "-c", "commit.gpgsign=false")
    ended = subprocess.run(["git", *names, *words], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return ended.stdout.strip()


@pytest.fixture
def registered(study: Path) -> Path:
    """Register the copied study: a commit of its plan, and records that started a day later."""
    (study / "preregistration.toml").write_text(PLAN)
    git(study, "init", "--quiet")
    git(study, "add", "preregistration.toml")
    git(study, "commit", "--quiet", "--message", "The plan")
    sha = hashlib.sha256(PLAN.encode()).hexdigest()
    provenance = {"started": START, "preregistration": sha, "commit": git(study, "rev-parse", "HEAD"), "dirty": False}
    for run in (study / "records" / "runs").iterdir():
        change(run, lambda record: (record.update(provenance=provenance), record["pretrain"].update(provenance=provenance)))
    return study


def test_nothing_of_the_program_is_imported() -> None:
    found = set()
    for path in Path(__file__).parent.glob("*.py"):
        if path.name != Path(__file__).name:
            for node in ast.walk(ast.parse(path.read_text())):
                names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
                found |= {*names, node.module or ""} if isinstance(node, ast.ImportFrom) else set(names)
    assert not {name for name in found if name.partition(".")[0] in ("bench", "pretexts", "downstream", "results")}
    assert {name.partition(".")[2].partition(".")[0] for name in found if name.startswith("tests")} == {"recompute"}


def test_a_table_of_a_study_agrees_on_the_same_resamples(capsys: pytest.CaptureFixture[str]) -> None:
    assert recomputed(capsys, STUDY, "--same-draws", "--tables", "five_seeds_papers_metrics") == (0, [])


def test_changed_numbers_of_a_table_are_found(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = lines(study)
    first, second = (row for row in rows if row["baseline"])
    for row, column in ((first, "delta"), (first, "p_holm"), (second, "delta_low")):
        row[column] = f"{float(row[column]) + 1e-6:.9f}"
    with (study / TABLE / "leaderboard.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    code, findings = recomputed(capsys, study, "--same-draws", "--no-metrics", "--tables", TABLE)
    assert code == 1 and len(findings) == 3
    for metric, said in (("map_voc", "difference is"), ("miou_voc", "same resamples"), (TABLE, "Holm")):
        assert any(metric in line and said in line for line in findings)


def test_exchanged_predictions_are_found(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = json.loads(lines(study)[0]["run_ids"])[:2]
    first, second = (study / "records" / "runs" / name / "predictions.npz" for name in names)
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    code, findings = recomputed(capsys, study, "--no-comparisons")
    assert code == 1
    for name in names:
        assert any(name in line and "SHA-256" in line for line in findings)
        assert any(name in line and "map_voc is" in line for line in findings)


def test_a_registered_study_agrees_up_to_the_noise_of_resampling(registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = next(row for row in lines(registered) if row["baseline"] and row["downstream"] == "voc_cls")
    says = {name: line[name] for name in ("metric", "baseline", "delta", "delta_low", "delta_high", "p")}
    says |= {"task": "voc_cls", "row": "cgan_color:two-phase", "p_holm": line["p"], "refused": ""}
    (registered / "confirmatory").mkdir()
    (registered / "confirmatory" / "confirmatory.csv").write_text(f"{','.join(says)}\n{','.join(says.values())}\n")
    assert recomputed(capsys, registered, "--no-metrics") == (0, [])


def test_records_that_are_not_of_the_plan_are_found(registered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    early, other, unsealed, missing = sorted((registered / "records" / "runs").glob("*-voc_cls-*"))[:4]
    change(early, lambda record: record["provenance"].update(started="2029-12-31T23:59:59+00:00"))
    change(other, lambda record: record["pretrain"]["provenance"].update(preregistration="0" * 64, commit="0" * 40))
    (unsealed / "record.json").write_text((unsealed / "record.json").read_text() + " ")
    shutil.rmtree(missing)
    code, findings = recomputed(capsys, registered, "--no-metrics")
    expected = ((early.name, "started"), (other.name, "preregistration"), (unsealed.name, "seal"), ("commit 0000", "descend"))
    assert code == 1 and len(findings) == 5
    for what, said in (*expected, ("l1_color", "has 0 runs of seed")):
        assert any(what in line and said in line for line in findings)


def test_each_row_of_a_comparison_has_the_parts_with_its_pretext_task() -> None:
    plan = {
        "options": {"size": 32, "set": ["protocol.batch_size=8"], "protocol": "demo"},
        "parts": {
            "color": {"pretext": ["cgan_color"], "seeds": [3], "set": ["cgan_color.epochs=2"]},
            "more": {"like": "color", "seeds": [4]},
            "random": {"pretext": "random_init, random_twin", "seeds": 5},
        },
    }
    one, report = {"parts": ["color", "more", "random"], "task": "voc_cls"}, Report()
    seeds, wanted = asked_for(plan, one, "cgan_color", "here", report)
    assert (seeds, wanted["recipes"]) == ([3, 4], {"cgan_color": {"epochs": "2"}}) and wanted["protocol"] == "demo"
    seeds, wanted = asked_for(plan, one, "random_init:two-phase", "here", report)
    assert seeds == [0, 1, 2, 3, 4] and not wanted["recipes"] and "protocol" not in wanted and not report.findings
    assert asked_for(plan, one, "l1_color", "here", report) == ([], {}) and "no part has l1_color" in report.findings[0]


def test_a_row_of_a_plug_in_is_the_one_whose_file_the_plan_names() -> None:
    plan = {
        "plugins": {"random_twin": "8d1fe69cf24c41a3" + 48 * "0"},
        "parts": {"one": {"pretext": "random_init, random_twin", "seeds": [3]}},
    }
    one, report = {"parts": ["one"], "task": "voc_cls"}, Report()
    assert asked_for(plan, one, "random_twin", "here", report)[1]["source"] == plan["plugins"]["random_twin"]
    assert asked_for(plan, one, "random_init:one-phase", "here", report)[1]["source"] == ""


def test_every_comparison_of_the_registered_study_has_its_runs() -> None:
    study, report = STUDY.parent / "voc_mini_registered", Report()
    found = registered_comparisons(study, read_runs(study, report), report)
    assert not report.findings
    assert [(len(one.chosen), len(one.baseline)) for one in found] == [(8, 8)] * 8


def test_rows_that_are_asked_for_with_other_seeds_are_found(tmp_path: Path) -> None:
    (tmp_path / "preregistration.toml").write_text("""
[parts.color]
pretext = "cgan_color"
seeds = [200]
[parts.random]
pretext = "random_init"
seeds = [201]
[[comparisons]]
parts = ["color", "random"]
task = "voc_cls"
row = "cgan_color"
against = "random_init"
metric = "map_voc"
""")
    report = Report()
    assert not registered_comparisons(tmp_path, [], report)
    assert len(report.findings) == 1 and "with other seeds" in report.findings[0]


def test_holms_correction_is_the_closed_test() -> None:
    for p in np.random.default_rng(0).uniform(0, 0.3, (20, 6)):
        np.testing.assert_allclose(holm(p), holm_by_closure(p), atol=1e-14)
