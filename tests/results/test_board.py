"""Boards: what stands beside what, under which name, and what is refused."""

from typing import Any

import pytest

from bench.errors import DataError, UsageError
from results import board, rows
from results.scores import Answers
from tests.results.made import ALIVE, boards, make, reader, seeds, tuning


def test_seeds_become_a_mean_with_an_interval_and_missing_cells_stay_empty() -> None:
    (one,) = boards(
        [
            *seeds("cgan_color", (0.2, 0.3, 0.4)),
            make("random_init", value=0.1),
            make("random_init", value=0.7, downstream="voc_cls"),
        ]
    )
    assert [column.head for column in one.columns] == ["Classification (acc_keras@1, %)", "Segmentation (miou_voc@1, %)"]
    assert [row.label for row in one.rows] == ["random_init (two-phase)", "cgan_color"]
    cell = one.rows[1].cells[1]
    assert cell.estimate is not None and one.rows[1].cells[0].estimate is None
    assert cell.estimate.value == pytest.approx(0.3, abs=0.001) and cell.estimate.deviation == pytest.approx(0.1, abs=0.001)
    assert cell.estimate.low < 0.2 and cell.estimate.high > 0.4 and cell.estimate.seeds == 3


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"protocol": "standard"}, "protocol"),
        ({"fingerprint": "e" * 64}, "data fingerprint"),
        ({"trunk": "timm:resnet18"}, "trunk"),
        ({"split": "val"}, "split"),
        ({"labels": 0.1}, "labels"),
    ],
)
def test_what_is_not_comparable_stands_on_another_board_which_says_why(change: dict[str, Any], field: str) -> None:
    first, other = make(), make(seed=1, **change)
    two = boards([first, other])
    assert len(two) == 2
    assert f"{field} differs" in two[1].notes[-1]
    with pytest.raises(DataError, match=f"cannot share a table: .*{field} differs"):
        board.one_board([first, other], reader)


def test_tasks_whose_protocols_were_changed_apart_share_a_board_while_each_has_one() -> None:
    longer = 'small+schedules={"one-phase":[{"epochs":18,"lr":0.001,"train":"all"}]}'
    cls = [make(pretext, downstream="voc_cls", protocol="small") for pretext in ("random_init", "cgan_color")]
    seg = [make(pretext, protocol=longer) for pretext in ("random_init", "cgan_color")]
    (one,) = boards([*cls, *seg])
    assert one.title == board.one_board([*cls, *seg], reader).title
    assert "protocol small (Segmentation +1699ca), trunk" in one.title
    assert "small+1699ca is small with one-phase: all 18 epochs at 0.001." in one.notes
    assert [len(row.cells) for row in one.rows] == [2, 2] and all(cell.records for row in one.rows for cell in row.cells)
    (alone,) = boards(seg)
    assert "protocol small+1699ca, trunk" in alone.title
    unchanged = make(protocol="small", seed=1)
    assert [len(each.records()) for each in boards([*cls, *seg, unchanged])] == [3, 2]
    with pytest.raises(DataError, match="cannot share a table: protocol differs"):
        board.one_board([unchanged, *seg], reader)
    fewer = make(protocol=longer, labels=0.1)
    assert boards([*cls, *seg, fewer])[1].notes[-1].endswith("above: labels differs (1.0 and 0.1).")
    others = [make(downstream="voc_cls", protocol="small+size=32"), make(protocol="small"), make(protocol=longer)]
    assert "protocol differs (small+size=32 and small)" in boards(others)[1].notes[-1]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"version": 2}, "version"),
        ({"splits_fingerprint": "t" * 64}, "splits"),
        ({"size": 32}, "size"),
        ({"source": "0123"}, "source"),
    ],
)
def test_what_is_not_a_seed_is_never_averaged_and_refused_in_one_column(change: dict[str, Any], field: str) -> None:
    first, second = make(value=0.2), make(value=0.6, **change)
    (one,) = boards([first, second])
    assert len(one.columns) == 2 and all("variant" in column.head for column in one.columns)
    assert [len(cell.records) for cell in one.rows[0].cells] == [1, 1]
    with pytest.raises(DataError, match=f"cannot share a column: {field} differs"):
        board.one_board([first, second], reader)


def test_another_version_of_a_metric_is_another_column() -> None:
    first, second = make(value=0.2), make(value=0.6, seed=1, metrics={"miou_voc@2": 0.6})
    with pytest.raises(DataError, match="metrics differs"):
        board.one_board([first, second], reader)


