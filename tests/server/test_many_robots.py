# SPDX-License-Identifier: Apache-2.0
"""Robots that share a policy, on real sockets: batches, deadlines, classes, sessions, and who is let in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pi05_websocket.client import RemotePolicy
from pi05_websocket.errors import ConnectFailed, PolicyError, RequestRefused
from pi05_websocket.policy import PolicyRequest, session_seed
from pi05_websocket.server import WebsocketPolicyServer
from pi05_websocket.server.keys_file import add_key
from pi05_websocket.server.records import Closed, Opened, Record, RequestRecord
from pi05_websocket.wire.realtime import RealtimeRequest, with_realtime

TEXT = 0x1


class Batches:
    """Waits before every batch to be let through; remembers who was in it."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Semaphore(0)
        self.batches: list[list[PolicyRequest]] = []

    def infer(self, observation: dict[str, Any]) -> Any:
        """Never called: there is a better way."""
        raise AssertionError

    def infer_requests(self, requests: Sequence[PolicyRequest]) -> list[Any]:
        """Answer with the observation's number; a negative one is bad."""
        self.entered.release()
        assert self.opened.acquire(timeout=20)
        self.batches.append(list(requests))
        answers: list[Any] = []
        for request in requests:
            number = request.observation["number"]
            request.state["seen"] = [*request.state.get("seen", []), number]
            bad = ValueError(f"{number} is below 0")
            actions = {"actions": np.full((2, 6), number, np.float32), "number": number}
            answers.append(bad if number < 0 else actions)
        return answers

    def let_through(self, batches: int = 1) -> None:
        """Open for so many."""
        for _ in range(batches):
            self.opened.release()

    @property
    def numbers(self) -> list[list[int]]:
        """Of the observations in each batch."""
        return [[request.observation["number"] for request in batch] for batch in self.batches]


@pytest.fixture
def batches() -> Iterator[Batches]:
    """A policy that waits; it opens for everybody at the end."""
    policy = Batches()
    yield policy
    policy.let_through(100)


def with_deadline(number: int, seq: int = 0, **said: Any) -> dict[str, Any]:
    """An observation of a robot of ours."""
    request = RealtimeRequest(
        seq=seq,
        leftover=np.zeros((0, 0), np.float32),
        delay=0,
        execution_horizon=10,
        control_hz=30.0,
        **said,
    )
    return with_realtime({"number": number}, request)


def occupied(policy: Batches, client: Any) -> None:
    """Have the policy work on number 0 of this client."""
    client.reply()
    client.request({"number": 0})
    assert policy.entered.acquire(timeout=10)


def wait_for(server: Any, count: int) -> None:
    """Wait until so many requests are decoded and wait for the policy."""
    backend = server._service._backend
    deadline = threading.Event()
    for _ in range(2000):
        with backend._lock:
            ready = len(backend._sessions.heads())
            decoded = not backend._undecoded
        if ready >= count and decoded:
            return
        deadline.wait(0.005)
    raise AssertionError(f"{count} requests never waited")


def test_what_waits_is_asked_for_together(serve: Any, connect: Any, batches: Batches) -> None:
    """While the policy works the others gather; each gets its own answer, and a bad one fails alone."""
    server = serve(batches)
    first, *others = [connect(server) for _ in range(4)]
    occupied(batches, first)
    for number, client in enumerate(others, 1):
        client.reply()
        client.request({"number": -3 if number == 3 else number})
    wait_for(server, 3)
    batches.let_through(2)
    assert [client.reply()["number"] for client in (first, others[0], others[1])] == [0, 1, 2]
    assert others[2].receive()[0] == TEXT
    assert others[2].closed()[0] == 1011
    assert sorted(map(len, batches.batches)) == [1, 3]


def test_a_policy_that_takes_one_at_a_time_is_asked_one_at_a_time(
    serve: Any, connect: Any, gate: Any
) -> None:
    """Whatever waits; connections take turns by arrival."""
    server = serve(gate)
    clients = [connect(server) for _ in range(3)]
    for number, client in enumerate(clients):
        client.reply()
        client.request({"number": number})
    for _ in clients:
        gate.opened.release()
    assert [client.reply()["number"] for client in clients] == [0, 1, 2]


def test_no_more_than_the_settings_allow(serve: Any, connect: Any, batches: Batches) -> None:
    """`max_batch`."""
    server = serve(batches, max_batch=2)
    clients = [connect(server) for _ in range(4)]
    occupied(batches, clients[0])
    for number, client in enumerate(clients[1:], 1):
        client.reply()
        client.request({"number": number})
    wait_for(server, 3)
    batches.let_through(3)
    for client in clients:
        client.reply()
    assert list(map(len, batches.batches)) == [1, 2, 1]


