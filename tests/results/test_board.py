"""Boards: what stands beside what, what is called better, and what is refused."""

from typing import Any

import numpy as np
import pytest

from bench.errors import DataError, UsageError
from bench.record import FeatureSpread
from results import board, rows, significance, statistics
from results.scores import Answers
from results.statistics import Estimate
from tests.results import operating
from tests.results.made import make, reader, tuning


def boards(records: list, **options: Any) -> list[board.Board]:
    return board.boards(records, reader, resamples=300, **options)


def seeds(pretext: str, values: tuple[float, ...], **changes: Any) -> list:
    return [make(pretext, seed, value, **changes) for seed, value in enumerate(values)]


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
        ({"data": "other", "fingerprint": "e" * 64}, "data"),
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
    assert "protocol small (Segmentation: epochs one-phase: all 18 at 0.001)" in one.title
    assert [len(row.cells) for row in one.rows] == [2, 2] and all(cell.records for row in one.rows for cell in row.cells)
    (alone,) = boards(seg)
    assert "protocol small (epochs one-phase: all 18 at 0.001)" in alone.title
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


def test_a_difference_is_paired_with_random_initialisation_on_the_same_schedule() -> None:
    records = seeds("cgan_color", (0.30, 0.41, 0.35)) + seeds("random_init", (0.2, 0.3, 0.25))
    records += seeds("random_init", (0.5, 0.5, 0.5), schedule="one-phase")
    (one,) = boards(records)
    difference = next(row for row in one.rows if row.pretext == "cgan_color").cells[0].difference
    assert difference is not None and difference.against == "random_init (two-phase)"
    assert difference.estimate.value == pytest.approx(0.1033, abs=0.002)
    assert difference.estimate.p is not None and difference.corrected == difference.estimate.p and difference.distinguishable
    (other,) = boards(records, baseline="random_init:one-phase")
    differences = {row.label: row.cells[0].difference for row in other.rows}
    assert differences["cgan_color"] is not None and differences["cgan_color"].estimate.value == pytest.approx(-0.147, abs=0.002)
    assert differences["cgan_color"].corrected is not None and differences["cgan_color"].estimate.p is not None
    assert differences["cgan_color"].corrected >= differences["cgan_color"].estimate.p


def test_a_row_that_inherits_less_is_measured_from_the_one_that_inherits_all() -> None:
    records = [*seeds("l1_color", (0.3, 0.4)), *seeds("l1_color", (0.2, 0.2), transfer="encoder")]
    (one,) = boards(records, baseline="l1_color")
    differences = {row.label: row.cells[0].difference for row in one.rows}
    assert differences["l1_color"] is None
    found = differences["l1_color (encoder only)"]
    assert found is not None and found.against == "l1_color"
    assert found.estimate.value == pytest.approx(-0.15, abs=0.002)


def test_a_row_is_named_by_its_label_where_the_pretext_task_says_too_little() -> None:
    records = [*seeds("l1_color", (0.3, 0.4)), *seeds("l1_color", (0.5, 0.5), lr=0.2)]
    (one,) = boards(records)
    first, second = (row.label for row in one.rows)
    assert "lr=" in first and "lr=" in second
    (measured,) = boards(records, baseline=second)
    assert [row.cells[0].difference and row.cells[0].difference.against for row in measured.rows] == [second, None]


def test_an_unknown_baseline_names_what_there_is() -> None:
    with pytest.raises(UsageError, match="random_init:two-phase"):
        boards([make(), make("random_init")], baseline="random")


def test_with_one_seed_nothing_is_called_better() -> None:
    (one,) = boards([make(value=0.9), make("random_init", value=0.1)])
    assert not any(row.cells[0].leading for row in one.rows)
    difference = one.rows[1].cells[0].difference
    assert (
        difference is not None
        and difference.distinguishable is None
        and difference.estimate.p is None
        and difference.estimate.low > 0
    )


