# SPDX-License-Identifier: Apache-2.0
"""Keys on real sockets: refusals before the upgrade, revoking, rates, and headers nobody should send."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.errors import AccessRefused, ConfigError, RequestRefused
from pi05_websocket.server.keys_file import add_key, revoke_key
from pi05_websocket.wire.refusals import REFUSED

TEXT = 0x1
NOW = datetime(2026, 1, 1, tzinfo=UTC)
OBSERVATION = {"observation/state": np.arange(6, dtype=np.float32)}
UPGRADE = (
    b"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the keys are."""
    return tmp_path / "keys.json"


@pytest.fixture
def secret(file: Path) -> str:
    """A key for the arm."""
    return add_key(file, "arm", NOW)


def asked(port: int, headers: bytes, path: bytes = b"/") -> bytes:
    """Ask for a WebSocket with some headers; return all the server says until it hangs up or has let us in."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET " + path + b" HTTP/1.1\r\n" + UPGRADE + headers + b"\r\n")
        answer = b""
        try:
            while not answer.startswith(b"HTTP/1.1 101 "):
                received = client.recv(65536)
                if not received:
                    break
                answer += received
        except ConnectionResetError:  # hung up with bytes of ours unread
            pass
        return answer


def reach(action: Callable[[], bool], *, within: float = 5.0) -> None:
    """Try until something is so."""
    deadline = time.monotonic() + within
    while not action():
        assert time.monotonic() < deadline, "not in time"


def remote(server: Any, secret: str, scheme: str = "Api-Key") -> RemotePolicy:
    """Connect our client."""
    config = ConnectionConfig(url=server.url, headers={"Authorization": f"{scheme} {secret}"})
    return RemotePolicy(config=config, wait_for_server=10)


@pytest.mark.parametrize("scheme", ["Api-Key", "Bearer"])
def test_a_key_lets_in(serve: Any, scripted: Any, file: Path, secret: str, scheme: str) -> None:
    """OpenPI's form and the usual one."""
    with remote(serve(scripted, keys=str(file)), secret, scheme) as policy:
        assert policy.infer(OBSERVATION)["actions"].shape == (2, 6)


@pytest.mark.parametrize(
    "headers",
    [
        b"",
        b"Authorization: Api-Key wrong\r\n",
        b"Authorization: Basic SECRET\r\n",
        b"Authorization: SECRET\r\n",
        b"Authorization:\r\n",
        b"Authorization: Api-Key SECRET\r\nAuthorization: Api-Key SECRET\r\n",
        b"Authorization: Api-Key wrong\r\nauthorization: Api-Key SECRET\r\n",
        b"Authorization: Api-Key SECRET, Api-Key SECRET\r\n",
        b"Authorization: Api-Key gr\xc3\xbcn\r\n",
        b"Authorization: Api-Key \xff\xfe\r\n",
        b"Authorization: Api-Key " + b"x" * 8000 + b"\r\n",
    ],
)
def test_without_a_good_key_there_is_no_websocket(
    serve: Any, scripted: Any, file: Path, secret: str, headers: bytes
) -> None:
    """HTTP 401 before the upgrade, the same whatever was wrong, and the next one comes in."""
    server = serve(scripted, keys=str(file))
    answer = asked(server.port, headers.replace(b"SECRET", secret.encode()))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 ")
    assert b"WWW-Authenticate: Api-Key, Bearer" in head
    assert body.startswith(b"This policy server lets in who has a key")
    good = asked(server.port, b"Authorization: Api-Key " + secret.encode() + b"\r\n")
    assert good.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    "headers",
    [
        b"Authorization: Api-Key \x00\r\n",
        b"Authorization : Api-Key SECRET\r\n",
        b"Authorization: Api-Key\r\n SECRET\r\n",
        b"Authorization: Api-Key " + b"x" * 100_000 + b"\r\n",
        b"".join(b"X-%d: y\r\n" % i for i in range(200)),
    ],
)
@pytest.mark.filterwarnings("default")
def test_headers_that_are_none_are_refused(
    serve: Any, scripted: Any, file: Path, secret: str, headers: bytes
) -> None:
    """Control characters, folded lines, too long, too many: no WebSocket, and the server goes on."""
    server = serve(scripted, keys=str(file))
    answer = asked(server.port, headers.replace(b"SECRET", secret.encode()))
    assert not answer.startswith(b"HTTP/1.1 101 ")
    good = asked(server.port, b"Authorization: Api-Key " + secret.encode() + b"\r\n")
    assert good.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("version", [b"\xff13", b"12", b"", b"13, 8"])
