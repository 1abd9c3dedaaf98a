"""Tables and CSV files say what the boards echo, and survive hostile names."""

import io
import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from bench.record import Record
from bench.text import printable
from results import board, csv_files, published, sheets, tables
from results.agreement import order
from results.latex import latex as to_latex
from results.scores import Answers
from tests.results.made import COST, make, reader, tuning

HOSTILE = "a_b%|[red]\\x&{}$#~^<script>alert(1)</script>\n=1+1\r\x1b[2J![i](http://x)`*"


def boards(records: list[Record]) -> list[board.Board]:
    return board.boards(records, reader, resamples=200)


def three_seeds() -> list[Record]:
    return [
        make(pretext, seed, value + seed / 100)
        for pretext, value in (("random_init", 0.2), ("cgan_color", 0.5))
        for seed in range(3)
    ]


def test_table_4_has_values_with_intervals_and_trivial_predictors_under_their_own_heading() -> None:
    (one,) = boards([*three_seeds(), make("random_init", value=0.7, downstream="voc_cls")])
    table = tables.table4(one)
    assert table.columns == ("Model Initialization", "Classification (acc_keras@1, %)", "Segmentation (miou_voc@1, %)")
    assert [row.cells[0] for row in table.rows] == [
        *("random_init (two-phase)", "cgan_color", "Trivial predictors"),
        *("class prior", "constant (nothing present)", "all background"),
    ]
    assert table.rows[2].heading
    cgan = table.rows[1]
    assert cgan.cells[1] == "-" and cgan.cells[2].endswith("(n=3)")
    assert float(cgan.cells[2].split()[0]) == pytest.approx(51, abs=0.1)
    assert cgan.bold == frozenset({2}) and table.rows[0].bold == frozenset()


def test_differences_have_interval_and_corrected_p_and_one_seed_is_called_that() -> None:
    (one,) = boards(three_seeds())
    table = tables.differences(one)
    assert table is not None
    heading, row = table.rows
    assert heading.heading and heading.cells[0] == "Segmentation (miou_voc@1, %)"
    assert row.cells[:2] == ("cgan_color", "random_init (two-phase)")
    assert float(row.cells[2]) == pytest.approx(30, abs=0.1)
    assert row.cells[6:] == ("yes", "3") and 2 in row.bold
    (single,) = boards([make(), make("random_init", value=0.2)])
    found = tables.differences(single)
    assert found is not None and found.rows[1].cells[4:7] == ("-", "-", "one seed")
    (alone,) = boards([make()])
    assert tables.differences(alone) is None


def test_costs_are_of_one_seed_and_an_hour_of_pretraining_buys_points() -> None:
    records = [record.model_copy(update={"tuning": tuning()}) for record in three_seeds()]
    (one,) = boards(records)
    table = tables.costs(one)
    assert table is not None
    row = next(row for row in table.rows if row.cells[0] == "cgan_color")
    assert row.cells[1:4] == ("360", "360", "360")
    assert row.cells[7].endswith("per CPU-hour")  # 30 points for a tenth of an hour
    assert float(row.cells[7].split()[0]) == pytest.approx(300, abs=5)


def test_an_hour_of_pretraining_buys_nothing_that_is_told_where_the_baseline_is_pretrained_too() -> None:
    records = [*three_seeds(), *(make("l1_color", seed, 0.4 + seed / 100) for seed in range(3))]
    (one,) = board.boards(records, reader, baseline="l1_color", resamples=200)
    lines = {line["pretext"]: line for line in csv_files.leaderboard([one]).lines}
    assert lines["cgan_color"]["delta"] == pytest.approx(0.1, abs=0.01) and lines["cgan_color"]["points_per_hour"] is None
    table = tables.costs(one)
    assert table is not None and all(row.heading or row.cells[7] == "-" for row in table.rows)
    (from_random,) = boards(records)
    bought = {line["pretext"]: line["points_per_hour"] for line in csv_files.leaderboard([from_random]).lines}
    assert bought["cgan_color"] == pytest.approx(300, abs=5) and bought["random_init"] is None


def test_columns_say_which_values_are_shares_and_which_per_cent(bench: Callable) -> None:
    listed = {tuple(line.split("\t")[:2]): line.split("\t")[2] for line in bench("list", "columns").out.splitlines()[1:]}
    shares = {name for (file, name), text in listed.items() if "a share of 1, not per cent" in text}
    assert shares == {
        *(
            "value",
            "low",
            "high",
            "std",
            "values",
            "sensitivity",
            "delta",
            "delta_low",
            "delta_high",
            "labels",
            "best",
            "first",
            "rms",
        ),
        "value_on_test",
    }
    assert all("not per cent" in text for (_, name), text in listed.items() if name in shares)
    assert {name for (_, name), text in listed.items() if text.endswith("(per cent)")} == {"points_per_hour"}
    scored = csv_files.leaderboard(boards(three_seeds())).lines[-1]
    assert all(0 <= scored[name] <= 1 for name in ("value", "low", "high", "std", "delta", "delta_low", "delta_high", "labels"))


