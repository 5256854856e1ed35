# SPDX-License-Identifier: Apache-2.0
"""What is said when an episode begins, and that it is said again where the server may not have heard it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("websockets")

from dialect_servers import ROWS, Double
from misbehaving import ScriptedServer
from websockets.sync.server import ServerConnection

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.client.speaking import Speaking
from pi05_websocket.errors import ConnectionLost, PolicyError
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
    assert speaking.reset(DIALECTS["openpi"], OBSERVATION, greeting=1) is None
    assert speaking.reset(ROBOARENA, OBSERVATION, greeting=1) == {"endpoint": "reset"}
    assert speaking.reset(ROBOARENA, OBSERVATION, greeting=1) is None
    speaking.message(ROBOARENA, {}, OBSERVATION)
    speaking.new_episode()
    assert speaking.reset(ROBOARENA, OBSERVATION, greeting=1) == {"endpoint": "reset"}


def test_what_the_server_may_not_have_heard_is_said_again() -> None:
    """In the same episode: its id stays."""
    speaking = Speaking()
    wanted = {"needs_session_id": True}
    first = speaking.message(ROBOARENA, wanted, OBSERVATION)["session_id"]
    assert speaking.reset(ROBOARENA, OBSERVATION, greeting=1) is not None
    speaking.reset_failed()
    assert speaking.reset(ROBOARENA, OBSERVATION, greeting=1) == {"endpoint": "reset"}
    assert speaking.reset(ROBOARENA, OBSERVATION, greeting=1) is None
    assert speaking.message(ROBOARENA, wanted, OBSERVATION)["session_id"] == first


def test_who_needs_to_hear_it_hears_it_at_each_connection() -> None:
    """Once at each; who needs no words for it is told once in an episode."""
    for name, again in (("lingbot-va", True), ("roboarena", False)):
        speaking, dialect = Speaking(), DIALECTS[name]
        said = [speaking.reset(dialect, OBSERVATION, greeting=each) for each in (1, 1, 2, 2)]
        assert [each is not None for each in said] == [True, False, again, False]


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


class Restarted(Double):
    """A server that is another process at each connection: it knows of no episode."""

    def __call__(self, connection: ServerConnection) -> None:
        """Serve one client."""
        self.resets = 0
        super().__call__(connection)


@pytest.mark.parametrize(("name", "told"), [("lingbot-va", 2), ("roboarena", 1), ("behavior", 1)])
def test_a_server_that_was_restarted_in_mid_episode_is_told_what_to_do(
    name: str, told: int
) -> None:
    """Where it answers nobody who has not said it; the others' memory of an episode stays theirs."""
    double = Restarted(name)
    server = ScriptedServer(double)
    try:
        config = ConnectionConfig(url=server.url, dialect=name, backoff_first=0.02)  # type: ignore[arg-type]
        with RemotePolicy(config=config, wait_for_server=10) as policy:
            policy.infer(OBSERVATION)
            double.fail = 1
            with pytest.raises(PolicyError):  # which costs the connection
                policy.infer(OBSERVATION)
            for _ in range(2):
                assert len(policy.infer(OBSERVATION)["actions"])
    finally:
        server.stop()
    resets = [each for each in double.received if "reset" in (*each, each.get("endpoint"))]
    assert len(resets) == told
    if name == "lingbot-va":
        assert [each["prompt"] for each in resets] == ["pick up the cube"] * 2
