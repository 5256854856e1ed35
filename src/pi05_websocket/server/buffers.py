# SPDX-License-Identifier: Apache-2.0
"""Memory for received messages, used again as soon as nobody looks at it any more.

Requests are a megabyte and arrive thirty times a second: memory fresh from the system for each would cost
more page faults than the whole exchange costs otherwise. Pure; one object for each connection, one thread.
"""

from __future__ import annotations

__all__ = ["ReceiveBuffers"]

_KEPT = 4
# One being filled, one the policy works on, one whose images the policy still holds, one whose images a person
# may want to see.


class ReceiveBuffers:
    """Hands out bytearrays. A policy may keep views of one for as long as it likes: then it is not reused."""

    def __init__(self) -> None:
        self._spare: list[bytearray] = []

    def __repr__(self) -> str:
        return f"<ReceiveBuffers spare={len(self._spare)}>"

    def copy_of(self, payload: memoryview) -> bytearray:
        """Return a copy of a payload that is only valid now."""
        buffer = self._take(len(payload))
        with memoryview(buffer) as view:
            view[:] = payload
        return buffer

    def give_back(self, buffer: bytearray) -> None:
        """Note that the server is done with a buffer; views of it may live on."""
        if len(self._spare) == _KEPT:
            del self._spare[0]
        self._spare.append(buffer)

    def _take(self, size: int) -> bytearray:
        for i, buffer in enumerate(self._spare):
            if _resized(buffer, size):
                # By place: `remove` compares contents, and two images of a still scene are equal.
                return self._spare.pop(i)
        return bytearray(size)


def _resized(buffer: bytearray, size: int) -> bool:
    """Give a buffer this size, unless somebody holds a view of it: such a bytearray refuses to grow."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    excess = len(buffer) - size
    if excess > 0:
        del buffer[size:]
    else:
        buffer.extend(bytes(-excess))
    return True
