# SPDX-License-Identifier: Apache-2.0
"""What a server that means harm can do to a robot: each on a real socket. See docs/topics/hostile.md."""

from __future__ import annotations

import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from misbehaving import METADATA, OBSERVATION, eventually, reply, upgrade

from pi05_websocket.client import ConnectionState, RemotePolicy
from pi05_websocket.errors import InvalidReply, PolicyError
from pi05_websocket.wire import codec
from pi05_websocket.wire.messages import read_actions

pytestmark = pytest.mark.faults

MB = 1024 * 1024


def resident_bytes() -> int:
    """Return how much memory this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """Return a WebSocket frame as a server sends it."""
    head = bytes([0x80 * fin | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    return head + b"\x7f" + len(payload).to_bytes(8, "big") + payload


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_pings_that_nobody_reads_the_answers_of(bare_tcp, remote) -> None:
    """Answers wait in this process as long as the server does not read: up to 16 MiB, not for ever."""
    pings = frame(9, b"x" * 125) * 5000
    sent: list[int] = []

    def talk(connection: socket.socket) -> None:
        upgrade(connection)
        connection.sendall(frame(2, METADATA))
        for _ in range(200):  # 124 MB of pings; their answers are as long
            connection.sendall(pings)
            sent.append(len(pings))
        connection.recv(1)
        time.sleep(3)

    policy = remote(f"ws://127.0.0.1:{bare_tcp(talk)}")
    assert eventually(lambda: policy.connection.state is ConnectionState.READY)
    before = resident_bytes()
    assert eventually(lambda: len(sent) == 200, seconds=30)
    assert resident_bytes() - before < 64 * MB


def test_metadata_of_megabytes_is_refused_for_good(scripted, remote) -> None:
    """It would be read again at every reconnect."""
    server = scripted(lambda connection: connection.send(codec.encode({"x": b"\0" * 32 * MB})))
    policy = remote(server.url, metadata_timeout=10.0)
    assert eventually(lambda: policy.connection.state is ConnectionState.FAILED, seconds=10)
    assert "at most 1048576 are allowed" in str(policy.connection.error)
    assert policy.connection.metadata is None
    assert server.connections == 1


def test_an_escape_sequence_reaches_no_log(scripted, remote, caplog) -> None:
    """Neither from metadata, nor an error, nor a close reason."""

    def talk(connection: Any) -> None:
        connection.send(codec.encode({"\x1b]0;owned\x07": 1}))
        connection.recv()
        connection.send("Traceback\nValueError: \x1b[2J\x9b1A gone")
        connection.close(1011, "\x1b[31m")

    with caplog.at_level(logging.DEBUG, "pi05_websocket"):
        policy: RemotePolicy = remote(scripted(talk).url, wait_for_server=3)
        with pytest.raises(PolicyError) as told:
            policy.infer(OBSERVATION)
        assert eventually(lambda: policy.connection.reconnects > 0)
        policy.close()
    assert str(told.value) == r"server error: ValueError: \x1b[2J\x9b1A gone"
    assert "owned" in caplog.text
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if not line.isprintable()] == []


def test_an_http_refusal_is_shown_written_out(bare_tcp, remote) -> None:
    """Status line, and the words of the body."""
    answers = [
        b"HTTP/1.1 503 x\r\nRetry-After: 99999\r\n\r\n\x1b[2Jbusy" + b"y" * 9000,
        b"SSH-2.0-\x1b[31m\r\n\r\n",
        b"x" * 100_000,
    ]
    said: list[str] = []
    for answer in answers:

        def talk(connection: socket.socket, answer: bytes = answer) -> None:
            connection.recv(65536)
            connection.sendall(answer)

        policy = remote(f"ws://127.0.0.1:{bare_tcp(talk)}")
        assert eventually(lambda policy=policy: policy.unavailable() is not None)
        assert eventually(lambda policy=policy: "not connected" not in str(policy.unavailable()))
        said.append(str(policy.unavailable()))
        policy.close()
    assert all(text.isprintable() and len(text) < 1000 for text in said)
    assert "busy" in said[0]


def test_a_chunk_of_millions_of_rows_is_refused_before_it_is_looked_at(scripted, remote) -> None:
    """The control loop would stand still over it, and as float32 it would be four times as long."""

    def talk(connection: Any) -> None:
        connection.send(METADATA)
        connection.recv()
        connection.send(codec.encode({"actions": np.zeros((20_000_000, 1), np.uint8)}))
        connection.recv()
        connection.send(reply())

    policy = remote(scripted(talk).url, wait_for_server=3)
    with pytest.raises(InvalidReply, match="at most 10000 rows"):
        read_actions(policy.infer(OBSERVATION))
    assert read_actions(policy.infer(OBSERVATION)).shape == (10, 6)


def test_fragments_without_end_are_cut_off(bare_tcp, remote) -> None:
    """At `max_message_bytes`, however small the pieces are."""
    pieces = frame(0, b"x" * 100, fin=False) * 1000

    def talk(connection: socket.socket) -> None:
        upgrade(connection)
        connection.sendall(frame(2, METADATA) + frame(2, b"x", fin=False))
        for _ in range(100):
            connection.sendall(pieces)

    policy = remote(f"ws://127.0.0.1:{bare_tcp(talk)}", max_message_bytes=1 * MB)
    assert eventually(lambda: policy.connection.reconnects > 0)
