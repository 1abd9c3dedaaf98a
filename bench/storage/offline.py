"""The guard of --offline, which forbids the network.

Three things use the network: `bench data prepare NAME` without --root downloads, `--storage URL` reaches a database, and `--log`
reaches the server of wandb or MLflow that the user has. `bench --offline` or $PRETEXT_BENCH_OFFLINE=1 forbids them; wandb then
writes files. An audit hook then also refuses every connection that Python opens to another machine, whichever library asks. Unix
sockets and the machine's own addresses stay allowed.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from typing import Any

from bench.errors import MachineError

VARIABLE = "PRETEXT_BENCH_OFFLINE"
HUB_VARIABLE = "HF_HUB_OFFLINE"
"""With it the hub's client asks its cache alone; without it, the client asks the hub first, and fails when it is refused."""
_BY_ADDRESS = ("socket.connect", "socket.sendto", "socket.sendmsg")
_BY_NAME = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
_guarded = False


def is_forbidden() -> bool:
    """Tell whether the network is forbidden for this process."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


def forbid() -> None:
    """Forbid the network for this process and those that it starts; weights of a model hub are then taken from its cache."""
    global _guarded
    os.environ[VARIABLE] = os.environ[HUB_VARIABLE] = "1"
    if not _guarded:
        _guarded = True
        sys.addaudithook(_refuse)


def check_storage(url: str) -> None:
    """Raise MachineError for a database on another machine when the network is forbidden.

    The audit hook does not see drivers that open connections outside of Python.
    """
    if not (url and is_forbidden()):
        return
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        host = make_url(url).host
    except ArgumentError:
        return  # opening the database will say what is wrong with the URL
    if host and not host.startswith("/") and not _is_here(host):
        raise MachineError(
            f"--storage leads to {host}, but --offline ({VARIABLE}) forbids the network; leave out one of the two."
        )


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not event.startswith("socket.") or not is_forbidden():
        return
    if event in _BY_ADDRESS:
        opened, address = arguments[0], arguments[1]
        if opened.family == socket.AF_UNIX or address is None:  # None: the socket is connected already
            return
        host, shown = (address[0], address) if isinstance(address, tuple) else ("?", address)
    elif event in _BY_NAME:
        host = shown = arguments[0]
    else:
        return
    if not _is_here(host):
        raise MachineError(f"a library asked for a connection to {shown!r}, but --offline ({VARIABLE}) forbids the network.")


def _is_here(host: Any) -> bool:
    """Tell whether a host's name or address is this machine's own; an empty name is."""
    name = host.decode(errors="replace") if isinstance(host, bytes | bytearray) else host
    if name is None or name == "" or name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(str(name).partition("%")[0])
    except ValueError:
        return False
    inner = getattr(address, "ipv4_mapped", None) or address
    return bool(inner.is_loopback or inner.is_unspecified)
