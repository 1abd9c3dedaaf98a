"""Probes in results: beside which rows they stand, what they are measured from, and what is said of their choices."""

from typing import Any

import pytest

from bench.errors import DataError
from bench.probe import PROBES
from bench.record import Record
from results import (
    board,
    published,
    rows,
)
from results.board import Board
from tests.results.made import ALIVE, boards, make, probed, reader, seeds


def several(pretext: str, values: tuple[float, ...], kind: str = "knn", **changes: Any) -> list[Record]:
    return [probed(pretext, seed, value, kind, **changes) for seed, value in enumerate(values)]


def finetuned(pretext: str, schedule: str = "two-phase", **changes: Any) -> list[Record]:
    return seeds(pretext, (0.5, 0.6), downstream="voc_cls", schedule=schedule, **changes)


def shown(one: Board, evaluation: str = "knn") -> dict[str, Any]:
    """Return the cells of a probe's column that have runs, by the row's label."""
    (place,) = [place for place, column in enumerate(one.columns) if column.evaluation == evaluation]
    return {row.label: row.cells[place] for row in one.rows if row.cells[place].records}


def test_a_probe_shares_a_column_with_nothing_else() -> None:
    tuned = finetuned("cgan_color")
    probes = [probed(kind=kind) for kind in ("linear", "knn", "svm", "lowshot")]
    changed = [probed(with_settings=settings) for settings in ({"level": 5}, {"level": 3}, {"temperature": 0.1})]
    dense = [
        probed(kind="dense-linear", with_settings={"source": source}, metric="miou_voc@1") for source in ("encoder", "decoder")
    ]
    (one,) = boards([*probes, *dense, *changed, *tuned, make()])
    assert [len({run.id for row in one.rows for run in row.cells[place].records}) for place in range(11)] == [2] + 10 * [1]
    titles = [column.title for column in one.columns]
    assert titles[:3] == ["Classification", "Classification, kNN", "Classification, kNN"]
    assert titles[3:7] == [f"Classification, {name}" for name in ("kNN, level 3", "kNN, level 5", "linear", "SVM")]
    assert titles[7:] == [
        "Classification, low-shot",
        *(f"Segmentation{more}" for more in ("", ", dense linear", ", dense linear, decoder")),
    ]
    assert all("variant" in column.tag for column in one.columns[1:3])
    assert sum("temperature differs" in note for note in one.notes) == 2
    (alone,) = boards([*tuned, make()])
    assert {column.variant for column in alone.columns} <= {column.variant for column in one.columns}


def test_columns_are_in_the_order_of_the_probes() -> None:
    kinds = [name for name, probe in PROBES.items() if probe.needs == "labels"]
    (one,) = boards([probed(kind=kind) for kind in reversed(kinds)])
    assert [column.evaluation for column in one.columns] == kinds


@pytest.mark.parametrize(
    ("there", "label"),
    [
        (("one-phase", "frozen", "two-phase"), "cgan_color"),
        (("one-phase", "frozen"), "cgan_color (frozen)"),
        (("one-phase",), "cgan_color (one-phase)"),
    ],
)
def test_a_probe_stands_in_one_row_of_its_trunk(there: tuple[str, ...], label: str) -> None:
    tuned = [run for schedule in there for run in finetuned("cgan_color", schedule)]
    (one,) = boards([*several("cgan_color", (0.2, 0.3)), *tuned, *finetuned("l1_color")])
    assert list(shown(one)) == [label] and len(one.rows) == len(there) + 1
    assert len(shown(one)[label].records) == 2


def test_a_row_that_inherits_everything_is_preferred() -> None:
    encoder = finetuned("cgan_color", transfer="encoder")
    (one,) = boards([*several("cgan_color", (0.2, 0.3)), *encoder, *finetuned("cgan_color", "one-phase")])
    assert list(shown(one)) == ["cgan_color (one-phase)"]
    (alone,) = boards([*several("cgan_color", (0.2, 0.3)), *encoder])
    assert list(shown(alone)) == ["cgan_color (encoder only)"] and any("Probes have the whole trunk" in n for n in alone.notes)


def test_a_probe_of_another_trunk_or_precision_has_a_row_of_its_own() -> None:
    probe = several("cgan_color", (0.2, 0.3), lr=0.5)
    (one,) = boards([*probe, *finetuned("cgan_color")])
    assert list(shown(one)) == ["cgan_color (lr=0.5)"] and len(one.rows) == 2
    (one,) = boards([*finetuned("cgan_color", precision="bf16"), *several("cgan_color", (0.2, 0.3))])
    assert list(shown(one)) == ["cgan_color (fp32)"] and len(one.rows) == 2
    (one,) = boards([*several("random_init", (0.2, 0.3)), *several("cgan_color", (0.2, 0.3), kind="linear")])
    assert [(row.label, row.schedule) for row in one.rows] == [("random_init", "probed"), ("cgan_color", "probed")]


