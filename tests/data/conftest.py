"""The server of the tests of downloads."""

from collections.abc import Iterator

import pytest

from tests.data.server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.endless = False
    made.http.shutdown()
    made.http.server_close()
