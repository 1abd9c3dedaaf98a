"""Optuna's storage in a database: a lock of another process is waited for, and whatever else goes wrong is one sentence."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from alembic.util.exc import CommandError
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import exc

from bench.errors import BenchError, StorageError, UsageError
from bench.storage import database, files
from bench.storage.database import Database, open_database
from tests.data.made import quiet

Bench = Callable[..., "object"]


def opened(path: Path, echo: Callable[[str], object] = quiet) -> Database:
    return open_database(f"sqlite:///{path}", echo, quiet)


@contextmanager
def locked(path: Path, released: threading.Event) -> Iterator[None]:
    """Lock an SQLite file, as another process does while it writes, until `released` is set or the block ends."""
    holding = threading.Event()

    def hold() -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        holding.set()
        released.wait(60)
        connection.execute("COMMIT")
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    try:
        yield
    finally:
        released.set()
        thread.join()


@pytest.fixture
def until_met(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Give an event that is set when somebody has met a lock and pauses."""
    met = threading.Event()

    def pause(seconds: float) -> None:
        met.set()
        time.sleep(seconds)

    monkeypatch.setattr(database, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pause))
    return met


def test_a_lock_of_another_process_is_waited_for_and_nothing_is_done_twice(tmp_path: Path, until_met: threading.Event) -> None:
    said: list[str] = []
    study = optuna.create_study(storage=opened(tmp_path / "s.db", said.append), study_name="s")
    with locked(tmp_path / "s.db", until_met):
        trial = study.ask()
        trial.set_user_attr("worker", "w")
        study.tell(trial, 0.5)
    assert [(one.number, one.value, one.user_attrs) for one in study.trials] == [(0, 0.5, {"worker": "w"})]
    assert said == ["waiting for the database of --storage, which another process has locked"]
    until_met.clear()
    with locked(tmp_path / "s.db", until_met):
        assert optuna.load_study(storage=opened(tmp_path / "s.db"), study_name="s").trials[0].value == 0.5


def test_a_lock_that_stays_ends_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WAIT", 0.5)
    study = optuna.create_study(storage=opened(tmp_path / "s.db"), study_name="s")
    with locked(tmp_path / "s.db", threading.Event()), pytest.raises(StorageError) as error:
        study.ask()
    assert str(error.value) == (
        "--storage sqlite://...: database is locked, and was for 0 s; end the process that holds it, then run again."
    )
    assert error.value.exit_code == 4