def test_the_best_and_all_that_cannot_be_told_from_it_stand_out() -> None:
    records = (
        seeds("cgan_color", (0.50, 0.52, 0.51)) + seeds("l1_color", (0.52, 0.50, 0.50)) + seeds("random_init", (0.2, 0.21, 0.19))
    )
    (one,) = boards(records)
    assert {row.label for row in one.rows if row.cells[0].leading} == {"cgan_color", "l1_color"}


def test_a_worse_row_is_told_from_the_baseline_too() -> None:
    (one,) = boards(seeds("cgan_color", (0.2, 0.21, 0.19)) + seeds("random_init", (0.5, 0.52, 0.51)))
    difference = one.rows[1].cells[0].difference
    assert difference is not None and difference.distinguishable and difference.estimate.high < 0


def test_rows_without_common_seeds_are_neither_compared_nor_bold() -> None:
    records = seeds("cgan_color", (0.61, 0.6, 0.62)) + [make("l1_color", seed, 0.55) for seed in (7, 8, 9)]
    records += [make("inpainting", seed, 0.55) for seed in (2, 8)]
    (one,) = boards(records)
    assert not any(row.cells[0].leading for row in one.rows)
    assert any(note.startswith("No row to compare with (random_init") for note in one.notes)


def test_given_rates_are_a_column_of_their_own_and_a_seed_is_never_averaged_with_itself() -> None:
    first, given = make(value=0.2), make(value=0.6, rates=(0.001, 0.0005))
    (one,) = boards([first, given])
    assert [c.head for c in one.columns] == [
        "Segmentation (miou_voc@1, %)", "Segmentation (miou_voc@1, %; rates given: 0.001, 0.0005)",
    ]  # fmt: skip
    assert [len(cell.records) for cell in one.rows[0].cells] == [1, 1]
    with pytest.raises(DataError, match="different runs of the same row with the same seed"):
        boards([first, first.model_copy(update={"id": "another"})])


def test_the_baseline_shares_the_trunks_seed() -> None:
    records = [make("cgan_color", seed, 0.4 + seed / 100, trunk_seed=4) for seed in (4, 5, 6)]
    records += [make("random_init", seed, 0.1, trunk_seed=0) for seed in (0, 5)]
    records += [make("random_init", seed, 0.2 + seed / 100, trunk_seed=4) for seed in (4, 5, 6)]
    (one,) = boards(records)
    differences = {row.label: row.cells[0].difference for row in one.rows}
    difference = differences["cgan_color (one trunk, seed 4)"]
    assert (
        difference is not None
        and difference.against == "random_init (two-phase; one trunk, seed 4)"
        and difference.estimate.seeds == 3
    )


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


def test_a_row_that_reaches_a_trivial_predictor_is_marked() -> None:
    (trivial,) = {row.cells[0].estimate.value for row in boards([make()])[0].trivial}  # type: ignore[union-attr]
    records = seeds("cgan_color", (0.60, 0.62, 0.61)) + seeds("l1_color", (trivial, trivial + 0.02, trivial - 0.02))
    (one,) = boards(records)
    floors = {row.label: row.cells[0].floor for row in one.rows}
    assert floors == {"cgan_color": "", "l1_color": "all background"}
    assert any(note.startswith(board.FLOOR) for note in one.notes)
    (above,) = boards(seeds("cgan_color", (0.60, 0.62, 0.61)))
    assert not any(note.startswith(board.FLOOR) for note in above.notes)


DEAD = FeatureSpread(images=64, layer="trunk.up.0.1", ratio=0.004)
ALIVE = FeatureSpread(images=64, layer="trunk.up.0.1", ratio=0.97, measured=("trunk.up.0.1",), measured_on=2048)


