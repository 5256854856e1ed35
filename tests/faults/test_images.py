# SPDX-License-Identifier: Apache-2.0
"""What the robot side makes of its images where the link is slow, or gone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from misbehaving import eventually

from pi05_websocket.bench.links import Link
from pi05_websocket.bench.modelled_link import ModelledLink
from pi05_websocket.client import RemotePolicy
from pi05_websocket.errors import DeadlineExceeded
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer

pytestmark = pytest.mark.faults

NARROW = Link(name="narrow", rtt_ms=4, mbit=60)
"""A raw image takes 120 ms, a JPEG of it a tenth."""

Remote = Callable[..., RemotePolicy]


class Showing:
    """Remembers the images; waits while `held`."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.go = threading.Event()
        self.go.set()

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Answer with zeros."""
        assert self.go.wait(20)
        self.seen.append(observation["image"])
        return {"actions": np.zeros((6, 2), np.float32)}


def observation() -> dict[str, Any]:
    """One image of 0.9 MB."""
    slope = np.linspace(0, 255, 480 * 640 * 3).reshape(480, 640, 3).astype(np.uint8)
    return {"image": slope, "prompt": "pick"}


def test_a_narrow_link_gets_jpeg_where_it_is_announced(
    remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    """After a few raw images, which show that they take too long; with one line for each change."""
    policy = Showing()
    with (
        WebsocketPolicyServer(policy, port=0) as server,
        ModelledLink(server.port, NARROW, seed=0) as link,
        caplog.at_level(logging.INFO, "pi05_websocket.client.policy"),
    ):
        robot = remote(f"ws://127.0.0.1:{link.port}", wait_for_server=5, request_timeout=5.0)
        qualities = []
        for _ in range(24):
            exchange = robot.submit(observation())
            exchange.result(5)
            qualities.append(exchange.quality)
        robot.close()

    assert qualities[:4] == [None] * 4
    assert qualities[5] == 75
    assert qualities[-1] in (85, 90)
    assert {image.shape for image in policy.seen} == {(480, 640, 3)}
    told = [r.getMessage() for r in caplog.records if r.name == "pi05_websocket.client.policy"]
    assert "images are sent as JPEG of quality 75 instead of raw: 922 kB took" in told[0]
    assert len(told) == len(set(qualities)) - 1


def test_a_narrow_link_to_a_server_that_announces_nothing_gets_raw_images(remote: Remote) -> None:
    """However long they take."""
    policy, config = Showing(), ServerConfig(encoded_images=False)
    with (
        WebsocketPolicyServer(policy, port=0, config=config) as server,
        ModelledLink(server.port, NARROW, seed=0) as link,
    ):
        robot = remote(f"ws://127.0.0.1:{link.port}", wait_for_server=5, request_timeout=5.0)
        for _ in range(6):
            robot.infer(observation())
        robot.close()
    for image in policy.seen:
        np.testing.assert_array_equal(image, observation()["image"])


def test_a_request_that_cost_its_connection_makes_the_next_begin_small(remote: Remote) -> None:
    """The server is near by its round trip, and yet nothing large came through."""
    policy = Showing()
    with WebsocketPolicyServer(policy, port=0) as server:
        robot = remote(server.url, wait_for_server=5, first_request_timeout=0.2, hard_timeout=0.2)
        policy.go.clear()
        exchange = robot.submit(observation())
        assert exchange.quality is None
        with pytest.raises(DeadlineExceeded):
            exchange.result(5)
        policy.go.set()
        assert eventually(lambda: robot.connection.greeting.number == 2)
        small = robot.submit(observation())
        small.result(5)
        robot.close()

    assert small.quality == 75
