# SPDX-License-Identifier: Apache-2.0
"""The server on real sockets: the conversation, its errors, who waits for whom, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from announced import ANNOUNCED

from pi05_websocket.client import RemotePolicy
from pi05_websocket.errors import ConfigError, EncodeError, PolicyError
from pi05_websocket.server import WebsocketPolicyServer
from pi05_websocket.wire import codec
from pi05_websocket.wire.protocol import TRACEBACK_CLOSE_REASON
from pi05_websocket.wire.realtime import RealtimeSupport, announcement

BINARY, CONTINUATION, TEXT, CLOSE, PING, PONG = 0x2, 0x0, 0x1, 0x8, 0x9, 0xA
OBSERVATION = {"observation/state": np.arange(6, dtype=np.float32), "prompt": "pick"}
ANNOUNCED = ANNOUNCED | announcement(RealtimeSupport(prefix="none", refusals=True))
"""What a server of ours adds to its policy's metadata."""


def http_get(port: int, path: str) -> tuple[int, str, bytes]:
    """Ask over plain HTTP; return status, content type and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    response = connection.getresponse()
    answer = response.status, response.getheader("Content-Type", ""), response.read()
    connection.close()
    return answer


@contextlib.contextmanager
def closing(server: WebsocketPolicyServer) -> Iterator[None]:
    """Close the server while the block runs."""
    thread = threading.Thread(target=server.close)
    thread.start()
    yield
    thread.join(10)
    assert not thread.is_alive()


# ----------------------------------------------------------------------------------------- the conversation


def test_metadata_comes_first_then_replies(serve: Any, connect: Any, scripted: Any) -> None:
    """The policy's metadata, then for each observation the policy's result with the server's timing."""
    client = connect(serve(scripted), "/any/path?x=1")
    assert client.reply() == {"name": "scripted", **ANNOUNCED}
    client.request(OBSERVATION)
    first = client.reply()
    assert list(first) == ["actions", "policy_timing", "server_timing"]
    np.testing.assert_array_equal(first["actions"], np.ones((2, 6), np.float32), strict=True)
    assert first["policy_timing"] == {"infer_ms": 1.5}
    assert list(first["server_timing"]) == ["infer_ms"]
    client.request(OBSERVATION)
    assert list(client.reply()["server_timing"]) == ["infer_ms", "prev_total_ms"]


def test_the_policys_dict_stays_as_it_is(serve: Any, connect: Any, scripted: Any) -> None:
    """A policy may return the same dict for ever: the server adds nothing to it."""
    client = connect(serve(scripted))
    client.reply()
    client.request(OBSERVATION)
    client.reply()
    assert list(scripted.result) == ["actions", "policy_timing"]


def test_given_metadata_replaces_the_policys(serve: Any, connect: Any, scripted: Any) -> None:
    """The fourth argument is OpenPI's metadata."""
    server = serve(scripted, 0, {"reset_pose": [0.0]}, encoded_images=False, deadlines=False)
    assert connect(server).reply() == {"reset_pose": [0.0]}


def test_pipelined_requests_are_answered_in_order(serve: Any, connect: Any, gate: Any) -> None:
    """Requests sent ahead wait for their turn; replies come in the order of the requests."""
    client = connect(serve(gate, max_queued_requests=3))
    client.reply()
    for number in range(40):
        client.request({"number": number})
        gate.opened.release()
    assert [client.reply()["number"] for _ in range(40)] == list(range(40))


def test_fragmented_messages_are_joined(serve: Any, connect: Any, gate: Any) -> None:
    """A request may come in pieces, with a ping between them."""
    client = connect(serve(gate))
    client.reply()
    message = codec.encode({"number": 7, "image": np.zeros((64, 64, 3), np.uint8)})
    gate.opened.release()
    client.send(BINARY, message[:1000], fin=False)
    client.send(PING, b"still here")
    assert client.receive() == (PONG, b"still here")
    client.send(CONTINUATION, message[1000:5000], fin=False)
    client.send(CONTINUATION, message[5000:])
    assert client.reply()["number"] == 7


def test_arrays_a_policy_keeps_stay_valid(serve: Any, connect: Any) -> None:
    """A policy may hold on to images: no later message overwrites them."""
    kept: list[np.ndarray[Any, Any]] = []

    class Keeper:
        def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
            kept.append(observation["image"])
            if len(kept) > 4:
                del kept[0]
            return {}

    client = connect(serve(Keeper()))
    client.reply()
    for value in range(12):
        client.request({"image": np.full((100, 100), value, np.uint8), "text": "x" * value})
        client.reply()
        first = value - len(kept) + 1
        assert [set(image.flat) for image in kept] == [{v} for v in range(first, value + 1)]


