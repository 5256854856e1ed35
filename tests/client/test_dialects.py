# SPDX-License-Identifier: Apache-2.0
"""Our client against a server of each dialect, on real sockets; the doubles are in `dialect_servers`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("websockets")

from dialect_servers import ROWS, Double
from misbehaving import ScriptedServer, eventually
from websockets.sync.server import ServerConnection

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.client.connection import ConnectionState
from pi05_websocket.errors import ObservationError, PolicyError
from pi05_websocket.wire import codec
from pi05_websocket.wire.dialects import DIALECTS

OBSERVATION: dict[str, Any] = {
    "observation/exterior_image_1_left": np.full((48, 64, 3), 7, np.uint8),
    "observation/wrist_image_left": np.zeros((48, 64, 3), np.uint8),
    "observation/state": np.arange(6, dtype=np.float32),
    "prompt": "pick up the cube",
}
NAMES = tuple(DIALECTS)
SAY_SO = ("dreamzero", "behavior", "lingbot-va")
"""Those that nobody recognises by what they say."""
BEGIN_EPISODES = [name for name in NAMES if DIALECTS[name].reset != "none"]


@contextlib.contextmanager
def talking(double: Double, dialect: str = "auto") -> Iterator[RemotePolicy]:
    """Connect our client to the double."""
    server = ScriptedServer(double)
    try:
        config = ConnectionConfig(url=server.url, dialect=dialect)  # type: ignore[arg-type]
        with RemotePolicy(config=config, wait_for_server=10) as policy:
            yield policy
    finally:
        server.stop()


def asked_as(name: str) -> str:
    """Return what a user has to set for a server of this dialect."""
    return name if name in SAY_SO else "auto"


@pytest.mark.parametrize("name", NAMES)
def test_its_answer_is_one_chunk_of_rows(name: str) -> None:
    """Its answer is one chunk of rows."""
    with talking(Double(name), asked_as(name)) as policy:
        actions = policy.infer(OBSERVATION)["actions"]
    assert actions.tolist() == (ROWS[:1] if name == "behavior" else ROWS).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_an_error_of_its_kind_is_a_policy_error_and_the_next_request_is_answered(name: str) -> None:
    """An error of its kind is a policy error and the next request is answered."""
    double = Double(name)
    with talking(double, asked_as(name)) as policy:
        policy.infer(OBSERVATION)
        double.fail = 1
        with pytest.raises(
            PolicyError, match=r"observation/image|inference error|boom|no state|proprio|obs"
        ):
            policy.infer(OBSERVATION)
        assert len(policy.infer(OBSERVATION)["actions"])


@pytest.mark.parametrize("name", BEGIN_EPISODES)
def test_an_episode_is_begun_once_and_its_answer_is_never_taken_for_actions(name: str) -> None:
    """An episode is begun once and its answer is never taken for actions."""
    double = Double(name)
    with talking(double, asked_as(name)) as policy:
        for _ in range(2):
            policy.reset()
            policy.reset()
            exchanges = [policy.submit(OBSERVATION) for _ in range(3)]
            for exchange in exchanges:
                assert exchange.result(10).value["actions"].shape[1] == 6
    assert double.resets == 2


@pytest.mark.parametrize("name", [name for name in NAMES if name not in BEGIN_EPISODES])
def test_where_nobody_begins_episodes_nothing_is_said(name: str) -> None:
    """Where nobody begins episodes nothing is said."""
    double = Double(name)
    with talking(double, asked_as(name)) as policy:
        policy.reset()
        policy.infer(OBSERVATION)
    assert len(double.received) == 1


@pytest.mark.parametrize("dialect", ["auto", "openpi"])
def test_an_openpi_server_is_sent_the_bytes_it_was_always_sent(dialect: str) -> None:
    """An OpenPI server is sent the bytes it was always sent."""
    double = Double("openpi")
    with talking(double, dialect) as policy:
        policy.reset()
        policy.infer(OBSERVATION)
    assert double.raw == [codec.encode(OBSERVATION)]


def test_each_episode_has_a_session_of_its_own_and_all_its_requests_the_same() -> None:
    """Each episode has a session of its own and all its requests the same."""
    double = Double("roboarena")
    with talking(double) as policy:
        for _ in range(2):
            policy.reset()
            policy.infer(OBSERVATION)
            policy.infer(OBSERVATION)
    sessions = [each["session_id"] for each in double.received if each["endpoint"] == "infer"]
    assert [sessions[0] == sessions[1], sessions[2] == sessions[3]] == [True, True]
    assert sessions[0] != sessions[2]


def test_images_come_in_the_size_the_server_asks_for_and_outside_cameras_count_from_zero() -> None:
    """Images come in the size the server asks for and outside cameras count from zero."""
    double = Double("roboarena")
    with talking(double) as policy:
        policy.infer(OBSERVATION)
    sent = double.received[-1]
    assert sent["observation/exterior_image_0_left"].shape == (24, 32, 3)
    assert "observation/exterior_image_1_left" not in sent


def test_a_camera_that_the_server_wants_and_nobody_has_is_said_before_anything_is_sent() -> None:
    """A camera that the server wants and nobody has is said before anything is sent."""
    double = Double("roboarena")
    bare = {"observation/state": OBSERVATION["observation/state"], "prompt": "pick"}
    with talking(double) as policy, pytest.raises(ObservationError, match="1 outside cameras"):
        policy.infer(bare)
    assert double.received == []


def test_a_server_that_closes_idle_connections_is_back_without_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server that closes idle connections is back without a warning."""
    caplog.set_level(logging.INFO)
    with talking(Double("vllm-omni", idle_s=0.7)) as policy:
        policy.infer(OBSERVATION)
        while policy.connection.greeting.number < 2:
            policy.connection.wait_ready(10)
        assert policy.infer(OBSERVATION)["actions"].tolist() == ROWS.tolist()
    assert [each.message for each in caplog.records if each.levelno >= logging.WARNING] == []


class Draining(Double):
    """Serves its first client; says goodbye to all later ones before it introduces itself."""

    def __init__(self, dialect: str, *, idle_s: float) -> None:
        super().__init__(dialect, idle_s=idle_s)
        self.clients = 0

    def __call__(self, connection: ServerConnection) -> None:
        """Serve one client, or none."""
        self.clients += 1
        if self.clients == 1:
            super().__call__(connection)


def test_a_server_that_closes_before_it_introduces_itself_is_not_dialled_without_a_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server that closes before it introduces itself is not dialled without a wait."""
    caplog.set_level(logging.INFO)
    with talking(Draining("vllm-omni", idle_s=0.7)) as policy:
        policy.infer(OBSERVATION)
        assert eventually(lambda: policy.connection.state is ConnectionState.WAITING)
    assert [each.levelname for each in caplog.records if "trying again" in each.message] == [
        "WARNING"
    ]


def test_a_named_dialect_brings_its_servers_path_and_a_path_of_the_users_stays() -> None:
    """A named dialect brings its servers path and a path of the users stays."""
    urls = [
        ConnectionConfig(url=url, dialect="vllm-omni").address
        for url in ("ws://gpu:8091", "ws://gpu:8091/", "ws://gpu/robots")
    ]
    path = "/v1/realtime/robot/openpi"
    assert urls == [f"ws://gpu:8091{path}", f"ws://gpu:8091{path}", "ws://gpu/robots"]
