# SPDX-License-Identifier: Apache-2.0
"""Clients that mean harm, on real sockets: each ends by a bound, and another robot notices nothing."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import trustme
from misbehaving import eventually

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.errors import ConnectFailed
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import encode_images

SHORT = {
    "ping_interval_s": 0,
    "handshake_timeout_s": 0.6,
    "message_timeout_s": 0.6,
    "unread_timeout_s": 0.6,
}
HEAD = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
BINARY, CONTINUATION, PING = 0x82, 0x00, 0x89
NOTHING = bytes(4)
"""A mask that changes nothing."""

SMALL = np.zeros(50_000, np.uint8)
PHOTO = np.add.outer(np.arange(224), np.arange(224)).astype(np.uint8)[:, :, None].repeat(3, axis=2)

Ended = Callable[[socket.socket], bool]


class Echo:
    """Answers with the request's number and, where it is asked to, a megabyte more; remembers whom."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Return at once."""
        self.numbers.append(observation["number"])
        more = np.zeros(observation.get("more", 0), np.uint8)
        return {
            "actions": np.ones((2, 6), np.float32),
            "number": observation["number"],
            "more": more,
        }


@pytest.fixture
def serve() -> Iterator[Callable[..., WebsocketPolicyServer]]:
    """Start servers with short patience; they stop at the end."""
    servers: list[WebsocketPolicyServer] = []

    def start(
        host: str = "127.0.0.1", policy: Any = None, **settings: Any
    ) -> WebsocketPolicyServer:
        config = ServerConfig(**{**SHORT, **settings})
        policy = policy or Echo()
        servers.append(WebsocketPolicyServer(policy, host, 0, config=config).start())
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def dial() -> Iterator[Callable[..., socket.socket]]:
    """Open bare TCP connections; they are closed at the end."""
    opened: list[socket.socket] = []

    def connect(server: WebsocketPolicyServer, *, upgraded: bool = False) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        opened.append(client)
        if upgraded:
            client.sendall(HEAD)
            said = b""
            while b"\r\n\r\n" not in said:
                said += client.recv(1)
            assert said.startswith(b"HTTP/1.1 101")
        return client

    yield connect
    for client in opened:
        client.close()


class Robot:
    """Another robot of the same server: goes on asking, and looks whether the health check answers."""

    def __init__(self, server: WebsocketPolicyServer, **settings: Any) -> None:
        config = ConnectionConfig(url=server.url, request_timeout=5, **settings)
        self._policy = RemotePolicy(config=config, wait_for_server=5)
        self._health = server.url.replace("ws", "http", 1) + "/healthz"
        self._asked = 0

    def notices_nothing(self, image: Any = SMALL, times: int = 3) -> None:
        """Ask a few times; the connection is the first one still."""
        for _ in range(times):
            self._asked += 1
            reply = self._policy.infer({"number": self._asked, "image": image})
            assert reply["number"] == self._asked
        assert self._policy.connection.reconnects == 0
        if self._health.startswith("http:"):
            with urllib.request.urlopen(self._health, timeout=5) as answer:
                assert answer.read() == b"OK\n"

    def close(self) -> None:
        """Disconnect."""
        self._policy.close()


@pytest.fixture
def robot() -> Iterator[Callable[..., Robot]]:
    """Connect robots; they are closed at the end."""
    robots: list[Robot] = []

    def connect(server: WebsocketPolicyServer, **settings: Any) -> Robot:
        robots.append(Robot(server, **settings))
        return robots[-1]

    yield connect
    for each in robots:
        each.close()


def frame(first: int, payload: bytes, *, announced: int | None = None) -> bytes:
    """Return a masked frame, or the beginning of one that announces more."""
    size = len(payload) if announced is None else announced
    if size < 126:
        return bytes([first, 0x80 | size]) + NOTHING + payload
    if size < 65536:
        return bytes([first, 0xFE]) + struct.pack(">H", size) + NOTHING + payload
    return bytes([first, 0xFF]) + struct.pack(">Q", size) + NOTHING + payload


