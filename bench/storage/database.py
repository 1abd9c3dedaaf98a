"""Optuna's storage in a database: waits while another process has locked it, and says what is wrong in one sentence."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from bench.errors import BenchError, StorageError, UsageError
from bench.text import Echo

T = TypeVar("T")
WAIT = 60.0
"""Seconds to wait for a database that another process has locked."""
PAUSE = 0.2
"""Seconds between two attempts, in addition to the second that SQLite waits itself."""
PASSING = ("is locked", "already exists")
"""Parts of errors that pass: a locked SQLite file, and a table that another process has just made."""


def open_database(url: str, echo: Echo, check: Callable[[], object]) -> Database:
    """Return Optuna's storage in a database. `check` is called while the storage waits for a lock, and may raise to give up.

    UsageError for a URL that names no kind of database; StorageError for a database that does not work, now or later.
    """
    try:
        return Database(url, echo, check)
    except BenchError:
        raise
    except ArgumentError as error:  # also for a kind of database that does not exist
        raise UsageError(f"--storage {without_secrets(url)}: {_reason(error)}.") from error
    except Exception as error:  # drivers and alembic have no common base with SQLAlchemy
        raise StorageError(f"--storage {without_secrets(url)}: {_reason(error)}.") from error


def without_secrets(url: str) -> str:
    """Return the kind of a database's URL alone, without names, passwords and addresses."""
    return f"{url.partition(':')[0]}://..."


def _reason(error: BaseException) -> str:
    said = str(getattr(error, "orig", None) or error).split("(Background")[0]
    return " ".join(said.split())[:200].rstrip(".") or type(error).__name__


def _patient(name: str) -> Callable[..., Any]:
    """Return a method that calls the method of this name of a `Database`'s storage, patiently."""

    def call(self: Database, *arguments: Any, **named: Any) -> Any:
        try:
            return self.patiently(lambda: getattr(self.storage, name)(*arguments, **named))
        except KeyError as error:
            if name == "get_study_id_from_name":  # how Optuna asks whether there is a study
                raise
            raise StorageError(f"{self.shown}: the search or a trial of it was removed from the database.") from error

    return call


_METHODS = [name for name, method in vars(BaseStorage).items() if callable(method) and not name.startswith("_")]
_Patient: Any = type("_Patient", (), {name: _patient(name) for name in _METHODS})


class Database(_Patient, BaseStorage):  # type: ignore[misc]
    """Optuna's storage in a database that other processes may lock.

    Each method is one transaction, so that one which met a lock has changed nothing and is tried again.
    """

    def __init__(self, url: str, echo: Echo, check: Callable[[], object]) -> None:
        self.shown, self.echo, self.check = f"--storage {without_secrets(url)}", echo, check
        is_sqlite = make_url(url).get_backend_name() == "sqlite"
        options = {"connect_args": {"timeout": 1.0}} if is_sqlite else {}
        if is_sqlite:
            self.patiently(lambda: self._check_tables(url, options))
        self.storage = self.patiently(lambda: RDBStorage(url, options))

    def _check_tables(self, url: str, options: dict[str, Any]) -> None:
        """Raise StorageError for an SQLite file of another program, before tables are added to it."""
        engine = create_engine(url, **options)
        try:
            tables = inspect(engine).get_table_names()
        finally:
            engine.dispose()
        strange = [table for table in tables if not table.startswith(("stud", "trial", "version_info"))]
        if strange and "version_info" not in tables:
            raise StorageError(f"{self.shown}: the file holds tables of other programs ({', '.join(strange[:3])}); name another.")

    def patiently(self, work: Callable[[], T]) -> T:
        """Return `work()`, tried again while another process has locked the database; StorageError for all other errors."""
        until, told = time.monotonic() + WAIT, False
        while True:
            try:
                return work()
            except ArgumentError:
                raise
            except (StorageInternalError, SQLAlchemyError) as error:
                reason = _reason(error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error)
                if not any(part in reason for part in PASSING):
                    raise StorageError(f"{self.shown}: {reason}.") from error
                if time.monotonic() > until:
                    raise StorageError(
                        f"{self.shown}: {reason}, and was for {WAIT:.0f} s; end the process that holds it, then run again."
                    ) from error
            if not told:
                self.echo("waiting for the database of --storage, which another process has locked")
                told = True
            self.check()
            time.sleep(PAUSE)
