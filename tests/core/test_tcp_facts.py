# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of TCP connections."""

from __future__ import annotations

import math
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pi05_websocket.tcp_facts import Sent, bytes_received, round_trip_s, sent

SAYS = pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not say")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as near,
    ):
        far, _ = server.accept()
        with far:
            yield near, far


@SAYS
def test_bytes_received_counts_what_came(ends: tuple[socket.socket, socket.socket]) -> None:
    """Whether it was read or not."""
    near, far = ends
    before = bytes_received(far)
    near.sendall(b"seven b")
    far.recv(3)
    assert bytes_received(far) - before == 7


@SAYS
def test_what_waits_for_a_program_that_does_not_read_is_not_in_flight(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """Its kernel has acknowledged all that it has room for: it is there."""
    near, _ = ends
    near.setblocking(False)
    before = sent(near)
    total = sum(iter(lambda: _as_much_as_fits(near), 0))
    while sent(near).in_flight:  # the last segments that it has room for
        pass
    assert 0 < sent(near).acknowledged - before.acknowledged < total


@SAYS
def test_a_round_trip_is_known_once_a_connection_is_open(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """The loopback's is short; a socket that was never connected has none."""
    assert 0.0 < round_trip_s(ends[0]) < 1.0
    with socket.socket() as unconnected:
        assert round_trip_s(unconnected) == math.inf


def test_nothing_is_known_where_nobody_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that is gone, a kernel that answers with less, a system without."""
    gone: Any = socket.socket()
    gone.close()
    assert (bytes_received(gone), sent(gone)) == (0, Sent(0, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        assert (bytes_received(other), sent(other)) == (0, Sent(0, 0))
    monkeypatch.delattr(socket, "TCP_INFO", raising=False)
    with socket.socket() as unasked:
        assert (bytes_received(unasked), sent(unasked)) == (0, Sent(0, 0))
        assert round_trip_s(unasked) == math.inf


@SAYS
def test_another_systems_structure_is_not_read(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the same name there."""
    near, far = ends
    near.sendall(b"seven b")
    far.recv(7)
    assert sent(near).acknowledged > 0
    monkeypatch.setattr(sys, "platform", "freebsd14")
    assert (sent(near), bytes_received(far)) == (Sent(0, 0), 0)


def _as_much_as_fits(sock: socket.socket) -> int:
    try:
        return sock.send(bytes(65536))
    except BlockingIOError:
        return 0
