"""What is said of probes: their choices, what choosing on test would have reported, and how alike they order the rows."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bench import metrics, record
from bench.errors import DataError
from bench.record import Record
from bench.selection import LevelDiagnostics
from results import (
    board,
    choices,
    lowshot,
    predictions,
    report,
    representations,
    resampling,
    scores,
    selection,
    sensitivity,
    tau,
)
from results.cache import Cache
from results.probe_sheets import PROBE_TABLES
from results.report import Wanted
from tests.results.made import boards, make, probed, publish, read, read_on_test, reader, seeds

SHOTS = {"shots": (1, 4), "draws": 3}


def several(pretext: str, values: tuple[float, ...], kind: str = "knn", **changes: Any) -> list[Record]:
    return [probed(pretext, seed, value, kind, **changes) for seed, value in enumerate(values)]


def finetuned(pretext: str, schedule: str = "two-phase", **changes: Any) -> list[Record]:
    return seeds(pretext, (0.5, 0.6), downstream="voc_cls", schedule=schedule, **changes)


def test_low_shot_scores_have_fewer_resamples_and_stand_by_their_shots() -> None:
    runs = several("cgan_color", (0.5, 0.7), "lowshot", with_settings=SHOTS)
    (column,) = [one for one, _ in board.columns(runs)]
    made = scores.Scores(column.metric, runs, reader, 10_000, Cache())
    assert made.replicates([runs[0].id]).shape == (1, scores.FEWER)
    (one,) = boards(runs)
    found = lowshot.samples([one], reader, Cache())
    assert [sample.shots for sample in found] == [1, 4] and found[0].mean is not None
    classes = runs[0].data.classes
    expected = [
        metrics.compute("map_voc", {"scores": one["shots"][:, 0, draw], "labels": one["labels"]}, classes, classes)
        for one in (read(run).predictions for run in runs)
        for draw in range(3)
    ]
    assert (found[0].mean, found[0].deviation) == pytest.approx((np.mean(expected), np.std(expected, ddof=1)))
    whole = [metrics.compute("map_lowshot", read(run).predictions, classes, classes) for run in runs]
    assert np.mean([sample.mean for sample in found]) == pytest.approx(np.mean(whole))
    assert lowshot.table(one, found) and lowshot.table(boards(several("a", (0.1,)))[0], []) is None


def levels(rankme: float) -> tuple[LevelDiagnostics, ...]:
    facts = {"channels": 8, "images": 60, "effective_rank": None, "alignment": 0.1, "uniformity": -1.0, "dead_channels": 0.25}
    return tuple(LevelDiagnostics(rankme=rankme + level, **facts) for level in range(5))


def test_representations_are_means_over_trunks_each_counted_once() -> None:
    runs = [probed(seed=s, kind=kind, diagnostics=levels(3.0 + 4 * s)) for s in range(2) for kind in ("knn", "linear")]
    (one,) = boards([*runs, *finetuned("cgan_color", "one-phase"), *finetuned("cgan_color")])
    found = list(representations.levels([one]))
    assert [(level.row.label, level.level, level.mean("rankme")) for level in found] == [
        ("cgan_color", number, 4.0 + number) for number in range(1, 6)
    ]
    table = representations.table(one, found)
    assert table is not None and "no scores" in table.notes[0]
    assert table.rows[0].cells == ("cgan_color", "1", "8", "5.0", "-", "0.100", "-1.00", "25.0", "2")


def test_choices_are_told_in_words_once_for_seeds_that_agree() -> None:
    other = probed(seed=2)
    other = other.model_copy(update={"selection": other.selection.model_copy(update={"chosen": {"level": 1, "k": 5}})})
    (one,) = boards([*several("cgan_color", (0.2, 0.3), diagnostics=levels(1.0)), other, *finetuned("cgan_color")])
    table = choices.choices(one)
    assert table is not None
    assert [line.cells[1:] for line in table.rows[1:]] == [("0, 1", "level 4 of 5, k 20"), ("2", "level 1, k 5")]
    assert choices.choices(boards(finetuned("cgan_color"))[0]) is None


def inflations(runs: list[Record], on_test: Callable[..., Any] = read_on_test) -> list[selection.Inflation]:
    return selection.inflations(boards(runs), reader, on_test, Cache())


def test_an_inflation_is_what_a_slow_bootstrap_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "RESAMPLES", 80)
    runs = [probed(seed=seed, value=value, on_test=better) for seed, (value, better) in enumerate(((0.4, 0.5), (0.5, 0.55)))]
    (found,) = inflations(runs)

    def value(answers: scores.Answers, images: Any) -> float:
        drawn = {name: array[images] for name, array in answers.predictions.items()}
        return metrics.compute("acc_keras", drawn, runs[0].data.classes, runs[0].data.scored)

    digest = scores.hashlib.sha256("\n".join(read(runs[0]).ids).encode()).hexdigest()
    counts = np.concatenate(list(resampling.counts(60, 80, digest))).astype(int)
    differences = np.array(
        [
            [value(read_on_test(r), drawn) - value(read(r), drawn) for drawn in (np.repeat(np.arange(60), c) for c in counts)]
            for r in runs
        ]
    )
    each = [value(read_on_test(run), slice(None)) - value(read(run), slice(None)) for run in runs]
    assert found.difference.value == pytest.approx(np.mean(each)) and found.on_test - found.value == pytest.approx(np.mean(each))
    common, own = np.cov(differences)[0, 1], np.mean(np.var(differences, axis=1, ddof=1))
    student, normal = stats.t.ppf(0.975, 1), stats.t.ppf(0.975, 59)
    of_images = max(common, 0)
    of_seeds = max(student**2 * np.var(each, ddof=1), normal**2 * (own - common))
    half = math.sqrt(normal**2 * of_images + of_seeds / 2)
    assert (found.difference.low, found.difference.high) == pytest.approx((np.mean(each) - half, np.mean(each) + half))


def test_a_planted_inflation_is_shown_and_equal_choices_have_none() -> None:
    planted = [probed(pretext, seed, 0.3, on_test=0.8) for pretext in ("cgan_color", "l1_color") for seed in range(3)]
    found = inflations(planted)
    assert [one.row.label if one.row else "" for one in found] == ["cgan_color", "l1_color", ""]
    assert all(one.difference.value == pytest.approx(0.5, abs=0.01) and one.difference.low > 0.3 for one in found)
    assert (found[2].rows, found[2].changed, len(found[2].records)) == (2, 6, 6)
    null = inflations([probed(pretext, seed, 0.3 + seed / 9) for pretext in ("cgan_color", "l1_color") for seed in range(3)])
    assert {(one.difference.value, one.difference.low, one.difference.high, one.changed) for one in null} == {(0.0, 0.0, 0.0, 0)}
    swapped = inflations([probed(seed=seed, value=0.8, on_test=0.3) for seed in range(3)])
    assert swapped[0].difference.value == pytest.approx(-found[0].difference.value)


def test_the_mean_inflation_is_over_rows_and_the_seeds_that_all_have() -> None:
    wide = several("cgan_color", (0.3, 0.3, 0.3), on_test=0.7)
    found = inflations([*wide, *several("l1_color", (0.3, 0.3))])
    assert found[-1].row is None and found[-1].difference.seeds == 2
    assert found[-1].difference.value == pytest.approx((found[0].difference.value + found[1].difference.value) / 2, abs=0.01)
    text = selection.table(boards(wide), found)
    assert "another one in 2 of 4 runs" in text.rows[-1].cells
    assert selection.NOTHING in selection.table(boards(finetuned("cgan_color")), []).notes


def test_predictions_chosen_on_test_for_other_images_are_refused() -> None:
    def other(one: Record) -> scores.Answers:
        answers = read_on_test(one)
        return replace(answers, ids=answers.ids[::-1])

    with pytest.raises(DataError, match="not the same images"):
        inflations([probed(on_test=0.9)], other)


def test_tau_is_that_of_scipy() -> None:
    random = np.random.default_rng(0)
    ours, theirs = (random.integers(0, 4, (50, 6)).astype(float) for _ in range(2))
    expected = [stats.kendalltau(one, other).statistic for one, other in zip(ours, theirs, strict=True)]
    np.testing.assert_allclose(tau.taus(ours, theirs), expected)
    assert np.isnan(tau.taus(np.ones((1, 3)), np.arange(3.0)[None])).all()


def test_the_interval_of_tau_holds_the_true_one() -> None:
    random = np.random.default_rng(0)
    truth, other = np.arange(5.0), np.array([0.0, 2.0, 1.0, 4.0, 3.0])
    covered = narrow = 0
    for _ in range(150):
        rows = []
        for means in (truth, other):
            values = means[:, None] + 0.8 * random.normal(size=(5, 3))
            rows.append(list(values[:, :, None] + 0.3 * random.normal(size=(5, 1, 200))))
        found = tau.taus(*(np.array([row.mean() for row in side])[None] for side in rows))[0]
        low, high = tau.interval(found, *rows, *2 * ([[0, 1, 2]] * 5,), random)
        covered += low <= 0.6 <= high
        narrow += high - low < 1.5
    assert covered >= 0.93 * 150 and narrow > 100


def compared(runs: list[Record]) -> list[sensitivity.Compared]:
    return sensitivity.sensitivities(boards(runs), reader, Cache())


NAMES, VALUES = ("a", "b", "c", "d"), (0.2, 0.4, 0.6, 0.8)


def column(values: tuple[float, ...], kind: str, near: float = 0.02) -> list[Record]:
    return [one for name, value in zip(NAMES, values, strict=True) for one in several(name, (value, value + near), kind)]


@pytest.mark.parametrize("order", [VALUES, VALUES[::-1], (0.4, 0.2, 0.8, 0.6)])
def test_columns_are_compared_by_the_order_of_their_rows(order: tuple[float, ...]) -> None:
    (found,) = compared([*column(VALUES, "knn"), *column(order, "linear")])
    assert found.order.tau == pytest.approx(stats.kendalltau(VALUES, order).statistic) and found.rows == NAMES
    changed = [pair for pair in combinations(range(4), 2) if order[pair[0]] > order[pair[1]]]
    assert found.order.differently == len(changed) and found.low <= (found.order.tau or 0) <= found.high
    assert found.told == len(changed) and len(sensitivity.table([found]).rows) == 2


def test_the_same_predictions_in_two_columns_are_in_the_same_order_on_every_resample() -> None:
    close = (0.5, 0.52, 0.54, 0.56)
    (found,) = compared([*column(close, "knn", 0.3), *column(close, "linear", 0.3)])
    assert (found.order.tau, found.low, found.high) == (1, 1, 1)
    (other,) = compared([*column(close, "knn", 0.3), *column((0.52, 0.5, 0.56, 0.54), "linear", 0.3)])
    assert other.low < 0 and other.told == 0


def test_two_rows_are_no_order_and_one_seed_tells_nothing_apart() -> None:
    runs = [probed(name, 0, value, kind) for kind in ("knn", "svm") for name, value in zip(NAMES, VALUES, strict=True)]
    assert not compared([run for run in runs if run.pretext in "ab"])
    flipped = [probed(name, 0, value, "linear") for name, value in zip(NAMES, VALUES[::-1], strict=True)]
    assert [(one.order.tau, one.told) for one in compared([*runs[:4], *flipped])] == [(-1, 0)]
    assert sensitivity.NOTHING in sensitivity.table([]).notes


def test_boards_that_differ_in_protocol_alone_are_compared_by_the_labels_of_rows() -> None:
    first = [make(name, seed, value) for name, value in zip(NAMES, VALUES, strict=True) for seed in range(2)]
    second = [make(name, s, v, protocol="other") for name, v in zip(NAMES, VALUES[::-1], strict=True) for s in range(2)]
    (found,) = compared([*first, *second])
    assert (found.one.number, found.other.number, found.order.tau) == (1, 2, -1)
    elsewhere = [make(name, s, v, protocol="other", labels=0.5) for name, v in zip(NAMES, VALUES, strict=True) for s in range(2)]
    assert not compared([*first, *elsewhere])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for name, value in zip(("random_init", *NAMES[:2]), VALUES[:3], strict=True):
        for seed in range(2):
            publish(tmp_path, make(name, seed, value, "voc_cls"))
            publish(tmp_path, probed(name, seed, value, on_test=value + 0.1, diagnostics=levels(2.0)))
            publish(tmp_path, probed(name, seed, value, "lowshot", with_settings=SHOTS))
    return tmp_path


def test_a_report_has_the_tables_values_and_page_of_probes(out: Path) -> None:
    wanted = Wanted(selection=True, sensitivity=True, variation=True, html=True)
    made = report.make(record.read(out), out, wanted, "bench report")
    titles = [table.title.partition(":")[0] for table in made.tables]
    new = [
        "Choices of probes",
        "Low-shot by shots",
        "Representations",
        "Inflation by choosing on the test split",
        "Protocol sensitivity",
        "Sources of variation",
    ]
    assert [title for title in titles if title in new] == new and all(title in made.files[report.PAGE] for title in new)
    plain = json.loads(json.dumps(made.plain()))
    assert all(plain[name] and list(plain[name][0]) == list(schema) for name, schema in PROBE_TABLES.items() if name != "watched")
    assert all(len(note) <= 250 for table in made.tables for note in table.notes)
    lines = made.sheets["leaderboard"].plain()
    assert {line["evaluation"] for line in lines} == {"finetune", "knn", "lowshot"}
    assert {(line["schedule"], json.dumps(line["chosen"])) for line in lines if line["evaluation"] != "lowshot"} == {
        ("two-phase", "null"), ("frozen", '{"k": 20, "level": 4}')
    }  # fmt: skip
    assert '"{""k"":20,""level"":4}"' in made.files["per_run.csv"] and list(made.files) == list(dict.fromkeys(made.files))


def test_a_report_without_probes_says_nothing_of_them(tmp_path: Path) -> None:
    runs = [publish(tmp_path, one) for one in finetuned("cgan_color")]
    made = report.make(runs, tmp_path, Wanted(html=True), "bench report")
    assert not made.sheets.keys() & PROBE_TABLES.keys() and "robe" not in made.files["table4.md"] + made.files[report.PAGE]


@pytest.mark.parametrize(("content", "said"), [(b"x", "is damaged"), (None, "is missing")])
def test_files_of_choices_on_test_are_read_and_checked_only_when_asked_for(content: bytes | None, said: str, out: Path) -> None:
    run = next(one for one in record.read(out) if len(predictions.files_of(one)) == 2)
    path = predictions.predictions_path(out, run, predictions.ON_TEST)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    report.make(record.read(out), out, Wanted(), "bench report")
    with pytest.raises(DataError, match=f"chosen_on_test.npz {said}"):
        report.make(record.read(out), out, Wanted(selection=True), "bench report")
