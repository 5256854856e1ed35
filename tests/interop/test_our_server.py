# SPDX-License-Identifier: Apache-2.0
"""OpenPI's client and bare WebSocket clients against our server: what stock does, and what it cannot."""

from __future__ import annotations

import threading
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from announced import ANNOUNCED
from openpi_client import msgpack_numpy
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect

from pi05_websocket.client import RemotePolicy
from pi05_websocket.server.keys_file import add_key

pytestmark = [
    pytest.mark.openpi,
    # OpenPI's client opens its connection in the way websockets 17 deprecates.
    pytest.mark.filterwarnings(r"ignore:connect\(\) must be used as a context:DeprecationWarning"),
]


def exchange(port: int, observations: list[Any]) -> tuple[bytes, list[bytes]]:
    """Send observations with a bare client; return the metadata and the replies as they are on the wire."""
    with connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None) as socket:
        metadata = socket.recv()
        replies = []
        for observation in observations:
            socket.send(msgpack_numpy.packb(observation))
            replies.append(socket.recv())
    return metadata, replies


def test_replies_have_the_form_of_a_stock_servers(start: Any, summing: Any, observe: Any) -> None:
    """Apart from the measured times, metadata and replies are the stock server's bytes."""
    observations = [observe(0), observe(1)]
    ours = start.server("our server", summing, encoded_images=False, deadlines=False)
    stock = start.server("stock server", summing, metadata=summing.metadata)
    our_metadata, our_replies = exchange(ours.port, observations)
    stock_metadata, stock_replies = exchange(stock.port, observations)
    assert our_metadata == stock_metadata
    for our_reply, stock_reply in zip(our_replies, stock_replies, strict=True):
        value = msgpack_numpy.unpackb(stock_reply)
        timing = msgpack_numpy.unpackb(our_reply)["server_timing"]
        assert list(timing) == list(value["server_timing"])
        value["server_timing"] = timing
        assert our_reply == msgpack_numpy.packb(value)


def test_an_error_ends_the_connection_as_a_stock_servers_does(
    start: Any, summing: Any, observe: Any
) -> None:
    """Traceback as text, then close 1011 with OpenPI's reason, under both servers."""
    closes = []
    for kind in ("our server", "stock server"):
        server = start.server(kind, summing)
        client = start.client("stock client", server.port)
        with pytest.raises(RuntimeError, match="Error in inference server:\nTraceback"):
            client.infer({"prompt": "no state"})
        with pytest.raises(ConnectionClosedError) as closed:
            client.infer(observe(0))
        assert closed.value.rcvd is not None
        closes.append((closed.value.rcvd.code, closed.value.rcvd.reason))
    assert closes[0] == closes[1]


def test_text_is_refused_as_a_stock_server_does(start: Any, summing: Any) -> None:
    """A text request gets a traceback as text and 1011."""
    server = start.server("our server", summing)
    with connect(f"ws://127.0.0.1:{server.port}") as socket:
        socket.recv()
        socket.send("hello")
        assert "Traceback" in socket.recv()
        with pytest.raises(ConnectionClosedError) as closed:
            socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011


def test_health_and_pings_are_answered_during_a_slow_inference(start: Any, gate: Any) -> None:
    """What kills a stock connection after 40 s of inference, an unanswered ping, cannot happen here."""
    server = start.server("our server", gate)
    with connect(f"ws://127.0.0.1:{server.port}", ping_interval=None) as socket:
        socket.recv()
        socket.send(msgpack_numpy.packb({"number": 1}))
        assert gate.entered.acquire(timeout=10)
        assert socket.ping().wait(timeout=10)
        with urllib.request.urlopen(
            f"http://127.0.0.1:{server.port}/healthz", timeout=10
        ) as health:
            assert (health.status, health.read()) == (200, b"OK\n")
        other = start.client("stock client", server.port)
        assert other.get_server_metadata() == ANNOUNCED
        assert socket.ping().wait(timeout=10)
        gate.opened.release()
        assert msgpack_numpy.unpackb(socket.recv())["number"] == 1


def test_a_client_that_pings_impatiently_survives_a_slow_inference(start: Any, gate: Any) -> None:
    """The keepalive of websockets, turned up until it would drop a stock server within a blink."""
    server = start.server("our server", gate)
    url = f"ws://127.0.0.1:{server.port}"
    pongs = 0
    with connect(url, ping_interval=0.02, ping_timeout=5) as socket:
        socket.recv()
        socket.send(msgpack_numpy.packb({"number": 1}))
        assert gate.entered.acquire(timeout=10)
        while pongs < 5:
            assert socket.ping().wait(timeout=10)
            pongs += 1
        gate.opened.release()
        assert msgpack_numpy.unpackb(socket.recv())["number"] == 1