def test_a_gpus_hours_and_joules_are_called_so() -> None:
    cost = COST.model_copy(update={"device": "cuda", "joules": 3000.0})
    trunks = [one.pretrain.model_copy(update={"cost": cost}) for one in three_seeds()]
    records = [one.model_copy(update={"cost": cost, "pretrain": trunk}) for one, trunk in zip(three_seeds(), trunks, strict=True)]
    (one,) = boards(records)
    table = tables.costs(one)
    assert table is not None
    row = next(row for row in table.rows if row.cells[0] == "cgan_color")
    assert row.cells[7].endswith("per GPU-hour") and row.cells[6] == "6.0"  # kJ, of trunk and run


def test_searches_say_what_was_tried_and_how_much_depends_on_it() -> None:
    (one,) = boards([make(tuning=tuning()), make("random_init", tuning=tuning(study="other")), make("l1_color")])
    table = tables.searches(one)
    assert table is not None and len(table.rows) == 3
    assert table.rows[1].cells[1:-1] == ("3 complete", "phase-1 1.00e-02, phase-2 1.00e-04", "30.00", "30.00", "10.00")
    assert table.rows[1].cells[-1] == "--space head=0.0001:0.1"  # phase 1 ended at the upper end, phase 2 in the middle
    (without,) = boards([make()])
    assert tables.searches(without) is None


@pytest.mark.parametrize(
    ("best", "wider"),
    [
        ((1e-3, 1e-4), {}),
        ((1e-4, 1e-4), {"head": (1e-5, 1e-2)}),
        ((1.5e-4, 9e-4), {"head": (1e-5, 1e-2), "all": (1e-5, 1e-2)}),
        ((9e-3, 1e-5), {"head": (1e-4, 1e-1), "all": (1e-6, 1e-3)}),
    ],
)
def test_a_search_that_ended_at_the_edge_of_its_range_names_a_wider_one(
    best: tuple[float, float], wider: dict[str, tuple[float, float]]
) -> None:
    made = tuning(best=0.3).model_copy(update={"best": {"phase-1": best[0], "phase-2": best[1]}})
    assert made.wider(["head", "all"]) == {kind: pytest.approx(limits) for kind, limits in wider.items()}
    fixed = made.model_copy(update={"space": {"phase-1": (best[0], best[0]), "phase-2": (1e-5, 1e-3)}})
    assert "head" not in fixed.wider(["head", "all"])
    shared = {"phase-1": (1e-4, 1e-2), "phase-2": (1e-4, 1e-2)}
    both = made.model_copy(update={"space": shared, "best": {"phase-1": 1e-4, "phase-2": 1e-2}})
    assert both.wider(["all", "all"]) == {"all": pytest.approx((1e-5, 1e-1))}


def test_table_3_has_average_minimum_and_maximum_over_seeds_and_trivial_answers() -> None:
    (table,) = tables.table3([make(seed=seed) for seed in range(3)])
    assert [row.cells for row in table.rows] == [
        ("cgan_color", "psnr", "21.000", "8.000", "32.000", "3"),
        ("Baselines, which learn nothing", "", "", "", "", ""),
        ("grey image", "psnr", "22.000", "8.000", "32.000", "-"),
    ]


def test_table_3_keeps_each_tasks_own_chance_and_names_what_tasks_have_in_common_once() -> None:
    summary = {"min": 0.0, "max": 1.0, "not_finite": 0.0}
    records = []
    for name, chance in (("rotation", 0.25), ("jigsaw", 0.01)):
        one = make(name)
        own = {"accuracy": {"average": 0.5, **summary}}
        of_all = {"chance": {"accuracy": {"average": chance, **summary}}, "grey image": {"psnr": {"average": 22.0, **summary}}}
        pretrain = one.pretrain.model_copy(update={"evaluation": own, "baselines": of_all})
        records.append(one.model_copy(update={"pretrain": pretrain}))
    (table,) = tables.table3(records)
    found = {(row.cells[0], row.cells[2]) for row in table.rows if row.cells[5] == "-"}
    assert found == {("chance (rotation)", "0.250"), ("chance (jigsaw)", "0.010"), ("grey image", "22.000")}


