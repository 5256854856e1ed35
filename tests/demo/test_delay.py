# SPDX-License-Identifier: Apache-2.0
"""The slow link, over real sockets."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pi05_websocket.cli.demo_delay import SlowLink

pytestmark = pytest.mark.faults

TIMEOUT_S = 20.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Return a listening socket."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(TIMEOUT_S)
        yield made


def connect(link: SlowLink) -> socket.socket:
    """Connect through the link."""
    return socket.create_connection(("127.0.0.1", link.port), timeout=TIMEOUT_S)


def read_all(peer: socket.socket) -> bytes:
    """Read until the end."""
    peer.settimeout(TIMEOUT_S)
    pieces = []
    while piece := peer.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def port_of(listener: socket.socket) -> int:
    """Return where it listens."""
    return int(listener.getsockname()[1])


def test_bytes_arrive_unchanged_and_in_order(listener: socket.socket) -> None:
    """Three megabytes go through in one direction, an answer and the end come back."""
    sent = os.urandom(3 << 20)
    with SlowLink(port_of(listener), round_trip_s=0.01) as link, connect(link) as near:
        far, _ = listener.accept()
        sender = threading.Thread(target=lambda: (near.sendall(sent), near.shutdown(1)))
        sender.start()
        with far:
            received = read_all(far)
            far.sendall(b"thanks")
        sender.join()

        assert received == sent
        assert read_all(near) == b"thanks"


def test_a_round_trip_lasts_longer(listener: socket.socket) -> None:
    """Each direction takes half of what was asked for."""
    with SlowLink(port_of(listener), round_trip_s=0.2) as link, connect(link) as near:
        far, _ = listener.accept()
        with far:
            far.settimeout(TIMEOUT_S)
            started = time.monotonic()
            near.sendall(b"?")
            assert far.recv(1) == b"?"
            halfway = time.monotonic()
            far.sendall(b"!")
            assert near.recv(1) == b"!"
            ended = time.monotonic()

    assert halfway - started >= 0.1
    assert ended - started >= 0.2


def test_closing_cuts_both_sides(listener: socket.socket) -> None:
    """After `close` neither side waits for the other; closing twice is fine."""
    link = SlowLink(port_of(listener), round_trip_s=0.0)
    with connect(link) as near:
        far, _ = listener.accept()
        link.close()
        link.close()
        with far:
            assert read_all(far) == b""
        assert read_all(near) == b""
    assert f"-> {port_of(listener)}" in repr(link)


def test_a_server_that_is_gone_ends_the_connection(listener: socket.socket) -> None:
    """Nobody behind the link: the caller is told by an end, and the link lives on."""
    port = port_of(listener)
    listener.close()
    with SlowLink(port, round_trip_s=0.0) as link:
        for _ in range(2):
            with connect(link) as near:
                assert read_all(near) == b""