# ------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("kind", "payload", "last_line"),
    [
        (BINARY, codec.encode({"do": "fail"}), "KeyError: 'observation/image'"),
        (BINARY, codec.encode({"do": "exit"}), "SystemExit: 3"),
        (BINARY, codec.encode({"do": "list"}), "Scripted.infer returned list, expected a dict"),
        (BINARY, codec.encode({"do": "set"}), "debug/seen: a value of type set cannot travel"),
        (BINARY, codec.encode([1]), "expected an observation (a map), got list"),
        (BINARY, b"\xc1", "an unused tag (0xc1) is not part of this protocol"),
        (TEXT, "grüß".encode(), "expected a binary message (msgpack), got a text message"),
        (TEXT, b"\xff", "expected a binary message (msgpack), got a text message"),
    ],
)
def test_a_failed_request_gets_its_traceback_and_the_stock_close(
    serve: Any, connect: Any, scripted: Any, kind: int, payload: bytes, last_line: str
) -> None:
    """OpenPI's way: the traceback as text, close 1011; the next client finds the server as before."""
    server = serve(scripted)
    client, other = connect(server), connect(server)
    client.reply()
    client.send(kind, payload)
    answer_kind, text = client.receive()
    assert answer_kind == TEXT
    lines = text.decode().splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert last_line in lines[-1]
    assert client.closed() == (1011, TRACEBACK_CLOSE_REASON)
    assert client.receive() == (-1, b"")
    other.reply()
    other.request(OBSERVATION)
    assert "actions" in other.reply()


def test_through_a_proxy_only_type_and_message_are_sent(
    serve: Any, connect: Any, scripted: Any
) -> None:
    """A server for strangers keeps its tracebacks in its own log; with debug it sends them."""
    frank = connect(serve(scripted, behind_proxy=True, debug=True))
    frank.reply()
    frank.request({"do": "fail"})
    assert frank.receive()[1].startswith(b"Traceback")
    client = connect(serve(scripted, behind_proxy=True))
    client.reply()
    client.request({"do": "fail"})
    assert client.receive() == (TEXT, b"KeyError: 'observation/image'\n")


def test_requests_behind_a_failed_one_are_dropped(serve: Any, connect: Any, gate: Any) -> None:
    """The connection ends with the error, so what was pipelined behind it is never inferred."""
    client = connect(serve(gate))
    client.reply()
    client.request({"no number": 0})
    client.request({"number": 1})
    assert gate.entered.acquire(timeout=10)
    gate.opened.release()
    assert client.receive()[0] == TEXT
    assert client.closed()[0] == 1011
    assert client.receive() == (-1, b"")
    assert gate.numbers == []


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(BINARY, bytes(3000), True)], 1009),
        ([(BINARY, bytes(1500), False), (CONTINUATION, bytes(1500), False)], 1009),
        ([(BINARY, b"a", False), (BINARY, b"b", True)], 1002),
        ([(CONTINUATION, b"a", True)], 1002),
        ([(0x3, b"a", True)], 1002),
    ],
)
@pytest.mark.filterwarnings("default")
def test_illegal_frames_close_the_connection(
    serve: Any, connect: Any, scripted: Any, frames: list[Any], code: int
) -> None:
    """Messages over the bound and broken fragmentation end with the code RFC 6455 gives them."""
    client = connect(serve(scripted, max_message_bytes=2000))
    client.reply()
    for kind, payload, fin in frames:
        client.send(kind, payload, fin=fin)
    assert client.closed()[0] == code


# ---------------------------------------------------------------------------------------- nobody waits for it


def test_everybody_else_is_served_during_an_inference(serve: Any, connect: Any, gate: Any) -> None:
    """Health checks, pings and new connections are answered while the policy computes."""
    server = serve(gate)
    busy = connect(server)
    busy.reply()
    busy.request({"number": 1})
    assert gate.entered.acquire(timeout=10)
    assert http_get(server.port, "/healthz") == (200, "text/plain; charset=utf-8", b"OK\n")
    busy.send(PING, b"alive?")
    assert busy.receive() == (PONG, b"alive?")
    assert connect(server).reply() == ANNOUNCED
    gate.opened.release()
    assert busy.reply()["number"] == 1