def test_the_newest_observation_of_a_robot_wins(serve: Any, connect: Any, batches: Batches) -> None:
    """What it replaces is answered at once and by name; the connection stays."""
    server = serve(batches)
    busy, client = connect(server), connect(server)
    occupied(batches, busy)
    client.reply()
    client.request(with_deadline(1, seq=1))
    wait_for(server, 1)
    client.request(with_deadline(2, seq=2))
    kind, text = client.receive()
    assert (kind, text.startswith(b"RequestRefused: superseded: a newer observation")) == (
        TEXT,
        True,
    )
    batches.let_through(2)
    reply = client.reply()
    assert (reply["number"], reply["_rt"]["seq"], reply["_rt"]["prefix"]) == (2, 2, "none")


@pytest.mark.faults
def test_what_would_come_too_late_is_not_asked_for(
    serve: Any, connect: Any, batches: Batches
) -> None:
    """Too late on arrival is `late`; too late because the policy was busy is `busy`, with a time to wait."""
    server = serve(batches)
    busy, client, other = connect(server), connect(server), connect(server)
    for robot in (busy, client, other):
        robot.reply()
    batches.let_through(4)
    for _ in range(4):  # so that it is known how quick the policy is
        busy.request({"number": 0})
        busy.reply()
        assert batches.entered.acquire(timeout=10)
    busy.request({"number": 0})
    assert batches.entered.acquire(timeout=10)
    client.request(with_deadline(1, deadline_ms=520.0, age_ms=60.0))
    other.request(with_deadline(2, deadline_ms=400.0))
    wait_for(server, 2)
    time.sleep(0.45)
    batches.let_through(1)
    busy.reply()
    for robot in (client, other):
        assert robot.receive()[1].startswith(b"RequestRefused: busy retry_after_s=")
    client.request(with_deadline(3, deadline_ms=100.0, age_ms=60.0))
    assert client.receive()[1].startswith(
        b"RequestRefused: late: its answer had to leave -0.020 s after it came"
    )
    assert batches.numbers == [[0]] * 5


def test_our_client_is_told_by_type(serve: Any, batches: Batches) -> None:
    """The error says which kind, and that asking again can help."""
    server = serve(batches)
    with RemotePolicy(server.url) as remote:
        with pytest.raises(RequestRefused, match="its answer had to leave") as caught:
            remote.infer(with_deadline(1, deadline_ms=10.0, age_ms=60.0))
        assert (caught.value.kind, caught.value.retryable) == ("late", True)
        batches.let_through()
        assert remote.infer(with_deadline(2))["number"] == 2
        assert remote.connection.reconnects == 0


@pytest.mark.faults
@pytest.mark.parametrize("typed", [True, False])
def test_nobody_waits_for_ever(serve: Any, connect: Any, batches: Batches, typed: bool) -> None:
    """After `max_wait_s` a robot of ours is told that the server is busy, a stock client in OpenPI's form."""
    server = serve(batches, max_wait_s=0.1)
    busy, client = connect(server), connect(server)
    occupied(batches, busy)
    client.reply()
    client.request(with_deadline(1) if typed else {"number": 1})
    kind, text = client.receive()
    assert kind == TEXT
    if typed:
        assert text.startswith(b"RequestRefused: busy retry_after_s=")
    else:
        assert b"TimeoutError: the request waited" in text
        assert client.closed()[0] == 1011
    batches.let_through()
    assert busy.reply()["number"] == 0


def test_a_high_priority_goes_first(
    serve: Any, connect: Any, batches: Batches, tmp_path: Path
) -> None:
    """By the keys file; an evaluation waits for a robot."""
    file = tmp_path / "keys.json"
    headers = {
        name: f"Authorization: Api-Key {add_key(file, name, datetime.now(UTC), priority=name)}\r\n"
        for name in ("low", "normal", "high")
    }
    server = serve(batches, keys=str(file), max_batch=1)
    busy = connect(server, headers=headers["normal"])
    occupied(batches, busy)
    clients = {name: connect(server, headers=header) for name, header in headers.items()}
    for number, client in enumerate(clients.values(), 1):
        client.reply()
        client.request({"number": number})
    wait_for(server, 3)
    batches.let_through(4)
    for client in clients.values():
        client.reply()
    assert batches.numbers == [[0], [3], [2], [1]]


