"""What a table says of test images that a trunk was pretrained on, and of rows that were never checked for them."""

import pytest

from bench.record import Leaks, Overlap, Record
from results import board, leaks, tables
from tests.results.made import boards, make

NONE = "No test image is equal or near to one that was pretrained on."


def found(equal: int = 0, near: int = 0, dropped: int = 0) -> Leaks:
    overlap = Overlap(images=1449, equal=equal, near=near)
    return Leaks(trained=80_000, test=overlap, val=Overlap(images=100, equal=7, near=0), dropped=dropped)


def random_init(seed: int = 0) -> Record:
    one = make("random_init", seed, 0.3, recipe={"epochs": 0})
    return one.model_copy(update={"pretrain": one.pretrain.model_copy(update={"data": None})})


@pytest.mark.parametrize(
    ("records", "marked", "said"),
    [
        ([random_init()], False, []),
        ([random_init(), make(leaks=found())], False, [NONE]),
        (
            [random_init(), *(make(seed=seed, leaks=found(26, 1002)) for seed in (0, 1))],
            True,
            ["¶: pretrained on images that it is scored on: cgan_color in Segmentation 1,028 of 1,449 (26 equal, 1,002 near)."],
        ),
        (
            [make(leaks=found(dropped=5))],
            False,
            ["Images dropped from pretraining, since a test image is equal or near: cgan_color 5.", NONE],
        ),
        (
            [make()],
            False,
            ["Not checked for test images among the pretraining images: an earlier version made these rows."],
        ),
        (
            [make(), make("l1_color", leaks=found())],
            False,
            ["Not checked for test images among the pretraining images: an earlier version made some of these rows."],
        ),
    ],
    ids=["nothing is pretrained", "none", "some", "dropped", "not checked", "some not checked"],
)
def test_a_table_says_which_rows_leak(records: list[Record], marked: bool, said: list[str]) -> None:
    (one,) = boards(records)
    cells = [(row.label, column.title, cell) for row in one.rows for column, cell in zip(one.columns, row.cells, strict=True)]
    assert leaks.notes([(row, column, cell.records) for row, column, cell in cells]) == said
    assert set(said) <= {*one.notes}
    for row, _, cell in cells:
        assert (leaks.MARK in cell.marks) == (marked and not row.startswith("random_init"))


def test_every_mark_is_explained_in_every_table_that_has_it() -> None:
    leaking = [make(seed=seed, value=0.5 + seed / 100, leaks=found(26, 1002)) for seed in (0, 1)]
    (one,) = boards([*leaking, *(make("random_init", seed, 0.2 + seed / 100) for seed in (0, 1))])
    for kind in (tables.table4, tables.differences, tables.costs):
        table = kind(one)
        assert table is not None and any(leaks.MARK in cell for row in table.rows for cell in row.cells)
        shown = {mark for mark in board.MARKS if any(mark in cell for row in table.rows for cell in row.cells)}
        assert shown == {mark for mark in board.MARKS if any(note.startswith(f"{mark}:") for note in table.notes)}
