# SPDX-License-Identifier: Apache-2.0
"""Memory is used again, and never while somebody looks at it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.server.buffers import ReceiveBuffers


def test_a_buffer_given_back_is_used_again() -> None:
    """The same memory serves message after message, also of another length."""
    buffers = ReceiveBuffers()
    first = buffers.copy_of(memoryview(b"hello"))
    assert first == b"hello"
    buffers.give_back(first)
    for message in (b"world", b"a longer one", b"short", b""):
        buffer = buffers.copy_of(memoryview(message))
        assert buffer is first
        assert buffer == message
        buffers.give_back(buffer)


def test_a_buffer_in_use_is_left_alone() -> None:
    """A view keeps its bytes; when it is gone, the memory is used again."""
    buffers = ReceiveBuffers()
    first = buffers.copy_of(memoryview(b"hello"))
    view = np.frombuffer(first, np.uint8)
    buffers.give_back(first)
    second = buffers.copy_of(memoryview(b"world"))
    assert second is not first
    assert view.tobytes() == b"hello"
    del view
    assert buffers.copy_of(memoryview(b"again")) is first


def test_only_a_few_are_kept() -> None:
    """Memory does not grow with the number of messages."""
    buffers = ReceiveBuffers()
    for buffer in [buffers.copy_of(memoryview(b"x")) for _ in range(10)]:
        buffers.give_back(buffer)
    assert repr(buffers) == "<ReceiveBuffers spare=4>"


@given(st.lists(st.tuples(st.binary(max_size=40), st.booleans(), st.booleans()), max_size=30))
def test_views_never_change(messages: list[tuple[bytes, bool, bool]]) -> None:
    """Whatever is held and given back in whatever order, a held view shows its own message."""
    buffers = ReceiveBuffers()
    held: list[tuple[memoryview, bytes]] = []
    for message, hold, release_oldest in messages:
        buffer = buffers.copy_of(memoryview(message))
        if hold:
            held.append((memoryview(buffer), message))
        buffers.give_back(buffer)
        if release_oldest and held:
            held.pop(0)[0].release()
        for view, expected in held:
            assert view == expected


def test_equal_contents_are_not_the_same_buffer() -> None:
    """Two images of a still scene are equal; the one in use must not be taken for the spare one."""
    buffers = ReceiveBuffers()
    held, free = (buffers.copy_of(memoryview(b"still")) for _ in range(2))
    view = np.frombuffer(held, np.uint8)  # the policy keeps looking at it
    buffers.give_back(held)
    buffers.give_back(free)

    out = [buffers.copy_of(memoryview(message)) for message in (b"first", b"other")]

    assert out == [b"first", b"other"]
    assert out[0] is not out[1]
    assert view.tobytes() == b"still"