def test_a_client_that_vanishes_takes_only_its_own_requests_along(
    serve: Any, connect: Any, gate: Any
) -> None:
    """Its inference ends unheard, what it had waiting is dropped, and the next client is answered."""
    server = serve(gate)
    gone, other = connect(server), connect(server)
    gone.request({"number": 1})
    assert gate.entered.acquire(timeout=10)
    gone.request({"number": 2})
    gone.send(CLOSE, b"\x03\xe8")
    gone.reply()
    assert gone.closed() == (1000, "")
    other.reply()
    other.request({"number": 3})
    gate.opened.release()
    gate.opened.release()
    assert other.reply()["number"] == 3
    assert gate.numbers == [1, 3]


def test_a_cut_connection_is_forgotten(serve: Any, connect: Any, gate: Any) -> None:
    """A client that disappears during its inference harms nobody."""
    server = serve(gate)
    gone, other = connect(server), connect(server)
    gone.reply()
    gone.request({"number": 1})
    assert gate.entered.acquire(timeout=10)
    gone.close()
    other.reply()
    other.request({"number": 2})
    gate.opened.release()
    gate.opened.release()
    assert other.reply()["number"] == 2


@pytest.mark.parametrize(
    ("sent", "answered"),
    [(b"\x03\xe9", 1001), (b"", 1000), (b"\x0b\xb8bye", 3000), (b"\x03\xf3", 1000)],
)
def test_a_goodbye_is_answered(
    serve: Any, connect: Any, scripted: Any, sent: bytes, answered: int
) -> None:
    """The client's close code comes back, or 1000 where it may not be sent."""
    client = connect(serve(scripted))
    client.reply()
    client.send(CLOSE, sent)
    assert client.closed()[0] == answered
    assert client.receive() == (-1, b"")


def test_pings_are_sent_and_need_no_answer(serve: Any, connect: Any, scripted: Any) -> None:
    """Pings keep proxies from cutting an idle robot off; a client that ignores them stays connected."""
    client = connect(serve(scripted, ping_interval_s=0.01))
    client.reply()
    assert [client.receive()[0] for _ in range(3)] == [PING] * 3
    client.send(PONG)
    client.request(OBSERVATION)
    while (received := client.receive())[0] == PING:
        pass
    assert received[0] == BINARY


# ---------------------------------------------------------------------------------------------- plain HTTP


@pytest.mark.parametrize("path", ["/", "/healthz?x=1", "/healthz/"])
def test_other_paths_want_a_websocket(serve: Any, scripted: Any, path: str) -> None:
    """Whoever comes with a browser is told what this is."""
    status, _, body = http_get(serve(scripted).port, path)
    assert status == 426
    assert b"policy server" in body


# ------------------------------------------------------------------------------------------------- the end


def test_close_lets_the_inference_under_way_finish(serve: Any, connect: Any, gate: Any) -> None:
    """Its client gets the reply, what waits behind is dropped, and everybody is told 1001."""
    server = serve(gate)
    client, idle = connect(server), connect(server)
    client.reply()
    idle.reply()
    client.request({"number": 1})
    client.request({"number": 2})
    assert gate.entered.acquire(timeout=10)
    with closing(server):
        gate.opened.release()
        assert client.reply()["number"] == 1
        assert client.closed() == (1001, "the server is stopping")
        assert idle.closed() == (1001, "the server is stopping")
    assert gate.numbers == [1]


def test_close_does_not_wait_for_ever(serve: Any, connect: Any, gate: Any) -> None:
    """An inference that does not end within the bound loses its reply."""
    server = serve(gate, stop_timeout_s=0)
    client = connect(server)
    client.reply()
    client.request({"number": 1})
    assert gate.entered.acquire(timeout=10)
    with closing(server):
        assert client.closed()[0] == 1001
    server.close()
    assert repr(server).endswith("stopped Gate>")


def test_a_second_request_to_stop_hurries(serve: Any, connect: Any, gate: Any) -> None:
    """Ctrl-C twice gives up on the inference."""
    server = serve(gate, stop_timeout_s=1000)
    client = connect(server)
    client.reply()
    client.request({"number": 1})
    assert gate.entered.acquire(timeout=10)
    server.request_stop()
    server.request_stop()
    assert client.closed()[0] == 1001