def test_every_session_has_its_own_seeds_and_memory(
    serve: Any, connect: Any, batches: Batches
) -> None:
    """What is drawn depends on server seed, session and request, not on the batch."""
    server = serve(batches, seed=7)
    clients = [connect(server) for _ in range(2)]
    for client in clients:
        client.reply()
    batches.let_through(10)
    for number in (1, 2):
        for client in clients:
            client.request({"number": number})
            client.reply()
    requests = [request for batch in batches.batches for request in batch]
    states = {id(request.state): request.state for request in requests}
    assert [state["seen"] for state in states.values()] == [[1, 2], [1, 2]]
    first = min(c.number for c in server._service._connections._open)
    expected = {session_seed(7, first + i, n) for i in (0, 1) for n in (1, 2)}
    assert {request.seed for request in requests} == expected
    assert len(expected) == 4


def test_a_full_server_says_so_before_the_handshake(serve: Any, scripted: Any) -> None:
    """503 and when to come back, in the place of a WebSocket that would be served badly."""
    server = serve(scripted, max_connections=1)
    with (
        RemotePolicy(server.url),
        pytest.raises(
            ConnectFailed, match=r"503.*has as many robots as it takes \(--max-connections\)"
        ),
    ):
        RemotePolicy(server.url, wait_for_server=0.2)


def test_while_the_policy_hangs_nobody_else_comes_in(
    serve: Any, connect: Any, batches: Batches
) -> None:
    """Nothing is answered, so nothing has waited; but somebody waits."""
    server = serve(batches, max_queue_s=0.0)
    first, second = connect(server), connect(server)
    occupied(batches, first)
    connect(server)  # nobody waits yet
    second.reply()
    second.request({"number": 1})
    wait_for(server, 1)
    with pytest.raises(ConnectFailed, match=r"503.*nobody else comes in"):
        RemotePolicy(server.url, wait_for_server=0.2)


def test_listeners_are_told_what_became_of_every_request(connect: Any, scripted: Any) -> None:
    """Who came, what was answered and what was not, who went; a listener that fails is left out of it."""
    records: list[Record] = []
    gone = threading.Event()

    def listen(record: Record) -> None:
        records.append(record)
        if isinstance(record, Closed):
            gone.set()

    def fail(record: Record) -> None:
        raise KeyError(record)

    with WebsocketPolicyServer(scripted, port=0, listeners=[fail, listen]) as server:
        client = connect(server, "/arm?x=1")
        client.reply()
        client.request({**with_deadline(1, leftover_ms=5000.0, age_ms=2.0), "do": ""})
        client.reply()
        client.request(with_deadline(1, deadline_ms=1.0, age_ms=2.0))
        client.receive()
        client.request({"do": "fail"})
        client.receive()
        client.closed()
        assert gone.wait(10)
    opened, answered, refused, failed, closed = records
    assert isinstance(opened, Opened)
    assert (opened.who, opened.path) == ("anonymous", "/arm?x=1")
    assert isinstance(answered, RequestRecord)
    assert (answered.outcome, answered.number, answered.batch, answered.missed) == (
        "answered",
        1,
        1,
        False,
    )
    assert (answered.age_ms, answered.due_ms) == (2.0, pytest.approx(4996.0))
    assert answered.observation == {"number": 1, "do": ""}
    assert answered.actions is scripted.result["actions"]
    assert isinstance(refused, RequestRecord)
    assert (refused.outcome, refused.why, refused.missed) == ("refused", "late", False)
    assert isinstance(failed, RequestRecord)
    assert (failed.outcome, failed.why) == ("failed", "KeyError: 'observation/image'")
    assert isinstance(closed, Closed)
    assert closed.why == "1011 KeyError: 'observation/image'"


def test_without_anything_announced_a_robot_of_ours_is_a_stock_client(
    serve: Any, connect: Any, batches: Batches
) -> None:
    """`deadlines=False`: nothing is read, nothing is refused."""
    client = connect(serve(batches, deadlines=False))
    client.reply()
    batches.let_through()
    client.request(with_deadline(1, deadline_ms=1.0, age_ms=60.0))
    assert client.reply()["number"] == 1


def test_wrong_words_are_refused_by_name(serve: Any, batches: Batches) -> None:
    """A field that is not what it should be fails this request, before the policy is asked."""
    server = serve(batches)
    wrong = with_deadline(1)
    wrong["_rt"]["control_hz"] = -1.0
    with RemotePolicy(server.url) as remote, pytest.raises(PolicyError, match=r"_rt\.control_hz"):
        remote.infer(wrong)
    assert batches.batches == []
