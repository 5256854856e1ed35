# SPDX-License-Identifier: Apache-2.0
"""What whoever runs a server can do to it while robots are connected, and what its listeners are told."""

from __future__ import annotations

import http.client
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from pi05_websocket.server import WebsocketPolicyServer
from pi05_websocket.server.keys import Refusal
from pi05_websocket.server.operator import Operator
from pi05_websocket.server.records import (
    DISCONNECTED,
    Closed,
    Opened,
    Record,
    RequestRecord,
    ServerState,
    TurnedAway,
)
from pi05_websocket.wire.realtime import RealtimeRequest, with_realtime

OBSERVATION = {"observation/state": np.arange(6, dtype=np.float32)}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Told:
    """A listener whose records are waited for."""

    def __init__(self) -> None:
        self._records: queue.Queue[Record] = queue.Queue()

    def __call__(self, record: Record) -> None:
        """Take one, on the event loop."""
        self._records.put(record)

    def next(self) -> Record:
        """Wait for the next one."""
        return self._records.get(timeout=10)


def operate(server: WebsocketPolicyServer, do: Callable[[Operator], Any]) -> Any:
    """Do something on the event loop and return what comes of it."""
    done: Future[Any] = Future()
    assert server.operate(lambda operator: done.set_result(do(operator)))
    return done.result(10)


def state_of(server: WebsocketPolicyServer) -> ServerState:
    """Return how a server is."""
    state = operate(server, Operator.state)
    assert isinstance(state, ServerState)
    return state


def upgrade(server: WebsocketPolicyServer) -> tuple[int, str | None, str]:
    """Ask to come in; return status, when to come again, and the text."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/", headers={"Upgrade": "websocket"})
    response = connection.getresponse()
    answer = response.status, response.getheader("Retry-After"), response.read().decode()
    connection.close()
    return answer


def asked(leftover_ms: float | None, **more: Any) -> dict[str, Any]:
    """Return an observation of a robot that reads refusals."""
    request = RealtimeRequest(
        seq=1,
        leftover=np.zeros((0, 6), np.float32),
        delay=1,
        execution_horizon=5,
        control_hz=30.0,
        leftover_ms=leftover_ms,
        **more,
    )
    return with_realtime(OBSERVATION, request)


def test_state(serve: Any, connect: Any, gate: Any) -> None:
    """Who is here, what waits and what a client is told; nothing of a server that does not run."""
    server = serve(gate)
    client = connect(server)
    client.reply()
    client.request({"number": 0})
    assert gate.entered.acquire(timeout=10)
    client.request({"number": 1})
    client.send(0x9)  # its pong says that the request before it is taken
    assert client.receive()[0] == 0xA
    state = state_of(server)
    ((_, unanswered),) = state.unanswered.items()
    assert (unanswered, state.waiting) == (2, 1)
    assert (state.unready, state.paused, state.draining, state.can_pause) == (
        None,
        False,
        False,
        True,
    )
    assert "_rt" not in state.metadata
    gate.opened.release(2)
    server.close()
    assert not server.operate(Operator.state)


def test_a_paused_server_answers_when_it_goes_on(serve: Any, connect: Any, scripted: Any) -> None:
    """A stock client waits, nobody else comes in, and then everything is as before."""
    server = serve(scripted)
    client = connect(server)
    client.reply()
    operate(server, lambda operator: operator.pause(on=True))
    client.request(OBSERVATION)
    client.send(0x9)
    assert client.receive()[0] == 0xA
    state = state_of(server)
    assert state.paused
    assert (state.unready, state.waiting) == ("an operator has paused it", 1)
    assert upgrade(server) == (
        503,
        "2",
        "This policy server is not ready: an operator has paused it.\n",
    )
    operate(server, lambda operator: operator.pause(on=False))
    assert "actions" in client.reply()
    connect(server).reply()


def test_a_robot_is_told_of_the_pause(
    serve: Any, connect: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who states a deadline is told `busy` and why when its time is over, however long the pause has been."""
    monkeypatch.setattr("pi05_websocket.server.batching._DOUBTED_AFTER_S", 1e-9)
    server = serve(scripted)
    client = connect(server)
    client.reply()
    operate(server, lambda operator: operator.pause(on=True))
    client.request(asked(leftover_ms=50.0, deadline_ms=50.0))
    kind, text = client.receive()
    assert kind == 0x1
    assert text.startswith(b"RequestRefused: busy")
    assert b"an operator has paused the server" in text