def test_a_network_that_was_dead_is_marked_with_the_reason() -> None:
    records = [make("cgan_color", spread=ALIVE), make("l1_color", spread=DEAD), make("inpainting")]
    (one,) = boards(records)
    assert {row.label: bool(row.cells[0].dead) for row in one.rows} == {
        "cgan_color": False,
        "l1_color": True,
        "inpainting": False,
    }
    (note,) = [note for note in one.notes if note.startswith(board.DEAD)]
    assert "l1_color in Segmentation" in note and "images differ in trunk.up.0.1 by 0.4 %" in note
    assert FeatureSpread(images=64, cosine=0.9995).problem and not FeatureSpread(images=64, cosine=0.99).problem


def test_a_control_of_before_is_dead_where_it_was_frozen_with_statistics_that_nothing_measured() -> None:
    def of_before(schedule: str, transfer: str = "all", epochs: int = 0, **settings: object) -> str:
        changes = {"schedule": schedule, "transfer": transfer, "recipe": {"epochs": epochs}, "settings": settings}
        return rows.dead(make("random_init", **changes))

    assert of_before("two-phase") and of_before("frozen") and of_before("two-phase", "encoder", 2)
    assert not of_before("one-phase") and not of_before("two-phase", epochs=2) and not of_before("frozen", statistics="batch")


def test_a_difference_is_taken_from_a_control_that_is_alive_and_the_newest() -> None:
    def versions(version: int, value: float, spread: FeatureSpread) -> list:
        return seeds("random_init", (value, value + 0.01, value + 0.02), spread=spread, pretrain_job={"version": version})

    ours = seeds("cgan_color", (0.5, 0.52, 0.51), spread=ALIVE)
    for first, second, against in (
        (versions(1, 0.2, DEAD), versions(2, 0.4, ALIVE), "version 2"),
        (versions(1, 0.2, ALIVE), versions(2, 0.4, ALIVE), "version 2"),
        (versions(1, 0.2, ALIVE), versions(2, 0.4, DEAD), "version 1"),
    ):
        (one,) = boards([*first, *second, *ours])
        difference = next(row for row in one.rows if row.pretext == "cgan_color").cells[0].difference
        assert difference is not None and against in difference.against


def test_another_version_of_a_transfer_is_another_row() -> None:
    newer = make(transfer="encoder", value=0.6, statistics_version=2, spread=ALIVE)
    (one,) = boards([make(transfer="encoder"), newer])
    assert len(one.rows) == 2 and len({row.label for row in one.rows}) == 2


def test_two_seeds_are_both_shown_and_called_nearly_powerless() -> None:
    (one,) = boards(seeds("cgan_color", (0.46, 0.54)) + seeds("random_init", (0.40, 0.43)))
    assert one.rows[0].cells[0].estimate.values == pytest.approx((0.40, 0.43), abs=1e-3)  # type: ignore[union-attr]
    assert any(note.startswith("n=2: both values are given") for note in one.notes)
    difference = one.rows[1].cells[0].difference
    assert difference is not None and difference.verdict == "no" and difference.estimate.p > 0.05  # type: ignore[operator]


def test_declared_looks_take_their_share_and_other_numbers_of_seeds_are_exploratory() -> None:
    three = seeds("cgan_color", (0.60, 0.601, 0.602)) + seeds("random_init", (0.40, 0.402, 0.401))
    (plain,), (at_look,), (beside,) = (boards(three, looks=looks) for looks in ((), (3, 5), (5, 10)))
    differences = [one.rows[1].cells[0].difference for one in (plain, at_look, beside)]
    assert differences[1].corrected == pytest.approx(differences[0].corrected * 5**3 / 3**3)  # type: ignore[union-attr, operator]
    assert [difference.verdict for difference in differences] == ["yes", "yes", "exploratory"]  # type: ignore[union-attr]
    assert not any(row.cells[0].leading for row in beside.rows)
    assert "Looks were declared at 3, 5 seeds" in " ".join(at_look.notes)


