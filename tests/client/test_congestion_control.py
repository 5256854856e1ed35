# SPDX-License-Identifier: Apache-2.0
"""What the kernel is asked for on far connections, and that nothing depends on it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from pi05_websocket.client import tcp
from pi05_websocket.client.config import ConnectionConfig

TCP_CONGESTION = getattr(socket, "TCP_CONGESTION", None)
pytestmark = pytest.mark.skipif(TCP_CONGESTION is None, reason="this kernel has one alone")


@pytest.fixture
def port() -> Iterator[int]:
    """A port where something listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def control_of(port: int, name: str, monkeypatch: pytest.MonkeyPatch, *, near_s: float) -> str:
    """Connect; return the congestion control of the connection."""
    monkeypatch.setattr(tcp, "NEAR_S", near_s)
    config = ConnectionConfig(url=f"ws://127.0.0.1:{port}", congestion_control=name)
    sock, _ = asyncio.run(tcp.tcp_connect(config, "127.0.0.1", port))
    with sock:
        assert TCP_CONGESTION is not None
        return sock.getsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, 16).rstrip(b"\0").decode()


@pytest.mark.parametrize(
    ("name", "near_s", "changed"),
    [
        ("reno", -1.0, True),
        ("reno", 60.0, False),  # near: nothing to gain
        ("", -1.0, False),
        ("no-such-thing", -1.0, False),  # the kernel refuses; the connection is as good as before
    ],
)
def test_far_connections_are_asked_for_it(
    name: str, near_s: float, changed: bool, port: int, monkeypatch: pytest.MonkeyPatch
):
    """Every kernel has `reno`, and lets everybody choose it."""
    with socket.socket() as plain:
        assert TCP_CONGESTION is not None
        usual = plain.getsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, 16).rstrip(b"\0").decode()

    found = control_of(port, name, monkeypatch, near_s=near_s)

    assert found == (name if changed else usual)