def test_the_leaderboard_is_read_back_by_pandas_as_it_was() -> None:
    sheet = csv_files.leaderboard(boards([*three_seeds(), make("l1_color", value=None), make("l1_color", tuning=tuning())]))
    back = pd.read_csv(io.StringIO(sheets.csv_text(sheet)))
    assert list(back.columns) == list(csv_files.SCHEMAS["leaderboard.csv"])
    by_pretext = back[~back["tuned"]].set_index("pretext")
    assert by_pretext.loc["cgan_color", "value"] == pytest.approx(0.51, abs=0.002)
    assert by_pretext.loc["cgan_color", "delta"] == pytest.approx(0.3, abs=0.002)
    assert by_pretext.loc["cgan_color", "low"] < by_pretext.loc["cgan_color", "value"] < by_pretext.loc["cgan_color", "high"]
    assert pd.isna(by_pretext.loc["l1_color", "value"]) and by_pretext.loc["l1_color", "n_seeds"] == 0
    assert json.loads(by_pretext.loc["cgan_color", "seeds"]) == [0, 1, 2]
    assert len(json.loads(by_pretext.loc["cgan_color", "run_ids"])) == 3
    tuned = back[back["tuned"]].iloc[0]
    assert tuned["sensitivity"] == pytest.approx(0.1) and "8 trials" in tuned["tuning"]


def test_given_rates_are_not_called_tuned() -> None:
    given = make(value=0.6, rates=(0.001, 0.0005))
    (line,) = csv_files.leaderboard(boards([given])).lines
    assert not line["tuned"] and line["tuning"] == "rates given: 0.001, 0.0005"


def test_runs_and_classes_have_a_line_each() -> None:
    runs = pd.read_csv(io.StringIO(sheets.csv_text(csv_files.per_run(three_seeds()))))
    assert len(runs) == 6 and set(runs["metric"]) == {"miou_voc@1"} and runs["value"].max() == 0.52
    classes = pd.read_csv(io.StringIO(sheets.csv_text(csv_files.per_class(three_seeds()))))
    assert len(classes) == 24 and classes[classes["class"] == "dog"]["value"].isna().all()


def test_hostile_names_survive_markdown_latex_and_csv() -> None:
    made = [tables.table4(one) for one in boards([make(HOSTILE, data=HOSTILE, protocol="=cmd()")])]
    markdown, latex = tables.markdown(made), to_latex(made)
    assert "a_b%\\|[red]\\\\x&{}$#\\~^\\<script>alert(1)\\</script> =1+1  [2J![i]\\(http://x)\\`\\*" in markdown
    assert "<script" not in markdown.replace("\\<script", "")
    assert (
        r"a\_b\%\textbar{}{[}red{]}\textbackslash{}x\&\{\}\$\#\textasciitilde{}\textasciicircum{}\textless{}script\textgreater{}"
        in latex
    )
    assert latex.count(r"\begin{tabularx}") == 1
    text = sheets.csv_text(csv_files.leaderboard(boards([make(HOSTILE, protocol="=cmd()"), make("@x")])))
    back = pd.read_csv(io.StringIO(text))
    assert "'=cmd()" in set(back["protocol"])
    assert sorted(back["pretext"]) == sorted([printable(HOSTILE), "'@x"])
    for made_text in (markdown, latex, text):
        assert not any(character in made_text for character in "\r\x1b")
    classes = make(per_class={"miou_voc@1": {"cat\rdog": 0.5, "null": 0.1, "=x": 0.2}})
    back = pd.read_csv(io.StringIO(sheets.csv_text(csv_files.per_class([classes]))))
    assert back["class"].tolist() == ["cat dog", "'null", "'=x"] and back["value"].tolist() == [0.5, 0.1, 0.2]


def test_published_numbers_have_sources_and_never_stand_in_our_columns() -> None:
    found = published.published()
    assert all(one.source and one.url.startswith("https://") and one.verified in ("yes", "as cited", "no") for one in found)
    papers = {(one.method, one.metric): one.value for one in found if one.printed_in == "Table 4"}
    assert papers == {
        ("Baseline", "acc_keras@1"): "47.18", ("Baseline", "miou_paper@1"): "44.66",
        ("Colorization pre-training", "acc_keras@1"): "52.83", ("Colorization pre-training", "miou_paper@1"): "47.07",
    }  # fmt: skip
    shown = published.published_tables()
    assert sum(len(table.rows) for table in shown) == len(found) and len(shown) > 3
    assert all("do not compare them" in table.notes[1] for table in shown)
    assert all("SwAV" not in cell for one in boards(three_seeds()) for row in tables.table4(one).rows for cell in row.cells)


