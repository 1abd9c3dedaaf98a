"""A study: its records rebuild its tables without data, and what is asked for differently goes elsewhere."""

import csv
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import record
from bench.experiment import study
from bench.storage.files import publish_json
from results import look_log
from tests.experiment.conftest import STUDY

Bench = Callable[..., "object"]


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def counted(plan: str, state: str) -> int:
    """Return how many pieces of work have a state in the tables of a plan; a piece alone has no number."""
    return sum(int(number or 1) for number in re.findall(rf"(?:  |, )(\d+ )?{state}(?=  |, |$)", plan, re.MULTILINE))


def test_a_plan_of_several_parts_counts_what_they_share_once(bench: Bench, folder: Path, tmp_path: Path) -> None:
    path = folder / "study.toml"
    path.write_text(path.read_text() + '[parts.more]\nlike = "main"\nseeds = 3\n[parts.trials]\nlike = "main"\ntune = 4\n')
    planned = bench("study", folder, "--out", tmp_path / "runs", "--plan", "--only", "main,more").out
    assert counted(planned, "above") == 2 + 3 + 6, planned  # trunks, searches, runs of the two seeds
    assert counted(planned, "to do") == 2 + 6 + 1 + 3 and planned.count(" trials,") == 3
    more = bench("study", folder, "--out", tmp_path / "runs", "--plan", "--only", "main,trials").out
    assert counted(more, "above") == 2 + 0 + 0 and more.count(" trials,") == 6, more  # of four trials one is planned; other runs
    one, other, both = (int(seconds) for seconds in re.findall(r"about (\d+) s in all", planned))
    assert both in range(one + other - 1, one + other + 2) and one > 0, planned
    assert planned.count("steps timed now") == 1  # what parts share is timed once, and told once


