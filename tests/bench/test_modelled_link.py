# SPDX-License-Identifier: Apache-2.0
"""How the proxy finds the messages in a stream."""

from __future__ import annotations

import asyncio

import pytest

from pi05_websocket.bench.modelled_link import read_message


def messages(stream: bytes, count: int) -> list[bytes]:
    """Return the first messages of a stream, the upgrade first."""

    async def read() -> list[bytes]:
        source = asyncio.StreamReader()
        source.feed_data(stream)
        source.feed_eof()
        return [await read_message(source, upgrading=i == 0) for i in range(count)]

    return asyncio.run(read())


def test_the_upgrade_and_frames_of_every_length_come_as_they_are():
    """RFC 6455, 5.2: seven bits of length, or two bytes, or eight; a mask or none."""
    parts = [
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
        b"\x82\x03abc",
        b"\x89\x00",
        b"\x82\x7e" + (300).to_bytes(2, "big") + bytes(300),
        b"\x82\xff" + (70_000).to_bytes(8, "big") + b"mask" + bytes(70_000),
        b"\x82\x82mask12",
    ]

    assert messages(b"".join(parts), len(parts)) == parts


@pytest.mark.parametrize("rest", [b"", b"\x82", b"\x82\x05abc"])
def test_a_peer_that_hangs_up(rest: bytes):
    """Also in the middle of a frame."""
    with pytest.raises(asyncio.IncompleteReadError):
        messages(b"HTTP/1.1 101 X\r\n\r\n" + rest, 2)
