# SPDX-License-Identifier: Apache-2.0
"""A gateway before OpenPI's own server, for OpenPI's own client and ours: the port changes, nothing else."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from upstreams import reach
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.gateway import GatewayConfig, PolicyGateway
from pi05_websocket.server import ServerConfig
from pi05_websocket.server.keys_file import add_key

pytestmark = [
    pytest.mark.openpi,
    # OpenPI's client opens its connection in the way websockets 17 deprecates.
    pytest.mark.filterwarnings(r"ignore:connect\(\) must be used as a context:DeprecationWarning"),
]


class Numbered:
    """Echoes the observation's number, from OpenPI's server."""

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Return it."""
        return {"actions": np.full((5, 6), obs["number"] % 100), "number": obs["number"]}


@pytest.fixture
def gateway() -> Iterator[Any]:
    """Start gateways before servers; they are closed at the end."""
    with ExitStack() as stack:

        def start(*upstreams: Any, options: Any = None, **settings: Any) -> PolicyGateway:
            urls = [
                upstream if isinstance(upstream, str) else f"ws://127.0.0.1:{upstream.port}"
                for upstream in upstreams
            ]
            server = PolicyGateway(
                urls,
                port=0,
                config=ServerConfig(ping_interval_s=0, **settings),
                gateway=GatewayConfig(**(options or {})),
            )
            stack.enter_context(server)
            reach(lambda: all(state.usable for state in server.upstreams))
            return server

        yield start


@pytest.fixture
def pki(tmp_path: Path) -> dict[str, str]:
    """An authority and a certificate of it for this machine."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
    (tmp_path / "cert.pem").write_bytes(chain)
    return {name: str(tmp_path / f"{name}.pem") for name in ("ca", "cert", "key")}


@pytest.mark.parametrize("server", ["stock server", "our server"])
@pytest.mark.parametrize("client", ["stock client", "our client"])
def test_nobody_notices(
    start: Any, gateway: Any, summing: Any, observe: Any, expected: Any, server: str, client: str
) -> None:
    """Every byte of the observation counts in the answer, whoever asks and whoever answers."""
    robot = start.client(client, gateway(start.server(server, summing)).port)
    for seed in range(3):
        observation = observe(seed)
        answer = robot.infer(observation)
        right = expected(observation)
        np.testing.assert_array_equal(answer["actions"], right["actions"])
        assert answer["sums"] == right["sums"]
        assert answer["server_timing"]["infer_ms"] >= 0


def test_bytes_pass_as_they_came(start: Any, gateway: Any, summing: Any, observe: Any) -> None:
    """A stock server's reply reaches a bare client byte for byte, times apart."""
    before = gateway(start.server("stock server", summing), encoded_images=False, deadlines=False)
    with connect(f"ws://127.0.0.1:{before.port}", compression=None, max_size=None) as socket:
        assert socket.recv() == msgpack_numpy.packb({})
        socket.send(msgpack_numpy.packb(observe(0)))
        reply = socket.recv()
    value = msgpack_numpy.unpackb(reply)
    assert reply == msgpack_numpy.packb(value)
    assert list(value) == ["actions", "sums", "prompt", "policy_timing", "server_timing"]


def test_a_stock_clients_error_is_the_stock_servers(start: Any, gateway: Any, summing: Any) -> None:
    """The traceback as text, close 1011; and the gateway goes on with a new connection to its upstream."""
    before = gateway(start.server("stock server", summing))
    with connect(f"ws://127.0.0.1:{before.port}", compression=None) as socket:
        socket.recv()
        socket.send(msgpack_numpy.packb({"observation/state": 1}))
        text = socket.recv()
        assert isinstance(text, str)
        assert text.startswith("Traceback (most recent call last):")
        assert "websocket_policy_server.py" in text
        with pytest.raises(ConnectionClosedError) as closed:
            socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
    robot = start.client("stock client", before.port)
    with pytest.raises(RuntimeError, match="Error in inference server"):
        robot.infer({"observation/state": 1})


