"""Tables say what the records say, and survive hostile names."""

import io
from typing import Any

import pandas as pd
import pytest

from results import tables
from results.record import Cost, DataFacts, PretrainRecord, Record

COST = Cost(seconds=1.0, images=10, peak_memory=100)


def make(
    pretext: str = "cgan_color", seed: int = 0, value: float | None = 0.5, downstream: str = "voc_seg", **changes: Any
) -> Record:
    data = DataFacts(name=changes.pop("data", "voc"), synthetic=False, fingerprint="f" * 64, split="s" * 64, counts={"test": 3})
    metric = "miou_voc" if downstream == "voc_seg" else "acc_keras"
    recipe = {"lr": changes.pop("lr", 0.1), "epochs": 2}
    job = {"recipe": recipe, "data": "d" * 64, "split": "s" * 64, "version": 1, "source": "", "size": 64}
    report = {"psnr": {"average": 20.0 + seed, "min": 10.0 - seed, "max": 30.0 + seed}}
    pretrain = PretrainRecord(
        id=f"{pretext}-{seed}", job=job, data=data, report=report, report_images=4, cost=COST, weights="w", provenance={}
    )
    facts: dict[str, Any] = {
        "id": f"{pretext}-{downstream}-{seed}-{value}",
        "job": {"settings": {"metrics": [metric]}, "version": 1, "source": "", "size": 64, "split": "s"}, "pretext": pretext,
        "schedule": "two-phase", "downstream": downstream, "title": {"voc_seg": "Segmentation"}.get(downstream, "Classification"),
        "protocol": "paper", "trunk": "unet:depth=6,width=8", "size": 64, "seed": seed, "part": "test", "data": data,
        "metrics": {metric: value}, "cost": COST, "pretrain": pretrain, "predictions": "p", "provenance": {},
    }  # fmt: skip
    return Record(**{**facts, **changes})


def held(record: Record, metric: str) -> float | None:
    return record.metrics[metric]


def test_seeds_become_mean_and_deviation_and_missing_cells_show() -> None:
    records = [make(seed=seed, value=value) for seed, value in enumerate((0.2, 0.3, 0.4))]
    records += [make("random_init", value=0.1), make("random_init", value=0.7, downstream="voc_cls")]
    (table,) = tables.table4(records, held)
    assert table.columns == ("Model Initialization", "Classification (acc_keras, %)", "Segmentation (miou_voc, %)")
    assert table.rows == (
        ("random_init (two-phase)", "70.00 (n=1)", "10.00 (n=1)"),
        ("cgan_color", "-", "30.00 ± 10.00 (n=3)"),
    )


@pytest.mark.parametrize("change", [{"protocol": "standard"}, {"data": "other"}, {"trunk": "timm:resnet18"}, {"part": "val"}])
def test_rows_of_another_protocol_data_or_trunk_stand_in_another_table(change: dict[str, str]) -> None:
    assert len(tables.table4([make(), make(**change)], held)) == 2


def test_another_recipe_is_another_row_and_says_what_differs() -> None:
    (table,) = tables.table4([make(), make(lr=0.2, value=0.6)], held)
    assert [row[0] for row in table.rows] == ["cgan_color (lr=0.1)", "cgan_color (lr=0.2)"]


@pytest.mark.parametrize("change", [{"version": 2}, {"split": "t" * 64}, {"size": 32}, {"source": "0123"}])
def test_what_is_not_a_seed_is_never_averaged(change: dict[str, Any]) -> None:
    first, second = make(value=0.2), make(value=0.6)
    second = second.model_copy(update={"job": {**second.job, **change}})
    (table,) = tables.table4([first, second], held)
    assert len(table.columns) == 3 and all("variant" in column for column in table.columns[1:])
    assert sorted(table.rows[0][1:]) == ["20.00 (n=1)", "60.00 (n=1)"]
    assert tables.leaderboard([first, second])["n_seeds"].tolist() == [1, 1]


def test_an_undefined_score_is_not_a_missing_one() -> None:
    (table,) = tables.table4([make(value=None)], held)
    assert table.rows[0][1] == "undefined"


def test_table_3_has_average_minimum_and_maximum_over_seeds() -> None:
    (table,) = tables.table3([make(seed=seed) for seed in range(3)])
    assert table.rows == (("cgan_color", "psnr", "21.000", "8.000", "32.000", "3"),)


def test_the_leaderboard_is_read_back_by_pandas_as_it_was() -> None:
    frame = tables.leaderboard([make(seed=seed, value=seed / 7) for seed in range(3)] + [make("random_init", value=None)])
    back = pd.read_csv(io.StringIO(frame.to_csv(index=False)))
    assert list(back.columns) == tables.LEADERBOARD
    assert back["mean"].tolist()[1] == pytest.approx(1 / 7)
    assert back["n_seeds"].tolist() == [1, 3]
    assert back["mean"].isna().tolist() == [True, False]


def test_hostile_names_survive_markdown_and_latex() -> None:
    made = tables.table4([make("a_b%|[red]\\x&{}", data="<script>")], held)
    markdown, latex = tables.markdown(made), tables.latex(made)
    assert "a_b%\\|[red]\\\\x&{}" in markdown
    assert r"a\_b\%|[red]\textbackslash{}x\&\{\}" in latex
    assert r"\textless{}script\textgreater{}" in latex
    assert latex.count(r"\begin{tabular}") == 1