def test_ours_stand_beside_the_papers_numbers_with_what_deviates() -> None:
    records = [make(metrics={"miou_paper@1": 0.4}, value=0.4)]
    records.append(make(metrics={"miou_paper@1": 0.3}, pretext="random_init", schedule="one-phase"))
    table = published.paper_table(boards(records))
    lines = [row.cells for row in table.rows]
    ours = next(line for line in lines if line[0] == "cgan_color")
    assert lines[lines.index(ours) - 1][:3] == ("Colorization pre-training (the paper)", "miou_paper@1", "47.07 %")
    assert ours[4] == "note 2"
    common, first, second, *_ = table.notes
    for text in ("data voc (paper voc2012)", "trunk unet:depth=6,width=8 (paper", "size 64 (paper 256)"):
        assert text in common and text not in first + second
    assert "Note 2: voc, protocol paper" in second and "phases head 1 epoch at 0.001" in second


def test_the_papers_settings_are_those_of_the_protocol_paper() -> None:
    from bench.registry import load

    for task, settings in published.SETTINGS.items():
        protocol = load("downstreams", task).protocols["paper"].model_dump(mode="json")
        assert {name: protocol[name] for name in settings} == settings
        for (other, schedule), phases in published.PHASES.items():
            if other == task:
                assert [(p["train"], p["epochs"], p["lr"]) for p in protocol["schedules"][schedule]] == phases
    recipe = load("pretexts", "cgan_color").Recipe().model_dump(mode="json")
    assert {name: recipe[name] for name in published.RECIPE} == published.RECIPE


@pytest.mark.parametrize(
    ("settings", "recipe", "text"),
    [
        ({"void": "ignore"}, {}, "void ignore (paper background)"),
        ({"fit": ["train", "val"]}, {}, "fit"),
        ({"augmentation": "scale"}, {}, "augmentation scale"),
        ({"statistics": "batch"}, {}, "statistics batch"),
        ({}, {"l1_weight": 0.0}, "l1_weight 0.0 (paper 100.0)"),
        ({}, {"beta1": 0.9}, "beta1 0.9"),
    ],
)
def test_every_setting_that_deviates_from_the_paper_is_told(settings: dict, recipe: dict, text: str) -> None:
    settings, recipe = {**published.SETTINGS["voc_seg"], **settings}, {**published.RECIPE, **recipe}
    record = make(metrics={"miou_paper@1": 0.4}, value=0.4, settings=settings, recipe=recipe)
    assert any(text in note for note in published.paper_table(boards([record])).notes)


def test_rows_of_different_precision_are_apart_and_say_so() -> None:
    low = [
        one.model_copy(update={"precision": "bf16", "id": f"{one.id}b"}) for one in three_seeds() if one.pretext == "cgan_color"
    ]
    (alone,) = boards(three_seeds())
    assert "computed in fp32" in alone.notes[0] and all("fp32" not in row.label for row in alone.rows)
    (board,) = boards([*three_seeds(), *low])
    labels = [row.label for row in board.rows]
    assert sum("bf16" in label for label in labels) == 1 and sum("fp32" in label for label in labels) == 2
    assert sorted(csv_files.leaderboard([board]).frame()["precision"]) == ["bf16", "fp32", "fp32"]


def test_two_metrics_of_the_same_rows_agree_or_differ_in_order() -> None:
    def row(pretext: str, seed: int, first: float, second: float | None) -> Record:
        return make(pretext, seed, first, metrics={"miou_voc@1": first, "pixel_acc@1": second})

    records = [row("a", 0, 0.1, 0.5), row("a", 1, 0.3, 0.7), row("b", 0, 0.3, 0.5), row("c", 0, 0.4, 0.9), row("d", 0, 0.5, None)]

    def main_alone(one: Record) -> Answers:
        return reader(one.model_copy(update={"metrics": {"miou_voc@1": one.metrics["miou_voc@1"]}}))

    sheet = csv_files.agreement(board.boards(records, main_alone, resamples=10))
    (line,) = sheet.lines
    assert (line["metric"], line["other"], line["rows"]) == ("miou_voc@1", "pixel_acc@1", 3)  # d has no other
    assert (line["alike"], line["differently"]) == (2, 1) and line["tau"] == pytest.approx(1 / 3)
    assert not csv_files.agreement(board.boards(records[:2], main_alone, resamples=10)).lines  # one row has no order
    by_hand = pd.read_csv(io.StringIO(sheets.csv_text(sheet)))
    assert by_hand.loc[0, "tau"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_pairs_is_kendalls_tau(seed: int) -> None:
    from scipy.stats import kendalltau

    pairs = np.random.default_rng(seed).integers(0, 6, (8, 2)) / 10
    assert order([(float(one), float(other)) for one, other in pairs]).tau == pytest.approx(kendalltau(*pairs.T).statistic)