def test_jpeg_reaches_a_stock_server_as_arrays(
    start: Any, gateway: Any, summing: Any, observe: Any, expected: Any
) -> None:
    """Our client sends a tenth of the bytes over its far link; the stock policy sees pixels."""
    before = gateway(start.server("stock server", summing))
    config = ConnectionConfig(url=before.url, image_transport="jpeg")
    observation = observe(0)
    rows = np.linspace(0, 255, 480 * 640 * 3).astype(np.uint8).reshape(480, 640, 3)
    observation["observation/images/realsense"] = rows
    with RemotePolicy(config=config, wait_for_server=20) as robot:
        answer = robot.infer(observation)
    right = expected(observation)["sums"]
    name = "observation/images/realsense"
    assert answer["sums"][name] == pytest.approx(right[name], rel=0.01)
    assert answer["sums"]["observation/state"] == right["observation/state"]


def test_keys_and_tls_before_a_stock_server(
    start: Any, gateway: Any, pki: dict[str, str], tmp_path: Path
) -> None:
    """OpenPI's client with a key over TLS comes in; without a key, nobody does."""
    keys = tmp_path / "keys.json"
    secret = add_key(keys, "arm", datetime.now(UTC))
    upstream = start.server("stock server", Numbered())
    before = gateway(upstream, keys=str(keys), tls_cert=pki["cert"], tls_key=pki["key"])
    trusted = ssl.create_default_context(cafile=pki["ca"])
    with pytest.raises(InvalidStatus) as refused:
        connect(before.url, ssl=trusted).recv()
    assert refused.value.response.status_code == 401
    header = {"Authorization": f"Api-Key {secret}"}
    with connect(before.url, ssl=trusted, additional_headers=header, compression=None) as socket:
        socket.recv()
        socket.send(msgpack_numpy.packb({"number": 7}))
        assert msgpack_numpy.unpackb(socket.recv())["number"] == 7


def test_an_upstream_behind_keys_and_tls(
    start: Any, gateway: Any, pki: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway brings its own key over TLS, from the environment; robots need none of it."""
    keys = tmp_path / "keys.json"
    monkeypatch.setenv("GATEWAYS_KEY", add_key(keys, "gateway", datetime.now(UTC)))
    settings = {"keys": str(keys), "tls_cert": pki["cert"], "tls_key": pki["key"]}
    upstream = start.server("our server", Numbered(), **settings)
    options = {"upstream_key_env": "GATEWAYS_KEY", "upstream_ca_file": pki["ca"]}
    before = gateway(f"wss://127.0.0.1:{upstream.port}", options=options)
    assert start.client("stock client", before.port).infer({"number": 3})["number"] == 3


def test_upstreams_with_certificates_of_their_own(start: Any, gateway: Any, tmp_path: Path) -> None:
    """Each is known by the fingerprint that it printed, and by that alone."""
    behind = [
        start.server("our server", Numbered(), tls="auto", tls_folder=str(tmp_path / name))
        for name in ("one", "two")
    ]
    urls = [f"wss://127.0.0.1:{server.port}" for server in behind]
    pins = tuple(server.tls_fingerprint for server in behind)
    before = gateway(*urls, options={"upstream_tls_fingerprint": pins})
    assert start.client("stock client", before.port).infer({"number": 3})["number"] == 3


def test_ours_behind_ours_behind_ours(start: Any, gateway: Any, summing: Any, observe: Any) -> None:
    """A gateway is a server like any other."""
    inner = gateway(start.server("our server", summing))
    outer = gateway(inner)
    robot = start.client("our client", outer.port)
    assert robot.infer(observe(0))["prompt"] == "pick up the cube"
    assert robot.get_server_metadata().keys() >= {"reset_pose", "_rt", "_images"}


def test_many_stock_robots_share_two_stock_servers(start: Any, gateway: Any) -> None:
    """Each gets its own answers, in its own order."""
    servers = [start.server("stock server", Numbered()) for _ in range(2)]
    before = gateway(*servers)
    robots: list[WebsocketClientPolicy] = [
        start.client("stock client", before.port) for _ in range(6)
    ]
    wrong: list[int] = []

    def drive(robot: WebsocketClientPolicy, first: int) -> None:
        numbers = range(first, first + 50)
        wrong.extend(n for n in numbers if robot.infer({"number": n})["number"] != n)

    threads = [
        threading.Thread(target=drive, args=(robot, 1000 * i)) for i, robot in enumerate(robots)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert all(state.sound for state in before.upstreams)