def far_apart(count: int) -> list:
    """Make rows whose second one is told from the first at a level between 5 % / (K - 1) and 5 %; the rest equal the first."""
    names = ("cgan_color", "l1_color", "inpainting", "random_init")[:count]
    steps = {
        "cgan_color": (0.0, 0.0, 0.0),
        "l1_color": (0.02, 0.035, 0.03),
        "inpainting": (0.0, 0.0, 0.001),
        "random_init": (0.0, 0.001, 0.0),
    }
    base = (0.60, 0.62, 0.61)
    return [record for name in names for record in seeds(name, tuple(b - s for b, s in zip(base, steps[name], strict=True)))]


@pytest.mark.parametrize(("count", "bold"), [(2, False), (4, True)])
def test_a_row_is_left_out_of_the_bold_ones_at_5_percent_by_the_number_of_others(count: int, bold: bool) -> None:
    (one,) = boards(far_apart(count), baseline="cgan_color")
    row = next(row for row in one.rows if row.label == "l1_color")
    p = row.cells[0].difference.estimate.p  # type: ignore[union-attr]
    assert p is not None and 0.05 / 3 < p < 0.05
    assert row.cells[0].leading is bold


def simulated_leaders(scores: list[Any], seeds: int) -> set[int]:
    """Return which rows of simulated scores (seeds, images) lead."""

    def difference(one: int, other: int) -> Estimate:
        found, spread, common, own = operating.parts((scores[one] - scores[other])[None])
        p = statistics._p_value(found.mean(), float(spread[0]), float(common[0]), float(own[0]), seeds, operating.IMAGES)
        return Estimate(float(found.mean()), 0.0, 0.0, seeds, 1.0, p)

    return significance.leaders({place: float(one.mean()) for place, one in enumerate(scores)}, difference, ())


@pytest.mark.parametrize("truth", [(0.0, 0.0, 0.0, 0.0), (0.0, 0.0, -3.0, -3.0), (0.0, -1.0, -2.0, -30.0)])
def test_the_best_row_is_among_the_bold_ones_with_95_percent_confidence(truth: tuple[float, ...]) -> None:
    rng = np.random.default_rng(1)
    kept, count, bold = 0, 0, 0
    for _ in range(2):
        drawn = [next(operating.drawn(rng, operating.TOGETHER, 3, 2.0, 1.0)) + mean for mean in truth]
        for place in range(operating.TOGETHER):
            marked = simulated_leaders([scores[place] for scores in drawn], 3)
            kept, bold, count = kept + (0 in marked), bold + len(marked), count + 1
    assert kept / count >= 0.95
    assert bold / count > 1 + sum(mean == 0 for mean in truth[1:]) * 0.9, "equal rows are bold together"
    assert bold / count < len(truth) - 0.3 * sum(mean < -20 for mean in truth)


def test_who_cannot_be_compared_with_the_highest_is_not_left_out() -> None:
    some, others = seeds("cgan_color", (0.60, 0.601, 0.602)), [make("l1_color", 10 + n, 0.599 + 0.001 * n) for n in range(3)]
    far = seeds("random_init", (0.2, 0.201, 0.202))
    (one,) = boards(some + others + far)
    assert {row.label: row.cells[0].leading for row in one.rows} == {
        "random_init (two-phase)": False, "cgan_color": True, "l1_color": True,
    }  # fmt: skip


def test_rows_of_one_trunk_are_bold_among_themselves() -> None:
    own = seeds("cgan_color", (0.60, 0.61, 0.62)) + seeds("l1_color", (0.40, 0.41, 0.42))
    shared = [make("inpainting", seed, 0.70 + seed / 100, trunk_seed=5) for seed in range(3)]
    (one,) = boards(own + shared)
    assert {row.pretext: row.cells[0].leading for row in one.rows} == {"cgan_color": True, "inpainting": False, "l1_color": False}
    assert any(note.startswith("Rows of one trunk say nothing about other trunks") for note in one.notes)
