"""`--json`: one document and nothing else on standard output, with what the screen and the CSV files say, as numbers."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import record
from bench.cli import document, screen
from bench.storage.arrays import pack_predictions
from results import folder
from results.csv_files import SCHEMAS
from results.table_sheets import TABLES
from tests.results import made
from tests.results.made import make, publish, tuning
from tests.results.test_tables import HOSTILE

Bench = Callable[..., Any]
STUDY = Path(__file__).parents[2] / "results" / "studies" / "voc_mini"
LOUD = 'import sys\nprint("hello from a plug-in")\n'


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Give an output folder with two tasks, three pretext tasks, two seeds, a search and an undefined value."""
    folder = tmp_path / "made"
    for pretext, value in (("random_init", 0.2), ("cgan_color", 0.5)):
        for seed in range(2):
            answers = made.read(make(pretext, seed, value))
            scored = make(pretext, seed, metrics={"miou_voc@1": value, "miou_paper@1": value / 3})
            publish(folder, scored, pack_predictions(dict(answers.predictions), answers.ids))
            publish(folder, make(pretext, seed, value, "voc_cls", tuning=tuning()))
    publish(folder, make("l1_color", 0, None))
    return folder


@pytest.fixture
def loud(tmp_path: Path) -> Path:
    """Give a plug-in that prints when it is read."""
    path = tmp_path / "loud.py"
    path.write_text((Path(record.__file__).parents[1] / "pretexts" / "random_init.py").read_text() + LOUD)
    return path


def read(done: Any) -> Any:
    assert done.code == 0, done.err
    assert done.out.isascii()
    return json.loads(done.out, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))


def same(cell: str, value: Any) -> bool:
    """Tell whether a cell of a CSV file says what a JSON value says."""
    if value is None:
        return cell == ""
    if isinstance(value, bool):
        return cell == str(value)
    if isinstance(value, int | float):
        return float(cell) == value
    return bool(json.loads(cell) == value) if isinstance(value, list | dict) else cell == value


def check_files(found: dict[str, Any], place: Path) -> None:
    for file in SCHEMAS:
        with (place / file).open(newline="") as opened:
            rows = list(csv.DictReader(opened))
        lines = found[file.removesuffix(".csv")]
        assert len(rows) == len(lines)
        for row, line in zip(rows, lines, strict=True):
            assert list(row) == list(line)
            assert [name for name in row if not same(row[name], line[name])] == []


@pytest.mark.parametrize("what", ["pretexts", "downstreams", "protocols", "trunks", "metrics", "runs", "columns"])
def test_a_list_has_an_object_for_each_line_of_the_screen(what: str, out: Path, bench: Bench) -> None:
    found = read(bench("list", what, "--out", out, "--json"))
    assert list(found) == [what]
    lines = [line.split("\t") for line in bench("list", what, "--out", out).out.splitlines()[1:]]
    assert lines and len(lines) == len(found[what])
    for cells, one in zip(lines, found[what], strict=True):
        assert cells[0] == next(iter(one.values()))
    assert len({tuple(one) for one in found[what]}) == 1  # the same keys in each


def test_lists_without_a_name_are_the_first_two(bench: Bench) -> None:
    found = read(bench("list", "--json"))
    assert list(found) == ["pretexts", "downstreams"] and all(found.values())


def test_a_runs_numbers_are_numbers_and_its_lists_are_lists(out: Path, bench: Bench) -> None:
    runs = {one["run_id"]: one for one in read(bench("list", "runs", "--out", out, "--json"))["runs"]}
    records = record.read(out)
    assert list(runs) == [one.id for one in records]
    for one in records:
        line = runs[one.id]
        assert (line["seed"], line["rates"], line["seconds"]) == (one.job.seed, list(one.rates), one.cost.seconds)
        assert line["metric"] == one.metric_ids[0] and line["value"] == one.metrics[one.metric_ids[0]]
    assert None in {one["value"] for one in runs.values()}


def test_an_empty_folder_is_an_empty_list_with_a_warning_elsewhere(bench: Bench, tmp_path: Path) -> None:
    done = bench("list", "runs", "--out", tmp_path / "none", "--json")
    assert read(done) == {"runs": []} and "holds no finished runs yet" in done.err


