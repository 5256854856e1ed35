# SPDX-License-Identifier: Apache-2.0
"""The connection's object, without a server: states, waiting, closing."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Iterator

import pytest

from pi05_websocket.client import Connection, ConnectionConfig, ConnectionState, RemotePolicy
from pi05_websocket.client.dialling import tell_in_a_line
from pi05_websocket.client.exchange import Exchange, Reply
from pi05_websocket.client.transport import HEADROOM
from pi05_websocket.errors import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    EncodeError,
    Pi05WebsocketError,
)


@pytest.fixture
def nobody() -> Iterator[str]:
    """Return an address at which nobody listens, and nobody will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"ws://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def connection(nobody: str) -> Iterator[Connection]:
    """Return a connection that never gets anywhere."""
    connection = Connection(ConnectionConfig(url=nobody, backoff_first=0.01, backoff_max=0.05))
    yield connection
    connection.close()


def test_repr_shows_address_state_and_counts(connection: Connection, nobody: str):
    """One line for the log."""
    assert repr(connection).startswith(f"<Connection {nobody} ")
    assert repr(connection).endswith("exchanges=0 reconnects=0>")


def test_waiting_in_vain_says_why(connection: Connection):
    """The last reason is the error."""
    with pytest.raises(ConnectFailed, match="connection refused"):
        connection.wait_ready(0.3)


def test_trying_again_leaves_the_programs_random_numbers_alone(connection: Connection):
    """Who seeds `random` gets the same numbers whatever the network does."""
    state = random.getstate()
    with pytest.raises(ConnectFailed):
        connection.wait_ready(0.3)  # some tries, each with a jittered wait

    assert random.getstate() == state


def test_submitting_on_a_link_that_is_down_fails_at_once(connection: Connection):
    """Nothing is queued for a server that is not there."""
    exchange = connection.submit(bytearray(HEADROOM + 10))

    with pytest.raises(Pi05WebsocketError):
        exchange.result(2)
    assert exchange.nbytes == 10


def test_closed_is_closed(connection: Connection):
    """After close every use says so, and closing again does nothing."""
    connection.close()
    connection.close()

    assert connection.state is ConnectionState.CLOSED
    with pytest.raises(ConnectionLost, match="closed by this side"):
        connection.wait_ready(1)
    with pytest.raises(ConnectionLost, match="closed by this side"):
        connection.submit(bytearray(HEADROOM)).result(1)


def test_remote_policy_before_the_first_connection(nobody: str):
    """It knows nothing of the server, and says that it is not available."""
    with RemotePolicy(config=ConnectionConfig(url=nobody), wait_for_server=0) as policy:
        assert policy.metadata == {}
        assert isinstance(policy.unavailable(), ConnectFailed)
        assert repr(policy).startswith("<RemotePolicy <Connection")
        policy.reset()


def test_unsendable_observations_are_told_before_anything_is_sent(nobody: str):
    """The key is named; no connection is needed for that."""
    with (
        RemotePolicy(config=ConnectionConfig(url=nobody), wait_for_server=0) as policy,
        pytest.raises(EncodeError, match="observation/state"),
    ):
        policy.infer({"observation/state": object()})


@pytest.mark.parametrize(
    ("told", "logger", "message"),
    [
        (ConnectionResetError, "pi05_websocket.client.dialling", "it failed: ConnectionResetError"),
        (OSError("cut"), "pi05_websocket.client.dialling", "it failed: cut"),
        (ValueError("ours"), "asyncio", "it failed\nprotocol: 1"),
    ],
)
def test_what_goes_wrong_on_the_loop_is_a_line_unless_it_is_an_error_of_ours(
    told: object, logger: str, message: str, caplog: pytest.LogCaptureFixture
):
    """The class of an exception may be told in the place of one; a bug is shown as asyncio shows it."""
    caplog.set_level(logging.DEBUG)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(tell_in_a_line)
    context = {"message": "it failed\nprotocol: 1", "exception": told}
    loop.call_exception_handler(context)
    loop.close()
    [record] = [each for each in caplog.records if "it failed" in each.message]
    assert [record.name, record.message] == [logger, message]


class TestExchange:
    def test_open(self):
        """An open exchange can be waited for, in vain."""
        exchange = Exchange(seq=3, nbytes=10, limit=5.0)

        assert not exchange.done()
        assert exchange.age() >= 0
        assert repr(exchange).startswith("<Exchange 3 waiting")
        with pytest.raises(DeadlineExceeded, match=r"0\.01 s"):
            exchange.result(0.01)

    def test_done(self):
        """Its reply is there at once, and whoever wanted to know is told."""
        exchange, told = Exchange(seq=3, nbytes=10, limit=5.0), []
        exchange.when_done(lambda: told.append(True))

        exchange.future.set_result(Reply({"actions": 1}, 5, 0.0))

        assert exchange.result(0).value == {"actions": 1}
        assert told == [True]
        assert repr(exchange) == "<Exchange 3 done>"

    def test_the_connections_own_deadline_is_passed_on(self):
        """A renewed connection's verdict is not taken for the caller's timeout."""
        exchange = Exchange(seq=3, nbytes=10, limit=5.0)
        exchange.future.set_exception(
            DeadlineExceeded("request", 10.0, "The connection is renewed.")
        )

        with pytest.raises(DeadlineExceeded, match="renewed"):
            exchange.result(1)
