"""`--epochs` and `--set TASK.epochs` spread a number of epochs over the phases of a schedule."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import record
from bench.config import RunConfig
from bench.errors import UsageError
from bench.experiment.resolve import Grid, resolve
from bench.job import scaled
from bench.protocol import Phase


def phases(*epochs: int) -> list[Phase]:
    return [Phase(train="head", epochs=count, lr=0.1) for count in epochs]


@pytest.mark.parametrize(
    ("own", "epochs", "spread"),
    [
        ((12, 4), 6, [4, 2]), ((12, 4), 16, [12, 4]), ((1, 5), 3, [1, 2]), ((5, 45), 3, [1, 2]), ((5, 45), 2, [1, 1]),
        ((1, 5), 12, [2, 10]), ((6,), 3, [3]), ((0, 5), 3, [0, 3]), ((1, 1, 1), 4, [1, 1, 2]), ((12, 4), None, [12, 4]),
        ((1, 1000, 1), 4, [1, 2, 1]),
    ],
)  # fmt: skip
def test_phases_get_their_share_and_at_least_one_epoch(own: tuple[int, ...], epochs: int | None, spread: list[int]) -> None:
    assert [phase.epochs for phase in scaled(phases(*own), epochs)] == spread


def test_a_share_is_never_off_by_an_epoch() -> None:
    for own in ((12, 4), (1, 5), (5, 45), (3, 3, 7)):
        for epochs in range(len(own), 200):
            found = [phase.epochs for phase in scaled(phases(*own), epochs)]
            assert sum(found) == epochs and min(found) >= 1
            exact = [epochs * count / sum(own) for count in own]
            assert all(abs(one - share) < 1 for one, share in zip(found, exact, strict=True) if share >= 1 and min(exact) >= 1)


@pytest.mark.parametrize("own", [(12, 4), (0, 0)])
def test_fewer_epochs_than_phases_are_refused(own: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="takes at least"):
        scaled(phases(*own), 1)


@pytest.fixture
def grid(drawn: dict[str, Path]) -> Callable[..., Grid]:
    def call(**given: Any) -> Grid:
        base = {"pretext": "random_init", "downstream": "voc_seg,voc_cls", "protocol": "small", "data": str(drawn["demo"])}
        return resolve(RunConfig.model_validate({**base, "schedule": "two-phase", **given}), print)

    return call


def test_epochs_are_part_of_the_id_and_of_the_label_and_are_told(grid: Callable[..., Grid]) -> None:
    whole, fewer, one = grid(), grid(epochs=4), grid(set=("voc_seg.epochs=4",))
    assert [job.protocol for job in fewer.jobs] == ["small+epochs=4"] * 2
    assert [job.protocol for job in one.jobs] == ["small+epochs=4", "small"]
    assert one.jobs[0].id == fewer.jobs[0].id != whole.jobs[0].id and one.jobs[1].id == whole.jobs[1].id
    assert [phase.epochs for phase in fewer.jobs[1].phases] == [3, 1]
    assert "voc_cls has 4 epochs: two-phase 3 (the head alone) + 1 (everything)" in fewer.notes and len(one.notes) == 1
    assert whole.notes == []


def test_as_many_epochs_as_a_protocol_has_are_the_same_rows(grid: Callable[..., Grid]) -> None:
    assert [job.id for job in grid(set=("voc_seg.epochs=6", "voc_cls.epochs=16")).jobs] == [job.id for job in grid().jobs]


def test_too_few_epochs_and_contradictions_are_refused(grid: Callable[..., Grid]) -> None:
    with pytest.raises(UsageError, match="voc_seg, two-phase: a schedule of 2 phases takes at least 2 epochs, but got 1"):
        grid(epochs=1)
    with pytest.raises(UsageError, match=r"--epochs and --set voc_seg\.epochs contradict each other"):
        grid(epochs=3, set=("voc_seg.epochs=4",))


def test_a_run_trains_as_many_epochs_and_its_command_makes_it_again(tiny: Callable, bench: Callable, tmp_path: Path) -> None:
    assert tiny("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "two-phase", "--epochs", 3).code == 0
    (one,) = record.read(tmp_path / "runs")
    assert [len(losses) for losses in one.losses] == [1, 2]
    words = bench("show", one.id, "--out", tmp_path / "runs").out.splitlines()[-1].split()
    assert "protocol.epochs=3" in words
    assert f" {one.id} " in bench(*words[1:], "--device", "cpu", "--out", tmp_path / "runs").out
