"""The network: nobody uses it unasked, and nobody reaches another machine while it is off."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.storage import offline

pytestmark = pytest.mark.integration

FORBIDDING = """
import os, socket, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"):
        if arguments[0].family in (socket.AF_INET, socket.AF_INET6):
            os._exit(99)
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        os._exit(99)

sys.addaudithook(watch)
"""


def python(code: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run some Python in a process of its own, for an audit hook cannot be taken back."""
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(words, env={**os.environ, **variables}, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    "call", ["socket.create_connection(('127.0.0.1', 9))", "socket.socket().bind(('', 0))", "socket.getaddrinfo('a.invalid', 80)"]
)
def test_the_watch_over_sockets_sees_what_it_should(call: str) -> None:
    assert python(FORBIDDING + call).returncode == 99


def test_the_main_job_opens_no_socket(drawn: dict[str, Path], tmp_path: Path) -> None:
    arguments = ["--pretext", "random_init,l1_color", "--downstream", "voc_cls,voc_seg", "--data", drawn["demo"]]
    arguments += ["--pretrain-data", drawn["demo_unlabelled"], "--trunk", "unet:depth=5,width=8", "--size", "32", "--tune", "1"]
    arguments += ["--threads", "1", "--workers", "1", "--device", "cpu", "--protocol", "demo", "--out", tmp_path / "runs"]
    arguments += ["--set", "recipe.epochs=1", "--set", "recipe.batch_size=8", "--set", "protocol.head_width=16"]
    main = "from bench.__main__ import main; sys.argv[0] = 'bench'; main()"
    done = python(FORBIDDING + main, "run", *arguments)
    assert done.returncode == 0, done.stderr
    done = python(FORBIDDING + main, "report", "--out", tmp_path / "runs", "--html")
    assert done.returncode == 0 and "random_init" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("call", "host"),
    [
        ("socket.create_connection(('192.0.2.1', 80), timeout=5)", "192.0.2.1"),
        ("socket.create_connection(('example.invalid', 80), timeout=5)", "example.invalid"),
        ("socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))", "2001:db8::1"),
        ("socket.socket(socket.AF_INET6).connect(('::ffff:192.0.2.1', 80))", "192.0.2.1"),
        ("socket.socket().connect_ex(('192.0.2.1', 80))", "192.0.2.1"),
        ("socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))", "192.0.2.1"),
        ("socket.gethostbyname('localhost.example.invalid')", "localhost.example.invalid"),
        ("urllib.request.urlopen('http://192.0.2.1/', timeout=5)", "192.0.2.1"),
    ],
)
def test_offline_every_way_out_is_refused_by_name(call: str, host: str) -> None:
    done = python(f"import socket, urllib.request; from bench.storage import offline; offline.forbid(); {call}")
    assert done.returncode == 1 and "MachineError: a library asked for a connection to" in done.stderr and host in done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::ffff:127.0.0.1"])
def test_offline_the_machine_may_talk_to_itself(address: str, tmp_path: Path) -> None:
    family = "socket.AF_INET6" if ":" in address else "socket.AF_INET"
    talk = f"""
import socket
from bench.storage import offline
offline.forbid()
server = socket.create_server(("", 0), family={family}, dualstack_ipv6={family} == socket.AF_INET6)
socket.create_connection(({address!r}, server.getsockname()[1]), timeout=30).sendall(b"hello")
assert server.accept()[0].recv(5) == b"hello"
first, second = socket.socketpair()
first.sendall(b"x")
local = socket.socket(socket.AF_UNIX)
local.bind({str(tmp_path / "socket")!r})
local.listen()
socket.socket(socket.AF_UNIX).connect({str(tmp_path / "socket")!r})
"""
    assert (done := python(talk)).returncode == 0, done.stderr


def test_offline_holds_in_the_processes_that_are_started() -> None:
    child = "import os; assert os.environ['PRETEXT_BENCH_OFFLINE'] == '1'"
    start = f"subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    code = f"import subprocess, sys; from bench.storage import offline; offline.forbid(); {start}"
    assert (done := python(code)).returncode == 0, done.stderr


@pytest.mark.parametrize(("value", "forbidden"), [("", False), ("0", False), ("1", True), ("yes", True)])
def test_the_variable_turns_the_network_off(value: str, forbidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(offline.VARIABLE, value)
    assert offline.is_forbidden() is forbidden


@pytest.mark.parametrize("url", ["postgresql://me:secret@192.0.2.1/db", "mysql://db.example.invalid/db"])
def test_offline_a_database_elsewhere_is_refused_and_its_password_not_shown(
    url: str, bench: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("tune", "--pretext", "all", "--downstream", "all", "--trials", "1", "--storage", url, "--out", tmp_path / "runs")
    done = bench("--offline", *arguments)
    assert done.code == 4 and "--offline" in done.err and "secret" not in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize("url", ["", "sqlite:///a.db", "postgresql://localhost/db", "postgresql:///db", "not a url"])
def test_offline_a_database_on_the_machine_is_left_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(offline.VARIABLE, "1")
    offline.check_storage(url)


@pytest.mark.parametrize("option", ["--data", "--pretrain-data"])
@pytest.mark.parametrize("name", ["voc2012", "coco2014"])
@pytest.mark.parametrize("command", ["run", "tune"])
def test_a_known_set_that_is_not_prepared_is_told_before_anything_is_loaded(
    command: str, name: str, option: str, tmp_path: Path
) -> None:
    code = """
import sys
from bench.__main__ import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""
    arguments = ["--pretext", "all", "--downstream", "all", option, name, "--out", tmp_path / "runs"]
    arguments += ["--trials", "2"] if command == "tune" else []
    done = python(code, command, *arguments)
    assert done.returncode == 4 and f"run `bench data prepare {name}` first" in done.stderr and done.stderr.count("\n") == 1


def test_verify_tells_of_a_known_set_that_is_not_prepared(bench: Callable) -> None:
    done = bench("data", "verify", "coco2017")
    assert done.code == 4 and "bench data prepare coco2017" in done.err
