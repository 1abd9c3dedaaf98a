"""What failed is noted with its reason, once for all workers of a launch, and forgotten when it is begun again."""

from pathlib import Path

import pytest

from bench.errors import DataError, Diverged, Interrupted, OutOfMemory, StorageError
from bench.experiment import failures
from bench.experiment.failures import FailedBefore
from bench.storage import launched
from bench.storage.locks import Busy


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(launched.LAUNCH, str(tmp_path / "launches" / "one"))
    monkeypatch.setenv(launched.WORKER, "3")


def fail(out: Path, error: BaseException, identity: str = "a") -> None:
    with failures.noted(identity, out):
        raise error


def test_outside_of_a_launch_a_failure_is_noted_and_tried_again(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(DataError):
            fail(tmp_path, DataError("the image is broken."))
        found = failures.find("a", tmp_path)
        assert found is not None and (found.reason, found.launch, found.worker) == ("the image is broken.", "", None)
    with failures.noted("a", tmp_path):
        assert failures.find("a", tmp_path) is None, "it is begun again"
    assert failures.find("a", tmp_path) is None


@pytest.mark.usefixtures("worker")
def test_in_a_launch_what_failed_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError):
        fail(tmp_path, DataError("the image is broken."))
    monkeypatch.setenv(launched.WORKER, "4")
    with pytest.raises(FailedBefore, match="the image is broken"):
        fail(tmp_path, AssertionError("it was tried"))
    found = failures.find("a", tmp_path)
    assert found is not None and (found.launch, found.worker) == ("one", 3), "the first failure stays"
    assert found.log.endswith("launches/one/worker-3.log")
    monkeypatch.setenv(launched.LAUNCH, str(tmp_path / "launches" / "two"))
    with failures.noted("a", tmp_path):
        pass
    assert failures.find("a", tmp_path) is None, "another launch tries it"


@pytest.mark.usefixtures("worker")
def test_a_loss_that_was_not_a_number_stays_one(tmp_path: Path) -> None:
    error = Diverged("the loss is nan")
    error.images = 17
    with pytest.raises(Diverged):
        fail(tmp_path, error)
    with pytest.raises(Diverged, match="the loss is nan") as told:
        failures.check("a", tmp_path)
    assert told.value.images == 17


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    "error",
    [Busy(), Interrupted(15), StorageError("the database is down."), OutOfMemory("."), MemoryError(), KeyboardInterrupt()],
)
def test_what_is_no_failure_of_the_work_is_not_noted(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        fail(tmp_path, error)
    assert failures.find("a", tmp_path) is None


@pytest.mark.usefixtures("worker")
def test_a_damaged_note_and_a_disk_that_takes_none_hide_no_error(tmp_path: Path) -> None:
    path = failures.path_of("a", tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert failures.find("a", tmp_path) is None
    with pytest.raises(DataError, match="broken"):
        fail(tmp_path, DataError("broken"))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="broken"):
        fail(tmp_path / "file", DataError("broken"))
