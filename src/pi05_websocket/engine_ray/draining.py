# SPDX-License-Identifier: Apache-2.0
"""Whether this ingress replica is being replaced: Ray tells HAProxy, and nobody else.

Ray lets a replica that it replaces end its sockets by themselves, and cuts them when its time is over; the
application is told nothing. The replica's own health page says so, to HAProxy and to whoever asks it: this asks
four times a second. Ray stops listening a few seconds later, and the robots have to have heard it by then.

Where that page is cannot be seen from a robot's socket: while HAProxy knows no ingress replica, it leads robots
through a proxy of Ray's in another process, and they stay there. So this process is asked where it listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterable
from pathlib import Path

__all__ = ["listening", "until_replaced"]

_EVERY_S = 0.25
_TIMEOUT_S = 1.0
_REQUEST = b"GET /-/healthz HTTP/1.1\r\nHost: ingress\r\nConnection: close\r\n\r\n"
_LISTEN = "0A"
"""A socket's state in Linux's table."""


async def until_replaced(ports: range) -> None:
    """Wait until the replica in this process is draining, or no longer listens where it did.

    Args:
        ports: Where Ray lets its ingress replicas listen; this process listens at one of them.
    """
    page: tuple[str, int] | None = None
    while True:
        if page is None:
            page = next((each for each in listening() if each[1] in ports), None)
        elif await _is_draining(*page):
            return
        await asyncio.sleep(_EVERY_S)


def listening(pid: str = "self") -> list[tuple[str, int]]:
    """Return the addresses at which a process listens for TCP, as one connects to them from this machine."""
    inodes = set(_sockets(pid))
    found = []
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
            found += [
                _address(fields[1], family)
                for fields in map(str.split, lines)
                if fields[3] == _LISTEN and fields[9] in inodes
            ]
    return found


def _sockets(pid: str) -> Iterable[str]:
    for each in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            target = os.readlink(f"/proc/{pid}/fd/{each}")
            if target.startswith("socket:["):
                yield target[8:-1]


def _address(said: str, family: socket.AddressFamily) -> tuple[str, int]:
    """Read an address of Linux's table: words of four bytes in the machine's order, and a port."""
    words, port = said.split(":")
    address = b"".join(
        int(words[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(words), 8)
    )
    host = socket.inet_ntop(family, address)
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return everywhere.get(host, host), int(port, 16)


async def _is_draining(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_REQUEST)
                return b"DRAINING" in await reader.read()
            finally:
                writer.close()
    except ConnectionRefusedError:
        return True  # it listens no more
    except (OSError, TimeoutError):
        return False
