# SPDX-License-Identifier: Apache-2.0
"""A policy on Ray Serve, as robots see it: the same answers as from the plain server, one address, no seams."""

from __future__ import annotations

import http.client
import os
import signal
import time
from typing import Any

import numpy as np
import pytest
from numbered_policies import Summing
from robots_under_load import Robots, connected

from pi05_websocket.errors import PolicyError
from pi05_websocket.server import WebsocketPolicyServer
from pi05_websocket.wire import codec


def large_observation() -> dict[str, Any]:
    """An observation of 1.07 MB."""
    rng = np.random.default_rng(0)
    return {
        "observation/images/wrist2": rng.integers(0, 256, (224, 224, 3), np.uint8),
        "observation/images/realsense": rng.integers(0, 256, (480, 640, 3), np.uint8),
        "observation/state": rng.normal(size=6).astype(np.float32),
        "prompt": "pick up the cube",
    }


def without_timing(answer: dict[str, Any]) -> bytes:
    """The answer as bytes, but for what differs from run to run."""
    return codec.encode({k: v for k, v in answer.items() if k not in ("server_timing", "_rt")})


@pytest.mark.parametrize("is_stock", [True, False])
def test_a_robot_is_answered(cluster: Any, is_stock: bool) -> None:
    """By OpenPI's client and ours, through the ingress, in order."""
    cluster.serving("Numbered")
    with connected(cluster.port, is_stock) as infer:
        for number in range(5):
            answer = infer({"robot": 3, "number": number})
            assert (answer["robot"], answer["number"]) == (3, number)
            assert "infer_ms" in answer["server_timing"]


def test_the_health_check_and_plain_http(cluster: Any) -> None:
    """The same as the plain server's."""
    for path, expected in (("/healthz", (200, b"OK\n")), ("/", (426, b"This is a policy server"))):
        asking = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=10)
        asking.request("GET", path)
        response = asking.getresponse()
        assert (response.status, response.read()[: len(expected[1])]) == expected
        asking.close()


def test_a_bad_request_fails_alone(cluster: Any) -> None:
    """Text and a goodbye for one, without a line of our code in it; the others never notice."""
    cluster.serving("Numbered")
    with Robots(cluster.port, 4, 5.0) as robots:
        time.sleep(1.0)
        with (
            connected(cluster.port, True) as infer,
            pytest.raises(RuntimeError, match="KeyError: 'observation/image'") as caught,
        ):
            infer({"robot": 9, "number": 1, "fail": True})
        assert "File " not in str(caught.value)
        with (
            connected(cluster.port) as infer,
            pytest.raises(PolicyError, match="observation/image"),
        ):
            infer({"robot": 9, "number": 1, "fail": True})
        time.sleep(1.0)
    assert robots.lost == []
    assert robots.foreign == []


def test_robots_share_inferences(cluster: Any) -> None:
    """Several observations go through the policy together."""
    cluster.serving("Numbered")
    with Robots(cluster.port, 24, 10.0) as robots:
        time.sleep(3.0)
    assert max(answer["batch"] for _, _, answer in robots.answers) > 1
    assert len(robots.pids()) == 2
    assert robots.foreign == []


def test_a_replica_is_killed(cluster: Any) -> None:
    """No robot loses anything, stock clients neither; Ray puts another in its place."""
    cluster.serving("Numbered")
    with Robots(cluster.port, 12, 4.0, stock=4) as robots:
        time.sleep(2.0)
        victim = sorted(robots.pids())[0]
        os.kill(victim, signal.SIGKILL)
        at = time.monotonic()
        time.sleep(4.0)
        cluster.until(2, "policy", "policy")
        time.sleep(2.0)
    assert robots.lost == []
    assert robots.foreign == []
    assert victim not in {answer["pid"] for sent, _, answer in robots.answers if sent > at}
    assert len({answer["pid"] for _, _, answer in robots.answers}) == 3


