# SPDX-License-Identifier: Apache-2.0
"""How a request with `_rt` reaches a policy, over a real connection."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pi05_websocket.client import RemotePolicy
from pi05_websocket.errors import PolicyError
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.wire.realtime import (
    RealtimeReply,
    RealtimeRequest,
    RealtimeSupport,
    announcement,
    read_realtime_reply,
    realtime_support,
    with_realtime,
    with_realtime_reply,
)

ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)


class Stock:
    """Knows nothing of `_rt`; remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Answer with zeros."""
        self.seen.append(observation)
        return {"actions": np.zeros((6, 2), np.float32)}


class Conditioned(Stock):
    """Answers with the leftover it was sent."""

    metadata = announcement(RealtimeSupport(prefix="trained", max_delay=3))

    def __init__(self) -> None:
        super().__init__()
        self.queues_ms: list[float] = []

    def infer_realtime(
        self, observation: dict[str, Any], request: RealtimeRequest, queue_ms: float
    ) -> dict[str, Any]:
        """Pin as many rows as asked for, up to three."""
        self.seen.append(observation)
        self.queues_ms.append(queue_ms)
        reply = RealtimeReply(
            seq=request.seq,
            delay=min(3, request.delay),
            prefix="trained",
            queue_ms=queue_ms,
            infer_ms=1.0,
        )
        return with_realtime_reply({"actions": request.leftover}, reply)


def a_request() -> dict[str, Any]:
    """An observation with a leftover."""
    request = RealtimeRequest(seq=5, leftover=ROWS, delay=4, execution_horizon=2, control_hz=30.0)
    return with_realtime({"state": 1.0}, request)


def test_the_leftover_arrives_unchanged_and_the_queue_time_with_it() -> None:
    """Policy and robot see each other's words; the policy's observation has no `_rt`."""
    policy = Conditioned()
    with WebsocketPolicyServer(policy, port=0) as server, RemotePolicy(server.url) as remote:
        support = realtime_support(remote.get_server_metadata())
        reply = remote.infer(a_request())
        said = read_realtime_reply(reply)
    assert support == RealtimeSupport(prefix="trained", max_delay=3, refusals=True)
    assert policy.seen == [{"state": 1.0}]
    np.testing.assert_array_equal(reply["actions"], ROWS, strict=True)
    assert said is not None
    assert (said.seq, said.delay, said.queue_ms) == (5, 3, policy.queues_ms[0])
    assert policy.queues_ms[0] >= 0.0


def test_a_stock_request_to_such_a_policy_is_a_stock_request() -> None:
    """Other clients share the server; they are answered as ever."""
    policy = Conditioned()
    with WebsocketPolicyServer(policy, port=0) as server, RemotePolicy(server.url) as remote:
        reply = remote.infer({"state": 1.0})
    assert set(reply) == {"actions", "server_timing"}
    assert policy.queues_ms == []


def test_a_policy_that_knows_nothing_of_it_is_spared_it() -> None:
    """The server plans by it; the robot is told that nothing was pinned, and how long it waited."""
    policy = Stock()
    with WebsocketPolicyServer(policy, port=0) as server, RemotePolicy(server.url) as remote:
        support = realtime_support(remote.get_server_metadata())
        said = read_realtime_reply(remote.infer(a_request()))
    assert support == RealtimeSupport(prefix="none", refusals=True)
    assert policy.seen == [{"state": 1.0}]
    assert said is not None
    assert (said.seq, said.delay, said.prefix) == (5, 0, "none")


def test_where_nothing_is_announced_the_policy_gets_the_map_as_it_came() -> None:
    """The server takes nothing out that its policy may know under this name."""
    policy, stock = Stock(), ServerConfig(deadlines=False)
    with (
        WebsocketPolicyServer(policy, port=0, config=stock) as server,
        RemotePolicy(server.url) as remote,
    ):
        assert realtime_support(remote.get_server_metadata()) is None
        remote.infer(a_request())
    assert set(policy.seen[0]) == {"state", "_rt"}


def test_a_wrong_request_is_refused_by_name() -> None:
    """The robot is told which field is wrong, and the policy is not asked."""
    policy = Conditioned()
    wrong = a_request()
    wrong["_rt"]["delay"] = -1
    with (
        WebsocketPolicyServer(policy, port=0) as server,
        RemotePolicy(server.url) as remote,
        pytest.raises(PolicyError, match=r"_rt\.delay: expected an integer"),
    ):
        remote.infer(wrong)
    assert policy.seen == []
