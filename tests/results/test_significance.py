"""Rows compared: differences to the baseline, which rows are bold, and which marks say that one may not be believed."""

from typing import Any

import numpy as np
import pytest

from bench import registry
from bench.errors import UsageError
from bench.record import FeatureSpread, Record
from results import board, csv_files, rows, significance, statistics
from results.baselines import SHUFFLED
from results.scores import Answers
from results.statistics import Estimate
from results.trivial import trivial
from tests.results import operating
from tests.results.made import ALIVE, boards, make, reader, seeds


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


def test_a_baseline_whose_own_name_has_a_colon_is_that_task() -> None:
    """`l1_color:shuffled` is a task and not l1_color on a schedule, which was once measured from without a word."""
    assert SHUFFLED == registry.SHUFFLED
    records = [*seeds("l1_color", (0.3, 0.4)), *seeds("l1_color:shuffled", (0.2, 0.3)), *seeds("cgan_color", (0.5, 0.6))]
    for name in ("l1_color:shuffled", "l1_color:shuffled:two-phase"):
        (one,) = boards(records, baseline=name)
        found = {row.label: row.cells[0].difference for row in one.rows}
        assert found["l1_color:shuffled"] is None
        assert {difference.against for difference in found.values() if difference} == {"l1_color:shuffled"}, name
        assert found["l1_color"] is not None and found["l1_color"].estimate.value == pytest.approx(0.1, abs=0.01)
    (one,) = boards(records, baseline="l1_color:two-phase")
    assert {row.cells[0].difference.against for row in one.rows if row.cells[0].difference} == {"l1_color"}


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


def test_where_no_row_is_told_from_the_highest_nothing_is_bold() -> None:
    """Bold in every row would call all of them better than the trivial predictors below."""
    equal = seeds("cgan_color", (0.50, 0.52, 0.51)) + seeds("random_init", (0.51, 0.50, 0.52))
    (one,) = boards(equal)
    assert not any(row.cells[0].leading for row in one.rows)
    (with_worse,) = boards(equal + seeds("l1_color", (0.2, 0.21, 0.19)))
    assert {row.pretext for row in with_worse.rows if row.cells[0].leading} == {"cgan_color", "random_init"}


def test_a_row_that_equals_a_trivial_predictor_is_marked_with_the_number_of_seeds() -> None:
    names = [(pretext, seed) for pretext in ("cgan_color", "l1_color") for seed in range(3)]
    records = [make(pretext, seed, 0.6, predictions=f"{pretext} {seed}") for pretext, seed in names]

    def read(record: Record) -> Answers:
        """Give background everywhere for two seeds of one row."""
        answers = reader(record)
        if record.pretext == "l1_color" and record.job.seed < 2:
            return Answers(answers.ids, trivial(record, "confusion")["all background"](answers.predictions))
        return answers

    (one,) = board.boards(records, read, resamples=200)
    assert {row.label: row.cells[0].same for row in one.rows} == {"cgan_color": ("", 0), "l1_color": ("all background", 2)}
    assert {row.label: row.cells[0].marks for row in one.rows} == {"cgan_color": "", "l1_color": "†§"}
    assert "§: 2 seeds of a row score just what all background scores: l1_color in Segmentation." in one.notes
    lines = {line["pretext"]: (line["same"], line["same_seeds"]) for line in csv_files.leaderboard([one]).lines}
    assert lines == {"cgan_color": ("", 0), "l1_color": ("all background", 2)}


def test_a_seed_that_scores_the_same_by_chance_is_not_called_equal() -> None:
    """The value alone may agree; on other resamples of the images it does not."""
    record = make("cgan_color", 0, 0.5, "voc_cls")
    labels = np.tile(np.array([[1, 0, 0], [0, 1, 0]], dtype=np.int8), (30, 1))
    scores = np.where((np.arange(60) % 4 < 2)[:, None], [0.9, 0.1, 0.0], [0.1, 0.9, 0.0]).astype(np.float32)
    (one,) = board.boards([record], lambda _: Answers(tuple(map(str, range(60))), {"scores": scores, "labels": labels}))
    (cell,) = one.rows[0].cells
    values = {row.label: row.cells[0].estimate.value for row in one.trivial}  # type: ignore[union-attr]
    assert cell.estimate is not None and cell.estimate.value == values["class prior"] == 0.5
    assert cell.same == ("", 0) and cell.floor == "class prior"


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
    """Make rows whose second one is told from the first at a level of 2.2 %; the rest equal the first, but for one far below."""
    names = ("cgan_color", "l1_color", "inpainting", "random_init")[:count]
    steps = {
        "cgan_color": (0.0, 0.0, 0.0),
        "l1_color": (0.02, 0.035, 0.03),
        "inpainting": (0.0, 0.0, 0.001),
        "random_init": (0.0, 0.001, 0.0),
    }
    base = (0.60, 0.62, 0.61)
    near = [record for name in names for record in seeds(name, tuple(b - s for b, s in zip(base, steps[name], strict=True)))]
    return near + seeds("far", (0.1, 0.11, 0.12))


@pytest.mark.parametrize(("count", "bold"), [(2, False), (4, True)])
def test_a_row_is_left_out_of_the_bold_ones_at_5_percent_by_the_number_of_others(count: int, bold: bool) -> None:
    (one,) = boards(far_apart(count), baseline="cgan_color")
    row = next(row for row in one.rows if row.label == "l1_color")
    p = row.cells[0].difference.estimate.p  # type: ignore[union-attr]
    assert p is not None and 0.05 / 4 < p < 0.05 / 2
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
