"""What a reader is shown is short, without JSON, and fits a screen; records, ids and CSV files keep everything."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from bench.cli.screen import drawn
from bench.record import DataFacts
from results import data_notes, protocols, published, rows
from results.report import Wanted
from results.report import make as report
from results.tables import Table, table3
from tests.results.made import boards, make, publish, seeds

STUDIES = Path(__file__).parents[2] / "results" / "studies"
JSON = ("{", "}", '["', '":', "[{")
LONGER = (
    'small+batch_size=8+schedules={"two-phase":[{"epochs":3,"lr":0.002,"train":"head"},{"epochs":15,"lr":0.001,"train":"all"}]}'
)
TITLE, NOTE = 175, 250


def texts(table: Table) -> list[str]:
    return [table.title, *table.notes, *table.columns, *(cell for row in table.rows for cell in row.cells)]


def test_the_tables_of_a_changed_protocol_have_a_short_name_and_one_line_that_says_how(tmp_path: Path) -> None:
    runs = [publish(tmp_path, one) for one in seeds("cgan_color", (0.4, 0.5), protocol=LONGER) + seeds("random_init", (0.3, 0.4))]
    made = report(runs, tmp_path, Wanted(compare_paper=True, with_published=True), "bench report")
    name = protocols.short(LONGER)
    assert name == "small+3c9403" and name in made.tables[1].title + made.tables[0].title
    said = f"{name} is small with batch_size 8; two-phase: head 3 epochs at 0.002, all 15 epochs at 0.001."
    assert sum(said in table.notes for table in made.tables) == 1
    for table in made.tables:
        assert len(table.title) <= TITLE
        assert not [text for text in texts(table) for mark in JSON if mark in text]
    for file in ("table4.md", "table4.tex"):
        assert '"epochs"' not in made.files[file]
    assert "batch_size=8+schedules" in made.files["leaderboard.csv"]  # what programs read has the whole label


def test_the_titles_and_notes_of_the_studies_are_short() -> None:
    lines = [line for path in STUDIES.glob("*/*/table4.md") for line in path.read_text().splitlines()]
    titles = [line.strip("*") for line in lines if line.startswith("**")]
    notes = [line for line in lines if line.startswith("- ")]
    assert len(titles) > 40 and max(map(len, titles)) <= TITLE
    assert len(notes) > 100 and max(map(len, notes)) <= NOTE
    assert not [line for line in titles + notes if any(mark in line for mark in JSON)]


def test_two_changes_of_a_protocol_have_two_names_and_a_short_change_keeps_its_own() -> None:
    other = LONGER.replace("15", "16")
    assert protocols.short(LONGER) != protocols.short(other)
    assert protocols.short("small+calibration=all") == "small+calibration=all" and protocols.explanation("small") == ""
    (first, second) = boards([make(protocol=LONGER), make(protocol=other)])
    assert first.title != second.title
    assert f"protocol differs ({protocols.short(LONGER)} and {protocols.short(other)})" in second.notes[-1]


@pytest.mark.parametrize("value", ['{"frozen":1}', "[]", "{", '{"a":[{"epochs":3}]}', "[" * 9999, '"text"', "null"])
def test_a_label_that_holds_anything_is_shown_without_json(value: str) -> None:
    said = protocols.explanation(f"small+schedules={value}+fit=[]")
    assert said.startswith(f"small+{said[6:12]} is small with ") and "fit none" in said and '"' not in said


def test_settings_that_keep_columns_apart_are_told_without_json() -> None:
    phases = [{"train": "all", "epochs": 9, "lr": 0.001}]
    one, other = make(settings={"schedules": {"two-phase": phases}}), make(seed=1)
    (board,) = boards([one, other])
    notes = [note for note in board.notes if note.startswith("variant ") and "schedules" in note]
    assert len(notes) == 2 and "two-phase: all 9 epochs at 0.001" in notes[0]
    assert not [mark for note in notes for mark in JSON if mark in note]


def test_a_title_counts_the_classes_and_a_note_names_them() -> None:
    facts = {"fingerprint": "f", "splits_fingerprint": "s", "counts": {}, "classes": tuple("abc"), "scored": tuple("bc")}
    data = DataFacts(name="voc", synthetic=False, left_out=2, **facts)
    assert data.short == "voc (2 of 3 classes)"
    (board,) = boards([make(value=None).model_copy(update={"data": data})])
    assert board.title.startswith("voc (2 of 3 classes), protocol")
    assert "Data: voc (2 of 3 classes scored: b, c) (2 images left out)." in board.notes
    assert DataFacts(name="x", synthetic=True, **facts).short == "x (synthetic, 2 of 3 classes)"
    assert rows.board_facts(make().model_copy(update={"data": data}))["data"] == data.title_of_all  # what keeps boards apart


def test_tasks_that_lack_different_images_share_a_table_which_says_what_each_lacks() -> None:
    facts = {"name": "voc", "synthetic": False, "fingerprint": "f", "splits_fingerprint": "s", "counts": {}}
    one, other = make(value=None), make(value=None, downstream="voc_cls")
    found = [
        one.model_copy(update={"data": DataFacts(left_out=4, **facts)}),
        other.model_copy(update={"data": DataFacts(left_out=3, **facts)}),
    ]
    assert rows.boards(found) == [found]
    assert data_notes.titles(found) == ["Data: voc (4 images left out), Segmentation; voc (3 images left out), Classification."]


def test_the_list_of_runs_is_short_and_says_below_how_protocols_were_changed(bench: Callable, tmp_path: Path) -> None:
    for one in (make(protocol=LONGER), make(seed=1, protocol="small"), make(seed=2, protocol="small+calibration=all")):
        publish(tmp_path, one)
    listed = bench("list", "runs", "--out", tmp_path).out
    runs, changes = listed.split("\n\n")
    name = protocols.short(LONGER)
    assert {line.split("\t")[2] for line in runs.splitlines()} == {"Protocol", name, "small", "small+calibration=all"}
    assert changes.splitlines() == ["Protocol\tWhat it is", f"{name}\t{protocols.explanation(LONGER).partition(' is ')[2]}"]
    assert not any(mark in listed for mark in JSON) and max(map(len, runs.splitlines())) <= 110
    publish(tmp_path / "plain", make(protocol="small"))
    assert "\n\n" not in bench("list", "runs", "--out", tmp_path / "plain").out


def test_show_tells_settings_without_json(bench: Callable, tmp_path: Path) -> None:
    one = publish(tmp_path, make("l1_color", protocol=LONGER, provenance=PROVENANCE))
    shown = bench("show", one.id, "--out", tmp_path)
    assert shown.code == 0, shown.err
    facts, _, command = shown.out.partition("\n\n")
    assert not any(mark in facts for mark in JSON) and "epochs 2; lr 0.1" in facts and "3 test images" in facts
    assert "head 3 epochs at 0.002, all 15 epochs at 0.001" in facts
    assert "bench run" in command


PROVENANCE = {
    "commit": "c" * 40, "dirty": False, "machine": {"type": "cpu", "threads": 1, "precision": "fp32"}, "versions": {"torch": "2"},
    "command": ["run"], "started": "2026-01-01", "data": "voc", "pretrain_data": "coco2014",
}  # fmt: skip


def widths(table: Table, width: int) -> list[int]:
    screen = Console(width=width, file=io.StringIO())
    screen.print(drawn(table))
    return [len(line.rstrip()) for line in screen.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def broken_words(table: Table, width: int) -> list[str]:
    """Return the words of a table's cells that the screen does not show whole."""
    screen = Console(width=width, file=io.StringIO())
    screen.print(drawn(table))
    shown = set(screen.file.getvalue().split())  # type: ignore[attr-defined]
    return [word for row in table.rows for cell in row.cells for word in cell.split() if word not in shown]


def test_published_numbers_and_ours_beside_the_papers_fit_100_columns() -> None:
    metrics = {"miou_paper@1": 0.4}
    records = [make("random_init", seed, 0.4, metrics=metrics, schedule="one-phase") for seed in range(5)]
    records += [make("cgan_color", seed, 0.4, metrics=metrics, protocol=LONGER) for seed in range(5)]
    shown = [published.paper_table(boards(records)), *published.published_tables(), *table3(records)]
    assert len(shown) > 5
    for table in shown:
        assert max(widths(table, 100)) <= 100 and broken_words(table, 100) == [], table.title
    assert broken_words(shown[1], 40), "the measure itself"
