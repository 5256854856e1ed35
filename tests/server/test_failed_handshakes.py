# SPDX-License-Identifier: Apache-2.0
"""What nobody catches on a server's event loop: failed handshakes are a line, the rest is what it was."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.server.failed_handshakes import in_words, told_in_a_line


class Nothing:
    """A policy that nobody asks."""

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Never called."""
        raise AssertionError


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
    said = {"message": "SSL handshake failed\nprotocol: x", "exception": OSError("odd"), **facts}
    with told_in_a_line(loop):
        loop.call_exception_handler(said)
    assert caplog.messages == [f"a TLS handshake failed from={who}: OSError('odd')"]


def alert(reason: str) -> ssl.SSLError:
    """What OpenSSL found wrong."""
    exc = ssl.SSLError(1, f"[SSL: {reason}]")
    exc.reason = reason
    return exc


@pytest.mark.parametrize(
    ("exc", "words"),
    [
        (ConnectionResetError, "the client hung up before it was over"),
        (ConnectionResetError(), "the client hung up before it was over"),
        (ConnectionAbortedError("SSL handshake is taking longer"), "did not go on within the time"),
        (alert("TLSV1_ALERT_UNKNOWN_CA"), "the client does not know the authority"),
        (alert("HTTP_REQUEST"), "speaks HTTP without TLS; it has to connect with wss://"),
        (alert("WRONG_VERSION_NUMBER"), "does not speak TLS"),
        (alert("UNSUPPORTED_PROTOCOL"), "an old version of TLS"),
        (alert("PEER_DID_NOT_RETURN_A_CERTIFICATE"), "has shown no certificate"),
        (alert("SOMETHING_NEW"), "SSLError(1, '[SSL: SOMETHING_NEW]')"),
    ],
)
def test_what_happened_in_words(exc: Any, words: str) -> None:
    """The name of a class helps nobody; some event loops tell nothing else."""
    assert words in in_words(exc)


def test_a_real_handshake_that_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A client that hangs up in the middle of it leaves words, not a name of Python's."""
    caplog.set_level("INFO")
    issued = trustme.CA().issue_cert("127.0.0.1")
    both = str(tmp_path / "both.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(both)
    config = ServerConfig(tls_cert=both, tls_key=both)
    with WebsocketPolicyServer(Nothing(), port=0, config=config) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"\x16\x03\x01")
        for _ in range(2000):
            told = [line for line in caplog.messages if "handshake failed" in line]
            if told:
                break
            threading.Event().wait(0.005)
    assert len(told) == 1
    assert "the client hung up before it was over" in told[0]


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
