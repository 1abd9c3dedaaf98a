"""Order is a pure function of its keys."""

import numpy as np
import pytest

from bench import seeding


def test_every_epoch_sees_every_image_once_in_another_order() -> None:
    first, second = seeding.permutation(100, 0, 0), seeding.permutation(100, 0, 1)
    assert sorted(first) == sorted(second) == list(range(100))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, seeding.permutation(100, 1, 0))
    assert np.array_equal(first, seeding.permutation(100, 0, 0))


@pytest.mark.parametrize("start", [0, 1, 3, 4, 7, 8, 12])
def test_going_on_from_a_step_gives_the_rest_of_the_batches(start: int) -> None:
    whole = [(epoch, rows.tolist()) for epoch, rows in seeding.batches(14, 4, 0, 3)]
    rest = [(epoch, rows.tolist()) for epoch, rows in seeding.batches(14, 4, 0, 3, start)]
    assert rest == whole[start:]
    assert len(whole) == 3 * seeding.steps_per_epoch(14, 4) == 12


@pytest.mark.parametrize(("count", "steps"), [(0, 0), (1, 0), (2, 1), (4, 1), (5, 1), (6, 2), (8, 2)])
def test_a_last_batch_of_one_image_is_left_out(count: int, steps: int) -> None:
    assert seeding.steps_per_epoch(count, 4) == steps
    assert len(list(seeding.batches(count, 4, 0, 1))) == steps