def test_pipelined_requests_of_a_bare_client(start: Any, gate: Any) -> None:
    """A client that sends ahead gets its replies in order."""
    server = start.server("our server", gate)
    with connect(f"ws://127.0.0.1:{server.port}", max_size=None) as socket:
        socket.recv()
        for number in range(30):
            socket.send(msgpack_numpy.packb({"number": number}))
            gate.opened.release()
        numbers = [msgpack_numpy.unpackb(socket.recv())["number"] for _ in range(30)]
    assert numbers == list(range(30))


def test_fragmented_requests_of_a_bare_client(start: Any, gate: Any) -> None:
    """An iterable goes out as fragments."""
    server = start.server("our server", gate)
    message = msgpack_numpy.packb({"number": 5, "image": np.zeros((100, 100, 3), np.uint8)})
    with connect(f"ws://127.0.0.1:{server.port}") as socket:
        socket.recv()
        gate.opened.release()
        socket.send([message[:10], message[10:20_000], message[20_000:]])
        assert msgpack_numpy.unpackb(socket.recv())["number"] == 5


def test_compression_is_declined(start: Any, summing: Any, observe: Any) -> None:
    """A client that offers permessage-deflate is served without."""
    server = start.server("our server", summing)
    with connect(f"ws://127.0.0.1:{server.port}", compression="deflate", max_size=None) as socket:
        assert socket.protocol.extensions == []
        socket.recv()
        socket.send(msgpack_numpy.packb(observe(0)))
        assert "actions" in msgpack_numpy.unpackb(socket.recv())


def test_the_stop_is_announced(start: Any, gate: Any) -> None:
    """A stock client that waits gets its reply, then 1001."""
    server = start.server("our server", gate)
    client = start.client("stock client", server.port)
    stopping = threading.Thread(target=server.close)

    def let_through() -> None:
        assert gate.entered.acquire(timeout=10)
        stopping.start()
        gate.opened.release()

    helper = threading.Thread(target=let_through)
    helper.start()
    assert client.infer({"number": 1})["number"] == 1
    helper.join()
    stopping.join()
    with pytest.raises(ConnectionClosedOK) as closed:
        client.infer({"number": 2})
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


def test_a_stock_client_comes_in_with_its_key(
    start: Any, summing: Any, observe: Any, tmp_path: Path
) -> None:
    """OpenPI's `api_key` is the key; without one its client is told HTTP 401."""
    file = tmp_path / "keys.json"
    secret = add_key(file, "arm", datetime.now(UTC))
    server = start.server("our server", summing, keys=str(file))
    client = WebsocketClientPolicy("127.0.0.1", server.port, api_key=secret)
    assert "actions" in client.infer(observe(0))
    client._ws.close()
    with pytest.raises(InvalidStatus) as refused:
        WebsocketClientPolicy("127.0.0.1", server.port, api_key="wrong")
    assert refused.value.response.status_code == 401
    assert b"--policy.api_key_file" in (refused.value.response.body or b"")


def test_a_stock_client_goes_on_after_a_refused_request(
    start: Any, summing: Any, observe: Any, tmp_path: Path
) -> None:
    """One request too many raises, as an error of the policy does, but the connection stays."""
    file = tmp_path / "keys.json"
    secret = add_key(file, "arm", datetime.now(UTC), requests_per_second=0.5)
    server = start.server("our server", summing, keys=str(file))
    client = WebsocketClientPolicy("127.0.0.1", server.port, api_key=secret)
    assert "actions" in client.infer(observe(0))
    with pytest.raises(RuntimeError, match=r"the key arm may send 0\.5 a second"):
        client.infer(observe(0))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            assert "actions" in client.infer(observe(0))
            break
        except RuntimeError:
            pass
    else:
        raise AssertionError("never answered again")
    client._ws.close()


def test_an_api_key_does_no_harm(start: Any, summing: Any, observe: Any) -> None:
    """OpenPI's server does not look at the key, and neither does ours without a keys file."""
    server = start.server("our server", summing)
    client = WebsocketClientPolicy("127.0.0.1", server.port, api_key="secret")
    assert "actions" in client.infer(observe(0))
    client._ws.close()


def test_openpis_chunk_broker_works_on_our_client(
    start: Any, summing: Any, observe: Any, expected: Any
) -> None:
    """OpenPI's own runtime parts take our client for theirs."""
    server = start.server("stock server", summing)
    with RemotePolicy("127.0.0.1", server.port) as remote:
        broker = ActionChunkBroker(remote, action_horizon=10)
        observation = observe(3)
        row = broker.infer(observation)["actions"]
    np.testing.assert_array_equal(row, expected(observation)["actions"][0])


def test_a_stock_client_does_not_mind_what_is_announced(
    start: Any, summing: Any, observe: Any, expected: Any
) -> None:
    """It keeps the key among its metadata and sends arrays, which arrive to the byte."""
    server = start.server("our server", summing)
    client = start.client("stock client", server.port)
    assert client.get_server_metadata()["_images"] == {"version": 1, "encodings": ["jpeg"]}
    observation = observe(3)
    assert client.infer(observation)["sums"] == expected(observation)["sums"]
