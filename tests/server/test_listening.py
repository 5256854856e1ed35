# SPDX-License-Identifier: Apache-2.0
"""The sockets a server listens with, and what they say of a client."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pi05_websocket.server import ServerConfig
from pi05_websocket.server.listening import Gate


@pytest.fixture
def gate() -> Gate:
    """A gate for two sockets from one address."""
    return Gate(ServerConfig(max_connections_per_address=2))


@pytest.fixture
def clients() -> Iterator[list[socket.socket]]:
    """Sockets that are closed at the end."""
    opened: list[socket.socket] = []
    yield opened
    for each in opened:
        each.close()


def dial(listener: socket.socket, clients: list[socket.socket]) -> socket.socket:
    """Connect to a listener; return this end."""
    clients.append(socket.create_connection(listener.getsockname()[:2], timeout=5))
    return clients[-1]


def test_a_name_with_two_families_is_listened_on_with_one_port(gate: Gate) -> None:
    """A robot finds the server whichever its resolver says first."""
    listeners = gate.listen("localhost", 0)
    ports = {listener.getsockname()[1] for listener in listeners}
    families = {listener.family for listener in listeners}
    for listener in listeners:
        listener.close()
    assert len(ports) == 1
    assert len(families) == len(listeners)


def test_an_address_that_is_not_there_is_left_out(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a name has an IPv6 address and IPv6 is off; with nothing left it is an error."""

    def found(*addresses: str) -> Any:
        entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in addresses]
        return lambda *_, **__: entries

    monkeypatch.setattr(socket, "getaddrinfo", found("127.0.0.1", "192.0.2.1"))
    (listener,) = gate.listen("name", 0)
    listener.close()
    monkeypatch.setattr(socket, "getaddrinfo", found("192.0.2.1"))
    with pytest.raises(OSError) as caught:
        gate.listen("name", 0)
    assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.skipif(sys.platform == "win32", reason="has no such bound")
def test_more_connections_than_files_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the server finds out with a robot."""
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    for most in (128, 129):
        (listener,) = Gate(ServerConfig(max_connections=most)).listen("127.0.0.1", 0)
        listener.close()
    assert caplog.messages == [
        "this process may open 256 files; max_connections=129 needs 257 (ulimit -n)"
    ]


def test_an_address_in_use_says_so(gate: Gate) -> None:
    """As asyncio's own sockets do."""
    (listener,) = gate.listen("127.0.0.1", 0)
    with listener, pytest.raises(OSError) as caught:
        gate.listen("127.0.0.1", listener.getsockname()[1])
    assert caught.value.errno == errno.EADDRINUSE


def test_one_too_many_cuts_the_oldest_that_said_nothing(
    gate: Gate, clients: list[socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    """Its client sees the end; a line in the log says how many, once."""
    (listener,) = gate.listen("127.0.0.1", 0)
    with listener:
        first = dial(listener, clients)
        accepted = [listener.accept()[0]]
        for _ in range(2):
            dial(listener, clients)
            accepted.append(listener.accept()[0])
        clients += accepted
        assert first.recv(1) == b""
        gate.tell()
        gate.tell()
    assert gate.counts
    assert [record.getMessage()[:44] for record in caplog.records] == [
        "1 connections refused, or cut before their h"
    ]


def test_websockets_stay_and_the_new_one_is_refused(
    gate: Gate, clients: list[socket.socket]
) -> None:
    """Until one of them is closed."""
    (listener,) = gate.listen("127.0.0.1", 0)
    with listener:
        for _ in range(2):
            dial(listener, clients)
            clients.append(listener.accept()[0])
            gate.became_websocket(clients[-1].fileno())
        refused = dial(listener, clients)
        with pytest.raises(ConnectionAbortedError):
            listener.accept()
        assert refused.recv(1) == b""
        clients[1].close()
        dial(listener, clients)
        clients.append(listener.accept()[0])
    assert repr(gate) == "<Gate <Door open=2 unfinished=1>>"


def test_a_loop_that_accepts_by_itself_is_told_of_once(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """Bounds that do not count are no secret."""
    gate.became_websocket(3)
    gate.became_websocket(4)
    assert not gate.counts
    assert [record.getMessage()[:39] for record in caplog.records] == [
        "this event loop accepts connections by "
    ]