def test_another_version_of_websocket_is_told_ours(
    serve: Any, scripted: Any, caplog: pytest.LogCaptureFixture, version: bytes
) -> None:
    """By RFC 6455, 4.4, whatever bytes it is: the library stumbles over some, with a traceback in the log."""
    server = serve(scripted)
    request = b"GET / HTTP/1.1\r\n" + UPGRADE.replace(b"Version: 13", b"Version: " + version)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(request + b"\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 426 ")
    assert b"Sec-WebSocket-Version: 13\r\n" in answer
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_key_for_one_path_opens_no_other(serve: Any, scripted: Any, file: Path) -> None:
    """HTTP 403, and what it does open."""
    secret = add_key(file, "cube", NOW, paths=("/cube",))
    server = serve(scripted, keys=str(file))
    header = b"Authorization: Bearer " + secret.encode() + b"\r\n"
    assert asked(server.port, header, b"/cube?a=b").startswith(b"HTTP/1.1 101 ")
    answer = asked(server.port, header, b"/belt")
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"This key opens /cube here" in answer


def test_the_health_check_needs_no_key(serve: Any, scripted: Any, file: Path, secret: str) -> None:
    """A supervisor has none."""
    server = serve(scripted, keys=str(file))
    assert asked(server.port, b"", b"/healthz").endswith(b"\r\n\r\nOK\n")


def test_our_client_does_not_try_a_refused_key_again(
    serve: Any, scripted: Any, file: Path, secret: str
) -> None:
    """The error names the remedy."""
    server = serve(scripted, keys=str(file))
    with pytest.raises(AccessRefused, match="Give it as api_key_file"):
        remote(server, "wrong")


def test_a_revoked_key_is_over_and_the_others_stay(
    serve: Any, connect: Any, scripted: Any, file: Path, secret: str
) -> None:
    """Its connections are closed with 1008 and the reason, its secret opens nothing, within 5 s."""
    other = add_key(file, "other", NOW)
    server = serve(scripted, keys=str(file))
    gone = connect(server, headers=f"Authorization: Api-Key {secret}\r\n")
    stays = connect(server, headers=f"Authorization: Api-Key {other}\r\n")
    gone.reply()
    stays.reply()
    revoke_key(file, "arm")
    gone.socket.settimeout(5)
    assert gone.closed() == (1008, "the key arm was revoked or replaced, or has expired")
    assert asked(server.port, f"Authorization: Bearer {secret}\r\n".encode())[9:12] == b"401"
    stays.request(OBSERVATION)
    assert "actions" in stays.reply()


def test_a_new_key_opens_within_seconds(serve: Any, scripted: Any, file: Path, secret: str) -> None:
    """No restart is needed."""
    server = serve(scripted, keys=str(file))
    header = f"Authorization: Bearer {add_key(file, 'new', NOW)}\r\n".encode()
    reach(lambda: asked(server.port, header).startswith(b"HTTP/1.1 101 "))


def test_one_request_too_many_is_answered_in_its_turn(
    serve: Any, connect: Any, gate: Any, file: Path
) -> None:
    """The text comes behind the replies of what was asked before, and the connection stays."""
    secret = add_key(file, "slow", NOW, requests_per_second=0.001)
    client = connect(serve(gate, keys=str(file)), headers=f"Authorization: Api-Key {secret}\r\n")
    client.reply()
    client.request({"number": 1})
    client.request({"number": 2})
    client.request({"number": 3})
    gate.opened.release()
    assert client.reply()["number"] == 1
    for _ in range(2):
        kind, text = client.receive()
        assert (kind, text.decode().startswith(REFUSED)) == (TEXT, True)
    client.send(0x9, b"still here")
    assert client.receive() == (0xA, b"still here")
    assert gate.numbers == [1]


def test_our_client_keeps_its_connection_over_a_refused_request(
    serve: Any, scripted: Any, file: Path
) -> None:
    """An error that says why; what is asked a little later is answered, on the same connection."""
    secret = add_key(file, "slow", NOW, requests_per_second=20.0)
    server = serve(scripted, keys=str(file))
    with remote(server, secret) as policy:
        refused: list[str] = []

        def refuse() -> bool:
            try:
                policy.infer(OBSERVATION)
            except RequestRefused as exc:
                refused.append(str(exc))
            return bool(refused)

        reach(refuse, within=20)
        assert "too many requests: the key slow may send 20 a second" in refused[0]

        def answer() -> bool:
            try:
                return "actions" in policy.infer(OBSERVATION)
            except RequestRefused:
                return False

        reach(answer, within=20)
        assert policy.connection.reconnects == 0


def test_a_server_without_its_keys_does_not_start(serve: Any, scripted: Any, file: Path) -> None:
    """It would let everybody in, or nobody."""
    with pytest.raises(ConfigError, match="the keys file cannot be read"):
        serve(scripted, keys=str(file))