def test_runs_scored_on_other_images_are_refused() -> None:
    first, second = make(), make(seed=1)

    def other(record: Any) -> Answers:
        answers = reader(record)
        return answers if record is first else Answers(answers.ids[::-1], answers.predictions)

    with pytest.raises(DataError, match="not scored on the same images"):
        board.boards([first, second], other, resamples=10)


def test_another_recipe_is_another_row_and_says_what_differs() -> None:
    (one,) = boards([make(), make(lr=0.2, value=0.6)])
    assert [row.label for row in one.rows] == ["cgan_color (lr=0.1)", "cgan_color (lr=0.2)"]


def test_transfer_schedule_and_tuning_are_visible() -> None:
    records = [make(transfer=transfer) for transfer in ("all", "encoder")]
    records += [make(schedule="frozen"), make(tuning=tuning(), value=0.6)]
    (one,) = boards(records)
    assert [row.label for row in one.rows] == [
        "cgan_color (frozen)", "cgan_color", "cgan_color (encoder only)",
    ]  # fmt: skip
    assert [column.head for column in one.columns] == [
        "Segmentation (miou_voc@1, %)",
        "Segmentation (miou_voc@1, %; tuned, 8 trials)",
    ]
    assert [len(cell.records) for cell in one.rows[1].cells] == [1, 1]
    assert any(note.startswith("Tuned: 8 trials of rates (") for note in one.notes)


def test_unequal_budgets_never_share_a_column() -> None:
    (one,) = boards([make(tuning=tuning(budget=8)), make("l1_color", tuning=tuning(budget=20))])
    assert [column.trials for column in one.columns] == [20, 8] or [column.trials for column in one.columns] == [8, 20]
    (one,) = boards([make(tuning=tuning()), make("l1_color", tuning=tuning(sampler="random"))])
    assert len({column.head for column in one.columns}) == 2


def test_a_row_is_named_by_its_label_where_the_pretext_task_says_too_little() -> None:
    records = [*seeds("l1_color", (0.3, 0.4)), *seeds("l1_color", (0.5, 0.5), lr=0.2)]
    (one,) = boards(records)
    first, second = (row.label for row in one.rows)
    assert "lr=" in first and "lr=" in second
    (measured,) = boards(records, baseline=second)
    assert [row.cells[0].difference and row.cells[0].difference.against for row in measured.rows] == [second, None]


def test_given_rates_are_a_column_of_their_own_and_a_seed_is_never_averaged_with_itself() -> None:
    first, given = make(value=0.2), make(value=0.6, rates=(0.001, 0.0005))
    (one,) = boards([first, given])
    assert [c.head for c in one.columns] == [
        "Segmentation (miou_voc@1, %)", "Segmentation (miou_voc@1, %; rates given: 0.001, 0.0005)",
    ]  # fmt: skip
    assert [len(cell.records) for cell in one.rows[0].cells] == [1, 1]
    with pytest.raises(DataError, match="different runs of the same row with the same seed"):
        boards([first, first.model_copy(update={"id": "another"})])


def test_a_run_with_a_trunk_of_its_own_stays_on_the_board_beside_one_with_anothers() -> None:
    (one,) = boards([make(seed=0), make(seed=6, trunk_seed=5)])
    assert [row.label for row in one.rows] == ["cgan_color", "cgan_color (one trunk, seed 5)"]


@pytest.mark.parametrize("change", [{"version": 2}, {"splits_fingerprint": "u" * 64}, {"size": 128}])
def test_no_two_rows_have_one_name(change: dict[str, Any]) -> None:
    for one in boards([make(), make(value=0.6, pretrain_job=change)]):
        names = [row.label for row in one.rows]
        assert len(set(names)) == len(names)


def test_columns_that_differ_say_in_which_field() -> None:
    first, second = make(value=0.2), make(value=0.6, splits_fingerprint="t" * 64)
    for chosen in ((), ("pixel_acc", "miou_voc")):
        (one,) = boards([first, second], chosen=chosen)
        assert sum("splits differs" in note and note.startswith("variant ") for note in one.notes) == 2


