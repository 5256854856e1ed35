# SPDX-License-Identifier: Apache-2.0
"""What nobody catches on a server's event loop: failed handshakes are a line, the rest is what it was."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from pi05_websocket.server.failed_handshakes import told_in_a_line


class Ended:
    """A transport that knows whom it was for, or no more."""

    def __init__(self, peer: Any) -> None:
        self._peer = peer

    def get_extra_info(self, name: str) -> Any:
        """Return it."""
        return self._peer if name == "peername" else None


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that does not run."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("facts", "who"),
    [
        ({"transport": Ended(("10.0.0.9", 4711))}, "10.0.0.9:4711"),
        ({"transport": Ended(("2001:db8::1", 4711, 0, 0))}, "2001:db8::1:4711"),
        ({"transport": Ended(None)}, "?"),
        ({}, "?"),
    ],
)
def test_a_failed_handshake_is_one_line(
    loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture, facts: Any, who: str
) -> None:
    """With the address where it is known."""
    caplog.set_level("INFO")
    said = {"message": "SSL handshake failed\nprotocol: x", "exception": OSError("gone"), **facts}
    with told_in_a_line(loop):
        loop.call_exception_handler(said)
    assert caplog.messages == [f"a TLS handshake failed from={who}: OSError('gone')"]


def test_a_client_that_was_too_slow_is_one_line(
    loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """The library tells nobody whom it was."""
    caplog.set_level("INFO")
    late = {"message": "Future exception was never retrieved"}
    with told_in_a_line(loop):
        loop.call_exception_handler(
            late | {"exception": TimeoutError("websocket handshake timeout")}
        )
        loop.call_exception_handler(late | {"exception": TimeoutError("another")})
    assert caplog.messages == [
        "a client did not ask for a WebSocket in time",
        "Future exception was never retrieved",
    ]


def test_everything_else_goes_where_it_went(
    loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """To the loop's own handler, or to the program's; which is back in its place afterwards."""
    other = {"message": "something else"}
    with told_in_a_line(loop):
        loop.call_exception_handler(other)
    assert [record.name for record in caplog.records] == ["asyncio"]
    taken: list[Any] = []

    def mine(_: Any, context: Any) -> None:
        taken.append(context)

    loop.set_exception_handler(mine)
    with told_in_a_line(loop):
        loop.call_exception_handler(other)
    assert taken == [other]
    assert loop.get_exception_handler() is mine
