# SPDX-License-Identifier: Apache-2.0
"""Images as JPEG between this project's client and server, over real sockets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.client.image_quality import ImageTransport
from pi05_websocket.errors import ConnectionLost, PolicyError
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.wire.encoded_images import encode_images

Connect = Callable[..., RemotePolicy]


class Showing:
    """Remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Answer with zeros."""
        self.seen.append(observation)
        return {"actions": np.zeros((6, 2), np.float32)}


def observation() -> dict[str, Any]:
    """Two cameras, one of them nested and channel first."""
    slope = np.linspace(0, 255, 96 * 128 * 3).reshape(96, 128, 3).astype(np.uint8)
    return {
        "image": slope,
        "images": {"top": np.ascontiguousarray(slope.transpose(2, 0, 1))},
        "state": np.arange(6, dtype=np.float32),
        "prompt": "pick",
    }


@pytest.fixture
def policy() -> Showing:
    """What is served."""
    return Showing()


@pytest.fixture
def connect(policy: Showing) -> Iterator[Connect]:
    """Serve the policy with settings, connect to it with others; both are closed at the end."""
    open_things: list[Any] = []

    def start(
        transport: ImageTransport = "auto", *, announces: bool = True, floor: int = 75
    ) -> RemotePolicy:
        config = ServerConfig(encoded_images=announces)
        server = WebsocketPolicyServer(policy, port=0, config=config).start()
        open_things.append(server)
        asked = ConnectionConfig(
            url=server.url, image_transport=transport, jpeg_quality_floor=floor
        )
        remote = RemotePolicy(config=asked, wait_for_server=20)
        open_things.append(remote)
        return remote

    yield start
    for thing in reversed(open_things):
        thing.close()


def test_the_policy_sees_arrays_of_the_same_shape(connect: Connect, policy: Showing) -> None:
    """Almost the same pixels, in the same places; everything else to the bit."""
    remote, sent = connect("jpeg"), observation()
    exchange = remote.submit(sent)
    exchange.result(10)

    (seen,) = policy.seen
    assert seen.keys() == sent.keys()
    for before, after in (
        (sent["image"], seen["image"]),
        (sent["images"]["top"], seen["images"]["top"]),
    ):
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
        assert np.abs(after.astype(int) - before.astype(int)).mean() < 1
    np.testing.assert_array_equal(seen["state"], sent["state"], strict=True)
    assert exchange.quality == 95
    assert exchange.nbytes < (sent["image"].nbytes + sent["images"]["top"].nbytes) / 3


def test_near_images_arrive_to_the_bit(connect: Connect, policy: Showing) -> None:
    """The default sends them raw over the loopback interface, announced or not."""
    remote, sent = connect(), observation()
    for _ in range(5):
        exchange = remote.submit(sent)
        exchange.result(10)
        assert exchange.quality is None
    for seen in policy.seen:
        np.testing.assert_array_equal(seen["image"], sent["image"], strict=True)
        np.testing.assert_array_equal(seen["images"]["top"], sent["images"]["top"], strict=True)


def test_a_server_that_announces_nothing_gets_arrays_and_the_log_one_line(
    connect: Connect, policy: Showing, caplog: pytest.LogCaptureFixture
) -> None:
    """Although JPEG was asked for."""
    sent = observation()
    with caplog.at_level(logging.INFO, "pi05_websocket.client.policy"):
        remote = connect("jpeg", announces=False)
        for _ in range(3):
            remote.infer(sent)
    assert "_images" not in remote.metadata
    np.testing.assert_array_equal(policy.seen[-1]["image"], sent["image"], strict=True)
    told = [r for r in caplog.records if r.name == "pi05_websocket.client.policy"]
    assert [r.levelname for r in told] == ["WARNING"]
    assert told[0].getMessage() == (
        f"{remote.config.url}: images are sent raw: the server does not announce that it reads JPEG"
    )


def test_the_decision_is_told(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """In one line."""
    with caplog.at_level(logging.INFO, "pi05_websocket.client.policy"):
        remote = connect("jpeg", floor=98)
        remote.infer(observation())
        remote.infer(observation())
    told = [r.getMessage() for r in caplog.records if r.name == "pi05_websocket.client.policy"]
    assert told == [f"{remote.config.url}: images are sent as JPEG of quality 98"]


def test_a_damaged_image_is_answered_with_its_key(connect: Connect, policy: Showing) -> None:
    """As any malformed observation: the error's text, and a connection that comes back by itself."""
    remote = connect("raw")
    bad, _ = encode_images(observation(), 90)
    bad["images"]["top"]["data"] = bad["images"]["top"]["data"][:300]
    with pytest.raises(PolicyError, match="images/top: expected a whole JPEG, got a damaged one"):
        remote.infer(bad)
    assert policy.seen == []
    remote.infer(observation())
    assert len(policy.seen) == 1


def test_a_server_that_announces_nothing_decodes_nothing(connect: Connect, policy: Showing) -> None:
    """The map reaches its policy as it came, as at any stock server."""
    remote = connect("raw", announces=False)
    there, _ = encode_images({"image": observation()["image"]}, 90)
    remote.infer(there)
    assert policy.seen == [there]


@pytest.mark.parametrize("reads", [True, False])
def test_a_gateway_passes_images_on(policy: Showing, reads: bool) -> None:
    """A served `RemotePolicy` announces what it reads itself, or else what the server behind it reads."""
    config = ServerConfig(encoded_images=reads)
    with (
        WebsocketPolicyServer(policy, port=0) as server,
        RemotePolicy(server.url) as behind,
        WebsocketPolicyServer(behind, port=0, config=config) as gateway,
        RemotePolicy(
            config=ConnectionConfig(url=gateway.url, image_transport="jpeg"), wait_for_server=20
        ) as remote,
    ):
        exchange = remote.submit(observation())
        exchange.result(10)
    assert exchange.quality == 95
    assert policy.seen[0]["image"].shape == observation()["image"].shape
    assert np.abs(policy.seen[0]["image"].astype(int) - observation()["image"]).max() <= 3


def test_a_message_for_the_last_server_is_not_sent_to_the_next(policy: Showing) -> None:
    """The next one may not read JPEG: the request fails, and the one after it is raw."""
    port = 0
    with WebsocketPolicyServer(policy, port=0) as first:
        port = first.port
        config = ConnectionConfig(url=first.url, image_transport="jpeg", backoff_max=0.05)
        remote = RemotePolicy(config=config, wait_for_server=20)
        packed = remote._encode(observation())
        assert packed.quality == 95
    config_of_next = ServerConfig(encoded_images=False)
    with WebsocketPolicyServer(policy, port=port, config=config_of_next), remote:
        while remote.connection.greeting.number < 2:
            remote.connection.wait_ready(20)
        exchange = remote._submit(packed)
        with pytest.raises(ConnectionLost, match="the connection was renewed after"):
            exchange.result(10)
        assert policy.seen == []
        remote.infer(observation())
    np.testing.assert_array_equal(policy.seen[0]["image"], observation()["image"], strict=True)


def test_an_observation_that_is_encoded_before_there_is_a_server_is_encoded_anew(
    policy: Showing,
) -> None:
    """`infer` waits for the server, and asks what it reads."""
    with WebsocketPolicyServer(policy, port=0) as server:
        config = ConnectionConfig(url=server.url, image_transport="jpeg")
        with RemotePolicy(config=config, wait_for_server=0) as remote:
            remote.infer(observation())
            exchange = remote.submit(observation())
            exchange.result(10)
    assert exchange.quality == 95
    assert np.abs(policy.seen[0]["image"].astype(int) - observation()["image"]).max() <= 3
