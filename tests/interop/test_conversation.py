# SPDX-License-Identifier: Apache-2.0
"""Every pairing of OpenPI's client and server with ours: the same conversation, the same outcomes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from announced import ANNOUNCED

pytestmark = [
    pytest.mark.openpi,
    # OpenPI's client opens its connection in the way websockets 17 deprecates.
    pytest.mark.filterwarnings(r"ignore:connect\(\) must be used as a context:DeprecationWarning"),
    pytest.mark.parametrize("client_kind", ["our client", "stock client"]),
    pytest.mark.parametrize("server_kind", ["our server", "stock server"]),
]


def assert_answer(reply: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare a reply with what the policy computed from the observation it was sent."""
    np.testing.assert_array_equal(reply["actions"], expected["actions"], strict=True)
    for key in ("sums", "prompt", "policy_timing"):
        assert reply[key] == expected[key]


def test_mission_observations_arrive_whole(
    start: Any, summing: Any, observe: Any, expected: Any, client_kind: str, server_kind: str
) -> None:
    """Images, state and prompt arrive to the byte; actions and timings come back."""
    server = start.server(server_kind, summing, metadata={"reset_pose": [0.0, -1.5]})
    client = start.client(client_kind, server.port)
    announced = ANNOUNCED if server_kind == "our server" else {}
    assert client.get_server_metadata() == {"reset_pose": [0.0, -1.5], **announced}
    for number in range(5):
        observation = observe(number)
        reply = client.infer(observation)
        assert_answer(reply, expected(observation))
        timing = {"infer_ms"} if number == 0 else {"infer_ms", "prev_total_ms"}
        assert set(reply["server_timing"]) == timing


def test_two_clients_at_once(
    start: Any, summing: Any, observe: Any, expected: Any, client_kind: str, server_kind: str
) -> None:
    """Two robots ask at the same time; each gets its own answers."""
    server = start.server(server_kind, summing)
    clients = [start.client(client_kind, server.port) for _ in range(2)]

    def drive(index: int) -> None:
        for number in range(4):
            observation = observe(10 * index + number)
            assert_answer(clients[index].infer(observation), expected(observation))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(drive, range(2)))


def test_a_bad_observation_is_a_runtime_error_with_the_cause(
    start: Any, summing: Any, observe: Any, expected: Any, client_kind: str, server_kind: str
) -> None:
    """The server's traceback reaches the client that caused it; another client notices nothing."""
    server = start.server(server_kind, summing)
    bad, good = (start.client(client_kind, server.port) for _ in range(2))
    with pytest.raises(RuntimeError, match="KeyError: 'observation/state'") as caught:
        bad.infer({"prompt": "no state"})
    text = getattr(caught.value, "detail", str(caught.value))
    assert "Traceback (most recent call last):" in text
    observation = observe(1)
    assert_answer(good.infer(observation), expected(observation))
    again = start.client(client_kind, server.port)
    assert_answer(again.infer(observation), expected(observation))


def test_a_restarted_server_is_found_again(
    start: Any, summing: Any, observe: Any, expected: Any, client_kind: str, server_kind: str
) -> None:
    """After a restart on the same port everything goes on."""
    server = start.server(server_kind, summing)
    client = start.client(client_kind, server.port)
    client.infer(observe(0))
    server.close()
    start.server(server_kind, summing, port=server.port)
    observation = observe(1)
    if client_kind == "stock client":  # it has no way to come back by itself
        client = start.client(client_kind, server.port)
    assert_answer(client.infer(observation), expected(observation))