def test_a_replica_freezes(cluster: Any) -> None:
    """Its robots are answered by the other one after the deadline; it is left out until it is back."""
    cluster.serving("Numbered")
    with Robots(cluster.port, 12, 4.0, stock=4) as robots:
        time.sleep(2.0)
        frozen = sorted(robots.pids())[0]
        os.kill(frozen, signal.SIGSTOP)
        at = time.monotonic()
        try:
            time.sleep(6.0)
        finally:
            os.kill(frozen, signal.SIGCONT)
        time.sleep(4.0)
    assert robots.lost == []
    assert robots.foreign == []
    assert robots.worst_wait(at) < 4.0  # the deadline is 1 s; the rest is this machine's
    assert frozen in {answer["pid"] for sent, _, answer in robots.answers if sent > at + 6.0}


def test_rollouts_under_load(cluster: Any) -> None:
    """v1, v2, v3: every request is answered, on the socket on which it was sent."""
    cluster.serving("Numbered")
    with Robots(cluster.port, 12, 4.0, stock=12) as robots:
        time.sleep(1.0)
        for version in ("Numbered2", "Numbered3"):
            cluster.deploy(version)
        time.sleep(1.0)
    assert robots.lost == []  # stock clients do not reconnect: their sockets stayed
    assert robots.foreign == []
    assert {answer["version"] for _, _, answer in robots.answers} == {"v1", "v2", "v3"}
    assert robots.answers[-1][2]["version"] == "v3"


def test_a_new_version_introduces_itself(cluster: Any) -> None:
    """Who connects after a rollout is told what is served now; in place, without new processes."""
    cluster.deploy("Numbered", user_config={"policy": "numbered_policies:Numbered2"})
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with connected(cluster.port) as infer:
            served = infer({"robot": 0, "number": 1})["version"]
            metadata = infer.__self__.metadata  # type: ignore[attr-defined]
        if (served, metadata["version"]) == ("v2", "v2"):
            return
        time.sleep(0.5)
    raise AssertionError((served, metadata))


def test_an_ingress_is_killed(cluster: Any) -> None:
    """Robots of ours connect again by themselves, and get no answer that is not theirs."""
    cluster.serving("Numbered")
    with Robots(cluster.port, 12, 4.0) as robots:
        time.sleep(2.0)
        victim = cluster.replicas("ingress", "ingress")[0]
        os.kill(victim, signal.SIGKILL)
        at = time.monotonic()
        time.sleep(6.0)
    assert robots.foreign == []
    assert len(robots.lost) <= 12
    last = {answer["robot"]: end for _, end, answer in robots.answers}
    assert len(last) == 12
    assert min(last.values()) > at + 4.0  # all of them are back
    cluster.until(2, "ingress", "ingress")


def replaced_under(cluster: Any, port: int, count: int, version: str) -> Robots:
    """Replace the ingress while so many robots ask through a port; look at what is true of any of them."""
    with Robots(port, count, 4.0) as robots:
        time.sleep(2.0)
        cluster.deploy_ingress(version=version)
        at = time.monotonic()
        cluster.until(2, "ingress", "ingress")
        time.sleep(2.0)
    assert all("close code 1012" in why for _, why in robots.lost)
    assert robots.foreign == []
    assert {answer["robot"] for sent, _, answer in robots.answers if sent > at} == set(range(count))
    return robots


def test_an_ingress_is_replaced(cluster: Any) -> None:
    """It says goodbye between two messages; what crosses that fails with 1012, and is asked on a new socket."""
    cluster.serving("Numbered")
    robots = replaced_under(cluster, cluster.port, 12, "2")
    assert len(robots.lost) <= 12


def test_a_robot_that_came_through_rays_proxy_is_told_too(cluster: Any) -> None:
    """HAProxy leads robots there while it knows no ingress; the ingress serves them, and says goodbye."""
    from ray.serve._private.constants import RAY_SERVE_FALLBACK_PROXY_HTTP_PORT

    cluster.serving("Numbered")
    cluster.deploy_ingress()
    cluster.until(2, "ingress", "ingress")
    replaced_under(cluster, RAY_SERVE_FALLBACK_PROXY_HTTP_PORT, 6, "3")


def test_the_answer_is_the_plain_servers(cluster: Any) -> None:
    """Byte for byte but for the timings, at 1.07 MB."""
    cluster.serving("Summing")
    observation = large_observation()
    with WebsocketPolicyServer(Summing(), port=0) as plain:
        with connected(plain.port, True) as infer:
            expected = without_timing(infer(observation))
        for is_stock in (True, False):
            with connected(cluster.port, is_stock) as infer:
                assert without_timing(infer(observation)) == expected
