"""On the way out: a signal that comes when all is said ends the process, and nobody sees a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SENDS = """
import atexit, os, signal
import bench.__main__ as script
atexit.register(os.kill, os.getpid(), signal.{name})
script.main()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("command", [("list", "trunks"), ("list", "nothing")])
def test_a_signal_while_python_ends_leaves_no_traceback(name: str, command: tuple[str, ...]) -> None:
    words = [sys.executable, "-c", SENDS.format(name=name), *command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr and "_Stopped" not in done.stderr
    assert done.returncode == -getattr(signal, name)
    assert "unet" in done.stdout if command[1] == "trunks" else "unknown list" in done.stderr