def test_a_port_can_be_served_again(serve: Any, connect: Any, scripted: Any) -> None:
    """A restarted server takes the same port at once."""
    first = serve(scripted)
    client = connect(first)
    client.reply()
    with closing(first):
        assert client.closed()[0] == 1001
    second = serve(scripted, first.port)
    assert connect(second).reply()["name"] == "scripted"


def test_a_port_in_use_is_an_os_error(serve: Any, scripted: Any) -> None:
    """`start` raises what the system said."""
    first = serve(scripted)
    with pytest.raises(OSError, match="in use"):
        WebsocketPolicyServer(scripted, port=first.port).start()


def test_start_twice_is_a_mistake(serve: Any, scripted: Any) -> None:
    """One server serves once at a time."""
    server = serve(scripted)
    with pytest.raises(RuntimeError, match="already started"):
        server.start()


def test_run_serves_on_the_callers_loop(connect: Any, scripted: Any) -> None:
    """OpenPI's `run()` coroutine, until it is cancelled."""

    async def scenario() -> dict[str, Any]:
        server = WebsocketPolicyServer(scripted, port=0)
        serving = asyncio.create_task(server.run())
        while server.port == 0:
            await asyncio.sleep(0)
        metadata = await asyncio.to_thread(lambda: connect(server).reply())
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        return metadata

    assert asyncio.run(scenario())["name"] == "scripted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_forever_ends_on_a_signal(
    connect: Any, scripted: Any, number: signal.Signals
) -> None:
    """It returns, its clients are told, and the signals do again what they did before."""
    server = WebsocketPolicyServer(scripted, port=0)
    told = []

    def before(*_: Any) -> None:
        """Stand for what a program does on this signal."""

    previous = signal.signal(number, before)

    def talk() -> None:
        client = connect(server)
        client.reply()
        signal.raise_signal(number)  # on this thread: it must wake the event loop on the other
        told.append(client.closed()[0])

    talking = threading.Thread(target=talk)
    server.serve_forever(listening=talking.start)
    talking.join()
    after = signal.signal(number, previous)
    assert told == [1001]
    assert after is before
    server.request_stop()  # too late, and harmless


def test_a_listening_callback_that_fails_ends_the_server(scripted: Any) -> None:
    """What the caller's own callback raises comes out of `serve_forever`."""

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        WebsocketPolicyServer(scripted, port=0).serve_forever(listening=fail)


# ------------------------------------------------------------------------------------------- before it runs


def test_constructor_takes_openpis_arguments(scripted: Any) -> None:
    """Policy, host, port, metadata, in this order."""
    server = WebsocketPolicyServer(scripted, "0.0.0.0", 8123, {"a": 1})
    assert server.url == "ws://127.0.0.1:8123"
    assert server.metadata == {"a": 1}
    assert repr(server) == "<WebsocketPolicyServer ws://127.0.0.1:8123 stopped Scripted>"


def test_the_default_host_is_this_machine_alone(scripted: Any) -> None:
    """Nobody opens a robot to the network without saying so."""
    assert WebsocketPolicyServer(scripted).url == "ws://127.0.0.1:8000"


def test_a_policy_needs_infer() -> None:
    """A mistake is told before anything is opened."""
    with pytest.raises(
        ConfigError, match=r"expected a policy with infer\(observation\), got <object"
    ):
        WebsocketPolicyServer(object())  # type: ignore[arg-type]


def test_metadata_must_be_sendable(scripted: Any) -> None:
    """Metadata that cannot travel is told before anything is opened."""
    with pytest.raises(EncodeError, match="robots: a value of type set"):
        WebsocketPolicyServer(scripted, metadata={"robots": {"so101"}})


def test_an_error_that_cannot_be_shown_fails_alone() -> None:
    """An exception whose text raises too must not take the policy thread with it."""

    class Unshowable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class Policy:
        def infer(self, observation: dict[str, Any], /) -> dict[str, Any]:
            """Fail as the observation says."""
            if "bad" in observation:
                raise Unshowable
            return {"actions": np.zeros((2, 6))}

    with WebsocketPolicyServer(Policy(), port=0) as server:
        with (
            RemotePolicy(server.url, wait_for_server=5) as policy,
            pytest.raises(PolicyError),
        ):
            policy.infer({"bad": True})
        with RemotePolicy(server.url, wait_for_server=5) as policy:
            assert policy.infer({"good": True})["actions"].shape == (2, 6)