def test_prepared_data_have_counts_and_whole_fingerprints(bench: Bench, voc: Path) -> None:
    assert read(bench("data", "list", "--json")) == {"data": []}
    assert bench("data", "prepare", "mine", "--root", voc, "--score", "disc,star").code == 0
    (one,) = read(bench("data", "list", "--json"))["data"]
    cells = bench("data", "list").out.splitlines()[1].split("\t")
    assert (one["name"], one["images"], one["left_out"], one["scored"]) == ("mine", 40, 0, ["disc", "star"])
    assert len(one["fingerprint"]) == 64 and one["fingerprint"][:12] == cells[4] and cells[5] == "2 of 8 scored"
    assert len(one["classes"]) == 8 and one["root"] == cells[6]
    assert ", ".join(one["tasks"]) == cells[2] and "voc_det" in one["tasks"] and "detection" in one["tasks"]


def test_a_report_has_the_cells_of_the_csv_files_as_numbers(out: Path, bench: Bench) -> None:
    found = read(bench("report", "--out", out, "--json"))
    check_files(found, out)
    assert found["files"] == ["table4.md", "table4.tex", *SCHEMAS] and found["warnings"] == []
    assert {len(one["values"]) for one in found["leaderboard"]} == {0, 2}
    tables = {**{file.removesuffix(".csv"): schema for file, schema in SCHEMAS.items()}, **TABLES}
    for name in found.keys() - {"boards", "warnings", "files"}:
        assert found[name] and all(list(line) == list(tables[name]) for line in found[name]), name
    assert {"table4", "searches", "table3"} < found.keys() and not {"published", "beside_paper"} & found.keys()


def test_table_4_has_every_value_and_note_of_the_screen(out: Path, bench: Bench) -> None:
    found, shown = read(bench("report", "--out", out, "--json")), bench("report", "--out", out).out
    words = " ".join(shown.split())
    for one in found["boards"]:
        assert one["title"] in words and all(" ".join(note.split()) in words for note in one["notes"])
    valued = [line for line in found["table4"] if line["value"] is not None]
    assert {line["trivial"] for line in valued} == {True, False}
    for line in valued:
        text = f"{100 * line['value']:.2f} [{100 * line['low']:.1f}, {100 * line['high']:.1f}]"
        assert any(line["row"] in row and text in row for row in shown.splitlines()), line
    told = {line["told_apart"] for line in found["table4"]}
    assert told <= {None, "yes", "no", "one seed", "no interval", "exploratory"} and told - {None}
    search = found["searches"][0]
    assert (search["complete"], search["best"], search["rates"]) == (3, 0.3, {"phase-1": 0.01, "phase-2": 0.0001})
    scores = [line[name] for line in found["table3"] for name in ("average", "min", "max")]
    assert len(scores) == 4 * 3 and all(f"{score:.3f}" in shown for score in scores)


def test_chosen_metrics_and_runs_are_those_of_table_4(out: Path, bench: Bench) -> None:
    found = read(bench("report", "--out", out, "--metric", "pixel_acc", "--json"))
    assert {line["metric"] for line in found["table4"]} == {"pixel_acc@1"}
    assert {line["metric"] for line in found["leaderboard"]} == {"acc_keras@1", "miou_voc@1"}
    check_files(found, out)
    before = (out / "leaderboard.csv").read_bytes()
    chosen = read(bench("report", "--out", out, "--runs", "cgan_color-voc_seg", "--json"))
    assert {line["pretext"] for line in chosen["leaderboard"]} == {"cgan_color"} and len(chosen["per_run"]) == 4
    both = read(bench("report", "--out", out, "--runs", "cgan_color-voc_seg", "--metric", "pixel_acc", "--json"))
    assert {line["metric"] for line in both["leaderboard"]} == {"pixel_acc@1"}
    assert chosen["files"] == ["table4.md", "table4.tex"] and (out / "leaderboard.csv").read_bytes() == before


def test_the_papers_and_published_numbers_are_numbers(out: Path, bench: Bench) -> None:
    found = read(bench("report", "--out", out, "--json", "--compare-paper", "--with-published"))
    assert all(isinstance(one["printed"], float) for one in found["published"]) and len(found["published"]) > 40
    papers = [one["value"] for one in found["beside_paper"] if one["is_papers"]]
    assert papers == pytest.approx([0.4718, 0.4466, 0.5283, 0.4707])
    (ours,) = [one for one in found["beside_paper"] if not one["is_papers"] and one["metric"] == "miou_paper@1"]
    assert ours["row"] == "cgan_color" and ours["low"] <= ours["value"] <= ours["high"] and ours["n_seeds"] == 2
    assert any(text.startswith("size 64") for text in ours["deviations"])


