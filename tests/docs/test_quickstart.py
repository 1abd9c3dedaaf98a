"""The notebook runs as it stands there, shows few lines, and goes on after Ctrl-C; so does a script that calls `bench.run`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.docs.test_docs import ROOT

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
jupyter_client = pytest.importorskip("jupyter_client")
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")]

LONG = """
import bench

def call():
    return bench.run(pretext="l1_color", downstream="voc_cls", schedule="frozen", threads=1, device="cpu", protocol="demo",
                     trunk="unet:depth=5,width=8", size=32, set={{"recipe.epochs": {epochs}, "recipe.batch_size": 8}},
                     data={data!r}, pretrain_data={unlabelled!r}, out={out!r})
"""


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def shown(cell: Any) -> str:
    """Return the text of a cell's outputs."""
    return "\n".join(str(one.get("text") or one.get("data", {}).get("text/plain", "")) for one in cell.outputs)


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


def test_the_notebook_runs_and_shows_few_lines(tmp_path: Path) -> None:
    """Without ipywidgets, rich warned at every step."""
    notebook = nbformat.read(NOTEBOOK, 4)
    nbclient.NotebookClient(notebook, timeout=400, resources={"metadata": {"path": str(tmp_path)}}).execute()
    told = [shown(cell) for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(text.count("\n") for text in told) < 120 and not [text for text in told if 'ipywidgets" for' in text]
    assert "[2/2] l1_color-voc_cls-" in told[1] and "256/256" in told[1]  # the lines and the bar
    assert "(4, 64)" in told and "mine" in told[-1]


def long_run(drawn: dict[str, Path], out: Path, epochs: int) -> str:
    return LONG.format(epochs=epochs, data=str(drawn["demo"]), unlabelled=str(drawn["demo_unlabelled"]), out=str(out))


def test_a_script_makes_a_checkpoint_at_ctrl_c_and_the_same_call_goes_on(drawn: dict[str, Path], tmp_path: Path) -> None:
    out, path = tmp_path / "runs", tmp_path / "script.py"
    path.write_text(long_run(drawn, out, 300) + "\nprint('LINES', len(call()))\n")
    process = subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 2/300" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT and "KeyboardInterrupt: stopped; the same call goes on from here" in err, err
    assert list((out / "work").glob("*/*")) and not list((out / "runs").glob("*/record.json"))
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "goes on from step" in done.stdout and "LINES 1" in done.stdout, done.stderr


def test_a_script_that_is_terminated_leaves_with_143(drawn: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(long_run(drawn, tmp_path / "runs", 300) + "\ncall()\n")
    process = subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 2/300" in line:
            break
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143 and list((tmp_path / "runs" / "work").glob("*/*"))


def test_a_kernel_that_is_interrupted_lives_on_and_the_same_cell_goes_on(drawn: dict[str, Path], tmp_path: Path) -> None:
    """A wrong call is one sentence there, and no page of the program's own lines."""
    out = tmp_path / "runs"
    manager, client = jupyter_client.manager.start_new_kernel(cwd=str(tmp_path))
    try:
        client.execute_interactive(long_run(drawn, out, 300), timeout=60)
        for _ in range(2):
            asked = client.execute("call()", stop_on_error=False)  # after an error a kernel may abort what is sent at once
            until(lambda: list((out / "locks").glob("*")), 60)
            time.sleep(4)
            manager.interrupt_kernel()
            reply = reply_to(client, asked)
            assert reply["status"] == "error" and reply["ename"] == "KeyboardInterrupt", reply
            assert list((out / "work").glob("*/*")) and manager.is_alive()
        client.execute_interactive(long_run(drawn, out, 300).replace("_color", "_clor"), timeout=60)
        reply = reply_to(client, client.execute("call()"))
        assert reply["ename"] == "UsageError" and reply["traceback"] == [f"UsageError: {reply['evalue']}"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def until(found: Callable[[], object], seconds: float) -> None:
    """Wait until something is found."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "nothing was found in time"
        time.sleep(0.1)


def reply_to(client: Any, asked: str) -> dict[str, Any]:
    """Return what the kernel replies to a cell."""
    while True:
        message = client.get_shell_msg(timeout=120)
        if message["parent_header"].get("msg_id") == asked:
            return dict(message["content"])