def test_draining(serve: Any, connect: Any, scripted: Any) -> None:
    """Who is here stays and is answered; nobody else comes in until it ends."""
    told = Told()
    server = serve(scripted, listeners=[told])
    client = connect(server)
    client.reply()
    operate(server, lambda operator: operator.drain(on=True))
    status, _, text = upgrade(server)
    assert (status, "being drained" in text) == (503, True)
    client.request(OBSERVATION)
    assert "actions" in client.reply()
    operate(server, lambda operator: operator.drain(on=False))
    connect(server).reply()
    kinds = [told.next() for _ in range(4)]
    assert [type(record) for record in kinds] == [Opened, TurnedAway, RequestRecord, Opened]
    assert isinstance(kinds[1], TurnedAway)
    assert kinds[1].reason == "unready"


def test_one_robot_is_disconnected(serve: Any, connect: Any, scripted: Any) -> None:
    """It is told why; the others stay; a number that nobody has does nothing."""
    told = Told()
    server = serve(scripted, listeners=[told])
    clients = [connect(server) for _ in range(2)]
    for client in clients:
        client.reply()
    first = told.next()
    assert isinstance(first, Opened)
    operate(server, lambda operator: operator.disconnect(0))
    operate(server, lambda operator: operator.disconnect(first.connection))
    kind, payload = clients[0].receive()
    assert (kind, payload[2:].decode()) == (0x8, DISCONNECTED)
    clients[0].send(0x8, payload[:2])
    clients[1].request(OBSERVATION)
    assert "actions" in clients[1].reply()
    records = [told.next() for _ in range(3)]
    (closed,) = [record for record in records if isinstance(record, Closed)]
    assert closed == Closed(connection=first.connection, why=f"1001 {DISCONNECTED}")


def test_stopping_is_a_reason(serve: Any, connect: Any, gate: Any) -> None:
    """While the last inference ends, nobody is let in."""
    server = serve(gate)
    client = connect(server)
    client.reply()
    client.request({"number": 0})
    assert gate.entered.acquire(timeout=10)
    closing = threading.Thread(target=server.close)
    server.request_stop()
    closing.start()
    assert state_of(server).unready == "it is stopping"
    gate.opened.release()
    closing.join(10)


def test_a_backend_that_cannot_pause() -> None:
    """It is not asked to, and says so."""

    class Other:
        waiting = 0
        unready = "no server of its own answers"

    full = Refusal(503, "Full.", "2 are connected", reason="full")
    operator = Operator(Other(), [], dict, lambda: full)  # type: ignore[arg-type]  # all that is asked of it
    operator.pause(on=True)
    state = operator.state()
    assert (state.can_pause, state.paused) == (False, False)
    assert state.unready == "2 are connected"
    assert operator.unready == "no server of its own answers"
    assert repr(operator) == "<Operator no server of its own answers>"


@pytest.mark.parametrize(
    ("observation", "outcome", "facts"),
    [
        (OBSERVATION, "answered", {"age_ms": None, "due_ms": None, "traceparent": None}),
        (
            asked(leftover_ms=60_000.0, age_ms=20.0, traceparent=TRACEPARENT),
            "answered",
            {"age_ms": 20.0, "due_ms": 59_960.0, "traceparent": TRACEPARENT},
        ),
        ({"do": "fail"}, "failed", {"why": "KeyError: 'observation/image'"}),
    ],
)
def test_what_became_of_a_request(
    serve: Any, connect: Any, scripted: Any, observation: Any, outcome: str, facts: dict[str, Any]
) -> None:
    """One record for each request, with what the robot said of it."""
    told = Told()
    client = connect(serve(scripted, listeners=[told]))
    client.reply()
    client.request(observation)
    client.receive()
    opened, record = told.next(), told.next()
    assert isinstance(opened, Opened)
    assert isinstance(record, RequestRecord)
    assert (record.connection, record.number) == (opened.connection, 1)
    assert record.outcome == outcome
    assert {name: getattr(record, name) for name in facts} == pytest.approx(facts)
    assert record.arrived > 0
    assert record.bytes_in > 0
    assert not record.missed