@pytest.mark.parametrize(
    ("schedules", "of_baseline", "against"),
    [
        (("two-phase",), ("one-phase", "two-phase"), "random_init (two-phase)"),
        (("one-phase",), ("one-phase", "two-phase"), "random_init (two-phase)"),
        (("two-phase",), ("one-phase",), "random_init (one-phase, the paper's baseline)"),
        (("two-phase",), (), "random_init"),
        ((), ("two-phase",), "random_init (two-phase)"),
        ((), (), "random_init"),
    ],
)
def test_the_baseline_of_a_probe_is_found_whatever_is_fine_tuned(
    schedules: tuple[str, ...], of_baseline: tuple[str, ...], against: str
) -> None:
    tuned = [run for schedule in schedules for run in finetuned("cgan_color", schedule)]
    tuned += [run for schedule in of_baseline for run in finetuned("random_init", schedule)]
    (one,) = boards([*tuned, *several("random_init", (0.2, 0.3)), *several("cgan_color", (0.5, 0.6))])
    cells = shown(one)
    (difference,) = [cell.difference for cell in cells.values() if cell.difference is not None]
    assert (difference.against, difference.estimate.seeds) == (against, 2) and cells[against].difference is None
    assert difference.estimate.value == pytest.approx(0.3, abs=0.01)
    unfounded = schedules and not set(schedules) & set(of_baseline)
    assert any("No row to compare with" in note for note in one.notes) == bool(unfounded)


def test_a_named_baseline_of_one_schedule_serves_probes_too() -> None:
    tuned = [run for schedule in ("one-phase", "two-phase") for run in finetuned("l1_color", schedule)]
    every = [*tuned, *finetuned("cgan_color"), *several("l1_color", (0.2, 0.3)), *several("cgan_color", (0.5, 0.6))]
    for name in ("l1_color", "l1_color:one-phase", "l1_color (one-phase)", "l1_color:two-phase"):
        (one,) = boards(every, baseline=name)
        assert shown(one)["cgan_color"].difference.against == "l1_color", name
        assert shown(one)["l1_color"].difference is None


def test_a_baseline_that_a_table_lacks_is_no_other_task_there() -> None:
    """The second table has `l1_color` and no `l1_color:shuffled`; its probes were measured from `l1_color`."""
    first = [*several("l1_color", (0.2, 0.3)), *several("l1_color:shuffled", (0.1, 0.2))]
    wide = [run for name in ("l1_color", "cgan_color") for run in several(name, (0.2, 0.3), trunk="unet:depth=6,width=16")]
    one, other = boards([*first, *wide], baseline="l1_color:shuffled")
    assert shown(one)["l1_color"].difference.against == "l1_color:shuffled"
    assert not [cell for cell in shown(other).values() if cell.difference is not None]


def test_where_fine_tuning_alone_varies_a_probe_stands_in_the_row_of_its_trunk() -> None:
    pretexts = ("random_init", "cgan_color")
    tuned = [make(pretext, seed, 0.5, "voc_cls", trunk_seed=0) for pretext in pretexts for seed in range(3)]
    (one,) = boards([*tuned, *(probed(pretext, 0, 0.4) for pretext in pretexts)])
    assert [(row.trunk_seed, row.vary) for row in one.rows] == [(0, "finetune")] * 2
    assert len(shown(one)) == 2 and shown(one)[one.rows[1].label].difference.against == one.rows[0].label
    both = [*tuned, *(make(pretext, seed, 0.5, "voc_cls") for pretext in pretexts for seed in (1, 2))]
    (one,) = boards([*both, *(probed(pretext, seed, 0.4) for pretext in pretexts for seed in range(3))])
    found = {(row.pretext, row.trunk_seed): len(row.cells[1].records) for row in one.rows}
    assert found == {(pretext, seed): 3 if seed is None else 1 for pretext in pretexts for seed in (None, 0)}


def test_a_probe_is_dead_only_where_its_record_says_so() -> None:
    dead = ALIVE.model_copy(update={"ratio": 0.01})
    assert rows.dead(probed(recipe={"epochs": 0})) == "" and rows.dead(probed(spread=ALIVE)) == ""
    (one,) = boards([probed(spread=dead), probed("random_init")])
    assert "‡" in shown(one)["cgan_color"].marks and any("or probing" in note for note in one.notes)


def test_probes_stand_in_a_table_of_chosen_runs_beside_fine_tuning() -> None:
    chosen = [make(downstream="voc_cls"), probed(), probed(kind="linear")]
    assert len(board.one_board(chosen, reader).columns) == 3
    with pytest.raises(DataError, match="cannot share a column: level differs"):
        board.one_board([*chosen, probed(seed=1, with_settings={"level": 2})], reader)


def test_a_probe_is_never_beside_the_papers_numbers() -> None:
    tuned, probe = finetuned("cgan_color"), several("cgan_color", (0.1, 0.2))
    (one,) = [ours for found in published.beside_paper(boards([*tuned, *probe])).values() for ours in found]
    assert one.estimate.value == pytest.approx(0.55, abs=0.01)
    assert not any(published.beside_paper(boards(probe)).values())
