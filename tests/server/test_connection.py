# SPDX-License-Identifier: Apache-2.0
"""When a connection reads on and when it does not, on a link that only remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import picows
import pytest

from pi05_websocket.errors import ConfigError
from pi05_websocket.server import ServerConfig
from pi05_websocket.server.connection import Connection, OpenConnections
from pi05_websocket.server.doorkeeper import Doorkeeper
from pi05_websocket.server.requests import Answered, Request
from pi05_websocket.server.worker import PolicyWorker

ANSWER = Answered(message=b"\x80", queue_ms=0.0, infer_ms=0.0)


class Link:
    """What picows gives a listener, as far as a connection uses it."""

    def __init__(self) -> None:
        self.underlying_transport = self
        self.reading = True
        self.is_disconnected = False
        self.close_handshake = None
        self.sent: list[Any] = []

    def pause_reading(self) -> None:
        """Note it."""
        self.reading = False

    def resume_reading(self) -> None:
        """Note it."""
        self.reading = True

    def get_extra_info(self, name: str) -> Any:
        """Have neither a peer nor options to set."""
        return None if name == "peername" else self

    def setsockopt(self, *args: Any) -> None:
        """Refuse every option, as exotic platforms do."""
        if args[1] != 9:  # SO_KEEPALIVE
            raise OSError("no such option")

    def getsockopt(self, *args: Any) -> bytes:
        """Know nothing of what has been received, as on other systems than Linux."""
        raise OSError("no such option")

    def send(self, *args: Any) -> None:
        """Note it."""
        self.sent.append(args)

    def send_close(self, *args: Any) -> None:
        """Note it."""
        self.sent.append(args)

    def disconnect(self, graceful: bool = True) -> None:
        """Note it."""
        self.is_disconnected = True


class Frame:
    """A whole binary message of one frame."""

    msg_type = picows.WSMsgType.BINARY
    fin = True
    tail_size = 0
    last_in_buffer = True

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.payload_size = len(payload)

    def get_payload_as_memoryview(self) -> memoryview:
        """Return the payload."""
        return memoryview(self.payload)


class Collector:
    """Keeps requests instead of answering them."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.submit: Callable[[Request], None] = self.requests.append

    def forget(self, connection: Any) -> None:
        """Drop all."""
        self.requests.clear()


@pytest.fixture
def collector() -> Collector:
    """Where requests end up."""
    return Collector()


@pytest.fixture
def link() -> Link:
    """The other end."""
    return Link()


@pytest.fixture
def connection(collector: Collector, link: Link) -> Connection:
    """A connection that lets two requests, or 2000 bytes, wait."""
    config = ServerConfig(max_queued_requests=2, max_queued_bytes=2000)
    worker: Any = collector
    made = Connection({}, config, worker, OpenConnections(), doorkeeper=Doorkeeper(None))
    made.on_ws_connected(link)
    return made


def test_reading_stops_while_too_many_requests_wait(
    connection: Connection, collector: Collector, link: Link
) -> None:
    """A client that pipelines without end is held back by TCP, not by memory."""
    connection.on_ws_frame(link, Frame(b"1"))
    assert link.reading
    connection.on_ws_frame(link, Frame(b"2"))
    assert not link.reading
    connection.deliver(collector.requests.pop(0), ANSWER)
    assert link.reading


def test_reading_stops_while_too_many_bytes_wait(
    connection: Connection, collector: Collector, link: Link
) -> None:
    """One large message may wait, but not two."""
    connection.on_ws_frame(link, Frame(bytes(2000)))
    assert not link.reading
    connection.deliver(collector.requests.pop(0), ANSWER)
    assert link.reading


def test_reading_stops_while_the_client_does_not_read(connection: Connection, link: Link) -> None:
    """Replies that nobody fetches do not pile up."""
    connection.pause_writing()
    assert not link.reading
    connection.resume_writing()
    assert link.reading


def test_after_a_goodbye_reading_goes_on(connection: Connection, link: Link) -> None:
    """The client's own goodbye may stand behind requests that are no longer wanted."""

    async def scenario() -> None:
        connection.pause_writing()
        connection.close(1001, "the server is stopping")
        connection.close(1001, "only once")

    asyncio.run(scenario())
    assert link.reading
    connection.pause_writing()
    connection.on_ws_frame(link, Frame(b"late"))
    assert link.reading
    assert len(link.sent) == 2  # metadata and one goodbye


def test_outcomes_for_a_client_that_is_gone_are_dropped(
    connection: Connection, collector: Collector, link: Link
) -> None:
    """The policy finishes what it began; nobody is sent anything."""
    connection.on_ws_frame(link, Frame(b"1"))
    request = collector.requests[0]
    assert repr(connection).endswith("? open exchanges=0>")
    connection.on_ws_disconnected(link)
    connection.deliver(request, ANSWER)
    connection.ping()
    assert len(link.sent) == 1
    assert repr(connection).endswith("? closing exchanges=0>")


def test_config_is_checked() -> None:
    """A bound of nothing would serve nobody."""
    with pytest.raises(ConfigError, match="max_queued_requests must be at least 1, got 0"):
        ServerConfig(max_queued_requests=0)
    with pytest.raises(ConfigError, match="seed must be from 0 to"):
        ServerConfig(seed=-1)
    with pytest.raises(ConfigError, match="stop_timeout_s must be at least 0, got nan"):
        ServerConfig(stop_timeout_s=float("nan"))


def test_reprs() -> None:
    """Every long-lived object says in one line how it is."""
    worker = PolicyWorker(object(), ServerConfig(), lambda _: None, lambda: None)  # type: ignore[arg-type]
    assert repr(worker) == "<PolicyWorker idle waiting=0>"
    assert repr(OpenConnections()) == "<OpenConnections 0>"
