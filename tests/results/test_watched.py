"""The curves of probes during pretraining: what a report shows of them."""

from bench.selection import Watched
from results import board, watched
from tests.results.made import make, read


def boards(epochs: int) -> list[board.Board]:
    """Return the board of a random trunk and of one that was watched, with two runs on it."""
    values = [None, 0.2, 0.3][:epochs]
    seen = tuple(
        Watched(epoch=n, probe="knn", task="voc_cls", metric="map_voc@1", value=value, choice={"level": n, "k": 5})
        for n, value in enumerate(values, start=1)
    )
    runs = [make(seed=seed) for seed in (0, 1)]
    runs = [run.model_copy(update={"pretrain": run.pretrain.model_copy(update={"watched": seen})}) for run in runs]
    return board.boards([make("random_init"), *runs], read)


def test_each_trunk_has_a_line_for_each_epoch_once() -> None:
    made = boards(3)
    found = list(watched.seen(made))
    assert [(one.row.pretext, one.pretrain.job.seed, one.watched.epoch) for one in found] == [
        ("cgan_color", seed, epoch) for seed in (0, 1) for epoch in (1, 2, 3)
    ]
    table = watched.table(made[0], found)
    assert table is not None
    assert [line.cells[2:5] for line in table.rows[:2]] == [
        ("1", "kNN, map_voc@1", "undefined"),
        ("2", "kNN, map_voc@1", "20.00"),
    ]
    assert table.rows[1].cells[5] == "level 2, k 5"


def test_there_is_no_table_where_nothing_was_watched() -> None:
    made = boards(0)
    assert list(watched.seen(made)) == [] and watched.table(made[0], []) is None
