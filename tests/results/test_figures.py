"""Figures: every line of a CSV file is drawn where its values are, and nothing else is."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from results import figures

LEADERBOARD = {
    "downstream": "voc_cls", "evaluation": "finetune", "metric": "map_voc@1", "trunk": "unet", "labels": 1.0,
    "schedule": "two-phase", "transfer": "all", "pretrain_data": "coco", "baseline": "random_init", "n_seeds": 3, "p_holm": 0.5,
}  # fmt: skip
CONFIRMATORY = {"question": "table4", "baseline": "random_init", "task": "voc_cls", "metric": "map_voc@1", "refused": None}
SVG = "{http://www.w3.org/2000/svg}"


def better(name: str, value: float, **others: Any) -> dict[str, Any]:
    """Return a line of a leaderboard whose difference has an interval of 0.02."""
    return {**LEADERBOARD, "pretext": name, "delta": value, "delta_low": value - 0.01, "delta_high": value + 0.01, **others}


def marks(svg: str) -> list[tuple[str, float]]:
    """Return of each mark of a figure whether it is filled or open, and its place from left to right."""
    found = []
    for path in ElementTree.fromstring(svg).iter(f"{SVG}path"):
        place = re.match(r"translate\(([-.\d]+) ", path.get("transform", ""))
        assert place is not None
        found.append((path.get("class", "").split()[1], float(place.group(1))))
    return found


def zero(svg: str) -> float:
    """Return the place of the line at zero of a figure's first panel."""
    return next(
        float(line.get("x1", "")) for line in ElementTree.fromstring(svg).iter(f"{SVG}line") if line.get("class") == "zero"
    )


def test_differences_stand_where_their_values_are_and_are_filled_where_told_apart() -> None:
    lines = [better("cgan_color", 0.04, p_holm=0.01), better("l1_color", -0.02), better("jigsaw", 0.01)]
    svg = figures.figure("leaderboard", [{**lines[0], "pretext": "random_init", "delta": None}, *lines])
    assert [kind for kind, _ in marks(svg)] == ["filled", "open", "open"]
    first, second, third = (place - zero(svg) for _, place in marks(svg))
    assert first == pytest.approx(-2 * second, abs=0.3) and first == pytest.approx(4 * third, abs=0.3)
    assert "points, from random_init; filled: told apart" in svg and "voc_cls, map_voc@1" in svg
    swapped = figures.figure("leaderboard", [better("cgan_color", -0.04), better("l1_color", 0.02)])
    assert marks(swapped)[0][1] < zero(swapped) < marks(swapped)[1][1]


def test_a_row_keeps_its_colour_in_every_panel_and_names_say_what_differs() -> None:
    lines = [
        better("cgan_color", 0.02), better("l1_color", 0.03), better("l1_color", 0.01, downstream="voc_seg"),
        better("cgan_color", 0.02, downstream="voc_seg", schedule="one-phase"),
    ]  # fmt: skip
    svg = figures.figure("leaderboard", lines)
    kinds = [path.get("class", "").split()[-1] for path in ElementTree.fromstring(svg).iter(f"{SVG}path")]
    assert kinds == ["c0", "c1", "c1", "c0"] and "cgan_color, one-phase" in svg and "l1_color, two-phase" in svg


def test_all_questions_of_a_plan_are_drawn_on_one_axis() -> None:
    one = {**CONFIRMATORY, "row": "cgan_color", "delta": 0.08, "delta_low": 0.06, "delta_high": 0.1, "told_apart": True}
    null = {**one, "question": "null", "row": "random_twin", "delta": -0.01, "delta_low": -0.02, "delta_high": 0.0}
    svg = figures.figure("confirmatory", [one, null])
    (_, first), (_, second) = marks(svg)
    assert first - zero(svg) == pytest.approx(-8 * (second - zero(svg)), abs=0.5)


def test_a_confirmatory_comparison_that_is_refused_is_not_drawn() -> None:
    one = {**CONFIRMATORY, "row": "cgan_color", "delta": 0.03, "delta_low": 0.01, "delta_high": 0.05, "told_apart": True}
    refused = {**one, "row": "l1_color", "refused": "there are no runs of it", "told_apart": None}
    assert len(marks(figures.figure("confirmatory", [one, refused]))) == 1
    assert figures.figure("confirmatory", [refused]) == "" and figures.figure("per_run", [one]) == ""


def test_shares_of_variation_have_the_place_of_a_factor_without_effect() -> None:
    one = {"task": "voc_cls", "metric": "map_voc@1", "share_high": 0.9, "by_chance": 0.1}
    lines = [
        {**one, "factor": "seed", "share": 0.5, "share_low": 0.3},
        {**one, "factor": "schedule", "share": 0.1, "share_low": None},
    ]
    svg = figures.figure("variation", lines)
    lines_of = [line for line in ElementTree.fromstring(svg).iter(f"{SVG}line") if line.get("class") == "unfrozen"]
    assert len(lines_of) == 2
    assert float(lines_of[1].get("x1", "")) == pytest.approx(marks(svg)[1][1], abs=0.1)  # 10 % is where chance is, too


def test_orders_and_inflations_are_drawn_and_text_is_escaped() -> None:
    heads = {"column": "Cl<a>ss (map_voc@1, %; tuned, 3 trials)", "other_column": "Cl<a>ss, kNN, decoder (map_voc@1, %)"}
    tau = {**heads, "board": 1, "other_board": 1, "tau": 0.5, "tau_low": 0.1, "tau_high": None}
    svg = figures.figure("sensitivity", [tau, {**tau, "tau": None}])
    assert "Cl&lt;a&gt;ss: are rows in the same order?" in svg and ">fine-tuning / kNN, decoder<" in svg and len(marks(svg)) == 1
    svg = figures.figure("sensitivity", [{**tau, "other_board": 2, "other_column": "Cl<a>ss (f1_macro@1, %)"}])
    assert "Cl&lt;a&gt;ss: boards 1 and 2" in svg and ">fine-tuning (map_voc@1) / fine-tuning (f1_macro@1)<" in svg
    line = {"column": "knn", "row": "cgan_color", "delta": 0.01, "delta_low": 0.0, "delta_high": 0.02}
    svg = figures.figure("selection", [line, {**line, "row": None}])
    assert [kind for kind, _ in marks(svg)] == ["open", "filled"] and "mean over rows" in svg