def test_runs_that_share_a_trunk_are_a_row_of_their_own() -> None:
    records = seeds("cgan_color", (0.2, 0.3)) + [make(seed=seed, trunk_seed=0, value=0.3) for seed in (1, 2)]
    (one,) = boards(records)
    assert [(row.label, [r.job.seed for r in row.cells[0].records]) for row in one.rows] == [
        ("cgan_color", [0, 1]),
        ("cgan_color (one trunk, seed 0)", [0, 1, 2]),
    ]
    other_task = make("random_init", seed=3, downstream="voc_cls")
    (one,) = boards([*records, make("random_init"), make("random_init", seed=1, trunk_seed=0), other_task])
    assert [row.label for row in one.rows if row.pretext == "random_init"] == [
        "random_init (two-phase)", "random_init (two-phase; one trunk, seed 0)",
    ]  # fmt: skip
    assert next(row for row in one.rows if row.label == "cgan_color").cells[1].difference is not None
    (alone,) = boards([make(seed=0), make(seed=1, trunk_seed=0)])
    assert [row.label for row in alone.rows] == ["cgan_color (one trunk, seed 0)"]


def test_trivial_predictors_are_scored_on_the_same_images() -> None:
    (one,) = boards([make(), make(value=0.7, downstream="voc_cls")])
    found = {row.label: [cell.estimate and cell.estimate.value for cell in row.cells] for row in one.trivial}
    assert found["class prior"] == [1.0, None]  # every image's first class is also the commonest
    assert found["constant (nothing present)"] == [1.0, None]  # the argmax of equal scores is the first class
    assert found["all background"][0] is None
    assert found["all background"][1] == pytest.approx(0.25 / 4)  # 1 of 4 equal classes found, the others' IoU is 0


def test_an_undefined_score_is_not_a_missing_one() -> None:
    (one,) = boards([make(value=None)])
    assert one.rows[0].cells[0].records and one.rows[0].cells[0].estimate is None


def test_chosen_metrics_are_recomputed_with_their_version() -> None:
    (one,) = boards([make(value=0.5)], chosen=("pixel_acc", "miou_paper@1", "map_voc"))
    assert [column.metric for column in one.columns] == ["pixel_acc@1", "miou_paper@1"]
    with pytest.raises(UsageError, match="pixel_acc@1"):
        boards([make()], chosen=("pixel_acc@2",))


def test_runs_are_selected_by_the_beginning_of_their_ids() -> None:
    records = [make(), make("l1_color")]
    assert board.select(records, ["l1"]) == records[1:]
    with pytest.raises(UsageError, match="unknown run"):
        board.select(records, ["nothing"])


def test_a_search_of_before_whose_schedule_had_points_of_its_own_is_another_column() -> None:
    ranges = {"head": (1e-4, 1e-2), "all": (1e-5, 1e-3)}
    alone: dict[str, Any] = {"space": {"phase-1": (1e-5, 1e-3)}, "ranges": ranges}
    before = make("random_init", schedule="one-phase", tuning=tuning("one", **alone))
    now = make("random_init", schedule="one-phase", tuning=tuning("two", **alone, drawn=(("head", "phase-1"),)))
    both = make("random_init", tuning=tuning("three", ranges=ranges))
    assert "drawn for this row alone" in rows.rates_of(before)
    assert rows.rates_of(now) == rows.rates_of(both) and "drawn" not in rows.rates_of(both)


def test_another_version_of_a_transfer_is_another_row() -> None:
    newer = make(transfer="encoder", value=0.6, statistics_version=2, spread=ALIVE)
    (one,) = boards([make(transfer="encoder"), newer])
    assert len(one.rows) == 2 and len({row.label for row in one.rows}) == 2


def test_several_data_sets_share_a_board_with_columns_of_their_own() -> None:
    rows = ("random_init", "cgan_color")
    first = [make(name, seed=seed) for name in rows for seed in range(2)]
    apart: dict[str, Any] = {"data": "other", "fingerprint": "e" * 64, "data_fingerprint": "e" * 64}
    other = [make(name, seed=seed, value=0.9, **apart) for name in rows for seed in range(2)]
    (one,) = boards([*first, *other])
    assert [column.title for column in one.columns] == ["Segmentation on other", "Segmentation on voc"]
    assert [[len(cell.records) for cell in row.cells] for row in one.rows] == [[2, 2], [2, 2]]
    assert {record.data.name for row in one.rows for record in row.cells[0].records} == {"other"}
    assert "other, voc" in one.title
    (alone,) = boards(first)
    assert [column.title for column in alone.columns] == ["Segmentation"]
    assert len(boards([*first, make(seed=3, data="drawn", fingerprint="d" * 64, synthetic=True)])) == 2
