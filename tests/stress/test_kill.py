"""A few kills and a few failing writes of what `make soak` does in hundreds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stress.kill import kill_anywhere
from tests.stress.server import Server, serving
from tests.stress.writes import fail_each_write

KILLS, ONE_IN = 10, 97


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as one:
        yield one


def test_commands_that_are_killed_anywhere_end_as_if_nothing_had_been(server: Server, tmp_path: Path) -> None:
    assert list(kill_anywhere(tmp_path, server, KILLS, seed=1)) == []


def test_a_write_that_fails_leaves_a_valid_store_and_the_same_command_ends(server: Server, tmp_path: Path) -> None:
    tried = 0

    def chosen(name: str, mode: str, number: int) -> bool:
        nonlocal tried
        tried += 1
        return tried % ONE_IN == 0

    assert list(fail_each_write(tmp_path, server, chosen)) == []
    assert tried > 5 * ONE_IN