def test_the_records_of_the_study_give_the_cells_of_its_files(bench: Bench, tmp_path: Path) -> None:
    """The study's tables are made from its records by another command, and lie in the repository."""
    place = Path(shutil.copytree(STUDY / "records", tmp_path / "records"))
    with (STUDY / "main" / "leaderboard.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    runs = ",".join(sorted({run for row in rows for run in json.loads(row["run_ids"])}))
    found = read(bench("report", "--out", place, "--runs", runs, "--json"))["leaderboard"]
    named = {(line["run_ids"][0], line["metric"]): line for line in found}
    compared = 0
    for row in rows:
        line = named[json.loads(row["run_ids"])[0], row["metric"]]
        assert [name for name in row if not same(row[name], line[name])] == []
        compared += 1
    assert compared > 5


def test_what_is_said_meanwhile_goes_to_standard_error(
    out: Path, loud: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "QUIET", 0.0)
    slow = folder.report_of

    def report_of(*given: Any) -> Any:
        import time

        time.sleep(0.1)
        print("a library speaks")
        found, before = slow(*given)
        return replace(found, problems=["it is damaged"]), before

    monkeypatch.setattr(folder, "report_of", report_of)
    done = bench("report", "--out", out, "--json")
    assert read(done)["warnings"] == ["it is damaged"]
    assert "still at work" in done.err and "a library speaks" in done.err and "bench: it is damaged" in done.err
    (run, *_) = record.read(out)
    done = bench("show", run.id, "--out", out, "--plugin", loud, "--json")
    assert read(done) == run.model_dump(mode="json")
    done = bench("list", "--plugin", loud, "--json")
    assert {"loud"} < {one["name"] for one in read(done)["pretexts"]} and "hello from a plug-in" in done.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("list", "runz", "--json"), 2, "unknown list 'runz'; did you mean 'runs'?"),
        (("report", "--json", "--metric", "mapp"), 2, "unknown metric 'mapp'"),
        (("report", "--json", "--out", "nowhere"), 2, "holds no finished runs yet"),
        (("run", "--pretext", "random_init", "--downstream", "voc_seg", "--json"), 2, "--json prints a plan, so it needs --plan"),
        (("run", "--pretext", "x", "--downstream", "voc_seg", "--plan", "--json"), 2, "unknown pretext"),
        (("study", str(STUDY), "--json"), 2, "--json prints a plan, so it needs --plan"),
    ],
)
def test_an_error_is_one_sentence_on_standard_error_and_no_document(
    words: tuple[str, ...], code: int, said: str, bench: Bench, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(out, tmp_path / "runs")
    done = bench(*words)
    assert (done.code, done.out) == (code, "") and said in done.err
    assert done.err.startswith("bench: ") and done.err.count("\n") == 1


def test_what_could_not_be_written_is_not_among_the_files(out: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / "table4.md").mkdir()
    done = bench("report", "--out", out, "--json")
    assert done.code == 4 and json.loads(done.out)["files"] == [] and "table4.md" in done.err


def test_names_come_back_as_they_are_and_move_no_cursor(bench: Bench, tmp_path: Path) -> None:
    name = f"{HOSTILE}\x7f\x9b2J\u2028é猫"
    publish(tmp_path, make("random_init", 0, 0.2, data=name))
    for words in (("list", "runs"), ("report",)):
        done = bench(*words, "--out", tmp_path, "--json")
        found = read(done)
        assert all(" " <= character <= "~" or character == "\n" for character in done.out)
        assert (found.get("runs") or found["leaderboard"])[0]["data"] == name


def test_a_number_that_is_not_finite_is_null() -> None:
    values = {"a": float("nan"), "b": [float("inf"), 1, 0.5], "c": Path("x"), "d": "\udce9"}
    assert json.loads(document.text(values)) == {"a": None, "b": [None, 1, 0.5], "c": "x", "d": "\udce9"}


def test_a_pipe_in_any_locale_gets_the_document_alone(out: Path, home: Path) -> None:
    words = [sys.executable, "-m", "bench", "report", "--out", str(out), "--json"]
    done = subprocess.run(words, capture_output=True, env={"LC_ALL": "C", "PYTHONUTF8": "0", "PRETEXT_BENCH_HOME": str(home)})
    assert done.returncode == 0 and json.loads(done.stdout)["table4"]
