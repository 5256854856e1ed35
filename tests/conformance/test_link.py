# SPDX-License-Identifier: Apache-2.0
"""The kit's own end of a WebSocket beside peers that mean harm: it ends in time, and keeps little."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterable, Iterator

import pytest

from pi05_websocket.conformance.frames import BINARY, CONTINUATION, PING, TEXT, Frame, frame_bytes
from pi05_websocket.conformance.link import Link

MEBIBYTE = bytes(1024 * 1024)


@contextlib.contextmanager
def link_to(said: Iterable[bytes], **words: float) -> Iterator[Link]:
    """Give a server's end of a link; its peer says this and reads nothing."""
    near, far = socket.socketpair()

    def talk() -> None:
        with contextlib.suppress(OSError):
            for each in said:
                far.sendall(each)

    peer = threading.Thread(target=talk)
    peer.start()
    with near, far:
        yield Link(near, masks=False, **words)
        near.shutdown(socket.SHUT_RDWR)
        peer.join()


def frames(payload: bytes, *kinds: int, **how: bool) -> bytes:
    """Return frames as a client sends them."""
    each = (Frame(kind=kind, payload=payload, **how) for kind in kinds)
    return b"".join(frame_bytes(frame, b"mask") for frame in each)


def test_a_peer_that_floods_pings_and_reads_nothing_is_left() -> None:
    """Once the buffers are full a pong does not go out, and that ends the link: one wait in all."""
    with link_to(itertools.repeat(frames(bytes(125), *[PING] * 100))) as link:
        heard = link.message(0.2)
        while heard.what == "silence":
            heard = link.message(0.2)
        assert str(heard) == "close code 1006 (it reads nothing)"
        link.send_message(MEBIBYTE)
        assert link.receive(60.0) is heard


def test_a_message_that_is_not_taken_ends_the_link() -> None:
    """After the patience for it; what comes next is not sent."""
    with link_to([], send_patience_s=0.2) as link:
        link.send_message(MEBIBYTE * 16)
        assert link.ended
        assert link.receive(0.0).reason == "it reads nothing"


def test_what_a_peer_said_before_it_left_is_heard() -> None:
    """Also after something was sent that did not arrive."""
    near, far = socket.socketpair()
    with near:
        far.sendall(frames(b"why", TEXT))
        far.close()
        link = Link(near, masks=False)
        link.send_message(b"anybody?")
        said = [str(link.message(5.0)) for _ in range(2)]
    assert said == ["the text 'why'", "close code 1006 (without a close frame)"]


@pytest.mark.parametrize("first", [TEXT, BINARY])
def test_a_message_in_fragments_without_end_is_bounded(first: int) -> None:
    """As long as a frame may be, and no longer."""
    begins = frames(MEBIBYTE, first, fin=False)
    rest = itertools.repeat(frames(MEBIBYTE, CONTINUATION, fin=False))
    with link_to(itertools.chain([begins], rest)) as link:
        assert link.message(30.0).reason == "a message longer than 64 MiB"


def test_a_ping_that_is_longer_than_any_may_be_is_not_answered() -> None:
    """It ends the link."""
    with link_to([frames(bytes(126), PING)]) as link:
        assert link.receive(5.0).reason == "a ping longer than 125 bytes"


def test_a_fault_is_kept_once() -> None:
    """However often it is made."""
    with link_to([frame_bytes(Frame(kind=TEXT, reserved=1)) * 100]) as link:
        for _ in range(100):
            assert link.receive(5.0).what == "text"
        assert link.faults == ["reserved bits are set", "a frame is not masked"]
