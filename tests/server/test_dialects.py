# SPDX-License-Identifier: Apache-2.0
"""Our server to clients of each dialect: small raw ones, as their families' clients are, and our own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asgi_client import AsgiClient

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.errors import ConfigError, PolicyError
from pi05_websocket.gateway import PolicyGateway
from pi05_websocket.policy import PolicyRequest
from pi05_websocket.server import ServerConfig
from pi05_websocket.server.asgi import PolicyApp
from pi05_websocket.server.keys_file import add_key
from pi05_websocket.server.worker import PolicyWorker
from pi05_websocket.wire import codec
from pi05_websocket.wire.dialects import DIALECTS

TEXT, BINARY = 0x1, 0x2
CHUNK = np.arange(48, dtype=np.float64).reshape(8, 6)
OBSERVATION: dict[str, Any] = {
    "observation/exterior_image_1_left": np.full((24, 32, 3), 7, np.uint8),
    "observation/state": np.arange(6, dtype=np.float32),
    "prompt": "pick up the cube",
}
START = Callable[..., Any]


class Remembering:
    """Counts the requests of an episode in the session's memory; fails where the prompt says so."""

    def __init__(self) -> None:
        self.metadata = {"name": "remembering", "action_horizon": 8, "n_external_cameras": 1}
        self.counts: list[int] = []
        self.seen: list[dict[str, Any]] = []

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Answer one request alone."""
        return {"actions": CHUNK}

    def infer_requests(self, requests: list[PolicyRequest]) -> list[dict[str, Any] | Exception]:
        """Answer each, and count."""
        answers: list[dict[str, Any] | Exception] = []
        for request in requests:
            self.seen.append(request.observation)
            if request.observation.get("prompt") == "fail":
                answers.append(KeyError("observation/image"))
                continue
            request.state["count"] = request.state.get("count", 0) + 1
            self.counts.append(request.state["count"])
            answers.append({"actions": CHUNK})
        return answers


@pytest.mark.parametrize("name", DIALECTS)
def test_our_own_client_gets_the_chunk_an_episode_and_an_error_in_each_dialect(
    serve: START, name: str
) -> None:
    """Our own client gets the chunk an episode and an error in each dialect."""
    policy = Remembering()
    server = serve(policy)
    config = ConnectionConfig(url=f"{server.url}/{name}", dialect=name)  # type: ignore[arg-type]
    with RemotePolicy(config=config, wait_for_server=10) as remote:
        for _ in range(2):
            remote.reset()
            for _ in range(2):
                actions = remote.infer(OBSERVATION)["actions"]
                assert actions.tolist() == (CHUNK[:1] if name == "behavior" else CHUNK).tolist()
        with pytest.raises(PolicyError, match="observation/image"):
            remote.infer(OBSERVATION | {"prompt": "fail"})
        assert len(remote.infer(OBSERVATION)["actions"])
    forgets = DIALECTS[name].reset != "none"
    assert policy.counts[:4] == ([1, 2, 1, 2] if forgets else [1, 2, 3, 4])


def test_a_roboarena_client_finds_its_settings_a_text_for_its_reset_and_a_chunk(
    serve: START, connect: START
) -> None:
    """A roboarena client finds its settings a text for its reset and a chunk."""
    policy = Remembering()
    client = connect(serve(policy), "/roboarena")
    assert client.reply() == {
        "image_resolution": [224, 224],
        "needs_wrist_camera": True,
        "n_external_cameras": 1,
        "needs_stereo_camera": False,
        "needs_session_id": False,
        "action_space": "joint_position",
    }
    client.request({"endpoint": "reset"})
    client.request({"endpoint": "infer", "session_id": "a", "prompt": "pick"})
    assert client.receive() == (TEXT, b"reset successful")
    assert client.reply()["actions"].tolist() == CHUNK.tolist()
    assert policy.seen == [{"prompt": "pick"}]


def test_another_session_id_is_another_episode(serve: START, connect: START) -> None:
    """Another session id is another episode."""
    policy = Remembering()
    client = connect(serve(policy), "/v1/realtime/robot/openpi")
    client.reply()
    for session in ("a", "a", "b", "b"):
        client.request({"session_id": session, "prompt": "pick"})
        client.reply()
    assert policy.counts == [1, 2, 1, 2]


def test_a_dreamzero_client_gets_the_array_itself(serve: START, connect: START) -> None:
    """A dreamzero client gets the array itself."""
    client = connect(serve(Remembering()), "/dreamzero")
    assert client.reply()["needs_session_id"] is True
    client.request({"endpoint": "infer", "session_id": "a", "prompt": "pick"})
    assert client.reply().tolist() == CHUNK.tolist()


def test_a_vllm_omni_client_keeps_its_connection_over_an_error(
    serve: START, connect: START
) -> None:
    """A vllm omni client keeps its connection over an error."""
    client = connect(serve(Remembering()), "/v1/realtime/robot/openpi")
    client.reply()
    client.request({"endpoint": "reset"})
    assert client.reply() == {"status": "reset successful"}
    client.request({"prompt": "fail"})
    error = client.reply()
    assert [error["type"], "observation/image" in error["message"]] == ["error", True]
    client.send(TEXT, b"hello")
    assert "text message" in client.reply()["message"]
    client.request({"prompt": "pick"})
    assert client.reply().dtype == np.float32


def test_an_sglang_client_is_told_in_a_map_and_the_connection_closes(
    serve: START, connect: START
) -> None:
    """An sglang client is told in a map and the connection closes."""
    client = connect(serve(Remembering()), "/openpi/policy?model=pi05")
    assert client.reply()["object"] == "action.metadata"
    client.request({"prompt": "pick"})
    assert sorted(client.reply()) == ["actions", "server_timing"]
    client.request({"prompt": "fail"})
    assert "observation/image" in client.reply()["error"]
    assert client.closed()[0] == 1011


def test_a_starvla_client_gets_its_request_id_back(serve: START, connect: START) -> None:
    """A starvla client gets its request id back."""
    policy = Remembering()
    client = connect(serve(policy), "/starvla")
    assert client.reply()["action_chunk_size"] == 8
    image = np.zeros((4, 4, 3), np.uint8)
    example = {"image": [image], "lang": "pick", "state": np.ones((1, 6), np.float32)}
    client.request({"type": "ping", "request_id": "p"})
    assert client.reply() == {"status": "ok", "ok": True, "type": "ping", "request_id": "p"}
    client.request({"type": "infer", "request_id": "r1", "payload": {"examples": [example]}})
    reply = client.reply()
    assert [reply["request_id"], reply["ok"], reply["data"]["actions"].shape] == [
        "r1",
        True,
        (1, 8, 6),
    ]
    assert [policy.seen[0]["prompt"], policy.seen[0]["state"].shape] == ["pick", (6,)]
    client.request({"examples": [example | {"lang": "fail"}], "request_id": "r2"})
    reply = client.reply()
    assert [reply["request_id"], reply["ok"], reply["status"]] == ["r2", False, "error"]
    client.request({"type": "dance"})
    assert "Unsupported message type" in client.reply()["error"]["message"]


def test_a_behavior_client_gets_no_answer_to_its_reset_and_one_action(
    serve: START, connect: START
) -> None:
    """A behavior client gets no answer to its reset and one action."""
    policy = Remembering()
    client = connect(serve(policy), "/behavior")
    client.reply()
    client.request({"prompt": "pick"})
    client.request({"reset": True})
    client.request({"prompt": "pick"})
    assert [client.reply()["action"].tolist() for _ in range(2)] == [CHUNK[0].tolist()] * 2
    assert policy.counts == [1, 1]


def test_a_lingbot_client_gets_channels_with_a_frame_in_front_until_it_has_given_history(
    serve: START, connect: START
) -> None:
    """A lingbot client gets channels with a frame in front until it has given history."""
    client = connect(serve(Remembering()), "/lingbot-va")
    client.reply()
    frame = {"cam": np.zeros((4, 4, 3), np.uint8)}
    shapes = []
    for message in (
        {"reset": True, "prompt": "pick"},
        {"obs": [frame], "prompt": "pick"},
        {"obs": [frame], "compute_kv_cache": True, "state": np.zeros((6, 3, 4))},
        {"obs": frame, "prompt": "pick"},
        {"reset": True, "prompt": "pick"},
        {"obs": [frame], "prompt": "pick"},
    ):
        client.request(message)
        reply = client.reply()
        shapes.append(reply["action"].shape if "action" in reply else None)
    assert shapes == [None, (6, 3, 4), None, (6, 2, 4), None, (6, 3, 4)]


def test_the_key_says_how_its_clients_talk_unless_the_path_does(
    serve: START, connect: START, tmp_path: Path
) -> None:
    """The key says how its clients talk unless the path does."""
    file = tmp_path / "keys.json"
    secret = add_key(file, "arm", datetime.now(UTC), dialect="vllm-omni")
    server = serve(Remembering(), keys=str(file))
    header = f"Authorization: Bearer {secret}\r\n"
    client = connect(server, "/", header)
    client.reply()
    client.request({"prompt": "pick"})
    assert isinstance(client.reply(), np.ndarray)
    client = connect(server, "/openpi", header)
    client.reply()
    client.request({"prompt": "pick"})
    assert sorted(client.reply()) == ["actions", "server_timing"]


def test_the_servers_setting_counts_where_nothing_else_does(serve: START, connect: START) -> None:
    """The servers setting counts where nothing else does."""
    client = connect(serve(Remembering(), dialect="behavior"), "/any")
    client.reply()
    client.request({"prompt": "pick"})
    assert sorted(client.reply()) == ["action", "server_timing"]


def test_none_speaks_openpi_whatever_the_path(serve: START, connect: START) -> None:
    """None speaks OpenPI whatever the path."""
    client = connect(serve(Remembering(), dialect="none"), "/roboarena")
    assert client.reply()["name"] == "remembering"


def test_a_request_that_is_not_let_through_is_said_in_the_dialect(
    serve: START, connect: START, tmp_path: Path
) -> None:
    """A request that is not let through is said in the dialect."""
    file = tmp_path / "keys.json"
    secret = add_key(file, "arm", datetime.now(UTC), requests_per_second=0.001)
    header = f"Authorization: Bearer {secret}\r\n"
    client = connect(serve(Remembering(), keys=str(file)), "/vllm-omni", header)
    client.reply()
    client.request({"prompt": "pick"})
    client.request({"prompt": "pick"})
    client.reply()
    assert client.reply()["message"].startswith("RequestRefused: rate")


def test_behind_an_asgi_server_the_same_is_said() -> None:
    """Behind an asgi server the same is said."""

    async def talk() -> list[Any]:
        policy = Remembering()
        app = PolicyApp(
            lambda config, deliver, stopped: PolicyWorker(policy, config, deliver, stopped),
            lambda: policy.metadata,
            config=ServerConfig(),
        )
        heard = []
        for path in ("/roboarena", "/behavior", "/vllm-omni", "/sglang"):
            client = AsgiClient(app, path=path, raw_path=path.encode())
            await client.sent()  # accepted
            await client.sent()  # metadata
            reset = DIALECTS[path[1:]].reset_fields
            if reset:
                client.request(dict(reset))
            client.request({"prompt": "pick"})
            client.request({"prompt": "fail"})
            count = 2 + (path in ("/roboarena", "/vllm-omni")) + (path != "/vllm-omni")
            heard.append([await client.sent() for _ in range(count)])
            client.say("websocket.disconnect", code=1000)
        await app.drain()
        return heard

    roboarena, behavior, vllm_omni, sglang = asyncio.run(talk())
    assert roboarena[0]["text"] == "reset successful"
    assert codec.decode(behavior[0]["bytes"])["action"].tolist() == CHUNK[0].tolist()
    assert codec.decode(vllm_omni[0]["bytes"]) == {"status": "reset successful"}
    assert codec.decode(vllm_omni[2]["bytes"])["type"] == "error"
    assert "observation/image" in codec.decode(sglang[1]["bytes"])["error"]
    assert [each[-1]["type"] for each in (roboarena, behavior, sglang)] == ["websocket.close"] * 3


def test_a_gateway_translates_nothing_and_says_so() -> None:
    """A gateway translates nothing and says so."""
    with pytest.raises(ConfigError, match="translates none"):
        PolicyGateway(["ws://127.0.0.1:9"], config=ServerConfig(dialect="starvla"))
