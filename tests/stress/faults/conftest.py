"""What must survive what: each test injects one fault for real, into a process or a file, and looks at what is left.

The numbers are those of the list of faults; 23 and 24, downloads and archives, are in `tests/data`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stress.faults.bench import Bench
from tests.stress.scenario import Scene
from tests.stress.server import Server, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as one:
        yield one


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    Scene.draw(folder)
    return folder / "drawn"


@pytest.fixture
def bench(server: Server, drawn: Path, tmp_path: Path) -> Bench:  # type: ignore[override]
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    return Bench(server, tmp_path)


@pytest.fixture(scope="module")
def undisturbed(server: Server, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """Give the weights of the run that most tests disturb."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(drawn, folder, dirs_exist_ok=True)
    whole = Bench(server, folder)
    assert whole.run("l1_color").code == 0
    return whole.weights()