def ended(client: socket.socket, seconds: float = 5.0) -> bool:
    """Read until the server has hung up; say whether it did in time."""
    deadline = time.monotonic() + seconds
    client.settimeout(0.2)
    while time.monotonic() < deadline:
        try:
            if not client.recv(65536):
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def test_a_handshake_that_drips(serve: Any, dial: Any, robot: Any) -> None:
    """A byte now and then does not extend the time for HTTP."""
    server = serve()
    other = robot(server)
    slow = [dial(server) for _ in range(30)]
    began = time.monotonic()
    with contextlib.suppress(OSError):
        for byte in HEAD:
            for client in slow:
                client.send(bytes([byte]))
            other.notices_nothing()
            time.sleep(0.05)
            if time.monotonic() - began > 3:
                pytest.fail("the server went on waiting")
    assert all(ended(client) for client in slow)
    other.notices_nothing()


def test_connections_that_say_nothing(serve: Any, dial: Any, robot: Any) -> None:
    """They end with the time for the handshake."""
    server = serve()
    other = robot(server)
    silent = [dial(server) for _ in range(50)]
    other.notices_nothing()
    assert all(ended(client) for client in silent)
    other.notices_nothing()


def test_a_tls_handshake_that_stalls(serve: Any, dial: Any, robot: Any, tmp_path: Any) -> None:
    """Half a hello is no hello."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = serve(tls_cert=str(tmp_path / "both.pem"), tls_key=str(tmp_path / "both.pem"))
    other = robot(server, ca_file=str(tmp_path / "ca.pem"))
    hello = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(
            ssl.MemoryBIO(), hello, server_hostname="x"
        ).do_handshake()
    stalled = [dial(server) for _ in range(30)]
    for client in stalled:
        client.sendall(hello.read()[:40] or b"\x16\x03\x01")
    other.notices_nothing()
    assert all(ended(client) for client in stalled)
    other.notices_nothing()


def test_a_message_that_is_announced_and_drips(serve: Any, dial: Any, robot: Any) -> None:
    """64 MB announced, a byte at a time: from the first byte on a message has its time, and no more."""
    server = serve()
    other = robot(server)
    client = dial(server, upgraded=True)
    client.sendall(frame(BINARY, b"", announced=64 * 1024 * 1024))
    began = time.monotonic()
    with contextlib.suppress(OSError):
        while time.monotonic() - began < 6:
            client.send(b"\0")
            time.sleep(0.05)
    assert time.monotonic() - began < 6
    other.notices_nothing()


def test_fragments_that_never_end(serve: Any, dial: Any, robot: Any) -> None:
    """Each is whole, the message is not."""
    server = serve()
    other = robot(server)
    client = dial(server, upgraded=True)
    client.sendall(frame(BINARY & 0x0F, b"x" * 2000))
    began = time.monotonic()
    with contextlib.suppress(OSError):
        while time.monotonic() - began < 6:
            client.sendall(frame(CONTINUATION, b"x" * 2000))
            time.sleep(0.05)
    assert time.monotonic() - began < 6
    other.notices_nothing()


def closed_because(log: pytest.LogCaptureFixture, why: str) -> bool:
    """Wait for the line about a connection that was closed for this reason."""
    return eventually(
        lambda: any("closed who" in line and why in line for line in log.messages), seconds=8
    )


@pytest.mark.parametrize(
    ("begin", "flood"),
    [(b"", frame(PING, b"ping")), (frame(BINARY & 0x0F, b""), frame(CONTINUATION, b""))],
    ids=["pings", "fragments"],
)
def test_small_frames_without_end(
    serve: Any,
    dial: Any,
    robot: Any,
    caplog: pytest.LogCaptureFixture,
    begin: bytes,
    flood: bytes,
) -> None:
    """Thousands at once close the connection they came on."""
    caplog.set_level("INFO")
    server = serve(message_timeout_s=60)
    other = robot(server)
    client = dial(server, upgraded=True)
    with contextlib.suppress(OSError):
        client.sendall(begin)
        for _ in range(20):
            client.sendall(flood * 1000)
            other.notices_nothing()
    assert closed_because(caplog, "1008 more than 1000 pings and short fragments a second")
    other.notices_nothing()


def test_replies_that_nobody_reads(serve: Any, dial: Any, robot: Any) -> None:
    """The server holds back what it may hold, waits its time and cuts."""
    server = serve()
    other = robot(server)
    client = dial(server, upgraded=True)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(0.2)
    began = time.monotonic()
    asked = frame(BINARY, codec.encode({"number": 1, "more": 1_000_000}))
    cut = False
    while time.monotonic() - began < 8 and not cut:
        try:
            client.sendall(asked)
        except TimeoutError:
            pass
        except OSError:
            cut = True
        other.notices_nothing()
        time.sleep(0.05)
    assert cut


def test_requests_without_end_in_one_piece(
    serve: Any, dial: Any, robot: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten thousand in 300 kB end the connection; so many that fit the bound are all answered."""
    caplog.set_level("INFO")
    server = serve(max_pipelined_requests=100)
    other = robot(server)
    request = frame(BINARY, codec.encode({"number": 7}))
    greedy = dial(server, upgraded=True)
    with contextlib.suppress(OSError):
        greedy.sendall(request * 10_000)
    assert closed_because(caplog, "1008 more than 100 requests at once")
    modest = dial(server, upgraded=True)
    modest.sendall(request * 90)
    replies = b""
    while replies.count(b"number") < 90:
        replies += modest.recv(65536)
    other.notices_nothing()