def test_a_signal_ends_the_wait(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def check() -> None:
        raise Stopped

    study = optuna.create_study(storage=open_database(f"sqlite:///{tmp_path / 's.db'}", quiet, check), study_name="s")
    with locked(tmp_path / "s.db", threading.Event()), pytest.raises(Stopped):
        study.ask()


def text(path: Path) -> None:
    path.write_text("no database at all, but a text that is longer than the header of one; " * 4)


def tables(*commands: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        connection = sqlite3.connect(path)
        for command in commands:
            connection.execute(command)
        connection.commit()
        connection.close()

    return write


OTHERS = r"the file holds tables of other programs \({}\); name another"
FOREIGN = {
    "a text": (text, "file is not a database"),
    "another program's": (
        tables("CREATE TABLE songs (name)"),
        OTHERS.format("songs"),
    ),
    "another program's, with a table of a study's name": (
        tables("CREATE TABLE studies (x)", "CREATE TABLE songs (name)"),
        OTHERS.format("songs"),
    ),
    "one of another alembic revision": (
        tables("CREATE TABLE alembic_version (version_num)", "INSERT INTO alembic_version VALUES ('abc')"),
        OTHERS.format("alembic_version"),
    ),
    "a folder": (Path.mkdir, "unable to open database file"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_file_is_refused_in_one_sentence_and_left_as_it_is(tmp_path: Path, what: str) -> None:
    write, reason = FOREIGN[what]
    write(tmp_path / "s.db")
    before = files.sha256(tmp_path / "s.db") if (tmp_path / "s.db").is_file() else ""
    with pytest.raises(StorageError, match=f"^--storage sqlite://...: {reason}.$"):
        opened(tmp_path / "s.db")
    assert not before or files.sha256(tmp_path / "s.db") == before


def test_a_table_that_only_has_the_name_of_optunas_is_refused(tmp_path: Path) -> None:
    tables("CREATE TABLE studies (x)")(tmp_path / "s.db")
    with pytest.raises(StorageError, match=r"^--storage sqlite://...: table studies has no column named study_name\.$"):
        optuna.create_study(storage=opened(tmp_path / "s.db"), study_name="s")


def test_a_search_that_somebody_removes_is_named_as_such(tmp_path: Path) -> None:
    study = optuna.create_study(storage=opened(tmp_path / "s.db"), study_name="s")
    trial = study.ask()
    optuna.delete_study(study_name="s", storage=f"sqlite:///{tmp_path / 's.db'}")
    with pytest.raises(StorageError, match="the search or a trial of it was removed from the database"):
        study.tell(trial, 1.0)
    with pytest.raises(KeyError):  # how Optuna asks whether there is a study of a name
        optuna.load_study(study_name="other", storage=opened(tmp_path / "s.db"))


def caused(cause: Exception) -> StorageInternalError:
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = cause
    return error


BY_DRIVER = [
    kind("SELECT 1", None, sqlite3.Error("the reason"))
    for kind in (
        exc.DBAPIError, exc.OperationalError, exc.DatabaseError, exc.InterfaceError, exc.InternalError, exc.ProgrammingError,
        exc.DataError, exc.IntegrityError, exc.NotSupportedError,
    )
]  # fmt: skip
BY_SQLALCHEMY = [
    kind("the reason")
    for kind in (exc.TimeoutError, exc.InvalidRequestError, exc.PendingRollbackError, exc.ResourceClosedError, exc.NoResultFound)
]


@pytest.mark.parametrize("error", [*BY_DRIVER, *BY_SQLALCHEMY], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("wrap", [lambda error: error, caused], ids=["itself", "wrapped by Optuna"])
def test_whatever_sqlalchemy_raises_while_a_search_runs_is_one_sentence(
    tmp_path: Path, error: Exception, wrap: Callable[[Exception], Exception]
) -> None:
    storage = opened(tmp_path / "s.db")

    def work() -> None:
        raise wrap(error)

    with pytest.raises(StorageError, match=r"^--storage sqlite://...: the reason\.$") as found:
        storage.patiently(work)
    assert found.value.exit_code == 4


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        *((error, StorageError, 4) for error in (*BY_DRIVER, *BY_SQLALCHEMY)),
        (caused(ValueError("the reason")), StorageError, 4),
        (RuntimeError("the reason"), StorageError, 4),  # tables of another version of Optuna
        (CommandError("the reason"), StorageError, 4),
        (AssertionError("the reason"), StorageError, 4),
        (ImportError("the reason"), StorageError, 4),  # no driver
        (OSError("the reason"), StorageError, 4),
        (exc.ArgumentError("the reason"), UsageError, 2),
        (exc.NoSuchModuleError("the reason"), UsageError, 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_whatever_is_raised_when_a_database_is_opened_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[BenchError], code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(RDBStorage, "__init__", fail)
    with pytest.raises(kind, match=r"^--storage sqlite://...: the reason\.$") as found:
        opened(tmp_path / "s.db")
    assert found.value.exit_code == code


ASKED = ("--pretext", "random_init", "--downstream", "voc_cls,voc_seg", "--schedule", "frozen", "--tune", 2)


def test_a_grid_ends_when_its_database_does_not_work(tiny: Bench, tmp_path: Path) -> None:
    text(tmp_path / "s.db")
    done = tiny(*ASKED, "--storage", f"sqlite:///{tmp_path / 's.db'}")
    assert (done.code, done.err.splitlines()[-1]) == (4, "bench: --storage sqlite://...: file is not a database.")
    assert "voc_seg" not in done.out


def test_a_search_goes_on_after_another_process_had_its_database_locked(
    tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until_met: threading.Event
) -> None:
    path, asked = tmp_path / "s.db", (*ASKED[:3], "voc_cls", *ASKED[4:], "--storage", f"sqlite:///{tmp_path / 's.db'}")
    opened(path)
    with locked(path, until_met):
        done = tiny(*asked)
    assert done.code == 0 and done.out.count("waiting for the database of --storage") == 1
    monkeypatch.setattr(database, "WAIT", 0.1)
    with locked(path, threading.Event()):
        done = tiny(*asked, "--seed", 2)
    assert done.code == 4 and "--storage sqlite://...: database is locked, and was for 0 s" in done.err
