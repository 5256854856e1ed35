# SPDX-License-Identifier: Apache-2.0
"""Settings of the ingress change while robots are connected: in place, on the sockets they have."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robots_under_load import Robots, connected

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.engine_ray.config import IngressSettings
from pi05_websocket.engine_ray.serve_state import serving
from pi05_websocket.errors import AccessRefused, ConfigError, ConnectionLost
from pi05_websocket.server import ServerConfig
from pi05_websocket.server.keys_file import add_key
from pi05_websocket.wire import codec


@pytest.fixture
def ingress(cluster: Any) -> Iterator[Any]:
    """A cluster whose ingress is what it was, whatever tests before left behind, and is put back so."""
    cluster.serving("Numbered")
    cluster.deploy_ingress()
    cluster.until(2, "ingress", "ingress")
    yield cluster
    cluster.deploy_ingress()


def ask_for_ten_seconds(policy: RemotePolicy) -> None:
    """Ask ten times a second."""
    for number in range(100):
        policy.infer({"robot": 1, "number": number})
        time.sleep(0.1)


def test_a_changed_setting_counts_and_nobody_is_disconnected(ingress: Any) -> None:
    """The same processes, the same sockets, OpenPI's own clients too; a path more from then on."""
    before = ingress.replicas("ingress", "ingress")
    paths = {"/": "policy", "/second": "policy"}
    with Robots(ingress.port, 8, 4.0, stock=4) as robots:
        time.sleep(1.0)
        ingress.deploy_ingress(paths=paths, link={"deadline_s": 2.0})
        at = time.monotonic()
        time.sleep(2.0)
    assert robots.lost == []
    assert {answer["robot"] for sent, _, answer in robots.answers if sent > at} == set(range(8))
    assert ingress.replicas("ingress", "ingress") == before
    running = serving()
    assert running is not None
    settings = running.ingress()
    assert isinstance(settings, IngressSettings)
    assert settings.link.deadline_s == 2.0
    with connected(ingress.port, path="/second") as infer:
        assert infer({"robot": 1, "number": 2})["number"] == 2
    with pytest.raises(Exception, match="404"), connected(ingress.port, path="/third") as infer:
        infer({"robot": 1, "number": 2})


def test_keys_that_are_asked_for_from_now_on(ingress: Any, tmp_path: Path) -> None:
    """Who came without one is told to go, who has one comes in."""
    file = tmp_path / "keys.json"
    secret = add_key(file, "arm", datetime.now(UTC))
    url = f"ws://127.0.0.1:{ingress.port}"
    with RemotePolicy(config=ConnectionConfig(url=url), wait_for_server=30) as anonymous:
        assert anonymous.infer({"robot": 1, "number": 1})["number"] == 1
        ingress.deploy_ingress(server={"keys": str(file)})
        with pytest.raises((ConnectionLost, AccessRefused)):
            ask_for_ten_seconds(anonymous)
    config = ConnectionConfig(url=url, headers={"Authorization": f"Api-Key {secret}"})
    with RemotePolicy(config=config, wait_for_server=30) as arm:
        assert arm.infer({"robot": 2, "number": 1})["number"] == 1


@pytest.mark.parametrize(
    ("server", "why"),
    [
        ({"behind_proxy": True}, "no keys"),
        ({"tls": "auto"}, "HTTP only"),
    ],
)
def test_what_is_not_safe_is_refused(cluster: Any, server: dict[str, Any], why: str) -> None:
    """By the same rule as on the command line; what runs goes on as it is."""
    with pytest.raises(ConfigError, match=why):
        cluster.deploy_ingress(server=server)
    running = serving()
    assert running is not None
    settings = running.ingress()
    assert settings is not None
    assert settings.server == ServerConfig(max_connections=64)


def test_who_does_not_read_is_cut(ingress: Any) -> None:
    """After the setting's time, with answers unsent; a robot beside it never notices."""
    ingress.deploy_ingress(server={"unread_timeout_s": 1.0})
    ingress.serving("Summing")
    observation = {
        "observation/state": np.zeros(20_000, np.float32),  # its answer is 8 MB
        "observation/image": np.zeros((64, 64, 3), np.uint8),
        "prompt": "pick",
    }
    payload = codec.encode(observation)
    frame = b"\x82\xff" + struct.pack(">Q", len(payload)) + bytes(4) + payload
    with socket.create_connection(("127.0.0.1", ingress.port), timeout=60) as stranger:
        stranger.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert b" 101 " in stranger.recv(64)
        for _ in range(8):
            stranger.sendall(frame)
        with connected(ingress.port) as infer:
            deadline = time.monotonic() + 6.0
            while time.monotonic() < deadline:
                assert infer(observation)["prompt"] == "pick"
        received = 0
        while True:
            data = stranger.recv(1 << 20)
            if not data:
                break
            received += len(data)
    assert received < 8 * 8_000_000