@pytest.mark.parametrize(
    ("image", "settings"),
    [(SMALL, {}), (PHOTO, {"image_transport": "jpeg"})],
    ids=["arrays", "images"],
)
def test_images_that_are_dear_to_unpack(
    serve: Any, dial: Any, robot: Any, image: Any, settings: Any
) -> None:
    """Megapixels in a few bytes: another robot's requests go before all but a few of those that wait."""
    policy = Echo()
    server = serve(policy=policy, max_queued_requests=64)
    other = robot(server, **settings)
    dear, _ = encode_images({"number": -1, "image": np.zeros((4000, 5000, 3), np.uint8)}, 50)
    client = dial(server, upgraded=True)
    client.sendall(frame(BINARY, codec.encode(dear)) * 30)
    while not policy.numbers:
        time.sleep(0.001)
    other.notices_nothing(image, times=10)
    assert policy.numbers.count(-1) <= 10
    client.close()  # and with it goes what waits
    other.notices_nothing(image)
    assert policy.numbers.count(-1) <= 12


def test_many_long_messages_that_do_not_end(
    serve: Any, dial: Any, robot: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Each within its bounds, together too much: some go, the robot stays."""
    caplog.set_level("INFO")
    server = serve(message_timeout_s=60, max_held_bytes=20_000_000)
    other = robot(server)
    long = frame(BINARY, bytes(8_000_000), announced=60_000_000)
    clients = [dial(server, upgraded=True) for _ in range(4)]
    for client in clients:
        client.sendall(long)
    assert closed_because(caplog, "bytes waiting, more than there is room for")
    other.notices_nothing()
    assert sum("more than there is room for" in line for line in caplog.messages) == 2


def test_hundreds_of_connections_from_one_address(serve: Any, dial: Any, robot: Any) -> None:
    """The oldest that said nothing give way; the robot that was there stays, a later one comes in."""
    server = serve(max_connections_per_address=20, handshake_timeout_s=30)
    other = robot(server)
    crowd = [dial(server) for _ in range(300)]
    other.notices_nothing()
    assert sum(ended(client, 0.3) for client in crowd[:100]) == 100
    later = robot(server)
    later.notices_nothing()
    other.notices_nothing()


def test_a_robot_too_many_is_told(serve: Any, robot: Any, caplog: pytest.LogCaptureFixture) -> None:
    """HTTP 503, which is tried again; it comes in when another has gone."""
    server = serve(max_connections=1)
    first = robot(server)
    second = RemotePolicy(
        config=ConnectionConfig(url=server.url, backoff_first=0.02, backoff_max=0.1),
        wait_for_server=0,
    )
    try:
        assert eventually(lambda: isinstance(second.unavailable(), ConnectFailed))
        assert eventually(lambda: "HTTP 503" in str(second.unavailable()))
        first.notices_nothing()
        assert eventually(lambda: "connections refused, or cut" in caplog.text)
        first.close()
        assert eventually(lambda: second.unavailable() is None, 20.0)  # it asked to wait for 10 s
    finally:
        second.close()
