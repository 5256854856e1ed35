# SPDX-License-Identifier: Apache-2.0
"""The line each connection leaves in the log: who, from where, how much, and why it ended."""

from __future__ import annotations

import http.client
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pi05_websocket.server.keys_file import add_key
from pi05_websocket.wire import codec

BINARY, CLOSE = 0x2, 0x8
NOW = datetime(2026, 1, 1, tzinfo=UTC)
OBSERVATION = {"observation/state": np.arange(6, dtype=np.float32)}


def line_of(server: Any, caplog: pytest.LogCaptureFixture) -> str:
    """Stop the server and return the one line of its one connection."""
    server.close()
    messages = [record.getMessage() for record in caplog.records]
    (line,) = [message for message in messages if " closed who=" in message]
    return line


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    """Hear what an operator hears."""
    caplog.set_level(logging.INFO)


def ask(client: Any) -> None:
    """Do one exchange."""
    client.request(OBSERVATION)
    client.reply()


def fail(client: Any) -> None:
    """Ask for an error and take the goodbye."""
    client.request({"do": "fail"})
    client.receive()
    client.closed()


def leave(client: Any) -> None:
    """Say goodbye."""
    client.send(CLOSE, b"\x03\xe8")
    client.closed()
    assert client.receive()[0] == -1


def write_nonsense(client: Any) -> None:
    """Send a frame of no kind."""
    client.send(0x3, b"x")
    client.closed()


@pytest.mark.parametrize(
    ("act", "requests", "why"),
    [
        (leave, 1, "1000 by the client"),
        (fail, 2, "1011 KeyError: 'observation/image'"),
        (lambda client: client.close(), 1, "lost: no goodbye|1001 the server is stopping"),
        (lambda client: None, 1, "1001 the server is stopping"),
        (write_nonsense, 1, "1002 .*"),
    ],
)
@pytest.mark.filterwarnings("default")
def test_why_it_ended(
    serve: Any,
    connect: Any,
    scripted: Any,
    caplog: pytest.LogCaptureFixture,
    act: Callable[[Any], None],
    requests: int,
    why: str,
) -> None:
    """The client's goodbye, an error, a lost link, a stop, frames that are none."""
    server = serve(scripted)
    client = connect(server)
    client.reply()
    ask(client)
    act(client)
    line = line_of(server, caplog)
    assert " who=anonymous from='127.0.0.1:" in line
    assert f" requests={requests} answered=1 refused=0 " in line
    assert re.search(f" why=['\"](?:{why})['\"]$", line), line


def test_who_it_was_and_how_much(
    serve: Any, connect: Any, scripted: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The key's name, refused requests, and the messages' bytes both ways."""
    file = tmp_path / "keys.json"
    secret = add_key(file, "arm", NOW, requests_per_second=0.001)
    server = serve(scripted, keys=str(file))
    client = connect(server, headers=f"Authorization: Bearer {secret}\r\n")
    received = [client.receive()]
    for _ in range(2):
        client.request(OBSERVATION)
        received.append(client.receive())
    line = line_of(server, caplog)
    sent = 2 * len(codec.encode(OBSERVATION))
    assert " who=arm " in line
    assert " requests=2 answered=1 refused=1 " in line
    assert f" bytes_in={sent} bytes_out={sum(len(payload) for _, payload in received)} " in line
    assert secret not in caplog.text


@pytest.mark.parametrize(
    ("behind_proxy", "shown"), [(True, "'203.0.113.9 via 127.0.0.1:"), (False, "'127.0.0.1:")]
)
def test_the_address_behind_a_proxy(
    serve: Any,
    connect: Any,
    scripted: Any,
    caplog: pytest.LogCaptureFixture,
    behind_proxy: bool,
    shown: str,
) -> None:
    """What the proxy saw; without one the header is only what a client says."""
    server = serve(scripted, behind_proxy=behind_proxy)
    connect(server, headers="X-Forwarded-For: 1.2.3.4, 203.0.113.9\r\n").reply()
    assert f" from={shown}" in line_of(server, caplog)


def test_who_was_not_let_in(
    serve: Any, scripted: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A line without the secret that was tried."""
    file = tmp_path / "keys.json"
    add_key(file, "arm", NOW)
    server = serve(scripted, keys=str(file), behind_proxy=True)
    asking = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    headers = {"Upgrade": "websocket", "X-Forwarded-For": "203.0.113.9"}
    asking.request("GET", "/", headers=headers | {"Authorization": "Bearer hunter2"})
    assert asking.getresponse().status == 401
    asking.close()
    assert "a client was not let in from=203.0.113.9: HTTP 401, no such key" in caplog.text
    assert "hunter2" not in caplog.text
