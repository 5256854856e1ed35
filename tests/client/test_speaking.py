# SPDX-License-Identifier: Apache-2.0
"""What is said when an episode begins, and that it is said again where the server may not have heard it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("websockets")

from dialect_servers import ROWS, Double
from misbehaving import ScriptedServer

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.client.speaking import Speaking
from pi05_websocket.errors import ConnectionLost
from pi05_websocket.wire.dialects import DIALECTS

OBSERVATION = {
    "observation/exterior_image_1_left": np.zeros((48, 64, 3), np.uint8),
    "observation/state": np.arange(6, dtype=np.float32),
    "prompt": "pick up the cube",
}
ROBOARENA = DIALECTS["roboarena"]


def test_the_beginning_of_an_episode_is_said_once() -> None:
    """And again after the next begins; OpenPI's servers are told nothing."""
    speaking = Speaking()
    assert speaking.reset(DIALECTS["openpi"], OBSERVATION) is None
    assert speaking.reset(ROBOARENA, OBSERVATION) == {"endpoint": "reset"}
    assert speaking.reset(ROBOARENA, OBSERVATION) is None
    speaking.message(ROBOARENA, {}, OBSERVATION)
    speaking.new_episode()
    assert speaking.reset(ROBOARENA, OBSERVATION) == {"endpoint": "reset"}


def test_what_the_server_may_not_have_heard_is_said_again() -> None:
    """In the same episode: its id stays."""
    speaking = Speaking()
    wanted = {"needs_session_id": True}
    first = speaking.message(ROBOARENA, wanted, OBSERVATION)["session_id"]
    assert speaking.reset(ROBOARENA, OBSERVATION) is not None
    speaking.reset_failed()
    assert speaking.reset(ROBOARENA, OBSERVATION) == {"endpoint": "reset"}
    assert speaking.reset(ROBOARENA, OBSERVATION) is None
    assert speaking.message(ROBOARENA, wanted, OBSERVATION)["session_id"] == first


def test_a_server_that_failed_to_begin_an_episode_is_told_again() -> None:
    """The first reset is answered with an error and a close; the next request is not sent without one."""
    double = Double("roboarena")
    double.fail = 1
    server = ScriptedServer(double)
    try:
        config = ConnectionConfig(url=server.url, backoff_first=0.02, backoff_max=0.05)
        with RemotePolicy(config=config, wait_for_server=10) as policy:
            with pytest.raises(ConnectionLost, match="closes after an error"):
                policy.infer(OBSERVATION)
            actions = policy.infer(OBSERVATION)["actions"]
    finally:
        server.stop()
    assert actions.tolist() == ROWS.tolist()
    assert [each["endpoint"] for each in double.received] == ["reset", "reset", "infer"]