def test_a_study_runs_its_parts_and_its_records_rebuild_its_tables_without_data(
    bench: Bench, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = bench("study", folder, "--out", tmp_path / "runs", "--plan")
    assert plan.code == 0 and "main:" in plan.out and not (folder / "records").exists(), plan.err
    first = bench("study", folder, "--out", tmp_path / "runs", "--only", "main")
    assert first.code == 0 and "main: pretext " in first.out and "{" not in first.out, first.out
    assert (folder / "main" / "leaderboard.csv").is_file() and not (folder / "accuracy").exists()
    done = bench("study", folder, "--out", tmp_path / "runs")
    assert done.code == 0 and "main: 6 runs, finished before" in done.out, done.err
    made = contents(folder)
    records = [name for name in made if name.startswith("records/")]
    assert len(records) == 2 + 2 * 8 and not any("examples" in name or "split" in name for name in records)
    with (folder / "accuracy" / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["metric"] for row in rows} == {"acc_keras@1"}
    assert [(row["schedule"], row["transfer"], row["baseline"]) for row in rows] == [
        ("two-phase", "all", "l1_color"),
        ("two-phase", "all", ""),
        ("two-phase", "encoder", "l1_color"),
    ]
    assert bench("study", folder, "--out", tmp_path / "runs", "--html").code == 0
    pages = [folder / table / "report.html" for table in ("main", "accuracy")]
    assert all("l1_color" in path.read_text() and "damaged" not in path.read_text() for path in pages)
    assert "data:image/png" in pages[0].read_text()  # figure 7, from the folder of the runs
    shutil.rmtree(tmp_path / "runs")
    monkeypatch.setenv("PRETEXT_BENCH_HOME", str(tmp_path / "bare"))
    for path in folder.glob("*/*.*"):
        if path.parent.name != "records":
            path.unlink()
    text = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(text.replace(text[text.index("data =") : text.index("\npretrain")], 'data = "gone"'))
    changed = bench("study", folder, "--out", tmp_path / "runs")
    assert changed.code != 0 and "gone" in changed.err  # another data set is another question
    (folder / "study.toml").write_text(text)
    again = bench("study", folder, "--out", tmp_path / "runs", "--threads", 2)
    assert again.code == 0 and contents(folder) == made, again.err


def test_a_smaller_study_goes_to_a_folder_of_its_own(bench: Bench, folder: Path, tmp_path: Path) -> None:
    small = ("study", folder, "--out", tmp_path / "runs", "--seeds", 1, "--tune", 0, "--only", "encoder")
    refused = bench(*small)
    assert refused.code == 2 and "--into" in refused.err
    assert bench(*small, "--into", tmp_path / "small").code == 0
    assert len(list((tmp_path / "small" / "records" / "runs").iterdir())) == 1
    assert [path.name for path in folder.iterdir()] == ["study.toml"]
    assert bench(*small[:-1], "none", "--into", tmp_path / "small").code == 2


def test_a_part_with_a_failed_run_keeps_its_records_and_the_others_go_on(bench: Bench, folder: Path, tmp_path: Path) -> None:
    path = folder / "study.toml"
    path.write_text(path.read_text().replace("tune = 1", 'set = ["l1_color.lr=1e30", "recipe.epochs=1"]', 1))
    done = bench("study", folder, "--out", tmp_path / "runs")
    assert done.code == 5 and "main: 2 of 6 runs failed" in done.err
    assert len(list((folder / "records" / "runs").iterdir())) == 6 and "table main waits for main" in done.out
    done = bench("study", folder, "--out", tmp_path / "elsewhere")  # as on another machine: only what failed is tried again
    assert done.code == 5 and done.out.count(": finished before") == 4
    alone = STUDY.replace(
        "[parts.main]",
        "[parts.before]\npretext = 'l1_color'\ndownstream = 'voc_cls'\nseeds = 1\nset = ['l1_color.lr=1e30']\n\n[parts.main]",
    )
    data = path.read_text().split("data = ")[1].splitlines()[0], path.read_text().split("pretrain-data = ")[1].splitlines()[0]
    path.write_text(alone.format(data=data[0].strip("'"), pretrain=data[1].strip("'")))
    done = bench("study", folder, "--out", tmp_path / "runs")
    assert done.code == 5 and "before: the loss of" in done.err and "failed" not in done.err
    assert (folder / "main" / "table4.md").is_file() and (folder / "accuracy" / "table4.md").is_file()


def test_no_table_is_made_of_what_was_asked_before(bench: Bench, folder: Path, tmp_path: Path) -> None:
    path = folder / "study.toml"
    path.write_text(path.read_text().replace("tune = 1\n", ""))
    asked = ("study", folder, "--out", tmp_path / "runs")
    assert bench(*asked).code == 0 and (folder / "accuracy" / "leaderboard.csv").is_file()
    text = path.read_text()
    path.write_text(text.replace('downstream = "voc_cls"', 'downstream = "voc_cls"\nseeds = [3, 4]', 1))
    done = bench(*asked, "--only", "encoder")
    assert done.code == 0 and "table main waits for main" in done.out and "table accuracy waits for main" in done.out
    assert not list((folder / "main").iterdir()) and not list((folder / "accuracy").iterdir())
    path.write_text(text)
    lost = next((folder / "records" / "runs").glob("random_init-*"))
    shutil.rmtree(lost)
    assert "table main waits for main" in bench(*asked, "--only", "encoder").out
    assert bench(*asked).code == 0 and lost.is_dir() and (folder / "main" / "leaderboard.csv").is_file()


def test_a_mistake_in_the_last_part_is_told_before_the_first_is_run(bench: Bench, folder: Path, tmp_path: Path) -> None:
    path = folder / "study.toml"
    path.write_text(path.read_text().replace('pretext = "l1_color"', 'pretext = "l2_color"'))
    done = bench("study", folder, "--out", tmp_path / "runs")
    assert done.code == 2 and "l2_color" in done.err and not (tmp_path / "runs" / "runs").exists()


def test_a_part_that_lacks_records_and_data_says_that_it_would_have_to_be_run(bench: Bench, folder: Path, tmp_path: Path) -> None:
    path = folder / "study.toml"
    path.write_text(re.sub(r"(?m)^data = .*", 'data = "voc_mine"', path.read_text()))
    for asked in (("--plan",), ()):
        done = bench("study", folder, "--out", tmp_path / "runs", *asked)
        assert done.code == 2, done.err
        assert f"part main is not finished in {folder / 'records'}, so it must be run: unknown data set 'voc_mine'" in done.err


def test_a_table_that_cannot_be_made_is_named_and_the_others_are(bench: Bench, folder: Path, tmp_path: Path) -> None:
    path = folder / "study.toml"
    path.write_text(path.read_text().replace("random_init:one-phase", "random_inti").replace("tune = 1\n", ""))
    done = bench("study", folder, "--out", tmp_path / "runs")
    assert done.code == 5 and "tables.accuracy: unknown row to leave out 'random_inti'" in done.err
    assert (folder / "main" / "table4.md").is_file() and not (folder / "accuracy").exists()


def test_two_processes_share_a_study(folder: Path, tmp_path: Path, bench: Bench) -> None:
    words = [sys.executable, "-m", "bench", "study", str(folder), "--out", str(tmp_path / "runs")]
    begun = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [process.communicate(timeout=600)[0] for process in begun]
    assert [process.returncode for process in begun] == [0, 0], said
    made = contents(folder)
    assert len([name for name in made if name.endswith("record.json")]) == 8
    assert bench("study", folder, "--out", tmp_path / "runs").code == 0 and contents(folder) == made


def test_other_images_under_the_same_name_are_refused(bench: Bench, folder: Path, tmp_path: Path) -> None:
    path = folder / "study.toml"
    path.write_text(path.read_text() + '[fingerprints]\nlabelled = "0123456789ab"\n')
    done = bench("study", folder, "--out", tmp_path / "runs")
    assert done.code == 3 and "labelled has the fingerprint" in done.err and "0123456789ab" in done.err
    assert not (tmp_path / "runs" / "runs").exists()


def test_what_a_study_left_is_no_change_of_the_program(tmp_path: Path) -> None:
    root = Path(study.__file__).parents[2]
    copy = tmp_path / "copy"
    try:
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", root, copy], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git clone")
    shutil.copy(root / "bench" / "experiment" / "session.py", copy / "bench" / "experiment")
    git = ["git", "-C", copy, "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "commit", "--all", "--allow-empty", "--message", "as it is"], check=True, capture_output=True)

    def dirty() -> str:
        asked = [sys.executable, "-c", "from bench.experiment import session; print(session.commit()['dirty'])"]
        return subprocess.run(asked, cwd=copy, check=True, capture_output=True, text=True).stdout.strip()

    (copy / "results" / "studies" / "voc_mini" / "new.csv").write_text("1")
    (copy / "runs").mkdir()
    (copy / "runs" / "record.json").write_text("{}")
    assert dirty() == "False"
    (copy / "pretexts" / "mine.py").write_text("")
    assert dirty() == "True"


def test_a_plug_in_with_a_new_version_is_run_again_and_nothing_else(
    bench: Bench, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pretexts.random_init import RandomInit

    asked = ("study", folder, "--only", "main", "--seeds", "1", "--into", tmp_path / "kept", "--out")
    assert bench(*asked, tmp_path / "runs").code == 0
    monkeypatch.setattr(RandomInit, "version", RandomInit.version + 1)
    plan = bench(*asked, tmp_path / "elsewhere", "--plan").out
    assert next(line for line in plan.splitlines() if "searched" in line).startswith("  l1_color")
    done = bench(*asked, tmp_path / "elsewhere")
    assert done.code == 0, done.err
    assert "pretrain l1_color" not in done.out and done.out.count("finished before") == 1, done.out
    runs = [path.name for path in (tmp_path / "elsewhere" / "pretrained").iterdir()]
    assert len(runs) == 1 and runs[0].startswith("random_init")
    assert "main: 3 runs, finished before" in bench(*asked, tmp_path / "elsewhere").out


def test_declared_looks_are_counted_in_the_tables_and_kept(bench: Bench, folder: Path, tmp_path: Path) -> None:
    path = folder / "study.toml"
    path.write_text(f"looks = [2, 4]\n{path.read_text()}")
    assert bench("study", folder, "--only", "main", "--out", tmp_path / "runs").code == 0
    assert "Looks were declared at 2, 4 seeds" in (folder / "main" / "table4.md").read_text()
    with (folder / "main" / "leaderboard.csv").open(newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["pretext"] == "l1_color"]
    assert float(row["p_holm"]) == pytest.approx(min(1.0, float(row["p"]) * 4**3 / 2**3), rel=1e-6)
    kept = look_log.read(folder / "records")
    assert [look.declared for look in kept.looks] == [(2, 4)]


def test_a_plan_names_the_edge_of_a_search(bench: Bench, folder: Path, tmp_path: Path) -> None:
    asked = ("study", folder, "--only", "main", "--seeds", "1", "--into", tmp_path / "kept", "--out")
    assert bench(*asked, tmp_path / "runs").code == 0
    path = next((tmp_path / "kept" / "records" / "runs").glob("l1_color*/record.json"))
    one = record.read_one(path)
    assert one.tuning is not None
    low = {name: limits[0] for name, limits in one.tuning.space.items()}
    publish_json(path, one.model_copy(update={"tuning": one.tuning.model_copy(update={"best": low})}).model_dump(mode="json"))
    (tmp_path / "kept" / "records" / "parts.json").unlink()
    shown = bench(*asked, tmp_path / "empty", "--plan")
    assert "a rate at the edge of its range: --space" in shown.out.replace("\n", " "), shown.out
    assert not (tmp_path / "empty" / "runs").exists() and not (tmp_path / "empty" / "studies").exists(), "a plan writes no run"


def test_two_records_of_one_id_that_differ_are_named(bench: Bench, folder: Path, tmp_path: Path) -> None:
    small = (
        "study",
        folder,
        "--out",
        tmp_path / "runs",
        "--seeds",
        1,
        "--tune",
        0,
        "--only",
        "encoder",
        "--into",
        tmp_path / "small",
    )
    assert bench(*small).code == 0
    (one,) = record.read(tmp_path / "small" / "records")
    path = record.record_path(tmp_path / "small" / "records", one.id)
    publish_json(path, one.model_copy(update={"weights": "0" * 64}).model_dump(mode="json"))
    (tmp_path / "small" / "records" / "parts.json").unlink()
    refused = bench(*small)
    assert refused.code == 5 and "different records of one id" in refused.err, refused.err
